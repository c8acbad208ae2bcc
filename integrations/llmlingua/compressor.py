"""The interface of llmlingua 0.2.2 with `use_llmlingua2=True`, for code that changes nothing but its import.

`from ctxprune.compat import PromptCompressor`. Kept words are those of llmlingua wherever it does not err;
docs/llmlingua-differences.md lists what differs. New code has more from `ctxprune.compressors.llmlingua.compressor`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ctxprune.compressors.llmlingua.compressor import check_shares
from ctxprune.compressors.llmlingua.model import BUNDLED, WordModel, load_word_model
from ctxprune.compressors.llmlingua.words import TokenToWord, checked_strings
from ctxprune.documents import listed
from ctxprune.errors import InputError, NotOfferedError, check_choice
from ctxprune.integrations.llmlingua.structured_prompt import (
    PairRule,
    Segment,
    pair_rules,
    recovered,
    segments,
    texts_of,
    with_texts,
)
from ctxprune.integrations.llmlingua.words import Chunk, ChunkReader, Word, keep_flags, word_score
from ctxprune.plain import as_float, whole
from ctxprune.tokens import CounterLike, as_counter, default_counter
from ctxprune.types import Document, Extract, Span, TokenCounter

#: Options of llmlingua's own method, which LLMLingua-2 has never looked at.
WITHOUT_EFFECT = frozenset(
    {
        *("iterative_size", "force_context_number", "use_sentence_level_filter", "keep_split", "keep_first_sentence"),
        *("keep_last_sentence", "keep_sentence_number", "high_priority_bonus", "context_budget", "token_budget_ratio"),
        *("condition_in_question", "reorder_context", "dynamic_context_compression_ratio", "condition_compare"),
        *("add_instruction", "rank_method", "concate_question", "strict_preserve_uncompressed"),
        *("context_segs", "context_segs_rate", "context_segs_compress"),
    }
)
#: Methods of llmlingua's class that are left out, by what serves in their place.
_SCORES = "it belongs to LLMLingua's perplexity method; `ctxprune.load('selective-context', model=...)` scores by one"
_INNER = "it is an inner step of compress_prompt; call compress_prompt"
LEFT_OUT: Mapping[str, str] = {
    **dict.fromkeys(("get_ppl", "get_condition_ppl", "get_prefix_length", "get_compressed_input"), _SCORES),
    **dict.fromkeys(("get_estimate_threshold_base_distribution", "iterative_compress_prompt"), _SCORES),
    **dict.fromkeys(("get_dynamic_compression_ratio", "get_structured_dynamic_compression_ratio"), _SCORES),
    **dict.fromkeys(("init_llmlingua2", "load_model"), "the model is loaded when the object is built"),
    **dict.fromkeys(("token_segment", "control_context_budget", "control_sentence_budget"), _INNER),
    **dict.fromkeys(("segment_structured_context", "concate_segment_info"), _INNER),
    "get_token_length": "use `counter.count([text])` of this object, which counts what its results report",
    "get_rank_results": "rank documents with `ctxprune.load('rerank-truncate')` or a retriever",
}
_MODEL_OPTIONS = {"torch_dtype", "dtype", "revision", "trust_remote_code", "pad_to_left"}
_CONFIG_OPTIONS = {"max_batch_size", "max_force_token", "unknown_ends"}
Flags = list[list[list[bool]]]


class PromptCompressor:
    """Compress prompts word by word with an LLMLingua-2 checkpoint.

    model_name: a checkpoint's folder or hub id, an exported folder, or the bundled model. device_map: "cpu", "cuda",
    "mps" or "auto". model_config: torch_dtype and revision; no remote code is ever run. llmlingua2_config:
    max_force_token (100), and unknown_ends=True for llmlingua 0.2.2's mistake of opening and closing XLM-R's inputs
    with <unk>. counter, or the name of one: counts tokens and weighs words; llmlingua's is "tiktoken:gpt-3.5-turbo",
    which is fetched over the network, so the default is the bundled tokenizer. Dictionaries are left as they are.
    Raises InputError for use_llmlingua2=False and for options of neither kind, CheckpointError for a bad checkpoint.
    """

    def __init__(
        self,
        model_name: str = BUNDLED,
        device_map: str = "auto",
        model_config: Mapping[str, Any] | None = None,
        open_api_config: Mapping[str, Any] | None = None,
        use_llmlingua2: bool = True,
        llmlingua2_config: Mapping[str, Any] | None = None,
        *,
        counter: CounterLike | None = None,
    ) -> None:
        if not use_llmlingua2:
            raise InputError("only LLMLingua-2 is offered here; pass use_llmlingua2=True and one of its checkpoints")
        model_config, config = model_config or {}, llmlingua2_config or {}
        _check_names("model_config", model_config, _MODEL_OPTIONS)
        _check_names("llmlingua2_config", config, _CONFIG_OPTIONS)
        dtype = model_config.get("torch_dtype", model_config.get("dtype"))
        self.model: WordModel = load_word_model(
            str(model_name),
            revision=model_config.get("revision"),
            device=None if device_map in ("auto", "balanced") else device_map,
            dtype=None if dtype in (None, "auto") else str(dtype).removeprefix("torch."),
        )
        if (most := whole(config.get("max_force_token", 100))) is None:
            raise InputError(f"max_force_token must be a whole number, got {config['max_force_token']!r:.80}")
        self.max_force_token = most
        self.counter: TokenCounter = default_counter() if counter is None else as_counter(counter)
        self._reader = ChunkReader(self.model, unknown_ends=bool(config.get("unknown_ends", False)))

    def __call__(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return self.compress_prompt(*arguments, **options)

    def compress_prompt(
        self,
        context: str | Sequence[str],
        instruction: str = "",
        question: str = "",
        rate: float = 0.5,
        target_token: float = -1,
        *,
        use_context_level_filter: bool = True,
        use_token_level_filter: bool = True,
        force_context_ids: Sequence[int] | None = None,
        target_context: int = -1,
        context_level_rate: float = 1.0,
        context_level_target_token: int = -1,
        return_word_label: bool = False,
        word_sep: str = "\t\t|\t\t",
        label_sep: str = " ",
        token_to_word: TokenToWord = "mean",
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        drop_consecutive: bool = False,
        chunk_end_tokens: Sequence[str] = (".", "\n"),
        **options: Any,
    ) -> dict[str, Any]:
        """Keep about `rate` of the tokens of each chunk, or `target_token` in all, after whole contexts were dropped.

        Options mean what they mean in llmlingua; instruction and question are no part of the result there either.
        Returns compressed_prompt, compressed_prompt_list (the contexts that stay), origin_tokens, compressed_tokens,
        ratio ("3.3x": origin / compressed), rate ("30.6%": compressed / origin), saving, and with return_word_label
        fn_labeled_original_prompt: every word with 1 (kept) or 0.
        """
        _check_names("compress_prompt", options, WITHOUT_EFFECT)
        rate, target_token = _checked_limits(rate, target_token)
        check_choice("token_to_word", token_to_word, get_args(TokenToWord))
        texts = _contexts(context)
        chunks = self._read(texts, force_tokens, force_reserve_digit, chunk_end_tokens)
        origin = sum(self.counter.count(texts))
        kept = list(range(len(texts)))
        if use_context_level_filter and len(texts) > 1:
            share = _context_share(
                rate, target_token, use_token_level_filter, target_context, context_level_rate,
                context_level_target_token, contexts=len(texts), origin=origin,
            )  # fmt: skip
            kept = _kept_contexts(chunks, share, token_to_word, force_context_ids or ())
            reserved = sum(self.counter.count([chunk.spelling for place in kept for chunk in chunks[place]]))
            rate = min(target_token / max(reserved, 1), 1.0) if target_token >= 0 else rate
        elif target_token > 0:
            rate = min(target_token / max(origin, 1), 1.0)
        rate = rate if use_token_level_filter else 1.0
        forced = list(force_tokens)
        flags = [
            [self._flags(chunk.words, rate, token_to_word, forced, drop_consecutive) for chunk in chunks[place]]
            if place in kept
            else [[False] * len(chunk.words) for chunk in chunks[place]]
            for place in range(len(texts))
        ]
        compressed = [
            texts[place] if rate >= 1.0 else _joined(texts[place], chunks[place], flags[place]) for place in kept
        ]
        labels = _labelled(texts, chunks, flags, word_sep, label_sep) if return_word_label else None
        return self._result(origin, compressed, labels)

    def compress_prompt_llmlingua2(
        self, context: str | Sequence[str], rate: float = 0.5, target_token: float = -1, **options: Any
    ) -> dict[str, Any]:
        """`compress_prompt` under llmlingua's other name for it, which does not drop contexts unless asked."""
        options = {"use_context_level_filter": False} | options
        return self.compress_prompt(context, rate=rate, target_token=target_token, **options)

    def compress_json(
        self,
        json_data: Mapping[str, Any],
        json_config: str | Path | Mapping[str, Any],
        instruction: str = "",
        question: str = "",
        rate: float = 0.5,
        target_token: float = -1,
        *,
        use_keyvalue_level_filter: bool = False,
        use_token_level_filter: bool = True,
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """An object with its texts compressed, as an object under compressed_prompt; see `pair_rules` for the config.

        A key's texts, at any depth, have the key's rate or that of the call; keys, numbers, true, false and null stay.
        use_keyvalue_level_filter: of the pairs that may be removed, those with the least telling words go first.
        Tokens are those of the JSON. The other fields are those of `compress_prompt`.
        """
        _check_names("compress_json", options, WITHOUT_EFFECT | {"reorder_keyvalue"})
        rate, target_token = _checked_limits(rate, target_token)
        rules = pair_rules(json_data, json_config)
        origin = self.counter.count([_as_json(json_data)])[0]
        rate = min(target_token / max(origin, 1), 1.0) if target_token >= 0 else rate
        kept = self._kept_pairs(json_data, rules, rate) if use_keyvalue_level_filter else list(json_data)

        def shortened(key: str) -> Any:
            rule = rules[key]
            share = rate if rule.rate is None else rule.rate
            if not rule.compress or not use_token_level_filter or share >= 1.0:
                return json_data[key]
            return with_texts(
                json_data[key], lambda text: self._shortened(text, share, force_tokens, force_reserve_digit)
            )

        values = {key: shortened(key) for key in kept}
        result = self._result(origin, [_as_json(values)], None)
        return result | {
            "compressed_prompt": values,
            "compressed_prompt_list": [_as_json({k: v}) for k, v in values.items()],
        }

    def recover(self, original_prompt: str, compressed_prompt: str, response: str) -> str:
        """The response with what it quotes of the compressed prompt in the words of the original; see `recovered`."""
        return recovered(original_prompt, compressed_prompt, response)

    def __getattr__(self, name: str) -> Any:
        if name in LEFT_OUT:
            raise NotOfferedError(f"PromptCompressor.{name} is left out here: {LEFT_OUT[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def structured_compress_prompt(
        self,
        context: str | Sequence[str],
        instruction: str = "",
        question: str = "",
        rate: float = 0.5,
        target_token: float = -1,
        *,
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Contexts with `<llmlingua, rate=0.5, compress=False>...</llmlingua>` around parts of them.

        A part keeps its own rate, of all its words; text outside of tags has the rate of the call; compress=False
        stays as it is. No context is dropped. Raises InputError for tags that do not match.
        """
        _check_names("structured_compress_prompt", options, WITHOUT_EFFECT | {
            "use_context_level_filter", "use_token_level_filter", "force_context_ids"
        })  # fmt: skip
        rate, target_token = _checked_limits(rate, target_token)
        parsed = [segments(each) for each in _contexts(context)]
        texts = [text for text, _ in parsed]
        origin = sum(self.counter.count(texts))
        rate = min(target_token / max(origin, 1), 1.0) if target_token >= 0 else rate
        chunks = self._read(texts, force_tokens, force_reserve_digit, (".", "\n"))
        compressed = []
        for (text, parts), mine in zip(parsed, chunks, strict=True):
            words = [word for chunk in mine for word in chunk.words]
            compressed.append("".join(self._segment(text, part, words, rate, list(force_tokens)) for part in parts))
        return self._result(origin, compressed, None)

    def _read(
        self, texts: Sequence[str], force_tokens: Sequence[str], digits: bool, chunk_end_tokens: Sequence[str]
    ) -> list[list[Chunk]]:
        if len(checked_strings(force_tokens)) > self.max_force_token:
            raise InputError(
                f"force_tokens must be a list of at most {self.max_force_token} strings, got {force_tokens!r:.80}; "
                "raise llmlingua2_config={'max_force_token': ...}"
            )
        return self._reader.read(
            texts, force_tokens=list(force_tokens), digits=digits, chunk_end_tokens=chunk_end_tokens
        )

    def _flags(
        self, words: Sequence[Word], rate: float, how: TokenToWord, force_tokens: list[str], drop_consecutive: bool
    ) -> list[bool]:
        if rate >= 1.0:
            return [True] * len(words)
        counts = self.counter.count([word.spelling for word in words])
        return keep_flags(
            words, counts, rate=rate, how=how, force_tokens=force_tokens, drop_consecutive=drop_consecutive
        )

    def _shortened(self, text: str, rate: float, force_tokens: Sequence[str], digits: bool) -> str:
        [chunks] = self._read([text], force_tokens, digits, (".", "\n"))
        flags = [self._flags(chunk.words, rate, "mean", list(force_tokens), False) for chunk in chunks]
        return _joined(text, chunks, flags)

    def _kept_pairs(self, values: Mapping[str, Any], rules: Mapping[str, PairRule], rate: float) -> list[str]:
        """Keys in order: those that must stay, and of the others the more telling (rate + 1) / 2, as for contexts."""
        removable = [key for key in values if rules[key].removable]
        if not removable:
            return list(values)
        pairs = [" ".join([key, *texts_of(values[key])]) for key in removable]
        chunks = self._read(pairs, (), False, (".", "\n"))
        best = {removable[place] for place in _kept_contexts(chunks, (rate + 1.0) / 2, "mean", ())}
        return [key for key in values if key in best or not rules[key].removable]

    def _segment(self, text: str, part: Segment, words: Sequence[Word], rate: float, force_tokens: list[str]) -> str:
        """One part, with the white space around it, as it stands between two others."""
        whole = text[part.start : part.end]
        rate = rate if part.rate is None else part.rate
        mine = [word for word in words if part.start <= word.start < part.end]
        if not part.compress or rate >= 1.0 or not mine:
            return whole
        flags = self._flags(mine, rate, "mean", force_tokens, False)
        core = _joined(text, [Chunk(tuple(mine), "")], [flags], end=part.end)
        head, tail = len(whole) - len(whole.lstrip()), len(whole.rstrip())
        return whole[:head] + core.strip() + whole[tail:]

    def _result(self, origin: int, compressed: list[str], labels: str | None) -> dict[str, Any]:
        tokens = sum(self.counter.count(compressed))
        ratio = origin / tokens if tokens and origin else 1.0
        result = {
            "compressed_prompt": "\n\n".join(compressed),
            "compressed_prompt_list": compressed,
            "origin_tokens": origin,
            "compressed_tokens": tokens,
            "ratio": f"{ratio:.1f}x",
            "rate": f"{100 / ratio:.1f}%",
            "saving": f", Saving ${(origin - tokens) * 0.06 / 1000:.1f} in GPT-4.",
        }
        return result if labels is None else result | {"fn_labeled_original_prompt": labels}


def _contexts(context: object) -> list[str]:
    """Raises InputError for what is neither a string nor several."""
    texts = [context] if isinstance(context, str) else listed(context, name="context")
    if bad := [text for text in texts if not isinstance(text, str)]:
        raise InputError(f"every context must be a string, got {type(bad[0]).__name__}")
    return texts


def _checked_limits(rate: object, target_token: object) -> tuple[float, float]:
    """Both as plain numbers, -1 for no target. Raises InputError for what is none, and for a rate outside [0, 1]."""
    share, target = as_float(rate), as_float(-1 if target_token is None else target_token)
    check_shares(rate="none" if rate is None else rate)
    if target is None or math.isnan(target):
        raise InputError(f"target_token must be a number of tokens, or -1 for none, got {target_token!r:.80}")
    return share or 0.0, target


def _as_json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def _check_names(where: str, given: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    if unknown := sorted(given.keys() - known):
        raise InputError(f"{where} knows no option {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _context_share(
    rate: float, target_token: float, token_level: bool, target_context: int, context_level_rate: float,
    context_level_target_token: float, *, contexts: int, origin: int,
) -> float:  # fmt: skip
    """The share of contexts that stays: as asked, else (rate + 1) / 2 or what twice the target tokens allow."""
    share = context_level_rate
    if target_context <= 0 and share >= 1.0 and context_level_target_token <= 0:
        if target_token >= 0:
            context_level_target_token = 2 * target_token if token_level else target_token
        elif rate < 1.0:
            share = (rate + 1.0) / 2 if token_level else rate
    if target_context >= 0:
        share = min(target_context / contexts, 1.0)
    if context_level_target_token >= 0:
        share = min(context_level_target_token / max(origin, 1), 1.0)
    return share


def _kept_contexts(
    chunks: Sequence[Sequence[Chunk]], share: float, how: TokenToWord, forced: Sequence[int]
) -> list[int]:
    """Contexts by the mean plain score of their words, those at the percentile of `share` and above."""
    means = []
    for mine in chunks:
        scores = [word_score(word.plain, how) for chunk in mine for word in chunk.words if not word.unknown]
        means.append(sum(scores) / len(scores) if scores else 0.0)
    threshold = np.percentile(means, min(100, max(0, int(100 * (1 - share)))))
    return [place for place, mean in enumerate(means) if mean >= threshold or place in forced]


def _joined(text: str, chunks: Sequence[Chunk], flags: Sequence[Sequence[bool]], *, end: int | None = None) -> str:
    """The kept words as slices of the text, with its own spacing."""
    pairs = [pair for chunk, mine in zip(chunks, flags, strict=True) for pair in zip(chunk.words, mine, strict=True)]
    end = len(text) if end is None else end
    pairs = [(word, flag) for word, flag in pairs if word.end > word.start]
    units = tuple(Span(word.start, min(word.end, end)) for word, _ in pairs)
    return Extract(Document(text), units, tuple(flag for _, flag in pairs)).text


def _labelled(
    texts: Sequence[str], chunks: Sequence[Sequence[Chunk]], flags: Flags, word_sep: str, label_sep: str
) -> str:
    return word_sep.join(
        f"{text[word.start : word.end]}{label_sep}{int(flag)}"
        for text, mine, kept in zip(texts, chunks, flags, strict=True)
        for chunk, chunk_flags in zip(mine, kept, strict=True)
        for word, flag in zip(chunk.words, chunk_flags, strict=True)
        if word.end > word.start
    )
