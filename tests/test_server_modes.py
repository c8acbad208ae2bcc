"""The proxy on, off, in audit and below a share of the model's window, by key and by request; its books are true."""

import hashlib
import json

import pytest
from fixtures_server import Upstream, listening_at, sidecar

KEYS = {"on": "key-1", "audit": "key-2", "off": "key-3", "shadow": "key-4", "window": "key-5"}
DIGESTS = {name: hashlib.sha256(key.encode()).hexdigest()[:12] for name, key in KEYS.items()}
OPTIONS = {DIGESTS[name]: {"mode": name} for name in ("audit", "off", "shadow")}
OPTIONS |= {DIGESTS["window"]: {"window_share": 0.5}}
MODELS = {
    "gold": {"max_input_tokens": 100_000, "input_cost_per_token": 1e-5, "cache_read_input_token_cost": 1e-6},
    "small": {"max_input_tokens": 1000},
}
ROWS = [{"id": 4100 + at, "town": "Graz", "state": "delivered on the promised day"} for at in range(40)]
ROWS[23]["state"] = "held back: the seal is broken"
RESULT = json.dumps({"parcels": ROWS})
CALL = {"id": "c1", "type": "function", "function": {"name": "parcels", "arguments": "{}"}}
FIRST = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Which parcel is held back, and why?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": RESULT},
]
SECOND = [*FIRST, {"role": "assistant", "content": "4123"}, {"role": "user", "content": "And where is it?"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def upstream():
    with listening_at(Upstream()) as listening:
        yield listening


@pytest.fixture
def client(upstream):
    upstream.reset()
    settings = {"api_keys": list(KEYS.values()), "gateway_keys": OPTIONS, "gateway_models": MODELS}
    with sidecar(upstream_url=upstream.url, tool_message_tokens=50, **settings) as client:
        yield client


def chat(client, name, messages=FIRST, *, model="gold", headers=None, **field):
    body = {"model": model, "messages": messages} | ({"ctxprune": field} if field else {})
    return client.post(CHAT, json=body, headers={"x-api-key": KEYS[name]} | (headers or {}))


def sent(upstream, at=-1):
    return json.loads(upstream.seen[at][2])


def totals(client, name):
    return client.get("/v1/stats", headers={"x-api-key": KEYS[name]}).json()["totals"]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("audit", {}, "audit"),
        ("shadow", {}, "shadow"),
        ("off", {}, "off"),
        ("window", {}, "small_conversation"),
        ("on", {"mode": "audit"}, "audit"),
        ("on", {"mode": "off"}, "off"),
        ("on", {"enabled": False}, "disabled"),
        ("on", {"headers": {"x-ctxprune-bypass": "true"}}, "bypassed"),
        ("audit", {"mode": "on"}, "audit"),
        ("off", {"mode": "audit"}, "off"),
    ],
)
def test_whatever_is_not_on_sends_the_request_as_it_came(client, upstream, name, options, reason):
    answer = chat(client, name, **options)
    assert answer.status_code == 200
    assert sent(upstream) == {"model": "gold", "messages": FIRST}
    assert (answer.headers["x-ctxprune-status"], answer.headers["x-ctxprune-reason"]) == ("passthrough", reason)
    assert answer.headers["x-ctxprune-tokens-after"] == answer.headers["x-ctxprune-tokens-before"]
    assert totals(client, name)["tokens_saved"] == 0 and totals(client, name)["requests"] == 1


def test_without_a_field_of_ours_audit_passes_every_byte(client, upstream):
    raw = json.dumps({"model": "gold", "messages": FIRST}, indent=3).encode()
    headers = {"x-api-key": KEYS["audit"], "content-type": "application/json"}
    assert client.post(CHAT, content=raw, headers=headers).status_code == 200
    assert upstream.seen[-1][2] == raw


def test_audit_measures_what_pruning_saves(client, upstream):
    for messages in (FIRST, SECOND):
        on, audit = chat(client, "on", messages), chat(client, "audit", messages)
        would = audit.headers["x-ctxprune-tokens-would-be"]
        assert would == on.headers["x-ctxprune-tokens-after"] and int(would) < 200
    pruned, watched = totals(client, "on"), totals(client, "audit")
    assert watched["tokens_would_save"] == pruned["tokens_saved"] > 0 == watched["tokens_saved"]
    assert watched["money_would_save"] == pytest.approx(pruned["money_saved"])
    # the second turn saves what the provider would have billed as cached
    assert pruned["money_saved"] == pytest.approx(pruned["tokens_saved"] / 2 * (1e-5 + 1e-6))
    assert pruned["tokens_in"] == watched["tokens_in"] > pruned["tokens_before"] / 2


def test_a_request_that_is_switched_on_again_sends_what_was_remembered_for_it(client, upstream):
    for field in ({}, {"mode": "audit"}, {"mode": "on"}):
        chat(client, "on", **field)
    first, audited, last = (sent(upstream, at)["messages"] for at in (-3, -2, -1))
    assert first == last != audited == FIRST


def test_above_its_share_of_the_window_a_conversation_is_pruned(client, upstream):
    assert chat(client, "window", model="small").headers["x-ctxprune-status"] == "compressed"
    assert len(sent(upstream)["messages"][3]["content"]) < len(RESULT) / 2
    assert chat(client, "window", model="unknown").headers["x-ctxprune-status"] == "compressed"
    before = totals(client, "window")
    assert chat(client, "window").headers["x-ctxprune-reason"] == "small_conversation"
    after = totals(client, "window")
    assert after["tokens_in"] - before["tokens_in"] == before["tokens_in"] / 2, "below the share it counts as well"
    assert after["tokens_saved"] == before["tokens_saved"] > 0


@pytest.mark.parametrize("field", [{"mode": "sometimes"}, {"mode": 3}, {"nothing": 1}])
@pytest.mark.parametrize("name", ["on", "audit", "off"])
def test_a_field_that_cannot_be_is_refused_in_every_mode(client, name, field):
    assert chat(client, name, **field).status_code == 422


def test_other_wires_have_the_modes_too(client, upstream):
    result = {"type": "function_call_output", "call_id": "c1", "output": RESULT}
    call = {"type": "function_call", "call_id": "c1", "name": "parcels", "arguments": "{}"}
    body = {"model": "gold", "input": [FIRST[1], call, result]}
    prompt = {"model": "gold", "prompt": f"<context>{RESULT}</context>\nWhich parcel is held back?"}
    for path, given in (("/v1/responses", body), ("/v1/completions", prompt)):
        answer = client.post(path, json=given, headers={"x-api-key": KEYS["audit"]})
        assert sent(upstream) == given and "x-ctxprune-tokens-would-be" in answer.headers
    metrics = client.get("/metrics", headers={"x-api-key": KEYS["on"]}).text
    for dialect in ("responses", "completions"):
        assert (
            f'ctxprune_gateway_requests_total{{dialect="{dialect}",mode="audit",status="passthrough"}} 1.0' in metrics
        )


def test_a_failure_to_measure_fails_nothing(upstream):
    upstream.reset()
    options = {"gateway": {"mode": "audit"}, "fail_closed": True, "max_queue_tokens": 1}
    with sidecar(upstream_url=upstream.url, tool_message_tokens=50, **options) as client:
        answer = client.post(CHAT, json={"model": "gold", "messages": FIRST})
        sums = client.get("/v1/stats").json()["totals"]
    assert answer.status_code == 200 and answer.headers["x-ctxprune-status"] == "degraded"
    assert sent(upstream)["messages"] == FIRST and sums["degraded"] == 1
