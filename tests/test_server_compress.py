"""The compression routes: what the library would say, the shape that OpenAPI promises, and clear refusals."""

import json
import math

import pytest
from fixtures_server import BRIDGE, DOCUMENTS, FERRY, QUERY, sidecar

from ctxprune import Context, Document, Pipeline, Policy, load
from ctxprune.integrations.server.schemas import BatchResponse, CompressResponse, EstimateResponse

BODY = {"query": QUERY, "documents": DOCUMENTS}
LIBRARY = [Document(BRIDGE, id="b7", title="Harrow Bridge"), Document(FERRY)]


@pytest.fixture(scope="module")
def client():
    with sidecar(max_documents=50, max_batch=3, max_body_bytes=200_000, max_queue_tokens=20_000) as client:
        yield client


def library(compressor, *, policy=None, **limits):
    (result,) = Pipeline([load(compressor, policy=policy)]).run([Context.of(QUERY, LIBRARY)], **limits)
    return result.to_dict()


def compressed(client, **fields):
    response = client.post("/v1/compress", json=BODY | fields)
    assert response.status_code == 200, response.text
    CompressResponse.model_validate(response.json())
    return response.json()


def refusal(client, content, path="/v1/compress"):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    row = response.json()
    assert row.keys() == {"error", "error_type"}
    return response.status_code, row["error"]


@pytest.mark.parametrize(
    ("compressor", "limits"),
    [
        ("provence", {}),
        ("provence", {"threshold": 0.3}),
        ("provence", {"budget": 12}),
        ("dslr", {"threshold": 0.5}),
        ("bm25-sentences", {"budget": 15}),
        ("rerank-truncate", {"budget": 15}),
        ("lead", {"budget": 9}),
        ("provence", {"operating_point": "safe"}),
        ("provence", {"operating_point": "aggressive", "budget": 40}),
    ],
)
def test_results_are_the_librarys(client, compressor, limits):
    row, expected = compressed(client, compressor=compressor, **limits), library(compressor, **limits)
    assert row.pop("seconds").keys() == {"queue", *expected.pop("seconds")}
    for document in row["documents"]:
        spans = document["kept_spans"] + document["removed_spans"]
        assert document.pop("sentences") == len(spans)
    assert row == expected


def test_policy_options_reach_the_choice(client):
    policy = Policy(keep_title=False, min_keep=2, order="rank", protect=("crew",), on_empty="keep_top1")
    options = {"keep_title": False, "min_keep": 2, "order": "rank", "protect": ["crew"], "on_empty": "keep_top1"}
    assert (
        compressed(client, threshold=0.9, **options)["text"]
        == library("provence", threshold=0.9, policy=policy)["text"]
    )


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({"budget": 60, "floor": 0.5}, {"floor": 0.5}),
        ({"budget": 60, "floor": 0}, {"floor": 0.0}),
        ({"top_p": 0.3}, {"top_p": 0.3}),
        ({"gap": [1, 3]}, {"gap": (1, 3)}),
        ({"threshold": 0.3, "companions": False}, {"companions": False}),
    ],
)
def test_the_rules_of_the_choice_are_the_librarys(client, options, policy):
    limits = {name: value for name, value in options.items() if name in ("budget", "threshold")}
    assert compressed(client, **options)["text"] == library("provence", policy=Policy(**policy), **limits)["text"]


def test_rate_is_a_share_of_the_tokens(client):
    before = compressed(client)["tokens_before"]
    row = compressed(client, rate=0.5)
    assert row["budget"] == math.floor(0.5 * before)
    assert row["tokens_after"] <= row["budget"]
    assert compressed(client, rate=0.0001)["budget"] == 1


def test_offsets_slice_the_source_and_metadata_comes_back(client):
    documents = [{"text": "🐦 Näh! " + BRIDGE, "metadata": {"page": 3, "tags": ["x", None]}}, FERRY]
    first, second = compressed(client, documents=documents)["documents"]
    assert first["metadata"] == documents[0]["metadata"]
    assert "metadata" not in second
    kept = [documents[0]["text"][span["start"] : span["end"]] for span in first["kept_spans"]]
    assert "It was opened in 1911." in kept


