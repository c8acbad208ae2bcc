"""The gateways' dialects over a real sidecar, with requests in the shapes that LiteLLM 1.110 sends."""

import copy
import json
import re

import pytest
from fixtures_server import PATIENT, MemoryLog, sidecar, until
from starlette.testclient import TestClient

from ctxprune.integrations.server import Settings, create_app

KILN = "The kiln in Oberau is fired at dawn on the first Monday of each month. "
FILLER = " ".join(
    f"Stall {number} at the market sells ribbons, buttons and thread, and its owner likes to talk about the weather."
    for number in range(9)
)
RESULT = FILLER + " " + KILN + FILLER
QUESTION = "When is the kiln in Oberau fired?"
CALL = {"id": "call_9f", "type": "function", "function": {"name": "lookup", "arguments": '{"about": "kiln Oberau"}'}}
AGENT = [
    {"role": "system", "content": "Answer from what the tools say."},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_9f", "content": RESULT},
]
KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}
PRICES = {
    "gold": {
        "max_input_tokens": 100_000,
        "input_cost_per_token": 1e-5,
        "cache_read_input_token_cost": 1e-6,
        "output_cost_per_token": 2e-5,
    }
}


@pytest.fixture(scope="module")
def client():
    keys = list(KEYS.values())
    options = {"shady": {"mode": "shadow"}, "watched": {"mode": "audit"}, "never": {"mode": "off"}}
    with sidecar(api_keys=keys, gateway_models=PRICES, gateway_keys=options) as client:
        yield client


def post(client, path, body, *, who="ann", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, json=body, headers={"x-api-key": KEYS[who]} | names)


def guardrail(client, messages, *, who="ann", asker=None, texts=None, headers=None, input_type="request", **options):
    body = {
        "input_type": input_type,
        "litellm_call_id": "call-1",
        "litellm_trace_id": None,
        "structured_messages": messages,
        "images": None,
        "tools": None,
        "texts": [m["content"] for m in messages or [] if isinstance(m["content"], str)] if texts is None else texts,
        "request_data": {"user_api_key_hash": "5f" * 32, "user_api_key_alias": asker} if asker else {},
        "request_headers": headers,
        "litellm_version": "1.110.2",
        "additional_provider_specific_params": options,
        "tool_calls": [CALL],
        "model": "gold",
    }
    return post(client, "/beta/litellm_basic_guardrail_api", body, who=who)


def test_the_generic_guardrail_prunes_tool_results_and_nothing_else(client):
    response = guardrail(client, AGENT)
    body = response.json()
    assert body["action"] == "GUARDRAIL_INTERVENED" and response.headers["x-ctxprune-status"] == "compressed"
    rows = body["structured_messages"]
    assert rows[:3] == AGENT[:3] and {**rows[3], "content": ""} == {**AGENT[3], "content": ""}
    assert KILN.strip() in rows[3]["content"] and len(rows[3]["content"]) < len(RESULT) / 2
    assert body["texts"] == [AGENT[0]["content"], QUESTION, rows[3]["content"]]


def test_a_pruned_row_keeps_its_bytes_at_later_turns_for_another_question(client):
    sent = guardrail(client, AGENT).json()["structured_messages"]
    call = {**CALL, "id": "call_a0"}
    messages = [
        *AGENT,
        {"role": "assistant", "content": "At dawn."},
        {"role": "user", "content": [{"type": "text", "text": "What do stalls sell?", "cache_control": {"type": "x"}}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_a0", "content": RESULT},
    ]
    rows = guardrail(client, messages).json()["structured_messages"]
    assert rows[:4] == sent and rows[4:7] == messages[4:7]
    assert "ribbons" in rows[7]["content"] and rows[7]["content"] != rows[3]["content"]


def test_rows_that_the_provider_may_have_cached_whole_stay_whole(client):
    marked = [*AGENT[:3], {**AGENT[3], "content": [{"type": "text", "text": RESULT, "cache_control": {"type": "x"}}]}]
    assert guardrail(client, marked, who="bob").json() == {"action": "NONE"}


def test_unknown_roles_parts_and_images_pass(client):
    odd = [
        {"role": "narrator", "content": RESULT},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "hologram"}, 7]},
        {"role": "tool", "tool_call_id": 3, "content": {"deep": [[[]]]}},
        {"role": "user", "content": QUESTION},
    ]
    assert guardrail(client, odd, texts=[]).json() == {"action": "NONE"}
    assert guardrail(client, [], texts=[]).json() == {"action": "NONE"}
    assert guardrail(client, None, texts=[None, "plain"]).json() == {"action": "NONE"}


