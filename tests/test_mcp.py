"""The MCP servers, tried with the SDK's own client, in this process and over both transports."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp")

from fixtures_mcp_server import ORDERS
from fixtures_mcp_server import server as shop
from fixtures_server import running
from mcp import Client, MCPError, StdioServerParameters

from ctxprune.errors import InputError
from ctxprune.integrations.mcp.server import QUESTION, Pruning, Wrapping, create_server, run, upstream_of, wrapped
from ctxprune.integrations.originals import Originals
from ctxprune.tools import ToolOutputs
from ctxprune.tools.json_shape import NOTE

ASKED = "Which order to Turin is late, and why?"
TEXT = json.dumps(ORDERS)
SHOP = str(Path(__file__).with_name("fixtures_mcp_server.py"))
COMMAND = [sys.executable, "-c", "import sys; from ctxprune.cli import main; sys.exit(main(sys.argv[1:]))", "mcp"]


@pytest.fixture(scope="module")
def outputs():
    return ToolOutputs("provence")


def in_client(target, work):
    """What `work` makes of a client that is connected to `target`, or to what it yields."""

    async def session():
        if not hasattr(target, "__aenter__"):
            async with Client(target) as client:
                return await work(client)
        async with target as server, Client(server) as client:
            return await work(client)

    return asyncio.run(session())


def hash_in(result):
    return result.content[-1].text.rpartition("hash=")[2].rstrip("]")


def test_prune_and_get_the_original_back(outputs):
    async def work(client):
        assert "JSON stays JSON" in client.instructions
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == {"prune", "rerank", "retrieve_original"}
        pruned = await client.call_tool("prune", {"text": TEXT, "question": ASKED})
        whole = await client.call_tool("retrieve_original", {"hash": hash_in(pruned)})
        small = await client.call_tool("prune", {"text": TEXT, "question": "order 7103", "budget": 60})
        same = await client.call_tool("prune", {"text": "Short.", "question": ASKED})
        return pruned, whole, small, same

    pruned, whole, small, same = in_client(create_server(Pruning(outputs)), work)
    value = json.loads(pruned.content[0].text)
    assert ORDERS["orders"][17] in value["orders"] and "of 40" in value[NOTE]["orders"]
    assert whole.content[0].text == TEXT
    assert ORDERS["orders"][3] in json.loads(small.content[0].text)["orders"]
    assert [block.text for block in same.content] == ["Short."]


def test_rerank(outputs):
    documents = ["Ferries run hourly.", "The bridge was opened in 1911.", "Parking is free."]

    async def work(client):
        return await client.call_tool(
            "rerank", {"question": "When was the bridge opened?", "documents": documents, "top_n": 2.0}
        )

    rows = in_client(create_server(Pruning(outputs)), work).structured_content["result"]
    assert len(rows) == 2 and (rows[0]["index"], rows[0]["text"]) == (1, documents[1])
    assert rows[0]["relevance_score"] > rows[1]["relevance_score"]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("prune", {"text": "a", "question": ""}, "at least 1 character"),
        ("prune", {"text": "a", "question": " "}, "question is empty"),
        ("prune", {"text": "a", "question": "b", "budget": 0}, "greater than 0"),
        ("prune", {"text": "a", "question": "b", "budget": True}, "must be a whole number, got True"),
        ("prune", {"text": "a", "question": "b", "threshold": True}, "must be a number, got True"),
        ("rerank", {"question": "b", "documents": []}, "at least 1 item"),
        ("rerank", {"question": "b", "documents": ["a"], "top_n": 1.5}, "must be a whole number, got 1.5"),
        (
            "rerank",
            {"question": "b", "documents": ["a"], "top_k": 1},
            "rerank takes no top_k; it takes question, documents, top_n",
        ),
        ("prune", {"text": "a", "question": "b", "limit": 1, "k": 2}, "prune takes no limit, k; it takes text"),
        ("retrieve_original", {"hash": "0" * 24}, "no original under"),
        ("retrieve_original", {"hash": "../../etc/passwd"}, "match pattern"),
    ],
)
def test_what_is_wrong_is_said(outputs, tool, arguments, message):
    result = in_client(create_server(Pruning(outputs)), lambda client: client.call_tool(tool, arguments))
    assert result.is_error and message in result.content[0].text


def test_in_front_of_another_server(outputs):
    async def work(client):
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert (
            QUESTION in listed["orders"].input_schema["properties"]
            and "page" in listed["orders"].input_schema["properties"]
        )
        assert listed["orders"].output_schema is None and "retrieve_original" in listed
        asked = await client.call_tool("orders", {"page": 1, QUESTION: ASKED})
        whole = await client.call_tool("retrieve_original", {"hash": hash_in(asked)})
        unasked = await client.call_tool("orders", {"page": 1})
        failed = await client.call_tool("fails", {QUESTION: ASKED})
        mixed = await client.call_tool("mixed", {QUESTION: ASKED})
        lost = await client.call_tool("retrieve_original", {"hash": "f" * 24})
        with pytest.raises(MCPError):
            await client.read_resource("shop://nothing")
        resource = await client.read_resource("shop://terms")
        prompt = await client.get_prompt("greet", {"name": "Bo"})
        return asked, whole, unasked, failed, mixed, lost, resource, prompt

    target = wrapped(shop, Pruning(outputs), Wrapping())
    asked, whole, unasked, failed, mixed, lost, resource, prompt = in_client(target, work)
    value = json.loads(asked.content[0].text)
    assert ORDERS["orders"][17] in value["orders"] and len(value["orders"]) < 10 and asked.structured_content is None
    assert json.loads(whole.content[0].text) == ORDERS == unasked.structured_content
    assert failed.is_error and "no such table; " * 200 in failed.content[0].text
    assert [block.type for block in mixed.content] == ["text", "text", "image"]
    assert lost.is_error and "no original" in lost.content[0].text
    assert resource.contents[0].text == "Thirty days." and "Hello Bo" in prompt.messages[0].content.text


def test_short_results_and_budgets(outputs):
    async def work(client):
        return await client.call_tool("orders", {QUESTION: ASKED})

    patient = in_client(wrapped(shop, Pruning(outputs), Wrapping(min_tokens=100_000)), work)
    assert patient.structured_content == ORDERS
    tight = in_client(wrapped(shop, Pruning(outputs), Wrapping(budget=80)), work)
    assert len(json.loads(tight.content[0].text)["orders"]) <= 2


def test_a_failing_model_lets_results_through(outputs):
    class Broken:
        compressor = outputs.compressor

        def prune(self, *_, **__):
            raise RuntimeError("no model")

    call = lambda client: client.call_tool("orders", {QUESTION: ASKED})  # noqa: E731
    assert in_client(wrapped(shop, Pruning(Broken()), Wrapping()), call).structured_content == ORDERS


def test_over_standard_input_and_output():
    async def work(client):
        pruned = await client.call_tool("orders", {QUESTION: ASKED})
        return pruned, await client.call_tool("secret", {})

    wrap = [*COMMAND[1:], "--wrap", sys.executable, SHOP]
    target = StdioServerParameters(command=COMMAND[0], args=wrap, env={"SHOP_KEY": "k-1"})
    pruned, secret = in_client(target, work)
    assert ORDERS["orders"][17] in json.loads(pruned.content[0].text)["orders"] and secret.content[0].text == "k-1"


def test_over_http(outputs):
    app = create_server(Pruning(outputs)).streamable_http_app(streamable_http_path="/mcp")
    with running(app) as url:
        result = in_client(f"{url}/mcp", lambda client: client.call_tool("prune", {"text": TEXT, "question": ASKED}))
    assert ORDERS["orders"][17] in json.loads(result.content[0].text)["orders"]


def test_the_command_says_what_it_cannot_do():
    ran = subprocess.run([*COMMAND, "python", "server.py"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 2 and "--wrap" in ran.stderr
    with pytest.raises(InputError, match="needs the command"):
        upstream_of([])
    options = {"host": "127.0.0.1", "port": 0, "command": None, "wrapping": Wrapping()}
    with pytest.raises(InputError, match="transport must be"):
        run(transport="sse", compressor="lead", **options)


def test_without_the_sdk_the_command_names_the_extra(tmp_path):
    (tmp_path / "mcp.py").write_text("raise ImportError('not here')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ctxprune.cli import main; sys.exit(main(['mcp']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode != 0 and "pip install 'ctxprune-rag[mcp]'" in ran.stderr


def test_an_original_is_had_by_the_hash_of_its_own_server_alone(outputs):
    one, two = Pruning(outputs), Pruning(outputs)
    pruned = asyncio.run(one.prune(TEXT, ASKED))
    names = [each.report(pruned, TEXT).rpartition("hash=")[2].rstrip("]") for each in (one, two, one)]
    assert names[0] == names[2] != names[1], "names cannot be worked out from the text"
    assert one.original(names[0]) == TEXT and one.original(names[1]) is two.original(names[0]) is None
    full = Pruning(outputs, Originals(len(TEXT), max_age=60))
    assert "hash=" not in full.report(pruned, TEXT) and full.originals.weight == 0
