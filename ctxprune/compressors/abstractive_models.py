"""Build `recomp-abstractive`: which model writes, and where it runs, is decided here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctxprune.compressors.recomp_abstractive import RecompAbstractive
from ctxprune.compressors.summarizers import GeneratorSummarizer, Seq2SeqSummarizer, Summarizer
from ctxprune.errors import CheckpointError, InputError
from ctxprune.generators.local import LocalGenerator
from ctxprune.generators.openai import OpenAIGenerator
from ctxprune.models.adapters import adapter_folder, base_of, merge_adapter
from ctxprune.models.seq2seq import SUPPORTED, Seq2Seq, model_config
from ctxprune.tokens import load_counter
from ctxprune.types import TokenCounter


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
    counter: TokenCounter | None = None,
    **options: Any,
) -> RecompAbstractive:
    """model: folder or hub id of a T5-family summariser (with the published RECOMP input) or of a causal language model
    (which is asked in a chat turn), or with base_url the name of a model at an OpenAI-compatible endpoint; None for the
    model that the adapter was trained on.

    adapter: a LoRA adapter's folder, hub id or bundled name, for a local model. tokenizer: for T5 checkpoints saved
    without one. titles: whether passages carry titles (None: only in a chat turn). options: see `RecompAbstractive`.
    """
    if model is None and adapter is not None and base_url is None:
        model = base_of(adapter_folder(adapter))
    if model is None:
        raise InputError("recomp-abstractive needs a model that writes; pass model=, with base_url= for an endpoint")
    summarizer: Summarizer
    if base_url is not None:
        for name, value in (("adapter", adapter), ("tokenizer", tokenizer), ("device", device), ("dtype", dtype)):
            if value is not None:
                raise InputError(
                    f"{name}={value!r} is for a local model, and base_url names an endpoint; give only one"
                )
        generator = OpenAIGenerator(str(model), base_url=base_url, api_key=api_key)
        summarizer = GeneratorSummarizer(generator, counter=counter, titles=titles is not False)
        return RecompAbstractive(summarizer, counter=counter, **options)
    if _is_causal(str(model)):
        local = AdaptedGenerator(model, adapter=adapter, device=device, dtype=dtype, batch_size=batch_size)
        summarizer = GeneratorSummarizer(local, counter=load_counter(str(model)), titles=titles is not False)
    else:
        t5 = Seq2Seq(model, tokenizer=tokenizer, adapter=adapter, device=device, dtype=dtype, batch_size=batch_size)
        summarizer = Seq2SeqSummarizer(t5, titles=bool(titles))
    return RecompAbstractive(summarizer, counter=counter, **options)


class AdaptedGenerator(LocalGenerator):
    """A causal language model with a LoRA adapter merged into its weights, if one is given."""

    def __init__(self, path_or_id: str | Path, *, adapter: str | Path | None, **options: Any) -> None:
        super().__init__(path_or_id, **options)
        if adapter is not None:
            self._model = merge_adapter(self._model, adapter)


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
