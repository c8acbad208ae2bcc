"""An MCP server for tests to stand in front of; run as a program it speaks over standard input and output."""

import json
import os

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

ORDERS = {"orders": [{"id": 7100 + at, "city": "Leeds", "state": "delivered on the promised day"} for at in range(40)]}
ORDERS["orders"][17] = {"id": 7117, "city": "Turin", "state": "late: the lorry broke down near Lyon"}

server = MCPServer("shop", instructions="Ask for orders.")


@server.tool()
def orders(page: int = 1) -> dict[str, list[dict[str, int | str]]]:
    """All orders."""
    return ORDERS if page == 1 else {"orders": []}


@server.tool(structured_output=False)
def fails() -> str:
    """Always fails, at length."""
    raise ToolError("no such table; " * 200)


@server.tool(structured_output=False)
def mixed() -> list:
    """A text and an image."""
    return [json.dumps(ORDERS), Image(data=b"\x89PNG", format="png")]


@server.tool(structured_output=False)
def secret() -> str:
    """What the environment holds."""
    return os.environ.get("SHOP_KEY", "none")


@server.resource("shop://terms")
def terms() -> str:
    """The terms."""
    return "Thirty days."


@server.prompt()
def greet(name: str) -> str:
    """A greeting."""
    return f"Hello {name}"


if __name__ == "__main__":
    server.run("stdio")