def test_texts_without_a_conversation_are_read_for_marks(client):
    text = f"<context>{RESULT}</context>\n{QUESTION}"
    answer = guardrail(client, None, texts=[text]).json()
    assert answer["action"] == "GUARDRAIL_INTERVENED" and "structured_messages" not in answer
    assert KILN.strip() in answer["texts"][0] and answer["texts"][0].endswith(QUESTION)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"headers": {"x-ctxprune-bypass": "[present]"}}, "bypassed"),
        ({"asker": "never"}, "off"),
        ({"asker": "watched"}, "audit"),
        ({"mode": "off"}, "off"),
        ({"min_tokens": 10_000}, "nothing_to_remove"),
        ({"window_share": 0.5}, "small_conversation"),
    ],
)
def test_when_a_conversation_is_left_alone(client, how, reason):
    messages = [{"role": "system", "content": reason + json.dumps(how)}, *AGENT[1:]]
    response = guardrail(client, messages, **how)
    assert response.json() == {"action": "NONE"}
    assert (response.headers["x-ctxprune-status"], response.headers["x-ctxprune-reason"]) == ("passthrough", reason)


def test_wrong_options_say_what_is_wrong(client):
    response = guardrail(client, AGENT, mode="loud")
    assert response.status_code == 422 and "additional_provider_specific_params.mode" in response.json()["error"]
    assert guardrail(client, AGENT, compressor="nothing").status_code == 422
    for body in ([], {"input_type": "sideways"}):
        assert post(client, "/beta/litellm_basic_guardrail_api", body).status_code in (400, 422)


def test_audit_and_shadow_measure_without_changing(client):
    key = {"x-api-key": KEYS["ann"]}
    before = client.get("/v1/stats", headers=key).json()["totals"]
    guardrail(client, [{"role": "system", "content": "shadow"}, *AGENT[1:]], asker="shady")
    answer = ["It is fired at dawn, and the ribbons are sold at the market."]
    assert guardrail(client, None, asker="shady", texts=answer, input_type="response").json() == {"action": "NONE"}
    after = client.get("/v1/stats", headers=key).json()["totals"]
    assert after["tokens_would_save"] > before["tokens_would_save"] and after["tokens_saved"] == before["tokens_saved"]
    assert after["output_tokens"] > before["output_tokens"] and after["output_money"] > before["output_money"]
    assert after["answer_words"] - before["answer_words"] >= 5
    assert 0 < after["answer_words_lost"] - before["answer_words_lost"] < 5


def turns(*marks):
    """Three requests of one conversation, in each of them the newest rows; marks: rows with a cache mark."""
    rows = [{"role": "system", "content": "books"}, *AGENT[1:], {"role": "assistant", "content": "At dawn."}]
    rows += [{"role": "user", "content": "And what else?"}, {"role": "assistant", "content": "Ribbons."}]
    rows = [*rows, {"role": "user", "content": "Thanks."}]
    rows = [{**row, "cache_control": {"type": "ephemeral"}} if at in marks else row for at, row in enumerate(rows)]
    return [rows[:4], rows[:6], rows]


def watch(mode, asked, conversation):
    """The sums of a conversation in this mode."""
    with sidecar(gateway_models=PRICES, gateway={"mode": mode}) as client:
        for messages in conversation:
            body = {"input_type": "request", "structured_messages": messages, "texts": [], "model": "gold"}
            answer = client.post("/beta/litellm_basic_guardrail_api", json=body)
            asked.append(answer)
        return client.get("/v1/stats").json()["totals"]


