"""The sidecar reads each language with the model that the library reads it with, on every route."""

import json

import pytest
from fixtures_server import Upstream, running, sidecar

from ctxprune import Context, Pipeline, load
from ctxprune.compressors.provence.compressor import BUNDLED, MULTILINGUAL

CASES = [
    (
        "Who keeps the bees?",
        "The orchard lies in the south. Ilse keeps the bees. The gate is green. Snow fell in March. Trains are late.",
        BUNDLED,
    ),
    (
        "Кто держит пчёл?",
        "Сад лежит на юге. Пчёл держит Ильза. Ворота зелёные. В марте шёл снег. Поезда опаздывают. Хлеб продают тут.",
        MULTILINGUAL,
    ),
    (
        "Ποιος έχει μέλισσες;",
        "Ο κήπος είναι στο νότο. Η Ίλζε έχει μέλισσες. Η πύλη είναι πράσινη. "
        "Το χιόνι έπεσε τον Μάρτιο. Τα τρένα αργούν. Το ψωμί πωλείται το Σάββατο.",
        MULTILINGUAL,
    ),
    (
        "谁养蜜蜂？",
        "果园在南边的山坡上。伊尔莎在果园里养蜜蜂。大门去年漆成了绿色。三月下了一场大雪。去城里的火车晚点了两个小时。面包店星期六卖黑麦面包。",
        MULTILINGUAL,
    ),
]


@pytest.fixture(scope="module")
def upstream():
    with running(app := Upstream()) as url:
        app.url = url
        yield app


@pytest.fixture(scope="module")
def client(upstream):
    with sidecar(upstream_url=f"{upstream.url}/v1") as client:
        yield client


def test_the_second_model_waits_until_it_is_needed():
    with sidecar(compressors=("provence", "lead")) as client:
        other = client.service.engine.runner.other
        client.post("/v1/compress", json={"query": CASES[0][0], "documents": [CASES[0][1]]})
        assert other.loaded is None
        client.post("/v1/compress", json={"query": CASES[1][0], "documents": [CASES[1][1]]})
        assert other.loaded is not None


@pytest.mark.parametrize(("query", "text", "model"), CASES)
def test_each_language_is_read_as_the_library_reads_it(client, query, text, model):
    body = {"query": query, "documents": [text]}
    row = client.post("/v1/compress", json=body).json()
    [result] = Pipeline([load("provence")]).run([Context.of(query, [text])])
    assert (row["model"], row["documents"][0]["text"]) == (model, result.to_dict()["documents"][0]["text"])
    assert client.post("/v1/estimate", json=body).json()["cached_documents"] == 1
    ranked = client.post("/v1/rerank", json=body | {"documents": [text, "Nothing."]}).json()
    assert ranked["model"] == model
    truncated = client.post("/v1/compress", json=body | {"compressor": "rerank-truncate", "budget": 50}).json()
    [library] = Pipeline([load("rerank-truncate")]).run([Context.of(query, [text])], budget=50)
    assert [each["score"] for each in truncated["documents"]] == [
        pytest.approx(each["score"]) for each in library.to_dict()["documents"]
    ]


@pytest.mark.parametrize(("query", "text", "model"), CASES)
def test_chats_are_pruned_by_the_model_of_their_language(client, upstream, query, text, model):
    upstream.reset()
    messages = [{"role": "user", "name": "context", "content": text}, {"role": "user", "content": query}]
    client.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    [result] = Pipeline([load("provence")]).run([Context.of(query, [text])])
    sent = json.loads(upstream.seen[-1][2])["messages"][0]["content"]
    assert sent == result.to_dict()["documents"][0]["text"] != text


GERMAN = (
    "Wer hütet die Bienen?",
    "Der Obstgarten liegt im Süden. Ilse hütet die Bienen. Das Tor ist grün. Im März fiel Schnee. Züge sind verspätet.",
    MULTILINGUAL,
)


@pytest.mark.parametrize(("query", "text", "model"), [*CASES, GERMAN])
def test_highlights_and_conversations_are_of_the_model_of_their_language(client, query, text, model):
    """Both in one process: what the one model said of a language must not answer for the other."""
    pipeline = Pipeline([load("provence")])
    [result] = pipeline.run([Context.of(query, [text])])
    assert (result.model or BUNDLED) == model
    [extract] = result.after.extracts
    (row,) = client.post("/v1/highlight", json={"query": query, "documents": [text]}).json()["results"]
    kept = [extract.source.text[span.start : span.end].strip() for span in extract.kept_units()]
    assert row["fragments"] == [f"<em>{sentence}</em>" for sentence in kept] and kept
    assert row["scores"] == [pytest.approx(span.score) for span in extract.kept_units()]
    rows = [{"role": "user", "content": f"<context>{text}</context>\n{query}"}]
    body = {"input_type": "request", "structured_messages": rows}
    answer = client.post("/beta/litellm_basic_guardrail_api", json=body).json()
    (sent,) = answer.get("structured_messages", rows)  # as it came where nothing was left out
    assert sent["content"] == f"<context>{extract.text}</context>\n{query}"


@pytest.mark.parametrize(
    ("language", "query", "text", "sentences"),
    [
        ("de", "Wann kommt der Zug?", "Am 3. Mai kommt der Zug um 9.15 Uhr, d. h. pünktlich. Das Dach ist rot.", 2),
        ("zh", "谁养蜜蜂？", "果园在南边。伊尔莎养蜜蜂。大门是绿色的。", 3),
    ],
)
def test_highlights_are_sentences_of_the_language(client, language, query, text, sentences):
    body = {"query": query, "documents": [text], "threshold": 0.0, "language": language}
    named = client.post("/v1/highlight", json=body).json()["results"][0]
    guessed = client.post("/v1/highlight", json={**body, "language": None}).json()["results"][0]
    assert len(named["fragments"]) == sentences and named == guessed
    assert "".join(text[start:end] for start, end in named["offsets"]).replace(" ", "") == text.replace(" ", "")


def test_one_model_reads_everything_where_the_operator_says_so():
    query, text, _ = CASES[1]
    with sidecar(other_languages=None) as client:
        row = client.post("/v1/compress", json={"query": query, "documents": [text]}).json()
        assert row.get("model") is None and row["status"] != "degraded"
        assert client.service.engine.runner.other.loaded is None


def test_a_second_model_that_cannot_be_loaded_is_no_fault_of_the_caller(tmp_path):
    query, text, _ = CASES[2]
    with sidecar(other_languages=str(tmp_path / "orchard")) as client:
        answer = client.post("/v1/compress", json={"query": query, "documents": [text]})
        assert answer.status_code == 200 and answer.json()["status"] == "degraded"
        assert "orchard" not in answer.text
        english = client.post("/v1/compress", json={"query": CASES[0][0], "documents": [CASES[0][1]]}).json()
        assert english["model"] == BUNDLED and english["status"] != "degraded"
