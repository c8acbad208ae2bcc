"""The rerank dialects: raw JSON as the vendors document it, and Cohere's own client."""

import math

import pytest
from fixtures_server import BRIDGE, FERRY, PATIENT, QUERY, running, sidecar, until

from ctxprune import Context, load
from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.rerank import CohereResponse, JinaResponse, TeiRank

TEXTS = [FERRY, BRIDGE, ""]


@pytest.fixture(scope="module")
def client():
    with sidecar(max_documents=5) as client:
        yield client


@pytest.fixture(scope="module")
def relevance():
    (context,) = load("provence").score([Context.of(QUERY, TEXTS[:2])])
    return [extract.score for extract in context.extracts]


def test_jina(client, relevance):
    body = {"model": "jina-reranker-v2", "query": QUERY, "documents": [FERRY, {"text": BRIDGE}, ""], "top_n": 2}
    row = client.post("/v1/rerank", json=body).json()
    JinaResponse.model_validate(row)
    assert [(result["index"], result["document"]) for result in row["results"]] == [
        (1, {"text": BRIDGE}),
        (0, {"text": FERRY}),
    ]
    assert [result["relevance_score"] for result in row["results"]] == [relevance[1], relevance[0]]
    assert row["usage"]["total_tokens"] > 0
    without = client.post("/v1/rerank", json=body | {"return_documents": False}).json()
    assert all("document" not in result and "pruned_text" not in result for result in without["results"])


def test_cohere(client, relevance):
    row = client.post("/v2/rerank", json={"model": "any", "query": QUERY, "documents": TEXTS}).json()
    CohereResponse.model_validate(row)
    assert [result["index"] for result in row["results"]] == [1, 0, 2]
    assert row["results"][0] == {"index": 1, "relevance_score": relevance[1]}
    assert row["results"][2]["relevance_score"] == 0.0
    counted = client.post("/v1/rerank", json={"query": QUERY, "documents": TEXTS}).json()["usage"]["total_tokens"]
    assert row["meta"]["tokens"] == {"input_tokens": counted} and counted > 0


def test_tei(client, relevance):
    body = {"query": QUERY, "texts": TEXTS[:2], "truncate": True}
    rows = client.post("/rerank", json=body).json()
    assert rows == [{"index": 1, "score": relevance[1]}, {"index": 0, "score": relevance[0]}]
    raw = client.post("/rerank", json=body | {"raw_scores": True, "return_text": True}).json()
    assert [TeiRank.model_validate(row).text for row in raw] == [BRIDGE, FERRY]
    assert raw[0]["score"] == pytest.approx(math.log(relevance[1] / (1 - relevance[1])))


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/rerank", "documents"), ("/v2/rerank", "documents"), ("/rerank", "texts")]
)
def test_pruned_text_on_request(client, path, field):
    row = client.post(path, json={"query": QUERY, field: [FERRY, BRIDGE], "pruned_text": True}).json()
    best, other = row if isinstance(row, list) else row["results"]
    assert "It was opened in 1911." in best["pruned_text"] and "Parking" not in best["pruned_text"]
    assert other["pruned_text"] == ""


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/rerank", {"query": QUERY}, 422),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, 422),
        ("/v1/rerank", {"query": QUERY, "documents": ["a"], "top_n": 0}, 422),
        ("/v2/rerank", {"query": QUERY, "documents": [1]}, 422),
        ("/v2/rerank", {"query": QUERY, "documents": ["a"] * 6}, 413),
        ("/rerank", {"query": QUERY, "texts": [None]}, 422),
    ],
)
def test_bad_input(client, path, body, status):
    response = client.post(path, json=body)
    assert response.status_code == status
    assert response.json()["error_type"] == "Validation"