def test_spans_can_be_left_out_and_html_added(client):
    row = compressed(client, return_spans=False, return_html=True, query=f"{QUERY} <script>")
    assert "kept_spans" not in row["documents"][0] and row["documents"][0]["sentences"] == 3
    assert "<script>" not in row["html"] and "1911" in row["html"]


def test_batch_is_each_alone(client):
    requests = [BODY, BODY | {"threshold": 0.5}, BODY | {"compressor": "lead", "budget": 5}]
    response = client.post("/v1/compress/batch", json={"requests": requests})
    BatchResponse.model_validate(response.json())
    texts = [row["text"] for row in response.json()["results"]]
    assert texts == [client.post("/v1/compress", json=request).json()["text"] for request in requests]
    status, message = refusal(
        client, {"requests": [BODY, BODY | {"compressor": "x", "query": ""}]}, "/v1/compress/batch"
    )
    assert status == 422 and "compressor must be one of" in message
    assert refusal(client, {"requests": [BODY] * 4}, "/v1/compress/batch")[0] == 413


def test_estimate_counts_without_reading(client):
    body = {"query": "What is unread?", "documents": ["Nobody has read this one yet."], "rate": 0.5}
    row = client.post("/v1/estimate", json=body).json()
    EstimateResponse.model_validate(row)
    assert (row["cached_documents"], row["budget"]) == (0, math.floor(row["tokens_before"] * 0.5))
    client.post("/v1/compress", json=body)
    assert client.post("/v1/estimate", json=body).json()["cached_documents"] == 1


def test_listings_name_what_is_offered(client):
    offers = {row["name"]: row for row in client.get("/v1/compressors").json()["compressors"]}
    assert offers["provence"]["default"] and 0 < offers["provence"]["threshold"] < 0.1
    assert offers["lead"]["threshold"] is None and not offers["lead"]["needs_query"] and offers["lead"]["loaded"]
    info = client.get("/info").json()
    assert info["model"] == "provence-mini" and info["limits"]["documents"] == 50 and not info["proxy"]


def test_a_listing_loads_no_model():
    with sidecar() as client:
        catalog = client.service.engine.runner.catalog
        held = set(catalog._templates)
        rows = {row["name"]: row for row in client.get("/v1/compressors").json()["compressors"]}
        unread = {name for name, row in rows.items() if not row["loaded"]}
        assert unread == {"llmlingua2", "recomp-extractive", "embedding-sentences"}
        assert all(rows[name]["threshold"] is rows[name]["needs_query"] is None for name in unread)
        assert not unread & set(catalog._templates) and held <= set(catalog._templates)
        body = {"query": "Who rows?", "documents": ["Ada rows at dawn."], "compressor": "llmlingua2"}
        assert client.post("/v1/compress", json=body).status_code == 200
        (row,) = (row for row in client.get("/v1/compressors").json()["compressors"] if row["name"] == "llmlingua2")
        assert row["loaded"] and row["needs_query"] is False and row["threshold"]


def test_a_loaded_compressor_does_not_wait_for_a_model_that_is_loading(client, monkeypatch):
    class Taken:
        def __enter__(self):
            raise AssertionError("it would wait")

    catalog = client.service.engine.runner.catalog
    monkeypatch.setattr(catalog, "_lock", Taken())  # as while a model is read
    assert catalog.template("provence").name == "provence"


