"""How many of our files and functions one call passes: what a reader must open to follow it from door to model."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx2
from fixtures_server import PATIENT, MemoryLog, running, until
from langchain_core.documents import Document as LangChainDocument

import ctxprune
from ctxprune import Context, Pipeline, integrations, load
from ctxprune import eval as eval_
from ctxprune.eval.config import config_from
from ctxprune.eval.run.folder import Store
from ctxprune.eval.run.runner import Run
from ctxprune.integrations.langchain import CtxPruneCompressor
from ctxprune.integrations.server import Settings, create_app

OURS = tuple(f"{folder}/" for package in (ctxprune, eval_, integrations) for folder in package.__path__)
QUESTION = "Who drew the plans of the lighthouse?"
TEXTS = (
    "The lighthouse on Skerry Point is of red brick. Ida Morrow drew its plans in 1874. Gulls nest below it.",
    "Skerry Point is a cape. Two paths lead to its end, and the longer one is the drier.",
    "Ida Morrow was an engineer. She was born in Leith and wrote on lamps.",
)


class Walk:
    """The functions that were entered while it `records`, in this thread and in those begun since `watching`."""

    def __init__(self) -> None:
        self.records = False
        self.functions: set[tuple[str, str]] = set()

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        if self.records and event == "call":
            self.functions.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    @property
    def ours(self) -> set[tuple[str, str]]:
        """(file, function), without lambdas and the like, and without `ctxprune/text`, of which a call passes a file
        for each kind of text that it asks about."""
        return {
            (file, name)
            for file, name in self.functions
            if file.startswith(OURS) and Path(file).parent.name != "text" and not name.endswith(">")
        }

    @property
    def files(self) -> list[str]:
        return sorted({file for file, _ in self.ours})


@contextmanager
def watching() -> Iterator[Walk]:
    """Threads that begin in the block are watched too."""
    walk, before = Walk(), threading.getprofile()
    threading.setprofile(walk.note)
    try:
        yield walk
    finally:
        threading.setprofile(before)


@contextmanager
def recording(walk: Walk) -> Iterator[None]:
    before = sys.getprofile()
    walk.records = True
    sys.setprofile(walk.note)
    try:
        yield
    finally:
        sys.setprofile(before)
        walk.records = False


def test_pipeline() -> None:
    pipeline = Pipeline(load("provence"))
    pipeline.run(Context.of(QUESTION, TEXTS))
    context = Context.of(QUESTION, TEXTS)
    with watching() as walk, recording(walk):
        pipeline.run(context)
    assert 15 < len(walk.files) <= 25, walk.files


def test_langchain() -> None:
    compressor = CtxPruneCompressor()
    documents = [LangChainDocument(page_content=text) for text in TEXTS]
    compressor.compress_documents(documents, QUESTION)
    with watching() as walk, recording(walk):
        compressor.compress_documents(documents, QUESTION)
    assert 19 < len(walk.files) <= 29, walk.files


def test_server() -> None:
    body = {"query": QUESTION, "documents": list(TEXTS)}
    with watching() as walk:
        server = create_app(Settings(**PATIENT), log=MemoryLog())
        with running(server) as url:
            until(lambda: server.state.service.ready)
            httpx2.post(f"{url}/v1/compress", json=body, timeout=300).raise_for_status()
            with recording(walk):
                httpx2.post(f"{url}/v1/compress", json=body, timeout=300).raise_for_status()
    assert 24 < len(walk.files) <= 42, walk.files


def evaluated(folder: Path) -> None:
    (folder / "run").mkdir(parents=True)
    data = folder / "in.jsonl"
    documents = [{"id": str(place), "title": "", "text": text} for place, text in enumerate(TEXTS)]
    data.write_text(json.dumps({"question": QUESTION, "answers": ["Ida Morrow"], "documents": documents}) + "\n")
    compressors = [{"name": "provence", "thresholds": [0.3]}]
    settings = {"data": [{"path": str(data)}], "compressors": compressors, "baselines": ["rerank-truncate"]}
    with Store(folder / "cache") as store:
        Run(config_from(settings, source="here"), store).results(folder / "run")


def test_evaluation(tmp_path: Path) -> None:
    """Of one question, with two compressors that read with one model."""
    evaluated(tmp_path / "before")
    with watching() as walk, recording(walk):
        evaluated(tmp_path / "again")
    assert 300 < len(walk.ours) <= 480, len(walk.ours)
