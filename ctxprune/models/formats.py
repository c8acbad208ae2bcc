"""How a question and a passage become one model input, and a tokenizer that sees user text as nothing but text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ctxprune.errors import CheckpointError, UnknownNameError
from ctxprune.runtime import FloatArray, IntArray, TokenSequence

#: Put before the names of special tokens in a plain tokenizer's vocabulary. Two Unicode noncharacters, which no text
#: may contain, so that no text can spell a special token; `named_tokenizer` takes them off again.
_HIDDEN = "\uffff\ufffe"
_OPENERS = ("[CLS]", "<s>", "<cls>", "<bos>")
_SEPARATORS = ("[SEP]", "</s>", "<sep>", "<eos>")


@dataclass(frozen=True, slots=True)
class PairFormat:
    """The special ids around a question and a passage: `prefix question middle passage suffix`.

    passage_type_id: token type of passage and suffix; everything before has type 0.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    passage_type_id: int = 0

    @property
    def overhead(self) -> int:
        """Tokens of an input that are neither question nor passage."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    @property
    def passage_start(self) -> int:
        """Where the passage starts in an input, the tokens of the question not counted."""
        return len(self.prefix) + len(self.middle)

    def build(self, query_ids: Sequence[int], passage_ids: Sequence[int]) -> TokenSequence:
        """query_ids, passage_ids: without special tokens. Returns ids and type_ids of shape (overhead + both,)."""
        before = (*self.prefix, *query_ids, *self.middle)
        ids = np.fromiter((*before, *passage_ids, *self.suffix), dtype=np.int64)
        types = np.zeros(len(ids), dtype=np.int64)
        types[len(before) :] = self.passage_type_id
        return TokenSequence(ids, types)


def pair_format(
    tokenizer: Tokenizer,
    *,
    type_ids: bool,
    single_separator: bool = False,
    cls_token: str | None = None,
    sep_token: str | None = None,
) -> PairFormat:
    """Read the format off the tokenizer's own template, so that inputs look as they did in training.

    type_ids: whether the model has embeddings for two token types. single_separator: Provence and XProvence join
    question and passage by one separator and encode them as a single text, whatever the tokenizer does with pairs.
    cls_token, sep_token: for tokenizers without a template (some leave special tokens out); by default the usual names.
    Raises CheckpointError when neither the template nor the vocabulary gives an opening and a separating token.
    """
    template = _template(tokenizer)
    if template is None:
        opener = _special_id(tokenizer, (cls_token,) if cls_token else _OPENERS)
        separator = _special_id(tokenizer, (sep_token,) if sep_token else _SEPARATORS)
        template = PairFormat((opener,), (separator,), (separator,), passage_type_id=1)
    middle = template.suffix if single_separator else template.middle
    passage_type_id = template.passage_type_id if type_ids and not single_separator else 0
    return PairFormat(template.prefix, middle, template.suffix, passage_type_id)


def _template(tokenizer: Tokenizer) -> PairFormat | None:
    """What the tokenizer puts around a pair; None when it adds nothing before, between or after."""
    probe = next(
        (text for text in ("a", "1", ".", "the") if tokenizer.encode(text, add_special_tokens=False).ids), None
    )
    if probe is None:
        return None
    encoding = tokenizer.encode(probe, probe)
    sequences = encoding.sequence_ids
    first, second = sequences.index(0), sequences.index(1)
    after_first = len(sequences) - sequences[::-1].index(0)
    after_second = len(sequences) - sequences[::-1].index(1)
    ids = encoding.ids
    prefix, middle, suffix = ids[:first], ids[after_first:second], ids[after_second:]
    if not (prefix and middle and suffix):
        return None
    return PairFormat(tuple(prefix), tuple(middle), tuple(suffix), encoding.type_ids[second])


def _special_id(tokenizer: Tokenizer, names: Iterable[str]) -> int:
    for name in names:
        for known_as in (name, _HIDDEN + name):
            if (token_id := tokenizer.token_to_id(known_as)) is not None:
                return token_id
    raise CheckpointError(
        f"the tokenizer has no template for pairs and none of the tokens {', '.join(names)}; "
        "use the tokenizer.json that belongs to the checkpoint"
    )


def plain_tokenizer(source: str | Path | Tokenizer) -> Tokenizer:
    """A tokenizer without truncation or padding, to which "[SEP]" or "<unk>" in a text are ordinary characters.

    source: a tokenizer.json, which is read once for all that name it, so that nobody may change what this returns; or a
    tokenizer, which is left as it is. Ids do not change. `encode_special_tokens` alone
    (tokenizers 0.23) stops the search for added tokens but not the model: a Unigram vocabulary such as XLM-R's or
    DeBERTa-v3's lists "<s>" with the best score of all, so "<s>" in a text still came out as the special token, and
    "<pad>" as padding. Where that happens, the special entries of the vocabulary are renamed to what no text contains.
    Raises CheckpointError for a file that is missing or no tokenizer.
    """
    if isinstance(source, Tokenizer):
        return _made_plain(Tokenizer.from_str(source.to_str()))
    path = Path(source).absolute()
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}; a checkpoint needs its tokenizer.json")
    state = path.stat()
    return _plain_file(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _plain_file(path: Path, size: int, modified: int) -> Tokenizer:
    """size, modified: of the file, so that another file of the name is read anew."""
    return _made_plain(_read(path))


def _made_plain(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer itself, or one with other names where its special tokens could be spelt."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    names = special_tokens(tokenizer)
    if any(set(tokenizer.encode(name, add_special_tokens=False).ids) & set(names.values()) for name in names):
        tokenizer = Tokenizer.from_str(_hide(tokenizer.to_str(), set(names)))
        tokenizer.encode_special_tokens = True
    return tokenizer


def named_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The ordinary tokenizer behind a plain one, fit to be saved: special tokens under their own names."""
    return Tokenizer.from_str(tokenizer.to_str().replace(_HIDDEN, ""))