@pytest.mark.parametrize(
    ("content", "status", "part"),
    [
        (b"{", 400, "not JSON"),
        (b"", 400, "empty"),
        (b"\xff\xfe", 400, "not"),
        (b"[" * 100_000, 400, "nested"),
        (b'{"query":"a","documents":["b"],"threshold":NaN}', 400, "NaN"),
        (b'{"query":"a","documents":["b"],"budget":' + b"9" * 5000 + b"}", 400, "JSON"),
        (b'{"query":"a","documents":["b"],"threshold":1e999}', 400, "1e999"),
        (b'{"query":"a","documents":["b"],"rate":0.5,"rate":0.9}', 400, "the field 'rate' stands twice"),
        (b'{"query":"a","documents":[{"text":"b","id":"c","id":"d"}]}', 400, "the field 'id' stands twice"),
        ([], 422, "dictionary"),
        ({"query": QUERY}, 422, "documents: Field required"),
        (BODY | {"query": None}, 422, "query"),
        (BODY | {"query": " "}, 422, "query is empty"),
        (BODY | {"documents": "text"}, 422, "documents"),
        (BODY | {"documents": [None]}, 422, "documents[0]"),
        (BODY | {"documents": [{"text": "x", "body": "y"}]}, 422, "documents[0].body"),
        (BODY | {"unknown": 1}, 422, "unknown"),
        (BODY | {"": 1}, 422, '"": Extra inputs'),
        (BODY | {"compressor": ""}, 422, "compressor: String should have at least 1 character"),
        (BODY | {"tokenizer": ""}, 422, "tokenizer: String should have at least 1 character"),
        (BODY | {"budget": 5, "rate": 0.5}, 422, "budget or rate"),
        (BODY | {"budget": 0}, 422, "budget"),
        (BODY | {"budget": True}, 422, "budget"),
        (BODY | {"budget": "5"}, 422, "budget"),
        (BODY | {"rate": 1.5}, 422, "rate"),
        (BODY | {"threshold": -0.1}, 422, "threshold"),
        (BODY | {"compressor": "/etc/passwd"}, 422, "compressor must be one of"),
        (BODY | {"compressor": "lead"}, 422, "budget"),
        (BODY | {"compressor": "lead", "threshold": 0.5}, 422, "instead of threshold"),
        (BODY | {"tokenizer": "/etc/passwd"}, 422, "tokenizer must be one of"),
        (BODY | {"protect": ["("]}, 422, "bad regular expression"),
        (BODY | {"protect": [r"(\w)\1"]}, 422, "does not take a reference back"),
        (BODY | {"protect": ["(?<=x)y"]}, 422, "does not take (?<=...), looking behind"),
        (BODY | {"protect": ["(?:a{50}){500}"]}, 422, "bad regular expression"),
        (BODY | {"order": "best"}, 422, "order"),
        (BODY | {"operating_point": ""}, 422, "'safe', 'balanced' or 'aggressive'"),
        (BODY | {"operating_point": "bold"}, 422, "'safe', 'balanced' or 'aggressive'"),
        (BODY | {"operating_point": "safe", "threshold": 0.1}, 422, "threshold or operating_point"),
        (BODY | {"compressor": "lead", "operating_point": "safe"}, 422, "lead has no operating points"),
        (BODY | {"compressor": "lead", "budget": 5, "companions": True}, 422, "lead does not choose sentences"),
        (BODY | {"compressor": "lead", "budget": 5, "floor": 0.1}, 422, "scores are not probabilities, so floor=0.1"),
        (BODY | {"floor": 2}, 422, "floor"),
        (BODY | {"top_p": 0}, 422, "top_p"),
        (BODY | {"gap": [3, 1]}, 422, "1 <= least <= most"),
        (BODY | {"gap": [1]}, 422, "gap"),
        (BODY | {"documents": ["x"] * 51}, 413, "at most 50"),
        (BODY | {"documents": ["x" * 100_000]}, 413, "about"),
        (BODY | {"documents": ["x" * 300_000]}, 413, "larger than 200000 bytes"),
    ],
)
def test_bad_input_is_named(client, content, status, part):
    got, message = refusal(client, content)
    assert (got, part in message) == (status, True), message
    assert "Traceback" not in message and "site-packages" not in message


def test_other_content_types_are_refused(client):
    response = client.post("/v1/compress", content=b"{}", headers={"content-type": "text/plain"})
    assert response.status_code == 415


def test_patterns_that_look_costly_but_are_not(client):
    assert (
        "crew"
        in compressed(
            client, protect=[r"\(?[a-z]+\)? is friendly", r"[*+)]+", r"\d{2,4}", r"(?:crew|cabin)s?", r"\w+@\w+"]
        )["text"]
    )


