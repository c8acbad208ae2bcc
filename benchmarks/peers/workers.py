"""The peers, and one at work in its own environment: load it, time each question, write a line, tell memory, versions.

Nothing but the standard library is there for sure, so a peer is imported where it is loaded. A loader takes the task
and returns a function of question, texts and budget (words) that gives the kept text, best part first.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

#: The exit code of a peer whose model is not to be had.
NO_MODEL = 3

Compress = Callable[[str, list[str], int], str]


class NoModelError(Exception):
    """There is no model that the peer could be run with; the message says why."""


def serve(load: Callable[[dict[str, Any]], Compress]) -> None:
    """Do the task named on the command line: TASK.json, and the .jsonl file for the answers."""
    task_file, out_file = sys.argv[1:3]
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    with Path(out_file).open("w", encoding="utf-8") as out:
        _measure(task, load, lambda row: print(json.dumps(row), file=out, flush=True))


def _measure(
    task: dict[str, Any], load: Callable[[dict[str, Any]], Compress], tell: Callable[[dict[str, Any]], None]
) -> None:
    started = time.perf_counter()
    try:
        compress = load(task)
    except NoModelError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_MODEL)
    tell({"loaded": time.perf_counter() - started, "versions": _versions(task["packages"])})
    first = task["questions"][0]
    compress(first["question"], first["texts"], task["budgets"][0])  # the first call of a process is slower
    for place, question in enumerate(task["questions"]):
        for budget in task["budgets"]:
            started = time.perf_counter()
            kept = compress(question["question"], list(question["texts"]), budget)
            seconds = time.perf_counter() - started
            tell({"question": place, "budget": budget, "seconds": seconds, "kept": kept})
    unit = 1 if sys.platform == "darwin" else 1024
    tell({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6})


def _versions(packages: list[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def random_bert(task: dict[str, Any], folder: Path, *, head: str, labels: int) -> Path:
    """A BERT of the shape in the task with random weights, and its tokenizer, in `folder`; for speed alone.

    head: the class in transformers, such as BertForTokenClassification.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    shape = task["shape"]
    config = transformers.BertConfig(
        num_hidden_layers=shape["layers"], hidden_size=shape["width"], num_attention_heads=shape["heads"],
        intermediate_size=shape["inner"], vocab_size=shape["vocabulary"], num_labels=labels,
        max_position_embeddings=512,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    getattr(transformers, head)(config).save_pretrained(folder)
    special = {name: f"[{name[:3].upper()}]" for name in ("cls_token", "sep_token", "pad_token", "unk_token")}
    special["mask_token"] = "[MASK]"
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=task["tokenizer"], model_max_length=512, **special)
    tokenizer.save_pretrained(folder)
    return folder


def load_ctxprune(task: dict[str, Any]) -> Compress:
    """ctxprune itself, or one of its baselines, at a budget of words."""
    import ctxprune
    from ctxprune.pipeline import Pipeline
    from ctxprune.tokens import WordCounter
    from ctxprune.types import Context

    counter = WordCounter()
    pipeline = Pipeline(ctxprune.load(task["options"]["compressor"], counter=counter), counter=counter)

    def compress(question: str, texts: list[str], budget: int) -> str:
        return pipeline.run(Context.of(question, texts), budget=budget).text

    return compress


def load_flashrank(task: dict[str, Any]) -> Compress:
    """FlashRank's reranker, passages in its order; its package brings no model, it fetches one."""
    from flashrank import Ranker, RerankRequest

    try:
        ranker = Ranker(cache_dir=task["folder"])
    except Exception as error:
        raise NoModelError(f"its default model cannot be fetched ({type(error).__name__}: {error})") from error

    def compress(question: str, texts: list[str], budget: int) -> str:
        passages = [{"id": place, "text": text} for place, text in enumerate(texts)]
        return "\n\n".join(each["text"] for each in ranker.rerank(RerankRequest(query=question, passages=passages)))

    return compress


def load_headroom(task: dict[str, Any]) -> Compress:
    """headroom-ai's `compress` on the documents as a user message; offline, without its Kompress model, it falls back.

    The fallback is what its own pipeline does without a model (crushers of JSON, logs and text); the row names it.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "HEADROOM_TELEMETRY": "off", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    import headroom

    def compress(question: str, texts: list[str], budget: int) -> str:
        ratio = min(1.0, budget / max(1, sum(len(text.split()) for text in texts)))
        messages = [
            {"role": "user", "content": "\n\n".join(texts)},
            {"role": "user", "content": question},
        ]
        done = headroom.compress(
            messages, model="gpt-4o", compress_user_messages=True, target_ratio=ratio, protect_recent=1
        )
        return str(done.messages[0]["content"])

    return compress


def load_langchain(task: dict[str, Any]) -> Compress:
    """LangChain's EmbeddingsFilter: documents by the similarity of their embedding to the question's, best first."""
    from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
    from langchain_core.documents import Document
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(model_name=task["embedder"], model_kwargs={"device": "cpu"})

    def compress(question: str, texts: list[str], budget: int) -> str:
        ranked = EmbeddingsFilter(embeddings=embeddings, k=len(texts)).compress_documents(
            [Document(page_content=text) for text in texts], question
        )
        return "\n\n".join(document.page_content for document in ranked)

    return compress


def _rough_sentences(text: str) -> list[str]:
    """By full stops and line breaks; its own splitter, nltk's punkt, would be fetched."""
    return [part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def load_llamaindex(task: dict[str, Any]) -> Compress:
    """LlamaIndex's SentenceEmbeddingOptimizer: the sentences nearest to the question, all documents as one node."""
    from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=task["embedder"], device="cpu")

    def compress(question: str, texts: list[str], budget: int) -> str:
        text = "\n".join(texts)
        # so many sentences that they hold the budget's words on average, twice over; the runner cuts them
        share = min(1.0, 2 * budget / max(1, len(text.split())))
        optimizer = SentenceEmbeddingOptimizer(
            embed_model=model, percentile_cutoff=share, tokenizer_fn=_rough_sentences, context_before=0, context_after=0
        )
        nodes = [NodeWithScore(node=TextNode(text=text), score=1.0)]
        return str(optimizer.postprocess_nodes(nodes, QueryBundle(question))[0].node.get_content())

    return compress


