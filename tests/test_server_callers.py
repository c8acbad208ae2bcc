"""What one outsider may hold: turns and lanes, shares of the pools, connections, a header's time, lines of the log."""

import asyncio
import json
import logging
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from fixtures_server import no_signals, sidecar, until
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxprune.integrations.server.callers import (
    Lanes,
    Rota,
    Shares,
    Throttle,
    ThrottledRecords,
    bounded_protocol,
    most_connections,
    quiet_faults,
)
from ctxprune.integrations.server.engine.ticket import AbandonedError, ExpiredError, Ticket, Turns
from ctxprune.integrations.server.service import parsed_bytes

BODY = {"query": "When was the mill built?", "documents": ["The mill stands by the river. It was built in 1874."]}


def test_turns_are_shared_and_whoever_leaves_waits_no_longer():
    turns = Turns(2, 1)
    first, second, other = (Ticket(time.monotonic() + 60, caller=name, turns=turns) for name in "aab")
    first.begin()
    other.begin()
    outcome = []

    def wait():
        try:
            second.begin()
        except AbandonedError:
            outcome.append("left")

    thread = threading.Thread(target=wait)
    thread.start()
    second.abandon()
    thread.join(60)
    late = Ticket(time.monotonic() + 0.01, caller="c", turns=turns)
    with pytest.raises(ExpiredError):
        late.begin()
    assert outcome == ["left"]
    first.pause()
    again = Ticket(time.monotonic() + 60, caller="a", turns=turns)
    again.begin()
    assert again.works


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "cancel", "tick"]), st.sampled_from("abc")), max_size=60
    )
)
@example([("enter", "a"), *[("tick", "")] * 4, ("enter", "a"), *[("tick", "")] * 4, ("cancel", ""), ("leave", "a")])
@settings(max_examples=150, deadline=None)
def test_lanes_are_shared_and_none_is_lost_whoever_leaves_when(steps):
    async def play():
        lanes, tasks, inside = Lanes(2, 1), [], []

        async def work(caller):
            await lanes.enter(caller)
            inside.append(caller)

        for step, caller in steps:
            if step == "enter":
                tasks.append(asyncio.create_task(work(caller)))
            elif step == "leave" and caller in inside:
                inside.remove(caller)
                lanes.leave(caller)
            elif step == "cancel" and tasks:
                tasks[len(tasks) // 2].cancel()
            elif step == "tick":
                await asyncio.sleep(0)
            assert len(inside) <= 2 and all(inside.count(name) <= 1 for name in inside)
        for _ in range(2 * len(steps)):  # whoever is still there gets through
            await asyncio.sleep(0)
            while inside:
                lanes.leave(inside.pop())
        await asyncio.gather(*tasks, return_exceptions=True)
        while inside:
            lanes.leave(inside.pop())
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(asyncio.wait_for(play(), 300))


def test_callers_come_in_turn_however_many_of_one_wait():
    rota = Rota(1, 1)
    for item in ["a1", "a2", "a3", "b1", "c1", "b2"]:
        rota.wait(item[0], item)
    order = []
    while begun := list(rota.begin()):
        order += begun
        rota.end(begun[0][0])
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_no_turn_before_the_deadline_is_said_so():
    with sidecar(deadline_seconds=0.2) as client:
        lanes = client.service.engine._lanes = Lanes(0, 0)
        answer = client.post("/v1/compress", json=BODY | {"documents": ["Long. " * 3000]})
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
        assert not lanes._rota._waiting
        assert client.post("/v1/estimate", json=BODY | {"protect": ["x"]}).status_code == 429


def test_one_caller_leaves_room_for_another():
    shares = Shares(100, 0.75)
    assert shares.take("a", 75) and not shares.take("a", 1)
    assert shares.take("b", 25) and not shares.take("b", 1)
    shares.give("a", 75)
    assert shares.take("b", 50) and not shares.take("b", 1) and shares.held == 75


def test_bodies_of_one_key_do_not_fill_the_pool_for_others():
    keys = {"api_keys": ["one", "two"], "max_bodies_bytes": 5000, "caller_share": 0.6}
    with sidecar(**keys) as client:
        large = json.dumps(BODY | {"query": "q" * 1500}).encode()
        assert 3000 < len(large) + parsed_bytes(large) < 5000
        refused = client.post("/v1/compress", content=large, headers={"x-api-key": "one"})
        assert refused.status_code == 429
        assert client.post("/v1/compress", json=BODY, headers={"x-api-key": "two"}).status_code == 200
    with sidecar(**keys | {"api_keys": ["one"]}) as client:  # nobody to leave room for
        headers = {"x-api-key": "one", "content-type": "application/json"}
        assert client.post("/v1/compress", content=large, headers=headers).status_code == 200


def test_refusals_are_counted_in_the_log_not_written_one_by_one():
    with sidecar(api_keys=["right"]) as client:
        for _ in range(200):
            assert client.post("/v1/compress", json=BODY).status_code == 401
        lines = [values for event, values in client.log.events if event == "request" and values["status"] == 401]
        assert len(lines) < 30


def test_a_throttle_says_how_many_it_kept_back():
    now = [0.0]
    throttle = Throttle(2, 10.0, lambda: now[0])
    assert [throttle.passes("x") for _ in range(5)] == [0, 0, None, None, None]
    assert throttle.passes("y") == 0
    now[0] = 10.0
    assert throttle.passes("x") == 3 and throttle.passes("x") == 0 and throttle.passes("x") is None
    record = logging.LogRecord("u", logging.WARNING, "", 1, "Invalid HTTP request received.", (), None)
    lines = ThrottledRecords(Throttle(1, 10.0, lambda: now[0]))
    assert lines.filter(record) and not lines.filter(record)
    now[0] = 20.0
    assert lines.filter(record) and "1 more like this" in record.getMessage()


def test_failed_accepts_do_not_flood_the_log(caplog):
    async def fail():
        loop = asyncio.get_running_loop()
        quiet_faults(loop)
        for _ in range(5000):
            loop.call_exception_handler({"message": "socket.accept() out of system resource"})

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(fail())
    assert 0 < len(caplog.records) <= 10


def test_the_cap_leaves_files_for_the_rest():
    assert 0 < most_connections(10**9) < 10**9
    assert most_connections(3) == 3


@contextmanager
def listening(**options):
    """An application's port, behind the bounded protocol."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http=bounded_protocol(**options))
    server = uvicorn.Server(config)
    server.capture_signals = no_signals
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def is_closed(connection, *, seconds=60.0):
    connection.settimeout(seconds)
    try:
        return connection.recv(1000) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nx-long: yyyy"]
)
def test_half_a_header_is_not_waited_for(sent):
    with listening(most=50, header_seconds=0.2) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


def test_drops_do_not_wind_the_clock_of_a_header_up_again():
    with listening(most=50, header_seconds=0.3) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        ended = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < ended:
                connection.sendall(b"y")
                time.sleep(0.05)


def test_a_second_header_on_a_kept_connection_is_timed_too():
    with listening(most=50, header_seconds=0.3) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.settimeout(60)
        answer = b""
        while not answer.endswith(b"ok"):
            part = connection.recv(1000)
            assert part, answer
            answer += part
        connection.sendall(b"GET / HT")
        assert is_closed(connection)


def test_connections_beyond_the_cap_are_closed_and_come_back_when_there_is_room():
    with listening(most=3, header_seconds=60) as port:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]  # taken in the order they came
        with socket.create_connection(("127.0.0.1", port)) as one_more:
            assert is_closed(one_more)
        for connection in held:
            connection.close()

        def answered():
            with socket.create_connection(("127.0.0.1", port)) as again:
                again.settimeout(60)
                try:
                    again.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    return again.recv(1000).startswith(b"HTTP/1.1 200")
                except ConnectionError:
                    return False

        until(answered)
