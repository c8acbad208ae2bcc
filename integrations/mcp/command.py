"""Run an MCP server on standard input and output or over HTTP, until its client or a signal ends it."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from ctxprune import load
from ctxprune.errors import InputError, MissingExtraError
from ctxprune.integrations.mcp.pruning import Pruning
from ctxprune.integrations.mcp.server import create_server
from ctxprune.integrations.mcp.wrap import Wrapping, upstream_of, wrapped
from ctxprune.tools import ToolOutputs

try:
    import uvicorn
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
except ImportError as error:
    raise MissingExtraError("the MCP server", "mcp") from error

Transport = Literal["stdio", "http"]
#: Where clients of the HTTP transport connect.
PATH = "/mcp"


def run(
    *,
    transport: Transport,
    host: str,
    port: int,
    compressor: str,
    command: list[str] | None,
    wrapping: Wrapping,
) -> None:
    """Serve until the end. command: of the server to stand in front of; None: serve our own tools.

    Raises InputError for a transport or a compressor that cannot be.
    """
    if transport not in ("stdio", "http"):
        raise InputError(f"transport must be stdio or http, got {transport!r}")
    upstream = None if command is None else upstream_of(command)
    pruning = Pruning(ToolOutputs(load(compressor)))
    asyncio.run(_serve(upstream, pruning, wrapping, transport, host, port))


async def _serve(
    upstream: Any, pruning: Pruning, wrapping: Wrapping, transport: Transport, host: str, port: int
) -> None:
    if upstream is None:
        server = create_server(pruning)
        if transport == "stdio":
            await server.run_stdio_async()
        else:
            await _http(server.streamable_http_app(streamable_http_path=PATH, host=host), host, port)
        return
    async with wrapped(upstream, pruning, wrapping) as proxy:
        if transport == "stdio":
            await _stdio(proxy)
        else:
            await _http(proxy.streamable_http_app(streamable_http_path=PATH, host=host), host, port)


async def _stdio(server: Server[Any]) -> None:
    async with stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())


async def _http(app: Any, host: str, port: int) -> None:
    # standard output stays silent, as with the other transport
    await uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False)).serve()
