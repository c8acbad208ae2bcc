"""Documents of LlamaIndex and Haystack, read by their fields."""

from __future__ import annotations

from typing import Any

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
