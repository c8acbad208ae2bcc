"""Every number that a request, an operator or a benchmark gives: whole floats are whole numbers, True is no number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fixtures_server import BRIDGE, QUERY, sidecar
from pydantic import BaseModel, TypeAdapter, ValidationError

from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig
from ctxprune.integrations.server import Settings, rerank, schemas
from ctxprune.integrations.server.gateway import policy
from ctxprune.integrations.server.gateway import schemas as gateway
from ctxprune.integrations.server.proxy.compress import ProxyOptions
from ctxprune.plain import checked_whole, refuse_truth

BODIES = [
    schemas.CompressRequest,
    schemas.HighlightRequest,
    rerank.JinaRequest,
    rerank.CohereRequest,
    rerank.TeiRequest,
    policy.GatewayOptions,
    policy.ModelInfo,
    gateway.HeadroomConfig,
    gateway.CompresrOptions,
    ProxyOptions,
]


def shapes(schema: dict[str, Any]) -> Iterator[str]:
    yield from (str(each.get("type")) for each in [schema, *schema.get("anyOf", ())])


def fields(kind: str) -> Iterator[Any]:
    """(model, name, whether it is in a list) of every field of a body that OpenAPI calls a number of this kind."""
    for model in BODIES:
        for name, schema in model.model_json_schema()["properties"].items():
            lists = [each["items"] for each in [schema, *schema.get("anyOf", ())] if "items" in each]
            if kind in shapes(schema) or any(kind in shapes(each) for each in lists):
                yield pytest.param(model, name, bool(lists), id=f"{model.__name__}.{name}")


def value_of(model: type[BaseModel], name: str, value: Any, *, listed: bool) -> Any:
    """The value as the field has it; the other fields are not looked at."""
    adapter = TypeAdapter(model)
    try:
        made = adapter.validate_python({name: [value, value] if listed else value})
    except ValidationError as error:
        if mine := [each["msg"] for each in error.errors() if each["loc"][0] == name]:
            raise ValueError("; ".join(mine)) from None
        return None
    return getattr(made, name)


def test_the_bodies_have_numbers() -> None:
    assert len(list(fields("integer"))) > 15 and len(list(fields("number"))) > 15


@pytest.mark.parametrize(("model", "name", "listed"), list(fields("integer")))
def test_whole_floats_are_whole_numbers(model: type[BaseModel], name: str, listed: bool) -> None:
    made = value_of(model, name, 30.0, listed=listed)
    for each in made if listed and made is not None else [made]:
        assert each is None or (each == 30 and type(each) is int)
    for wrong in (30.5, True, False):
        with pytest.raises(ValueError, match=f"must be a whole number, got {wrong}"):
            value_of(model, name, wrong, listed=listed)


@pytest.mark.parametrize(("model", "name", "listed"), list(fields("number")))
def test_true_is_no_share(model: type[BaseModel], name: str, listed: bool) -> None:
    with pytest.raises(ValueError, match=r"(must be|should be) a (valid )?number"):
        value_of(model, name, True, listed=listed)


def test_over_http() -> None:
    with sidecar() as client:
        body = {"query": QUERY, "documents": [BRIDGE]}
        expected = client.post("/v1/compress", json=body | {"budget": 30, "gap": [1, 9]}).json()
        for text in ("30.0", "3e1"):
            sent = f'{{"query": "{QUERY}", "documents": ["{BRIDGE}"], "budget": {text}, "gap": [1.0, 9.0]}}'
            answer = client.post("/v1/compress", content=sent, headers={"content-type": "application/json"}).json()
            assert (answer["budget"], answer["text"]) == (30, expected["text"])
        for budget, message in ((30.5, "got 30.5"), (True, "got True"), (1e300, "less than or equal to 100000000")):
            refused = client.post("/v1/compress", json=body | {"budget": budget})
            assert refused.status_code == 422 and refused.json()["error"].startswith("budget: ")
            assert message in refused.json()["error"]


def test_settings_and_configurations() -> None:
    for settings in ({"max_requests": True}, {"deadline_seconds": False}):
        with pytest.raises(ValidationError, match=f"{next(iter(settings))} must be a number, got"):
            Settings(**settings)
    for row in ({"k": True}, {"documents": [4, True]}, {"needles": [False]}):
        with pytest.raises(ValidationError, match=f"{next(iter(row))} must be a number, got"):
            DataConfig(path="x.jsonl", retriever="bm25", **({"k": 3} | row))
    assert DataConfig(path="x.jsonl", answerable=True).answerable is True


def test_a_field_that_may_be_true_takes_it() -> None:
    assert refuse_truth("a", True, bool | int) is True
    assert refuse_truth("a", [1, 2.0], tuple[int, ...]) == [1, 2.0]
    assert refuse_truth("a", True, str) is True  # what is no text is pydantic's to say
    with pytest.raises(InputError, match="a must be a number, got True"):
        refuse_truth("a", (1, True), tuple[int, ...] | None)


def test_a_count() -> None:
    assert checked_whole("workers", 3.0, least=1) == 3
    for wrong in (0, True, 2.5, "2", None, float("nan")):
        with pytest.raises(InputError, match="workers must be a whole number from 1 up, got"):
            checked_whole("workers", wrong, least=1)
