"""The documented JSON Schema of a result against results of every kind, and against what must not pass."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from ctxprune import Context, Document, Pipeline, SoftTokens, Summary, load
from ctxprune.cli import main
from ctxprune.result import CompressionResult
from ctxprune.types import Extract, Faithfulness, Span

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "result.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DOCUMENT = Document("Ferries leave at eight. The quay is of stone. Gulls cry.", id="f", title="Ferry", score=0.5)
CONTEXT = Context("When do ferries leave?", [DOCUMENT, "Bakers rise early."], id="q1")
SOFT_SPANS = (Span(0, 24), Span(47, 56))
EXPANDED = Extract(DOCUMENT, (SOFT_SPANS[0], Span(25, 46), SOFT_SPANS[1]), (False, True, False))
NAMES = ["provence", "llmlingua2", "recomp-extractive", "dslr", "bm25-sentences", "rerank-truncate", "lead"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spans", [True, False])
def test_results_of_every_compressor(name: str, spans: bool) -> None:
    for budget in (3, 12, 200):
        VALIDATOR.validate(Pipeline(load(name)).run(CONTEXT, budget=budget).to_dict(spans=spans))


def result_of(*pieces: Any, **values: Any) -> dict[str, Any]:
    return CompressionResult(
        before=CONTEXT,
        after=Context("q", pieces, warnings=("look here",)),
        compressor="c",
        tokens_before=9,
        tokens_after=3,
        tokenizer="words",
        exact=True,
        **{"status": "compressed", **values},
    ).to_dict()


@pytest.mark.parametrize(
    "row",
    [
        result_of(Summary("Ferries leave at eight.", (DOCUMENT,), faithfulness=Faithfulness(1, 1, 1, 0.5, ("8",)))),
        result_of(Summary("", ()), status="degraded", reason="TimeoutError", budget=2),
        result_of(SoftTokens(np.ones((2, 3), np.float32), DOCUMENT, "tiny", 0)),
        result_of(SoftTokens(np.ones((2, 3), np.float32), DOCUMENT, "tiny", 0, SOFT_SPANS)),
        result_of(SoftTokens(np.ones((2, 3), np.float32), DOCUMENT, "tiny", 0, SOFT_SPANS, EXPANDED)),
        result_of(),
    ],
)
def test_summaries_and_soft_tokens(row: dict[str, Any]) -> None:
    VALIDATOR.validate(json.loads(json.dumps(row)))


def test_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ferry.txt"
    file.write_text(DOCUMENT.text, encoding="utf-8")
    assert main(["compress", "-q", "When do ferries leave?", "--budget", "9", "--json", str(file)]) == 0
    VALIDATOR.validate(json.loads(capsys.readouterr().out))


def test_every_key_is_described_and_checked() -> None:
    row = Pipeline(load("provence")).run(CONTEXT, budget=12).to_dict()
    for key in row:
        assert key in SCHEMA["properties"]
        for broken in ({key: object()}, {f"{key}x": row[key]}):
            changed = {**copy.deepcopy(row), **broken}
            assert not VALIDATOR.is_valid(changed), broken
    span = row["documents"][0]["kept_spans"][0]
    span["start"] = -1
    assert not VALIDATOR.is_valid(row)