@pytest.mark.parametrize("marks", [(), (3,)])
def test_audit_would_save_just_what_pruning_saves(marks):
    on, audit = [], []
    pruned = watch("on", on, turns(*marks))
    watched = watch("audit", audit, turns(*marks))
    assert watched["tokens_would_save"] == pruned["tokens_saved"] and watched["tokens_saved"] == 0
    assert watched["money_would_save"] == pytest.approx(pruned["money_saved"]) and watched["money_saved"] == 0
    assert (pruned["tokens_saved"] == 0) is bool(marks), "what the provider has cached is not pruned"
    assert all(each.json() == {"action": "NONE"} for each in audit)
    # nothing was changed, so all that was sent before went out with the same bytes
    assert watched["prefix_tokens"] >= pruned["prefix_tokens"] and watched["tokens_in"] == pruned["tokens_in"]
    before = [int(each.headers["x-ctxprune-tokens-before"]) for each in audit]
    assert [int(each.headers["x-ctxprune-tokens-after"]) for each in audit] == before
    would = [int(each.headers["x-ctxprune-tokens-would-be"]) for each in audit]
    assert would == [int(each.headers["x-ctxprune-tokens-after"]) for each in on]
    assert not any("x-ctxprune-tokens-would-be" in each.headers for each in on)


def test_what_audit_changes_not_is_not_called_saved():
    with sidecar(gateway={"mode": "audit"}, gateway_models=PRICES) as watching:
        told = watching.post("/v1/compress", json={"messages": AGENT, "model": "gold"}).json()
        metrics = watching.get("/metrics").text
    assert told["messages"] == AGENT and (told["tokens_saved"], told["compression_ratio"]) == (0, 1.0)
    assert told["tokens_before"] == told["tokens_after"] > 0 and told["reason"] == "audit"
    assert re.search(r'ctxprune_gateway_dollars_total\{key="\w+",kind="would_save"\} [\d.e-]*[1-9]', metrics)
    assert 'kind="saved"' not in metrics


def test_a_failure_in_audit_changes_nothing_even_when_closed():
    with sidecar(gateway={"mode": "audit"}, fail_closed=True, max_queue_tokens=1) as watching:
        body = {"input_type": "request", "structured_messages": AGENT, "texts": [], "model": "gold"}
        answer = watching.post("/beta/litellm_basic_guardrail_api", json=body)
    assert answer.status_code == 200 and answer.json() == {"action": "NONE"}
    assert answer.headers["x-ctxprune-status"] == "degraded"


def test_originals_come_back_to_their_owner_alone(client):
    messages = [{"role": "system", "content": "originals"}, *AGENT[1:]]
    body = guardrail(client, messages, originals="tool").json()
    text = body["structured_messages"][3]["content"]
    name = re.search(r"hash=([0-9a-f]{24})\]$", text)[1]
    assert body["tools"][0]["function"]["name"] == "ctxprune_retrieve"
    get = lambda value, who="ann": client.get(f"/v1/retrieve/{value}", headers={"x-api-key": KEYS[who]})  # noqa: E731
    assert get(name).json() == {"hash": name, "original_content": RESULT}
    for forged in ("0" * 24, name[:-1], name.upper(), "..%2f..%2fetc"):
        assert get(forged).status_code == 404
    assert get(name, "bob").status_code == 404
    assert guardrail(client, messages, originals="tool").json()["structured_messages"][3]["content"] == text
    kept = [*messages[:3], {**messages[3], "content": text}]
    assert guardrail(client, kept, originals="tool").json() == {"action": "NONE"}
    tools = client.get("/v1/retrieve", headers={"x-api-key": KEYS["ann"]}).json()
    assert tools["anthropic"]["name"] == tools["openai"]["function"]["name"]


def test_a_result_that_names_its_original_is_still_json(client):
    rows = [{"id": number, "notes": f"Stall {number} sells ribbons and thread."} for number in range(40)]
    rows[29]["notes"] = KILN
    whole = json.dumps({"rows": rows})
    messages = [*AGENT[:3], {**AGENT[3], "content": whole}]
    text = guardrail(client, messages, originals="marker").json()["structured_messages"][3]["content"]
    kept = json.loads(text)
    assert rows[29] in kept["rows"] and len(kept["rows"]) < 20
    name = re.search(r"hash=([0-9a-f]{24})", text)[1]
    assert client.get(f"/v1/retrieve/{name}", headers={"x-api-key": KEYS["ann"]}).json()["original_content"] == whole
    again = [*messages[:3], {**messages[3], "content": text}]
    assert guardrail(client, again, originals="marker").json() == {"action": "NONE"}, "it is known by its hash"


def test_without_room_for_the_original_nothing_is_cut():
    with sidecar(originals_bytes=500) as client:
        body = {"messages": AGENT, "config": {"mode": "ccr"}}
        answer = client.post("/v1/compress", json=body).json()
    assert answer["messages"] == AGENT and (answer["status"], answer["reason"]) == ("passthrough", "originals_full")


