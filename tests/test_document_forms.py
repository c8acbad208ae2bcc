"""Documents of LlamaIndex and Haystack, read by their fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ctxprune import Document, prune

TEXT = "The mill stands on the Orle. It was built by Anna Pohl in 1802. Ducks swim below the wheel. Flour is sold."


def llama_index() -> list[Any]:
    schema = pytest.importorskip("llama_index.core.schema")
    node = schema.TextNode(text=TEXT, id_="7", metadata={"title": "A", "page": 3})
    whole = schema.Document(text=TEXT, id_="7", metadata={"title": "A", "page": 3})
    return [node, whole, schema.NodeWithScore(node=node, score=0.25)]


def haystack() -> list[Any]:
    module = pytest.importorskip("haystack")
    return [module.Document(content=TEXT, id="7", meta={"title": "A", "page": 3}, score=0.25)]


@pytest.mark.parametrize("make", [llama_index, haystack])
def test_fields(make: Any) -> None:
    for form in make():
        document = Document.of(form)
        assert (document.text, document.id, document.title) == (TEXT, "7", "A")
        assert document.score == getattr(form, "score", None)
        assert document.metadata["page"] == 3


@pytest.mark.parametrize("make", [llama_index, haystack])
def test_one_and_many_are_pruned(make: Any) -> None:
    forms = make()
    for documents in (forms[0], forms, tuple(forms), iter(forms)):
        assert "Anna Pohl" in prune("Who built the mill?", documents, budget=16).text


@pytest.mark.parametrize(
    "score", [10**400, np.array([0.2, 0.4]), "0.4", True, math.nan], ids=lambda score: str(score)[:9]
)
def test_a_score_that_is_no_number_is_none(score: object) -> None:
    assert Document.of({"text": TEXT, "score": score}).score is None
    assert Document.of({"text": TEXT, "score": score, "metadata": {"score": np.float32(0.5)}}).score == 0.5
