"""vLLM and other servers that take a prompt as embeddings, so that soft tokens reach a model that runs elsewhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ctxprune.errors import CheckpointError, InputError
from ctxprune.generators.base import Reply, checked_contexts, checked_prompts, completion_reply
from ctxprune.generators.openai import Connected, Connection, Transport
from ctxprune.models.causal import Parts, PromptEncoder, check_soft_tokens
from ctxprune.prompt import DEFAULT_TEMPLATE
from ctxprune.types import Context

if TYPE_CHECKING:
    import torch

_TABLE = re.compile(r"(^|\.)(embed_tokens|tok_embeddings|word_embeddings|embed_in|wte)\.weight$")
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def load_embedding_table(source: str | Path) -> torch.nn.Embedding:
    """Ids (n,) to (n, d_model) in the checkpoint's own dtype; from a hub id only the file that holds it is fetched.

    Raises CheckpointError when there are no safetensors, when no tensor or more than one looks like the table, and for
    a model of the Gemma family, which scales the vectors it looks up: where a server does that is its own affair.
    """
    import torch

    from ctxprune.models.hub import checkpoint_file, read_json, resolve

    folder = resolve(source, weights=False)
    family = str(read_json(folder / "config.json").get("model_type", ""))
    if family.startswith("gemma"):
        raise CheckpointError(
            f"{source} is of the {family} family, which scales its embeddings; run it with LocalGenerator instead"
        )
    index = checkpoint_file(source, folder, _INDEX)
    if index is None:
        weights = checkpoint_file(source, folder, _WHOLE)
    else:
        shards = read_json(index).get("weight_map")
        name = _table_name(source, list(shards) if isinstance(shards, dict) else [])
        weights = checkpoint_file(source, folder, Path(str(shards[name])).name) if isinstance(shards, dict) else None
    if weights is None:
        raise CheckpointError(f"{source} has no {_WHOLE} for its embeddings; convert the checkpoint to safetensors")
    table = _read(source, weights)
    vocabulary, d_model = table.shape
    return torch.nn.Embedding(vocabulary, d_model, _weight=table, _freeze=True)


def _read(source: str | Path, path: Path) -> torch.Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            table: torch.Tensor = tensors.get_tensor(_table_name(source, [*tensors.keys()]))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}); fetch the file again") from error
    return table


def _table_name(source: str | Path, names: list[str]) -> str:
    found = [name for name in names if _TABLE.search(name)]
    if len(found) != 1:
        raise CheckpointError(
            f"{source} must have one table of input embeddings, found {', '.join(found) or 'none'}; "
            "pass the checkpoint of a causal language model"
        )
    return found[0]


class PromptEmbedsGenerator(Connected):
    """Completions whose prompt is a base64 tensor (n_tokens, d_model), as vLLM reads with `--enable-prompt-embeds`.

    model: the name the server knows it by. base_url: up to and without "/completions". checkpoint: its folder or hub id
    (default: `model`), of which only the tokenizer and the input embeddings are loaded; the tensor has their dtype.
    chat: wrap each prompt as a user's turn, here, as the server does not; None: if there is a chat template.
    known_as: the name that soft tokens call this model by, where neither `model` nor `checkpoint` is that.
    extra_body and connection as in `OpenAIGenerator`. Use it in a `with` block, or call `close`.
    Raises CheckpointError when the tokenizer or the embeddings cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        checkpoint: str | Path | None = None,
        known_as: str | None = None,
        chat: bool | None = None,
        temperature: float | None = 0.0,
        extra_body: Mapping[str, Any] | None = None,
        **connection: Unpack[Connection],
    ) -> None:
        super().__init__(Transport(model, base_url=base_url, path="/completions", **connection))
        source = model if checkpoint is None else str(checkpoint)
        self._names = [model, source] if known_as is None else [model, source, known_as]
        self._encoder = PromptEncoder(_load_tokenizer(source), name=source, chat=chat)
        self._table = load_embedding_table(source)
        self._fields = ({} if temperature is None else {"temperature": temperature}) | dict(extra_body or {})

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """Raises InputError for a prompt without tokens, GeneratorError when one fails for good or gets no answer."""
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        return self._replies([[self._encoder.ids(p)] for p in checked_prompts(prompts, max_new_tokens)], max_new_tokens)

    def generate_contexts(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[str]:
        """One answer a context, whose soft tokens take the places of their documents in the prompt.

        Raises InputError, before anything is sent, for soft tokens of another model or width; GeneratorError when a
        prompt fails for good.
        """
        replies = self.context_replies(contexts, template=template, max_new_tokens=max_new_tokens)
        return [reply.usable(self.name) for reply in replies]

    def context_replies(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[Reply]:
        """As `generate_contexts`, with the reason in place of an error where a reply is no answer."""
        contexts = checked_contexts(contexts, max_new_tokens)
        check_soft_tokens(contexts, names=self._names, width=self._table.embedding_dim)
        return self._replies([self._encoder.parts(each, template=template) for each in contexts], max_new_tokens)

    def _replies(self, prompts: list[Parts], max_new_tokens: int) -> list[Reply]:
        for place, parts in enumerate(prompts):
            if not any(map(len, parts)):
                raise InputError(f"prompt {place} has no tokens; pass a prompt with text")
        return self._transport.replies(prompts, lambda parts: self._body(parts, max_new_tokens), completion_reply)

    def _body(self, parts: Parts, max_new_tokens: int) -> dict[str, Any]:
        from ctxprune.generators.soft_prompt import splice  # brings torch

        embeds = splice([parts], self._table).embeds[0]
        return {"model": self.name, "prompt_embeds": _base64(embeds), "max_tokens": max_new_tokens, **self._fields}


def _base64(tensor: torch.Tensor) -> str:
    import torch

    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _load_tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:  # missing path, no network, foreign layout: each its own type in another library
        raise CheckpointError(f"cannot load a tokenizer from {source!r}: {error}") from error