def test_headrooms_dialect_gives_as_many_rows_back(client):
    sent = [AGENT[3], {"role": "user", "content": "Thanks."}]
    answer = post(client, "/v1/compress", {"messages": sent, "model": "gold", "config": {"mode": "ccr"}}).json()
    assert len(answer["messages"]) == 2 and answer["messages"][1] == sent[1]
    assert answer["tokens_before"] - answer["tokens_after"] == answer["tokens_saved"]
    again = post(client, "/v1/compress", {"messages": [AGENT[1], *sent], "config": {"mode": "ccr"}}).json()
    assert again["messages"][1:] == answer["messages"]  # now there is a question, but the row was sent already
    with_call = post(client, "/v1/compress", {"messages": AGENT[2:], "config": {"mode": "ccr"}}, who="bob").json()
    content = with_call["messages"][1]["content"]
    assert KILN.strip() in content and with_call["ccr_hashes"] == [re.search(r"hash=([0-9a-f]{24})", content)[1]]
    again = post(client, "/v1/compress", {"messages": AGENT[2:], "config": {"mode": "ccr"}}, who="bob").json()
    assert again["messages"] == with_call["messages"] and again["ccr_hashes"] == with_call["ccr_hashes"]
    pinned = post(client, "/v1/compress", {"messages": AGENT[1:], "config": {"frozen_message_count": 9}}).json()
    assert pinned["messages"] == AGENT[1:]
    assert post(client, "/v1/compress", {"messages": AGENT}, x_headroom_bypass="true").json()["messages"] == AGENT
    assert post(client, "/v1/compress", {"messages": "no list"}).json()["error"].startswith("messages:")


@pytest.mark.parametrize("arguments", ["{}", " { } ", "", "null", None, {}])
def test_a_call_that_asks_nothing_leaves_the_question_to_the_user(client, arguments):
    silent = {"id": "call_9f", "type": "function", "function": {"name": "browse", "arguments": arguments}}
    rows = [AGENT[1], {"role": "assistant", "content": None, "tool_calls": [silent]}, AGENT[3]]
    answer = post(client, "/v1/compress", {"messages": rows}, who="bob").json()
    assert answer["status"] == "compressed" and KILN.strip() in answer["messages"][2]["content"]


def test_documents_are_answered_as_before(client):
    answer = post(client, "/v1/compress", {"query": QUESTION, "documents": [RESULT]})
    assert KILN.strip() in answer.json()["text"]
    assert post(client, "/v1/compress", {"query": QUESTION}).json()["error"] == "documents: Field required"


def test_compresrs_dialect_answers_one_for_one(client):
    common = {"compression_model_name": "latte_v2", "coarse": True, "source": "integration:litellm"}
    one = {"context": RESULT, "query": "lookup: kiln Oberau fired", "target_compression_ratio": 0.5, "dynamic": True}
    data = post(client, "/api/compress/question-specific/", one | common).json()["data"]
    assert KILN.strip() in data["compressed_context"] and data["compressed_tokens"] < data["original_tokens"] / 2
    inputs = [{"context": RESULT, "query": QUESTION}, {"context": '{"a": [1, 2]}', "query": QUESTION}]
    batch = {"inputs": inputs, "dynamic": False, "target_compression_ratio": 4} | common
    first, second = post(client, "/api/compress/question-specific/batch", batch).json()["data"]["results"]
    assert first["original_tokens"] / first["compressed_tokens"] >= 4
    assert second["compressed_context"] == '{"a": [1, 2]}'
    bounds = {"inputs": inputs[:1], "dynamic": True, "dynamic_min_ratio": 1, "dynamic_max_ratio": 1.5}
    (wide,) = post(client, "/api/compress/question-specific/batch", bounds).json()["data"]["results"]
    assert wide["original_tokens"] / wide["compressed_tokens"] < 4
    wrong = {"inputs": inputs, "dynamic_min_ratio": 3, "dynamic_max_ratio": 2}
    assert post(client, "/api/compress/question-specific/batch", wrong).status_code == 422


