"""docs/server.md against the server: every setting, every route, and the commands as they are printed."""

import json
import shlex
from pathlib import Path

import pytest
from fixtures_server import Upstream, running, sidecar

from ctxprune.integrations.server import Settings

PAGE = (Path(__file__).parents[1] / "docs" / "server.md").read_text(encoding="utf-8")

#: A hash that was never given to anybody.
NOBODYS = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
def client():
    with running(Upstream()) as url, sidecar(upstream_url=f"{url}/v1") as client:
        yield client


def commands():
    block = PAGE.split("```sh\n")[1].split("```")[0]
    lines = "\n".join(line for line in block.splitlines() if not line.startswith("#"))
    return [shlex.split(f"curl {command}") for command in lines.split("curl ")[1:]]


def test_every_setting_is_in_the_table_with_its_default():
    for name, setting in Settings.model_fields.items():
        default = setting.default
        shown = "" if default in (None, ()) else f"`{json.dumps(default)}`"
        assert f"| `{name}` | {shown} | {setting.description} |" in PAGE
    assert PAGE.count("\n| `") == len(Settings.model_fields)


def test_every_route_is_shown(client):
    shown = {command[1].removeprefix("localhost:8080") for command in commands()}
    assert shown == {
        path.replace("{model}", "m").replace("{hash}", NOBODYS) for path in client.get("/openapi.json").json()["paths"]
    }


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[1])
def test_the_commands_work(client, command):
    path = command[1].removeprefix("localhost:8080")
    if "-d" in command:
        assert command[command.index("-H") + 1] == "content-type: application/json"
        response = client.post(path, json=json.loads(command[command.index("-d") + 1]))
        expected = (None,) if path == "/v1/estimate" else ("compressed", "passthrough")
        assert response.headers.get("x-ctxprune-status") in expected
    else:
        response = client.get(path)
    assert response.status_code == (404 if path.endswith(NOBODYS) else 200)


def test_the_document_tells_of_both_answers_of_compress(client):
    row = {"role": "tool", "content": "It was opened in 1911. Swallows nest under it."}
    answer = client.post("/v1/compress", json={"messages": [row], "config": {"mode": "ccr"}}).json()
    shown = client.get("/openapi.json").json()
    schema = shown["paths"]["/v1/compress"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/HeadroomResponse"} in schema["anyOf"]
    assert set(answer) == set(shown["components"]["schemas"]["HeadroomResponse"]["properties"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_a_wire_s_error_has_the_fields_that_the_document_names(client, path):
    document = client.get("/openapi.json").json()
    answer = client.post(path, json={"ctxprune": {"threshold": 0.2, "operating_point": "safe"}})
    content = document["paths"][path]["post"]["responses"]["422"]["content"]["application/json"]["schema"]
    outer = document["components"]["schemas"][content["$ref"].rpartition("/")[2]]
    inner = document["components"]["schemas"][outer["properties"]["error"]["$ref"].rpartition("/")[2]]
    assert answer.status_code == 422
    assert answer.json().keys() == set(outer["required"])
    assert answer.json()["error"].keys() == set(inner["required"])
