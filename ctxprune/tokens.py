"""Count tokens: in the target model's tokenizer when it is given, else by the bundled one, marked as an estimate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Protocol, TypeAlias, cast

from tokenizers import Tokenizer

from ctxprune.errors import CheckpointError, InputError, MissingExtraError, UnknownNameError
from ctxprune.models.formats import plain_tokenizer
from ctxprune.runtime.weights import FOLDER
from ctxprune.text import model_text
from ctxprune.types import TokenCounter

#: Longer texts are tokenised in parts of about this many characters, so that memory stays flat.
PART_CHARACTERS = 100_000
#: Texts a call: as many as keep every core busy, with all their encodings in memory at once.
BATCH_CHARACTERS = 2_000_000

#: Where a text may be cut: the space after a word goes with the next word, as in byte-pair tokenizers.
WORD_END = re.compile(r"(?<=\S)\s")

#: What counts tokens, in every form that a caller may give.
CounterLike: TypeAlias = TokenCounter | Callable[[str], int] | str

#: Models and encodings that tiktoken counts for.
_OPENAI_NAME = re.compile(r"(?:gpt|chatgpt|text-embedding|ft:gpt)-|o\d(?:-|$)|(?:cl100k|o200k|p50k|r50k)_")

DEFAULT_TOKENIZER = FOLDER / "minilm-l6.tokenizer.json"


class WordCounter:
    """White-space separated words. Exact by definition, and quick."""

    name = "words"
    exact = True

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


class TokenizerCounter:
    """Tokens of a `tokenizers` file, special tokens not counted. Safe to call from several threads.

    A text of over PART_CHARACTERS characters is cut first, at white space where there is any; each cut may add a token.
    unknown_bytes: count an unknown word as one token for so many of its UTF-8 bytes (None: as the tokenizer does, one).
    """

    def __init__(
        self, tokenizer: Tokenizer, *, name: str, exact: bool = True, unknown_bytes: int | None = None
    ) -> None:
        # once, before any thread can see it, and not where others may be using it, as the bundled one
        if tokenizer.truncation is not None:
            tokenizer.no_truncation()
        if tokenizer.padding is not None:
            tokenizer.no_padding()
        self.name = name
        self.exact = exact
        self._tokenizer = tokenizer
        self._unknown_bytes = unknown_bytes
        self._unknown = tokenizer.token_to_id("[UNK]")

    def count(self, texts: Sequence[str]) -> list[int]:
        totals = [0] * len(texts)
        for batch in _batches(texts):
            encodings = self._tokenizer.encode_batch_fast([part for _, part in batch], add_special_tokens=False)
            for (place, _), encoding in zip(batch, encodings, strict=True):
                totals[place] += len(encoding)
            if self._unknown_bytes is not None:
                unknown = [
                    item for item, encoding in zip(batch, encodings, strict=True) if self._unknown in encoding.ids
                ]
                for place, tokens in self._missed(unknown, self._unknown_bytes):
                    totals[place] += tokens
        return totals

    def _missed(self, batch: list[tuple[int, str]], unknown_bytes: int) -> Iterator[tuple[int, int]]:
        """(place of the text, tokens that its unknown words take beyond one each); offsets cost a second pass."""
        located = self._tokenizer.encode_batch([part for _, part in batch], add_special_tokens=False)
        for (place, part), encoding in zip(batch, located, strict=True):
            spans = zip(encoding.ids, encoding.offsets, strict=True)
            words = [part[start:end] for token, (start, end) in spans if token == self._unknown]
            yield place, sum((len(word.encode()) - 1) // unknown_bytes for word in words)


class _Encoding(Protocol):
    def encode_ordinary_batch(self, text: list[str]) -> list[list[int]]: ...


class TiktokenCounter:
    """Tokens of a tiktoken encoding."""

    exact = True

    def __init__(self, encoding: _Encoding, *, name: str) -> None:
        self.name = name
        self._encoding = encoding

    def count(self, texts: Sequence[str]) -> list[int]:
        totals = [0] * len(texts)
        for batch in _batches(texts):
            for (place, _), ids in zip(
                batch, self._encoding.encode_ordinary_batch([part for _, part in batch]), strict=True
            ):
                totals[place] += len(ids)
        return totals


class FunctionCounter:
    """Counts with a function of one text. Exact: whoever passes one knows what the generator reads."""

    exact = True

    def __init__(self, function: Callable[[str], int]) -> None:
        self.name = _function_name(function)
        self._function = function

    def count(self, texts: Sequence[str]) -> list[int]:
        return [self._checked(self._function(text)) for text in texts]

    def _checked(self, number: object) -> int:
        if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
            raise InputError(f"the counter {self.name} must return a whole number from 0 up, got {number!r:.80}")
        return int(number)


def _function_name(function: Callable[[str], int]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    # two lambdas have one name, and a budget must not be counted by the other
    return f"{name}:{code.co_firstlineno}" if "<lambda>" in name and code is not None else name


def as_counter(counter: CounterLike) -> TokenCounter:
    """A counter as it is, one by name (see `load_counter`), or a function of one text such as `len`.

    Raises InputError for anything else.
    """
    if isinstance(counter, str):
        return load_counter(counter)
    if callable(getattr(counter, "count", None)) and hasattr(counter, "name"):
        return cast(TokenCounter, counter)
    if callable(counter):
        return FunctionCounter(counter)
    raise InputError(
        f"counter must be a name, a TokenCounter or a function from a text to a number, got {type(counter).__name__}"
    )


@lru_cache(maxsize=1)
def default_counter() -> TokenCounter:
    """The bundled tokenizer, which stands in for the generator's: an estimate.

    Words it does not know (long codes, scripts outside its vocabulary) count one token for three bytes, near what
    byte-pair tokenizers need, where its own answer would be one token however long the word.
    """
    tokenizer = plain_tokenizer(DEFAULT_TOKENIZER)  # the one that the bundled models read with: 20 ms once
    return TokenizerCounter(tokenizer, name="provence-mini (estimate)", exact=False, unknown_bytes=3)


def load_counter(spec: str) -> TokenCounter:
    """A counter by name.

    spec: "default" (the bundled tokenizer, an estimate), "words", a model or encoding that tiktoken knows ("gpt-4o",
    "o200k_base", or with "tiktoken:" before it), a path to a tokenizer.json or to a folder with one, or a hub id like
    "org/name".
    Raises UnknownNameError for anything else, MissingExtraError when tiktoken is not installed, CheckpointError when a
    tokenizer cannot be read or fetched.
    """
    if spec == "default":
        return default_counter()
    if spec == "words":
        return WordCounter()
    if spec.startswith("tiktoken:"):
        return _tiktoken(spec.removeprefix("tiktoken:"))
    path = Path(spec).expanduser()
    if spec and path.exists():
        return TokenizerCounter(_read(path / "tokenizer.json" if path.is_dir() else path), name=spec)
    if spec.count("/") == 1 and all(spec.split("/")) and path.suffix != ".json":
        return TokenizerCounter(_fetch(spec), name=spec)
    if _of_tiktoken(spec):
        return _tiktoken(spec)
    raise UnknownNameError(
        f"no tokenizer {spec!r}; use default, words, tiktoken:<encoding or model>, a model of OpenAI (gpt-4o), a path "
        "to a tokenizer.json or its folder, or a hub id like org/name"
    )


def _of_tiktoken(name: str) -> bool:
    """Whether tiktoken knows the model or encoding; without tiktoken, whether the name looks like one of OpenAI's."""
    try:
        import tiktoken
    except ImportError:
        return _OPENAI_NAME.match(name) is not None
    if name in tiktoken.list_encoding_names():
        return True
    try:
        tiktoken.encoding_name_for_model(name)
    except KeyError:
        return False
    return True


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for a missing and for a damaged file
        raise CheckpointError(f"cannot read a tokenizer from {path}: {error}; it must be a tokenizer.json") from error