def test_of_two_fields_of_one_name_none_is_taken_in_silence(client):
    body = b'{"query": "a", "documents": ["b", "c"], "top_n": 1, "top_n": 2}'
    response = client.post("/v1/rerank", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and "'top_n' stands twice" in response.json()["error"]


def test_no_documents_rank_to_nothing(client):
    assert client.post("/v2/rerank", json={"query": QUERY, "documents": []}).json()["results"] == []


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
@pytest.mark.parametrize("limit", [{"top_n": 1}, {"top_k": 1}, {"top_n": 1.0}, {"top_k": 1, "top_n": 1}])
def test_every_dialect_takes_a_number_under_both_names(client, path, limit):
    for field in ("documents", "texts") if path == "/rerank" else ("documents",):
        answer = client.post(path, json={"query": QUERY, field: [FERRY, BRIDGE], **limit})
        rows = answer.json() if isinstance(answer.json(), list) else answer.json()["results"]
        assert [row["index"] for row in rows] == [1]
        assert "x-ctxprune-ignored" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_two_numbers_that_differ_and_numbers_that_are_none(client, path):
    field = "texts" if path == "/rerank" else "documents"
    for limit, message in (
        ({"top_n": 1, "top_k": 2}, "give top_n or top_k, not both: got 1 and 2"),
        ({"top_k": True}, "top_k: must be a whole number, got True"),
        ({"top_k": 1.5}, "top_k: must be a whole number, got 1.5"),
        ({"top_k": "3"}, "top_k: "),
        ({"top_k": -1}, "top_k: "),
    ):
        answer = client.post(path, json={"query": QUERY, field: [FERRY], **limit})
        assert answer.status_code == 422 and message in answer.json()["error"]


def test_what_nobody_reads_is_named(client):
    extra = {"rank_fields": ["text"], "truncation": True, "nothing": None, "odd name\n": 1}
    jina, cohere, tei, highlight = (
        client.post(path, json={"query": QUERY, field: [FERRY, BRIDGE], **extra})
        for path, field in (
            ("/v1/rerank", "documents"),
            ("/v2/rerank", "documents"),
            ("/rerank", "texts"),
            ("/v1/highlight", "documents"),
        )
    )
    for answer in (jina, cohere, tei, highlight):
        assert (answer.status_code, answer.headers["x-ctxprune-ignored"]) == (200, "rank_fields, truncation, ?")
    told = ["ignored, as this server has no such parameter: rank_fields, truncation, ?"]
    assert jina.json()["warnings"] == cohere.json()["meta"]["warnings"] == told
    many = client.post("/v1/rerank", json={"query": QUERY, "documents": [FERRY], **{f"f{n}": n for n in range(11)}})
    assert many.headers["x-ctxprune-ignored"].endswith("f7, and 3 more")
    plain = client.post("/v1/rerank", json={"query": QUERY, "documents": [FERRY], "model": "m"})
    assert "x-ctxprune-ignored" not in plain.headers and "warnings" not in plain.json()


def test_with_coheres_client(relevance):
    cohere, httpx = pytest.importorskip("cohere"), pytest.importorskip("httpx")
    app = create_app(Settings(**PATIENT, api_keys=["key"], compressors=("lead",), default_compressor="lead"))
    with running(app) as url, httpx.Client(timeout=60) as http:
        until(lambda: app.state.service.ready)
        real = cohere.ClientV2(api_key="key", base_url=url, httpx_client=http)
        answer = real.rerank(model="any", query=QUERY, documents=TEXTS, top_n=1)
    assert [(result.index, result.relevance_score) for result in answer.results] == [(1, relevance[1])]


def test_null_is_the_default_and_rerank_takes_documents_too(client):
    plain = {"query": QUERY, "documents": [FERRY, BRIDGE]}
    expected = client.post("/v1/rerank", json=plain).json()["results"]
    nulls = plain | {"return_documents": None, "pruned_text": None, "top_n": None, "model": None}
    assert client.post("/v1/rerank", json=nulls).json()["results"] == expected
    assert "document" not in client.post("/v2/rerank", json=nulls).json()["results"][0]
    assert client.post("/rerank", json=plain | {"top_n": 1}).json()["results"] == expected[:1]
    tei = {"query": QUERY, "texts": [FERRY, BRIDGE], "raw_scores": None, "return_text": None, "truncate": None}
    assert [row["index"] for row in client.post("/rerank", json=tei).json()] == [1, 0]
    neither = client.post("/rerank", json={"query": QUERY})
    assert (neither.status_code, neither.json()["error"]) == (422, "texts: Field required")
    wrong = client.post("/rerank", json=plain | {"top_n": 0})
    assert wrong.status_code == 422 and wrong.json()["error"].startswith("top_n: ")