def test_stats_show_each_key_its_own_and_never_a_key(client):
    guardrail(client, AGENT, who="bob", asker="team")
    texts = {who: client.get("/v1/stats", headers={"x-api-key": key}).text for who, key in KEYS.items()}
    seen = {who: {row["key"] for row in json.loads(text)["hours"]} for who, text in texts.items()}
    assert seen["ann"] and seen["bob"] and not {key[:12] for key in seen["ann"]} & {key[:12] for key in seen["bob"]}
    metrics = client.get("/metrics").text
    assert 'ctxprune_gateway_requests_total{dialect="generic",mode="on",status="compressed"}' in metrics
    assert not any(secret in text for secret in KEYS.values() for text in (*texts.values(), metrics))


def test_huge_deep_and_broken_bodies_get_a_clear_answer(client):
    path, key = "/beta/litellm_basic_guardrail_api", {"x-api-key": KEYS["ann"], "content-type": "application/json"}
    deep = b'{"input_type": "request", "structured_messages": ' + b"[" * 300 + b"]" * 300 + b"}"
    assert client.post(path, content=deep, headers=key).status_code == 400
    assert client.post(path, content=b'{"input_type": "\xff"}', headers=key).status_code == 400
    surrogate = [*AGENT[:3], {**AGENT[3], "content": RESULT + " \ud83d"}]
    assert client.post(
        path, content=json.dumps({"input_type": "request", "structured_messages": surrogate}), headers=key
    )
    line = "2031-01-01 12:00:00 worker idle, nothing to report from hall {}\n"
    log = "".join(line.format(number) for number in range(16_000)) + "The kiln in Oberau cracked at valve K-77.\n"
    messages = [*AGENT[:3], {**AGENT[3], "content": log}]
    rows = guardrail(client, messages, texts=[]).json()["structured_messages"]
    assert "valve K-77" in rows[3]["content"] and len(rows[3]["content"]) < 60_000 < 1_000_000 < len(log)


@pytest.mark.parametrize("closed", [False, True])
def test_without_a_model_the_conversation_passes_or_fails_as_set(closed, tmp_path):
    settings = Settings(**PATIENT, model=str(tmp_path / "missing"), fail_closed=closed)
    with TestClient(create_app(settings, log=MemoryLog()), raise_server_exceptions=False) as client:
        until(lambda: client.get("/livez").status_code == 503)
        response = client.post("/v1/compress", json={"messages": copy.deepcopy(AGENT)})
        if closed:
            assert response.status_code == 503
        else:
            assert response.json()["messages"] == AGENT
            assert response.headers["x-ctxprune-status"] == "degraded"


def portkey(client, messages, *, answer=None, event="beforeRequestHook", **chat):
    """A call of Portkey's webhook guardrail, in the shape of its own page and source."""
    body = {
        "request": {
            "json": {"model": "gold", "messages": messages, "temperature": 0.5, **chat},
            "text": "",
            "isStreamingRequest": False,
            "isTransformed": False,
            "headers": {},
        },
        "response": {"json": answer or {}, "text": "", "statusCode": 200 if answer else None, "isTransformed": False},
        "provider": "openai",
        "requestType": "chatComplete",
        "metadata": {"_user": "k7"},
    }
    return post(client, "/v1/hooks/portkey", body | ({"eventType": event} if event else {}))


def test_portkeys_webhook_gets_the_whole_request_back_with_less_in_it(client):
    messages = [{"role": "system", "content": "By webhook."}, *AGENT[1:]]
    for event in ("beforeRequestHook", None):
        answer = portkey(client, messages, event=event, tools=[CALL])
        row = answer.json()
        sides = row["transformedData"]
        assert row["verdict"] is True and sides["response"] == {"json": None}
        sent = sides["request"]["json"]
        assert {**sent, "messages": []} == {"model": "gold", "messages": [], "temperature": 0.5, "tools": [CALL]}
        assert sent["messages"][:3] == messages[:3] and KILN.strip() in sent["messages"][3]["content"]
        assert len(sent["messages"][3]["content"]) < len(RESULT) / 2
        assert answer.headers["x-ctxprune-status"] == "compressed"


def test_portkeys_webhook_lets_all_else_pass(client):
    said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "At dawn."}}]}
    assert portkey(client, AGENT, answer=said, event="afterRequestHook").json() == {"verdict": True}
    assert portkey(client, AGENT, answer=said, event=None).json() == {"verdict": True}
    small = portkey(client, AGENT[:2]).json()
    assert small["verdict"] is True and "transformedData" not in small
    for chat in ({"prompt": "By itself"}, {"messages": "none"}, {"messages": [4, None, []]}, {}):
        body = {"request": {"json": chat}, "response": {"json": {}}, "requestType": "complete"}
        row = post(client, "/v1/hooks/portkey", body).json()
        assert row["verdict"] is True and "transformedData" not in row
    assert post(client, "/v1/hooks/portkey", {"request": {"json": 4}}).status_code == 422