def load_crossencoder(task: dict[str, Any]) -> Compress:
    """sentence-transformers' CrossEncoder with random weights in the shape of MiniLM-L6: its speed and no more."""
    from sentence_transformers import CrossEncoder

    folder = random_bert(task, Path(mkdtemp()) / "model", head="BertForSequenceClassification", labels=1)
    model = CrossEncoder(str(folder), device="cpu", max_length=512)

    def compress(question: str, texts: list[str], budget: int) -> str:
        scores = model.predict([(question, text) for text in texts], show_progress_bar=False)
        order = sorted(range(len(texts)), key=lambda place: -float(scores[place]))
        return "\n\n".join(texts[place] for place in order)

    return compress


class Thirds:
    """A token for three characters: stands for the encoding that llmlingua would fetch."""

    def encode(self, text: str) -> range:
        return range(-(-len(text) // 3))


def load_llmlingua(task: dict[str, Any]) -> Compress:
    """llmlingua's LLMLingua-2 with random weights in the shape of our encoder: its speed, nothing of its quality."""
    sys.modules["tiktoken"] = SimpleNamespace(encoding_for_model=lambda name: Thirds())  # type: ignore[assignment]
    import llmlingua

    # llmlingua tells the tokenizer's kind by this name
    folder = Path(mkdtemp()) / "bert-base-multilingual-cased"
    random_bert(task, folder, head="BertForTokenClassification", labels=2)
    made = llmlingua.PromptCompressor(str(folder), device_map="cpu", use_llmlingua2=True)

    def compress(question: str, texts: list[str], budget: int) -> str:
        rate = min(1.0, budget / max(1, sum(len(text.split()) for text in texts)))
        return str(made.compress_prompt(texts, rate=rate)["compressed_prompt"])

    return compress


#: By the name in the task.
LOADERS: dict[str, Callable[[dict[str, Any]], Compress]] = {
    "ctxprune": load_ctxprune,
    "flashrank": load_flashrank,
    "headroom": load_headroom,
    "langchain": load_langchain,
    "llamaindex": load_llamaindex,
    "crossencoder": load_crossencoder,
    "llmlingua": load_llmlingua,
}


#: The version that ctxprune is tested with (constraints.txt), so that all torch peers have the same kernels.
_TORCH = "torch==2.13.0"

#: The script that a peer's own Python runs: this one.
WORKERS = Path(__file__)


@dataclass(frozen=True, slots=True)
class Peer:
    """One contender.

    name: of its environment too. packages: what pip installs; none: this environment. loader: of the worker's
    LOADERS. worker: the script.

    real: whether a real model chooses, so that answers are compared. note: what a reader must know of the row.
    needs_embedder: skipped without `--embedder`. options: handed to the worker.
    """

    name: str
    packages: tuple[str, ...]
    loader: str
    real: bool
    note: str = ""
    worker: Path = WORKERS
    needs_embedder: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def _ours(compressor: str, note: str = "") -> Peer:
    return Peer(f"ctxprune {compressor}", (), "ctxprune", real=True, note=note, options={"compressor": compressor})


PEERS: tuple[Peer, ...] = (
    _ours("provence"),
    _ours("recomp-extractive"),
    _ours("bm25-sentences", "no model"),
    _ours("rerank-truncate", "the pruner's own relevance, whole passages"),
    Peer(
        "llmlingua", (_TORCH, "llmlingua==0.2.2"), "llmlingua", real=False,
        note="random weights in the shape of our encoder: speed alone; it keeps words",
    ),
    Peer(
        "headroom-ai", ("headroom-ai==0.42.0",), "headroom", real=True,
        note="offline, so what its pipeline falls back to without its Kompress model; it does not read the question",
    ),
    Peer(
        "flashrank", ("FlashRank==0.2.10",), "flashrank", real=True,
        note="reranks whole passages, then truncated",
    ),
    Peer(
        "sentence-transformers", (_TORCH, "sentence-transformers==6.2.0"), "crossencoder",
        real=False,
        note="CrossEncoder with random weights in the shape of MiniLM-L6: speed alone",
    ),
    Peer(
        "langchain",
        (
            _TORCH, "langchain-classic==1.0.8", "langchain-community==0.4.2", "langchain-huggingface",
            "sentence-transformers==6.2.0",
        ),
        "langchain", real=True, needs_embedder=True,
        note="EmbeddingsFilter with the embedder given, whole passages, then truncated",
    ),
    Peer(
        "llama-index", (_TORCH, "llama-index-core==0.14.25", "llama-index-embeddings-huggingface==0.8.0"),
        "llamaindex", real=True, needs_embedder=True,
        note="SentenceEmbeddingOptimizer with the embedder given, then truncated",
    ),
    Peer(
        "open-provence", ("open-provence",), "", real=False,
        note="no package of this name on the index",
    ),
)  # fmt: skip


if __name__ == "__main__":
    serve(lambda task: LOADERS[task["loader"]](task))