def special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Special tokens by name."""
    added = tokenizer.get_added_tokens_decoder().items()
    return {token.content.removeprefix(_HIDDEN): token_id for token_id, token in added if token.special}


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise CheckpointError(f"{path} is not a readable tokenizer.json ({error}); fetch the file again") from error


def _hide(tokenizer_json: str, names: set[str]) -> str:
    """The tokenizer with the `names` renamed wherever the model or the list of added tokens mentions them."""
    spec: dict[str, Any] = json.loads(tokenizer_json)
    model = spec["model"]

    def hidden(token: str) -> str:
        return _HIDDEN + token if token in names else token

    if isinstance(model["vocab"], list):
        model["vocab"] = [[hidden(token), score] for token, score in model["vocab"]]
    else:
        model["vocab"] = {hidden(token): token_id for token, token_id in model["vocab"].items()}
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = hidden(model["unk_token"])
    if "merges" in model:  # a merge that spells a special token would make it out of ordinary characters
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & names]
    for token in spec["added_tokens"]:
        token["content"] = hidden(token["content"])
    return json.dumps(spec)


#: Share of the model's input that a question may fill, and that a title may fill, before they are cut.
QUESTION_SHARE, TITLE_SHARE = 0.25, 0.125


@dataclass(frozen=True, slots=True)
class Windows:
    """The model inputs of one passage.

    sequences: one a window. starts: first passage token of each window. lead: tokens before the passage in every
    sequence. length: passage tokens in all. question_cut: the question was longer than its share.
    """

    sequences: tuple[TokenSequence, ...]
    starts: tuple[int, ...]
    lead: int
    length: int
    question_cut: bool


def lay_windows(
    question: Sequence[int], title: Sequence[int], passage: Sequence[int], *, layout: PairFormat, max_length: int
) -> Windows:
    """Inputs of at most `max_length` tokens that together show the whole passage.

    question, title, passage: token ids without special tokens; every window repeats question and title. Windows are
    spread evenly and overlap by at least a quarter. A title too long for its share is cut in the input only.
    """
    asked = list(question[: max(1, int(max_length * QUESTION_SHARE))])
    titled = list(title[: int(max_length * TITLE_SHARE)])
    lead = layout.passage_start + len(asked) + len(titled)
    room = max_length - layout.overhead - len(asked) - len(titled)
    starts = window_starts(len(passage), room)
    return Windows(
        tuple(layout.build(asked, [*titled, *passage[start : start + room]]) for start in starts),
        starts,
        lead,
        len(passage),
        len(asked) < len(question),
    )


def window_starts(length: int, room: int) -> tuple[int, ...]:
    """Evenly spread starts of windows of `room` tokens over `length`, neighbours sharing at least a quarter."""
    if length <= room:
        return (0,)
    stride = max(1, room - room // 4)
    count = 1 + -(-(length - room) // stride)
    return tuple(round(place * (length - room) / (count - 1)) for place in range(count))


def stitch(windows: Windows, outputs: Sequence[FloatArray]) -> FloatArray:
    """Token scores of the whole passage from those of its windows.

    outputs: (window length, ...) a window, special tokens included. Returns (length, ...): each token from the window
    in which it stands farthest from an edge that cuts the passage.
    """
    shape = outputs[0].shape[1:]
    stitched = np.empty((windows.length, *shape), dtype=np.float32)
    for (begin, end), start, output in zip(seams(windows), windows.starts, outputs, strict=True):
        stitched[begin:end] = output[windows.lead + begin - start : windows.lead + end - start]
    return stitched


def seams(windows: Windows) -> list[tuple[int, int]]:
    """The stretch of passage tokens that each window answers for; neighbours meet in the middle of their overlap."""
    ends = [
        start + len(sequence) - windows.lead for start, sequence in zip(windows.starts, windows.sequences, strict=True)
    ]
    ends = [min(end, windows.length) for end in ends]
    cuts = [(end + start) // 2 for end, start in zip(ends, windows.starts[1:], strict=False)]
    return list(zip([0, *cuts], [*cuts, windows.length], strict=True))


def token_spans(offsets: IntArray, starts: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """First and one-past-last token of each character span.

    offsets: (n, 2) character offsets of the tokens, in order. starts, ends: (m,) half-open spans. A token that is
    partly inside counts; a span without tokens gives an empty range.
    """
    first = np.searchsorted(offsets[:, 1], starts, side="right")
    last = np.searchsorted(offsets[:, 0], ends, side="left")
    return first, np.maximum(first, last)


def check_source(source: str, *, bundled: str) -> None:
    """Raises UnknownNameError for what is neither there nor a hub id such as org/name; `bundled` is named beside them.

    The hub's few ids without an owner are plain language models, which no compressor of ours runs as they are.
    """
    if not Path(source).expanduser().exists() and ("/" not in source or source.startswith((".", "/", "~"))):
        raise UnknownNameError(f"no model at {source!r}; give a folder, a hub id such as org/name, or {bundled!r}")
