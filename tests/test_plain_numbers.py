"""Numbers and documents as numpy, pandas and decimal have them, at the doors of Python."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxprune import Context, Document, Pipeline, load, prune
from ctxprune.errors import BudgetError, CheckpointError, InputError, UnknownNameError
from ctxprune.integrations.adapter import check_top_n
from ctxprune.plain import finite, plain_threshold, whole
from ctxprune.retrievers import BM25Retriever
from ctxprune.tools import prune_tool_output

pandas = pytest.importorskip("pandas")

QUESTION = "Where does the lighthouse stand?"
TEXT = "The keeper bakes bread. The lighthouse stands on Gull Rock. Seals sleep below. Paint flakes off the door."
NEEDED = "The lighthouse stands on Gull Rock."


@pytest.mark.parametrize("budget", [np.int64(14), np.float64(14), 14.0, Decimal(14), np.array(14)])
def test_a_budget_of_any_whole_number(budget: Any) -> None:
    for result in (
        prune(QUESTION, TEXT, compressor="bm25-sentences", budget=budget),
        Pipeline(load("bm25-sentences", budget=budget)).run(Context(QUESTION, [TEXT])),
        prune(QUESTION, TEXT).at(budget=budget),
    ):
        row = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert (row["budget"], row["over_budget"]) == (14, False) and NEEDED in row["text"]


@pytest.mark.parametrize("budget", [14.5, "14", True, math.nan, math.inf, pandas.NA, np.array([3, 4]), object()])
def test_a_budget_that_is_no_number_of_tokens(budget: Any) -> None:
    for call in (
        lambda: prune(QUESTION, TEXT, budget=budget),
        lambda: load("lead", budget=budget),
        lambda: load("bm25-sentences").compress([Context(QUESTION, [TEXT])], budget=budget),
        lambda: prune_tool_output(TEXT, QUESTION, budget=budget),
    ):
        with pytest.raises(BudgetError, match="whole number of tokens"):
            call()


@pytest.mark.parametrize("threshold", ["0.4", True, np.True_, pandas.NA, [0.4]])
def test_a_threshold_that_is_no_number(threshold: Any) -> None:
    for call in (
        lambda: prune(QUESTION, TEXT, threshold=threshold),
        lambda: prune_tool_output(TEXT, QUESTION, threshold=threshold),
    ):
        with pytest.raises(InputError, match="threshold must be a number"):
            call()


def test_thresholds_of_other_libraries() -> None:
    assert plain_threshold(np.float32(0.5)) == plain_threshold(Decimal("0.5")) == 0.5
    assert NEEDED in prune(QUESTION, TEXT, threshold=np.float32(0.2)).text  # type: ignore[arg-type]


@pytest.mark.parametrize("top_n", ["2", 2.5, True, pandas.NA])
def test_a_number_of_documents_that_is_none(top_n: Any) -> None:
    with pytest.raises(InputError, match="must be a whole number"):
        check_top_n(top_n)


@pytest.mark.parametrize(
    "score", [math.nan, -math.inf, pandas.NaT, Decimal("sNaN"), 10**400, np.array([1.0, 2.0]), 1j, "0.5", True]
)
def test_a_score_that_is_none(score: Any) -> None:
    assert finite(score) is None
    assert Document.of({"text": TEXT, "score": score}).score is None
    assert Document.of({"text": TEXT, "metadata": {"relevance_score": score}}).score is None


def test_a_budget_that_no_float_holds_is_a_budget() -> None:
    huge = 10**400
    assert whole(huge) == huge and whole(-huge) == -huge
    result = prune(QUESTION, TEXT, budget=huge)
    assert result.budget == huge and NEEDED in result.text and not result.over_budget


def test_nothing_of_a_dict_is_lost() -> None:
    row = {
        "text": TEXT,
        "content": "A second text.",
        "page_content": TEXT,
        "id": "a",
        "_id": "b",
        "node_id": "a",
        "score": "0.5",
        "meta": ["x"],
        "metadata": {"page": 3},
        4: "four",
    }
    document = Document.of(row)
    assert (document.text, document.id, document.score) == (TEXT, "a", None)
    assert document.metadata == {
        "content": "A second text.",
        "_id": "b",
        "score": "0.5",
        "meta": ["x"],
        "page": 3,
        4: "four",
    }
    assert Document.of({"text": TEXT, "metadata": "guide.pdf"}).metadata == {"metadata": "guide.pdf"}
    assert Document.of({"text": TEXT, "score": 0.5, "id": "a", "metadata": None}).metadata == {}
    assert Document.of({"text": TEXT, "id": np.array([1, 2])}).metadata == {}


@pytest.mark.parametrize("calibration", [3, "", b"c.json", ["c.json"], True])
def test_what_is_no_calibration(calibration: Any) -> None:
    with pytest.raises(InputError, match="calibration must be a file"):
        load("provence", calibration=calibration)


def test_whole_numbers() -> None:
    assert [whole(each) for each in (np.uint8(3), 3.0, 3.5, "3", np.bool_(True))] == [3, 3, None, None, None]


@pytest.mark.parametrize("score", [0.25, 1, np.float32(0.25), np.int64(1), Decimal("0.25")])
def test_a_document_with_its_score_of_any_kind(score: Any) -> None:
    result = prune(QUESTION, ({"text": TEXT}, score), compressor="lead", budget=9)
    assert [extract.source.score for extract in result.before.extracts] == [float(score)]


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan"), pandas.NA, pandas.NaT])
def test_cells_that_are_empty(missing: Any) -> None:
    row = {
        "text": missing,
        "content": TEXT,
        "id": missing,
        "_id": "g4",
        "title": missing,
        "metadata": {"title": "Rocks"},
    }
    document = Document.of(row)
    assert (document.text, document.id, document.title) == (TEXT, "g4", "Rocks")
    assert Document.of({"text": TEXT, "id": missing}).id == ""
    with pytest.raises(InputError, match="got nothing"):
        Document.of({"text": missing})


def test_a_title_that_is_a_number() -> None:
    assert Document.of({"text": TEXT, "title": 1911}).title == "1911"


def test_a_table_is_not_read_as_the_names_of_its_columns() -> None:
    table = pandas.DataFrame({"text": [TEXT, "Boats leave at ten."], "id": [1, 2]})
    for call in (lambda: prune(QUESTION, table), lambda: Context(QUESTION, table)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="records"):
            call()
    assert NEEDED in prune(QUESTION, table.to_dict("records"), budget=14, compressor="bm25-sentences").text
    assert NEEDED in prune(QUESTION, table["text"], budget=14, compressor="bm25-sentences").text


def test_a_score_becomes_a_plain_number() -> None:
    for score in (np.float32(0.5), Decimal("0.5"), np.float64(0.5)):
        assert type(Document(TEXT, score=score).score) is float  # type: ignore[arg-type]
    assert Document(TEXT, score=math.nan).score is None and Document(TEXT, score=math.inf).score == math.inf


@pytest.mark.parametrize("cache", [b"a.db", 5, {}, ["a.db"]])
def test_what_is_no_cache(cache: Any) -> None:
    with pytest.raises(InputError, match="have get and put"):
        load("recomp-extractive", cache=cache)


@pytest.mark.parametrize(("queries", "k"), [([None], 1), ([3], 1), (["rock"], "1"), (["rock"], 1.5), (["rock"], True)])
def test_what_cannot_be_looked_for(queries: Any, k: Any) -> None:
    with pytest.raises(InputError, match="must be a"):
        BM25Retriever([Document(TEXT)]).retrieve(queries, k)
    assert len(BM25Retriever([Document(TEXT)] * 3).retrieve(["rock"], np.int64(2))[0]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", " ", None, 5, b"lead", ["lead"]])
def test_what_names_no_compressor(name: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"known: .*lead"):
        load(name)


def test_a_path_names_a_model(tmp_path: Path) -> None:
    for call in (lambda: load(tmp_path), lambda: load("provence", model=tmp_path)):
        with pytest.raises(CheckpointError, match=tmp_path.name):
            call()


def test_what_is_no_compressor_no_policy_and_no_share() -> None:
    lead = load("lead", budget=9)
    for given in (type(lead), [type(lead)]):
        with pytest.raises(InputError, match="is no compressor"):
            Pipeline(given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must be a ctxprune\.Policy, got dict"):
        load("lead", policy={"min_keep": 1})
    for rate in ("0.5", True, pandas.NA, [0.5]):
        with pytest.raises(InputError, match="rate must be in"):
            Pipeline(lead).score([Context(QUESTION, [TEXT])]).choose(rate=rate)  # type: ignore[arg-type]


def test_a_score_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"Document\.score must be a number"):
        Document(TEXT, score="0.5")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["text", ["text"], [(QUESTION, [TEXT])], None, 3])
def test_what_is_no_context(given: Any) -> None:
    with pytest.raises(InputError, match="must be a Context"):
        Pipeline(load("lead", budget=9)).run(given)


@pytest.mark.parametrize(("given", "advice"), [(b"abc", "decode it"), ([["a", "b"]], "one list")])
def test_the_next_step_for_what_is_no_text(given: Any, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        prune(QUESTION, given)


@pytest.mark.parametrize("name", ["provence", "llmlingua2", "recomp-extractive"])
def test_an_export_says_that_it_runs_on_the_cpu_whatever_is_asked(name: str) -> None:
    load(name, device="cpu")
    with pytest.warns(UserWarning, match=r"is an export for the CPU: device='cuda', dtype='float16' changes nothing"):
        load(name, device="cuda", dtype="float16")
    with pytest.warns(UserWarning, match="revision='v2' changes nothing; name a checkpoint"):
        load(name, revision="v2")