def test_empty_documents_pass_through(client):
    row = compressed(client, documents=[])
    assert (row["status"], row["documents"], row["text"]) == ("passthrough", [], "")
    (document,) = compressed(client, documents=[""])["documents"]
    assert (document["text"], document["sentences"], document["score"]) == ("", 0, None)


def test_openapi_covers_every_route_with_examples(client):
    document = client.get("/openapi.json").json()
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    assert {"/v1/compress", "/v1/rerank", "/v2/rerank", "/rerank", "/v1/chat/completions"} <= posts.keys()
    for path, post in posts.items():
        content = post["requestBody"]["content"]["application/json"]
        reference = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
        schema = document["components"]["schemas"].get(reference, {})
        assert content.get("example") or schema.get("examples"), path
        assert {"401", "413", "422"} <= post["responses"].keys(), path
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= document["components"]["schemas"].keys()


def test_numbers_as_ids_and_nulls_for_what_may_be_left_out(client):
    names = {7: "7", 2**70: str(2**70), -1.5: "-1.5", "x": "x", None: ""}
    documents = [{"text": BRIDGE, "id": name, "title": None, "metadata": None} for name in names]
    nulls = dict.fromkeys(("compressor", "threshold", "rate", "budget", "tokenizer", "protect", "keep_title"))
    more = dict.fromkeys(("min_keep", "on_empty", "order", "return_spans", "return_html"))
    row = client.post("/v1/compress", json={"query": QUERY, "documents": documents, **nulls, **more}).json()
    assert [document["id"] for document in row["documents"]] == list(names.values())
    assert "kept_spans" in row["documents"][0] and "html" not in row
    assert (
        client.post("/v1/compress", json={"query": QUERY, "documents": [{"text": BRIDGE, "id": True}]}).status_code
        == 422
    )


HALF = "gra\ud83dnite"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/compress", {"query": QUERY, "documents": [f"The {HALF} came by barge."], "return_html": True}),
        ("/v1/compress", {"query": f"Which {HALF}?", "documents": [{"text": "Stone.", "id": HALF, "title": HALF}]}),
        ("/v1/compress", {"query": QUERY, "documents": [f"Of {HALF}. Of slate."], "protect": [HALF]}),
        ("/v1/compress/batch", {"requests": [{"query": HALF, "documents": [HALF]}]}),
        ("/v1/estimate", {"query": HALF, "documents": [HALF]}),
        ("/v1/rerank", {"query": HALF, "documents": [HALF, {"text": HALF}]}),
        ("/v2/rerank", {"query": HALF, "documents": [HALF], "return_documents": True}),
        ("/rerank", {"query": HALF, "texts": [HALF], "return_text": True}),
        ("/v1/highlight", {"query": HALF, "documents": [HALF, {"text": HALF, "id": HALF}]}),
        ("/api/compress/question-specific/", {"query": HALF, "context": HALF}),
    ],
)
def test_halves_of_surrogate_pairs_are_text_like_any_other(client, path, body):
    response = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text
    assert path == "/v1/estimate" or HALF in json.dumps(response.json(), ensure_ascii=False)


def test_metadata_come_back_as_any_json(client):
    metadata = {HALF: [HALF, None, {"deep": [2**70, 1.5, True]}]}
    content = json.dumps({"query": QUERY, "documents": [{"text": BRIDGE, "metadata": metadata}]})
    response = client.post("/v1/compress", content=content, headers={"content-type": "application/json"})
    assert response.json()["documents"][0]["metadata"] == metadata


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": 5}, "query: Input should be a valid string"),
        ({"query": "x" * 20_001}, "query: String should have at most 20000 characters"),
        ({"documents": [{"text": None}]}, "documents[0].text: Input should be a valid string"),
        ({"documents": [{"text": "a", "id": True}]}, "documents[0].id: Input should be a valid string or a number"),
        ({"documents": [{"text": "a", "metadata": [1]}]}, "documents[0].metadata: Input should be an object"),
    ],
)
def test_what_is_no_text_is_told(client, fields, said):
    assert refusal(client, BODY | fields) == (422, said)
