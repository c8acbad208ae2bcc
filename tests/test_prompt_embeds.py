"""Prompts as embeddings over HTTP: a stand-in server takes the tensor apart and answers as the real model would."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_endpoint import Endpoint
from fixtures_llama import WORDS, save_llama
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ctxprune.errors import CheckpointError, GeneratorError, InputError
from ctxprune.generators import ContextGenerator, Generator, LocalGenerator, PromptEmbedsGenerator
from ctxprune.generators.vllm import load_embedding_table
from ctxprune.types import Context, Document, SoftTokens, whole

TEMPLATE = "the cat {context} and {question}"
CHAT = "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }}{% endfor %} </s>"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"), chat_template=CHAT)


class StandIn:
    """Checks a request as vLLM does, then decodes greedily with the model it serves."""

    def __init__(self, folder: Path, *, key: str | None = None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.key = key
        self.tensors: list[torch.Tensor] = []

    def __call__(self, number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        tensor = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"], validate=True)), weights_only=True)
        if tensor.ndim != 2 or tensor.shape[1] != 32 or tensor.dtype != torch.float32 or not tensor.isfinite().all():
            return 400, {}, f"bad tensor {tuple(tensor.shape)} {tensor.dtype}"
        self.tensors.append(tensor)
        words = []
        for _ in range(body["max_tokens"]):
            with torch.inference_mode():
                best = int(self.model(inputs_embeds=tensor[None]).logits[0, -1].argmax())
            if best == 2:
                break
            words.append(WORDS[best])
            tensor = torch.cat([tensor, self.model.get_input_embeddings().weight[best][None]])
        return 200, {}, json.dumps({"choices": [{"text": " " + " ".join(word for word in words if word[0] != "<")}]})


def client(endpoint: Endpoint, folder: Path, **options: Any) -> PromptEmbedsGenerator:
    options = {"checkpoint": folder, "known_as": "org/tiny", "backoff": 0.001, "timeout": 300.0, **options}
    return PromptEmbedsGenerator("tiny", base_url=endpoint.base_url, **options)


def soft(rows: int, *, generator: str = "org/tiny", width: int = 32, index: int = 0) -> SoftTokens:
    vectors = np.random.default_rng(index).standard_normal((rows, width)).astype(np.float32)
    return SoftTokens(vectors, Document("sea"), generator, index)


CONTEXTS = [
    Context("the sun", (soft(1),)),
    Context("a vote", (soft(2, index=1), whole(Document("river and rock")), soft(1, index=2))),
    Context("the moon on the sea", (whole(Document("river and rock")),)),
]


def test_answers_are_those_of_the_model_itself(serve: Callable[..., Endpoint], llama: Path) -> None:
    server = StandIn(llama)
    endpoint = serve(server)
    local = LocalGenerator(llama, device="cpu", known_as="org/tiny")
    with client(endpoint, llama) as generator:
        assert isinstance(generator, Generator) and isinstance(generator, ContextGenerator)
        answers = generator.generate_contexts(CONTEXTS, template=TEMPLATE, max_new_tokens=6)
        assert answers == local.generate_contexts(CONTEXTS, template=TEMPLATE, max_new_tokens=6)
        assert len(set(answers)) > 1
        assert generator.generate(["the cat sat"], max_new_tokens=6) == local.generate(
            ["the cat sat"], max_new_tokens=6
        )
        assert generator.generate_contexts([]) == generator.generate([]) == []


def test_the_request_holds_the_templated_prompt_with_the_vectors_in_place(
    serve: Callable[..., Endpoint], llama: Path
) -> None:
    server = StandIn(llama)
    endpoint = serve(server)
    with client(endpoint, llama, api_key="sk-secret", extra_body={"seed": 7}) as generator:
        generator.generate_contexts(CONTEXTS[:1], template=TEMPLATE, max_new_tokens=3)
    path, headers, body = endpoint.seen[0]
    assert (path, headers["authorization"]) == ("/v1/completions", "Bearer sk-secret")
    assert {key: value for key, value in body.items() if key != "prompt_embeds"} == {
        "model": "tiny", "max_tokens": 3, "temperature": 0.0, "seed": 7,
    }  # fmt: skip
    table = load_file(llama / "model.safetensors")["model.embed_tokens.weight"]
    words = [table[[WORDS.index(word) for word in text.split()]] for text in ("<s> user the cat", "and the sun </s>")]
    expected = torch.cat([words[0], torch.from_numpy(CONTEXTS[0].pieces[0].embeddings), words[1]])
    assert torch.equal(server.tensors[0], expected)


def test_only_the_prompt_travels(serve: Callable[..., Endpoint], llama: Path) -> None:
    endpoint = serve(StandIn(llama))
    with client(endpoint, llama, chat=False) as generator:
        generator.generate(["cat"], max_new_tokens=1)
    # a tensor that is a view would be saved with everything it is a view of
    assert len(base64.b64decode(endpoint.seen[0][2]["prompt_embeds"])) < 32 * 4 * len(WORDS)


def test_failures_are_tried_again_and_told_without_the_key(serve: Callable[..., Endpoint], llama: Path) -> None:
    server = StandIn(llama)
    endpoint = serve(lambda number, body: (503, {}, "busy") if number == 1 else server(number, body))
    with client(endpoint, llama) as generator:
        assert generator.generate(["the cat sat"], max_new_tokens=6)
    assert len(endpoint.seen) == 2
    endpoint = serve(lambda number, body: (401, {}, "wrong key sk-secret"))
    with (
        client(endpoint, llama, api_key="sk-secret") as generator,
        pytest.raises(GeneratorError, match=r"tiny at http://.*/v1/completions failed after 1 try: HTTP 401: .*\*\*\*"),
    ):
        generator.generate(["the cat"])
    endpoint = serve(lambda number, body: (200, {}, '{"choices": [{"message": {"content": "a chat"}}]}'))
    with client(endpoint, llama) as generator, pytest.raises(GeneratorError, match="sent no completion"):
        generator.generate(["the cat"])


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (soft(1, generator="org/other"), r"contexts\[0\], document 0: .* for 'org/other', this generator is 'tiny'"),
        (soft(1, width=31), r"shape \(1, 31\), 'tiny' reads \(n, 32\)"),
        (SoftTokens(np.full((1, 32), np.nan, np.float32), Document("x"), "tiny"), "nan or infinity"),
    ],
)
def test_soft_tokens_of_another_model_are_never_sent(
    serve: Callable[..., Endpoint], llama: Path, piece: SoftTokens, message: str
) -> None:
    endpoint = serve(StandIn(llama))
    with client(endpoint, llama) as generator, pytest.raises(InputError, match=message):
        generator.generate_contexts([Context("q", (piece,))])
    assert not endpoint.seen


def test_bad_calls(serve: Callable[..., Endpoint], llama: Path, tmp_path: Path) -> None:
    endpoint = serve(StandIn(llama))
    with client(endpoint, llama, chat=False) as generator:
        with pytest.raises(InputError, match="prompt 1 has no tokens"):
            generator.generate(["cat", " "])
        with pytest.raises(InputError, match="got one Context"):
            generator.generate_contexts(CONTEXTS[0])
        with pytest.raises(InputError, match=r"contexts\[0\] must be a Context, got str"):
            generator.generate_contexts(["cat"])
        with pytest.raises(InputError, match="max_new_tokens must be at least 1"):
            generator.generate_contexts(CONTEXTS, max_new_tokens=0)
    with pytest.raises(CheckpointError, match="cannot load a tokenizer"):
        client(endpoint, tmp_path)
    assert not endpoint.seen


def test_the_table_is_found_in_shards(llama: Path, tmp_path: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    save_file({"model.embed_tokens.weight": weights["model.embed_tokens.weight"]}, tmp_path / "a.safetensors")
    index = {name: "a.safetensors" if "embed_tokens" in name else "missing.safetensors" for name in weights}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert torch.equal(load_embedding_table(tmp_path).weight, weights["model.embed_tokens.weight"])


def test_of_a_checkpoint_on_the_hub_only_the_file_with_the_table_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    fetched = []

    def fetch(repo: str, name: str, **_: object) -> str:
        fetched.append((repo, name))
        if not (hub / name).exists():
            raise EntryNotFoundError(name)
        return str(hub / name)

    save_file({"a.wte.weight": torch.ones(3, 2)}, hub / "two.safetensors")
    weight_map = {"a.wte.weight": "two.safetensors", "a.head.weight": "one.safetensors"}
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **_: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert load_embedding_table("org/name").weight.shape == (3, 2)
    assert fetched == [("org/name", "model.safetensors.index.json"), ("org/name", "two.safetensors")]


def test_a_checkpoint_without_a_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors for its embeddings"):
        load_embedding_table(tmp_path)
    save_file({"model.norm.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="one table of input embeddings, found none"):
        load_embedding_table(tmp_path)
    save_file({f"{part}.wte.weight": torch.ones(2, 2) for part in "ab"}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"found a\.wte\.weight, b\.wte\.weight"):
        load_embedding_table(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_embedding_table(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    with pytest.raises(CheckpointError, match="gemma2 family, which scales its embeddings"):
        load_embedding_table(tmp_path)