def test_highlights(client):
    body = {"query": QUESTION, "documents": [{"id": "d1", "text": RESULT}], "pre_tags": ["<b>"], "post_tags": ["</b>"]}
    (row,) = post(client, "/v1/highlight", body).json()["results"]
    start, end = max(zip(row["scores"], row["offsets"], strict=True))[1]
    assert RESULT[start:end] == KILN.strip() and f"<b>{KILN.strip()}</b>" in row["fragments"]
    assert re.sub("</?b>", "", row["text"]) == RESULT and row["id"] == "d1"
    extra = {"highlight_only": True, "number_of_fragments": 1, "encoder": "html"}
    (short,) = post(client, "/v1/highlight", body | extra).json()["results"]
    assert short["fragments"] == [f"<b>{KILN.strip()}</b>"] and "text" not in short
    odd = {"query": QUESTION, "documents": ["The kiln in Oberau is fired <script>at dawn</script>."], "encoder": "html"}
    assert "<script>" not in post(client, "/v1/highlight", odd).json()["results"][0]["text"]
    assert post(client, "/v1/highlight", body | {"pre_tags": []}).status_code == 422


@pytest.mark.parametrize("text", ["Lanterns hang in the lane.", "", " \n "])
def test_where_nothing_answers_the_whole_text_comes_back_without_tags(client, text):
    body = {"query": QUESTION, "documents": [text, KILN], "threshold": 0.9999}
    for extra in ({}, {"encoder": "html"}, {"number_of_fragments": 2}):
        answer = post(client, "/v1/highlight", body | extra)
        assert answer.status_code == 200, answer.text
        row = answer.json()["results"][0]
        assert row["text"] == text and row["fragments"] == row["offsets"] == row["scores"] == []


def test_rerank_takes_the_names_that_other_servers_know(client):
    late = FILLER + " " + KILN
    body = {"query": QUESTION, "documents": [late, "The harbour has a crane."], "return_documents": None}
    whole = post(client, "/v1/rerank", body).json()["results"]
    assert whole[0]["document"]["text"] == late
    for name, value in (("truncate_prompt_tokens", 20), ("max_tokens_per_query", 50), ("max_chunks_per_doc", 1)):
        assert len(post(client, "/v1/rerank", body | {name: value}).json()["results"]) == 2
    cut = post(client, "/v1/rerank", body | {"truncate_prompt_tokens": 20}).json()["results"]
    scores = {row["index"]: row["relevance_score"] for row in cut}
    assert scores[0] < whole[0]["relevance_score"]
    assert next(row for row in cut if row["index"] == 0)["document"]["text"] == late
    same = post(client, "/v1/rerank", body | {"truncate_prompt_tokens": -1}).json()["results"]
    assert same == whole
    assert post(client, "/v2/rerank", body | {"max_chunks_per_doc": 0}).status_code == 422


def test_json_results_stay_json_and_keep_the_rows_that_answer(client):
    rows = [
        {"id": number, "stall": f"Stall {number}", "note": "Sells ribbons, buttons and thread."} for number in range(60)
    ]
    rows[41]["note"] = KILN.strip()
    messages = [*AGENT[:3], {**AGENT[3], "content": json.dumps({"rows": rows, "page": 1})}]
    text = guardrail(client, messages).json()["structured_messages"][3]["content"]
    assert len(text) < len(messages[3]["content"]) / 2
    assert rows[41] in json.loads(text)["rows"]


def test_results_of_one_turn_are_judged_together_and_none_vanishes(client):
    calls = [{**CALL, "id": f"call_{number}"} for number in range(4)]
    texts = [FILLER, RESULT, FILLER.replace("Stall", "Booth"), FILLER.replace("Stall", "Tent")]
    results = [{"role": "tool", "tool_call_id": f"call_{n}", "content": text} for n, text in enumerate(texts)]
    messages = [*AGENT[:2], {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    rows = guardrail(client, messages).json()["structured_messages"][3:]
    left = [len(row["content"]) for row in rows]
    assert KILN.strip() in rows[1]["content"] and min(left) > 0
    assert sum(left) < sum(map(len, texts)) / 4
