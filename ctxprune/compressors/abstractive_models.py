"""Build `recomp-abstractive`: which model writes, and where it runs, is decided here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctxprune.compressors.recomp_abstractive import RecompAbstractive
from ctxprune.compressors.summarizers import GeneratorSummarizer, Seq2SeqSummarizer, Summarizer
from ctxprune.compressors.summary_prompts import NOTHING
from ctxprune.errors import CheckpointError, InputError
from ctxprune.generators.local import LocalGenerator
from ctxprune.generators.openai import OpenAIGenerator
from ctxprune.models.adapters import adapter_folder, base_of, merge_adapter
from ctxprune.models.first_token import FirstTokenThreshold, check_empty_threshold
from ctxprune.models.seq2seq import SUPPORTED, Seq2Seq, model_config
from ctxprune.tokens import CounterLike, as_counter, load_counter


def recomp_abstractive(
    *,
    model: str | Path | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    adapter: str | Path | None = None,
    tokenizer: str | Path | None = None,
    titles: bool | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 8,
    empty_threshold: float | None = None,
    counter: CounterLike | None = None,
    **options: Any,
) -> RecompAbstractive:
    """model: folder or hub id of a T5-family summariser (with the published RECOMP input) or of a causal language model
    (which is asked in a chat turn), or with base_url the name of a model at an OpenAI-compatible endpoint; None for the
    model that the adapter was trained on.

    adapter: a LoRA adapter's folder or hub id, for a local model. tokenizer: for T5 checkpoints saved
    without one. titles: whether passages carry titles (None: only in a chat turn). empty_threshold: the probability of
    "nothing helps" from which a local model's summary is empty (None: where that is its likeliest beginning, which for
    an unsure model is too often). options: see `RecompAbstractive`.
    """
    if model is None and adapter is not None and base_url is None:
        model = base_of(adapter_folder(adapter))
    if model is None:
        raise InputError("recomp-abstractive needs a model that writes; pass model=, with base_url= for an endpoint")
    summarizer: Summarizer
    if base_url is not None:
        for name, value in (
            ("adapter", adapter),
            ("tokenizer", tokenizer),
            ("device", device),
            ("dtype", dtype),
            ("empty_threshold", empty_threshold),
        ):
            if value is not None:
                raise InputError(
                    f"{name}={value!r} is for a local model, and base_url names an endpoint; give only one"
                )
        generator = OpenAIGenerator(str(model), base_url=base_url, api_key=api_key)
        summarizer = GeneratorSummarizer(
            generator, counter=None if counter is None else as_counter(counter), titles=titles is not False
        )
        return RecompAbstractive(summarizer, counter=counter, **options)
    if _is_causal(str(model)):
        local = SummaryGenerator(
            model, adapter=adapter, empty_threshold=empty_threshold, device=device, dtype=dtype, batch_size=batch_size
        )
        summarizer = GeneratorSummarizer(local, counter=load_counter(str(model)), titles=titles is not False)
    else:
        t5 = Seq2Seq(
            model, tokenizer=tokenizer, adapter=adapter, device=device, dtype=dtype, batch_size=batch_size,
            empty_threshold=empty_threshold,
        )  # fmt: skip
        summarizer = Seq2SeqSummarizer(t5, titles=bool(titles))
    return RecompAbstractive(summarizer, counter=counter, **options)


class SummaryGenerator(LocalGenerator):
    """A causal language model that writes summaries or that nothing helps.

    adapter: LoRA weights to merge into its own. empty_threshold: see `recomp_abstractive`.
    """

    def __init__(
        self, path_or_id: str | Path, *, adapter: str | Path | None, empty_threshold: float | None, **options: Any
    ) -> None:
        check_empty_threshold(empty_threshold)
        super().__init__(path_or_id, **options)
        if adapter is not None:
            self._model = merge_adapter(self._model, adapter)
        self._empty_threshold = empty_threshold
        self._nothing = self._encoder.answer_ids(NOTHING)[0]

    def _decoding(self) -> dict[str, Any]:
        if self._empty_threshold is None:
            return {}
        return {"logits_processor": [FirstTokenThreshold(self._nothing, self._empty_threshold)]}


def _is_causal(name: str) -> bool:
    """False for the T5 family. Raises CheckpointError for a model that is neither."""
    config = model_config(name)
    if config.model_type in SUPPORTED:
        return False
    architectures = config.architectures or ()
    if any(each.endswith(("ForCausalLM", "LMHeadModel")) for each in architectures):
        return True
    saved = ", ".join(architectures) or "no architecture named"
    raise CheckpointError(
        f"{name} is a {config.model_type!r} model ({saved}), which writes no text; "
        f"pass one of {', '.join(SUPPORTED)} or a causal language model"
    )
