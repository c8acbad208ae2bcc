"""The store of originals, options by key, tables of models, and the ledger."""

import json
import stat
import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import ValidationError

from ctxprune.errors import InputError
from ctxprune.integrations.originals import Originals, marked_hash, marker, retrieve_tool, with_tool
from ctxprune.integrations.server.gateway.ledger import MAX_KEYS, OTHERS, Ledger, Sums, saved_money
from ctxprune.integrations.server.gateway.policy import (
    GatewayOptions,
    ModelInfo,
    ModelTable,
    bypassed,
    model_table,
    options_for,
)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    path = tmp_path / "originals.db" if request.param == "file" else None
    clock = Clock()
    made = Originals(10_000, max_age=60, share=0.5, path=path, clock=clock)
    made.test_clock = clock
    yield made
    made.close()


def test_only_the_owner_gets_an_original_back(store):
    text = "A lone surrogate \ud800, a nul \0 and an \N{SNOWMAN}."
    name = store.put(b"ann", text)
    assert store.get(b"ann", name) == text
    assert store.get(b"bob", name) is None
    assert store.put(b"bob", text) != name
    for forged in ("0" * 24, name.upper(), name[:-1], name + "0", "' or 1=1 --", ""):
        assert store.get(b"ann", forged) is None or forged == name


def test_the_same_text_has_the_same_hash_at_any_time(store):
    first = store.put(b"ann", "text")
    store.put(b"ann", "other")
    assert store.put(b"ann", "text") == first


def test_a_caller_over_its_share_loses_its_own_oldest(store):
    names = [store.put(b"hog", f"{place}" * 1000) for place in range(8)]
    kept = [name for name in names if store.get(b"hog", name) is not None]
    assert kept == names[-len(kept) :] and 1 <= len(kept) < 8
    mine = store.put(b"ann", "a" * 3000)
    for place in range(20):
        store.put(b"hog", f"x{place}" * 500)
    assert store.get(b"ann", mine) == "a" * 3000 and store.weight <= store.limit


def test_what_is_too_large_gets_no_hash_and_what_is_old_is_gone(store):
    assert store.put(b"ann", "y" * 6000) is None
    name = store.put(b"ann", "z")
    store.test_clock.now += 61
    assert store.get(b"ann", name) is None
    store.put(b"bob", "new")
    assert store.weight < 1000


def test_a_file_is_shared_and_private(tmp_path):
    path = tmp_path / "kept.db"
    one, two = (Originals(10_000, max_age=60, path=path) for _ in range(2))
    assert two.get(b"ann", one.put(b"ann", "from one")) == "from one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for each in (one, two):
        each.close()
    with pytest.raises(InputError, match="cannot be opened"):
        Originals(10, max_age=60, path=tmp_path)


def test_threads_may_share_a_store(store):
    failures = []

    def work(number):
        for place in range(20):
            name = store.put(bytes([number]), f"{number} {place}")
            if store.get(bytes([number]), name) != f"{number} {place}":
                failures.append((number, place))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_markers_are_read_at_the_end_alone():
    digits = "0123456789abcdef01234567"
    assert marked_hash("kept text" + marker(digits)) == digits
    assert marked_hash(marker(digits) + "\nmore text") is None
    assert marked_hash("hash=" + digits) is None


def test_the_tool_is_offered_in_the_shape_of_the_others():
    openai = retrieve_tool()["function"]["name"]
    assert with_tool(None) == [retrieve_tool()] and with_tool(with_tool([])) == [retrieve_tool()]
    anthropic = with_tool([{"name": "a", "input_schema": {}}])[1]
    assert anthropic["name"] == openai and anthropic["input_schema"]["required"] == ["hash"]
    assert with_tool([{"type": "function", "function": {"name": "f"}}, "odd"])[2] == retrieve_tool()


def test_options_by_key_and_by_request():
    everyone = GatewayOptions(min_tokens=10, rate=0.5)
    by_key = {"ops": GatewayOptions(mode="off"), "ab12cd34": GatewayOptions(mode="audit", budget=9), "ab": everyone}
    digest = "ab12cd34" + "0" * 56
    assert options_for(["nobody", digest], everyone=everyone, by_key=by_key).mode == "audit"
    found = options_for([digest], everyone=everyone, by_key=by_key)
    assert (found.budget, found.rate, found.min_tokens) == (9, None, 10)
    assert options_for(["ops", digest], everyone=everyone, by_key=by_key).mode == "off"
    assert options_for(["ab12cd34zz"], everyone=everyone, by_key=by_key) is everyone
    assert options_for([""], everyone=everyone, by_key=by_key) is everyone