def _fetch(hub_id: str) -> Tokenizer:
    try:
        return Tokenizer.from_pretrained(hub_id)
    except Exception as error:  # no such id, no network, no rights: each its own type in another library
        raise CheckpointError(
            f"cannot fetch the tokenizer of {hub_id!r} from the hub: {error}; check the id and the network, or "
            "pass the path of its tokenizer.json"
        ) from error


def _tiktoken(name: str) -> TiktokenCounter:
    try:
        import tiktoken
    except ImportError as error:
        raise MissingExtraError(f"counting tokens with tiktoken:{name}", "tokens") from error
    known = tiktoken.list_encoding_names()
    try:
        encoding = tiktoken.get_encoding(name) if name in known else tiktoken.encoding_for_model(name)
    except KeyError:
        raise UnknownNameError(f"tiktoken knows no encoding or model {name!r}; encodings: {', '.join(known)}") from None
    except Exception as error:  # the encoding's file comes over the network on first use
        raise CheckpointError(f"cannot fetch the tiktoken encoding of {name!r}: {error}; check the network") from error
    return TiktokenCounter(encoding, name=f"tiktoken:{name}")


def _batches(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """(place of the text, a part of it) in lists of about BATCH_CHARACTERS characters."""
    batch: list[tuple[int, str]] = []
    size = 0
    for place, text in enumerate(texts):
        for part in _parts(model_text(text)):
            batch.append((place, part))
            size += len(part)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _parts(text: str) -> Iterator[str]:
    """The text in parts of one to two PART_CHARACTERS, cut before white space; where there is none, in the word."""
    start = 0
    while start < len(text):
        cut = WORD_END.search(text, start + PART_CHARACTERS, start + 2 * PART_CHARACTERS)
        end = cut.start() if cut else start + 2 * PART_CHARACTERS
        yield text[start:end]
        start = end