@pytest.mark.parametrize(
    ("operator", "request_mode", "mode"),
    [
        (None, "audit", "audit"),
        ("on", "off", "off"),
        ("off", "on", "off"),
        ("audit", "on", "audit"),
        ("on", None, "on"),
    ],
)
def test_a_request_cannot_switch_on_what_the_operator_switched_off(operator, request_mode, mode):
    assert GatewayOptions(mode=operator).asked(GatewayOptions(mode=request_mode)).mode == mode


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "loud"}, {"min_tokens": -1}, {"window_share": 0}, {"blocks": ["a b"]}, {"tresholds": 1}, {"budget": 0}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        GatewayOptions.model_validate(wrong)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-CtxPrune-Bypass": "true"}, True),
        ({"x-headroom-bypass": " TRUE "}, True),
        ({"x-compresr-bypass": "[present]"}, True),
        ({"x-ctxprune-bypass": "false"}, False),
        ({"x-other": "true"}, False),
    ],
)
def test_bypass_headers(headers, expected):
    assert bypassed({}, headers) is expected


def test_models_by_name_provider_and_pattern(tmp_path):
    file = tmp_path / "table.json"
    rows = {
        "sample_spec": {"max_input_tokens": "a text"},
        "big": {"max_input_tokens": 1000, "input_cost_per_token": 2e-6, "mode": "chat"},
        "own": {"max_input_tokens": 1},
        "note": "text",
    }
    file.write_text(json.dumps(rows))
    table = model_table({"own": ModelInfo(max_input_tokens=5), "lion-*": ModelInfo(max_input_tokens=7)}, str(file))
    assert table.get("acme/big").max_input_tokens == 1000
    assert table.get("own").max_input_tokens == 5
    assert table.get("zoo/lion-2").max_input_tokens == 7
    assert table.get("note") is table.get("nothing") is table.get("sample_spec") is None
    for text in ("[1]", "{"):
        file.write_text(text)
        with pytest.raises(InputError, match="gateway_models_file"):
            model_table({}, str(file))
    assert ModelTable({}).get("") is None


def test_money_counts_a_cached_prefix_at_its_lower_price():
    info = ModelInfo(input_cost_per_token=3e-6, cache_read_input_token_cost=3e-7)
    assert saved_money(info, new=1000, again=2000) == pytest.approx(0.003 + 0.0006)
    assert saved_money(ModelInfo(input_cost_per_token=1e-6), new=1, again=1) == pytest.approx(2e-6)
    assert saved_money(None, new=5, again=5) == 0


def test_the_ledger_sums_by_hour_and_key_and_subtracts_our_own_time():
    clock, registry = Clock(), CollectorRegistry()
    ledger = Ledger(registry, cost_per_hour=36.0, clock=clock)
    ledger.request(
        "k1", Sums(tokens_in=9, tokens_saved=4, seconds=2.0, money_saved=0.5), dialect="d", mode="on", status="s"
    )
    ledger.answer("k2", Sums(output_tokens=3))
    clock.now += 3600
    ledger.request("k1", Sums(tokens_in=1, seconds=1.0), dialect="d", mode="on", status="s")
    rows = ledger.rows()
    assert [(row["key"], row["requests"]) for row in rows] == [("k1", 1), ("k2", 0), ("k1", 1)]
    assert rows[0]["money_net"] == pytest.approx(0.5 - 0.02)
    assert ledger.totals(lambda key: key == "k1")["tokens_in"] == 10
    text = generate_latest(registry).decode()
    assert 'ctxprune_gateway_tokens_total{key="k1",kind="saved"} 4.0' in text
    clock.now += 3600 * 24 * 30
    ledger.request("k9", Sums(), dialect="d", mode="on", status="s")
    assert len(ledger.rows()) <= 4


def test_the_ledger_does_not_grow_with_made_up_keys():
    ledger = Ledger(CollectorRegistry())
    for number in range(MAX_KEYS + 50):
        ledger.request(f"k{number}", Sums(tokens_in=1), dialect="d", mode="on", status="s")
    rows = ledger.rows()
    assert len(rows) == MAX_KEYS + 1
    assert next(row for row in rows if row["key"] == OTHERS)["requests"] == 50
