"""The MCP server: the tools `prune`, `rerank` and `retrieve_original`, on standard input and output or over HTTP, until
its client or a signal ends it.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ctxprune import __version__, load
from ctxprune.errors import CtxpruneError, InputError, MissingExtraError
from ctxprune.integrations.mcp.wrap import Pruning, Wrapping, upstream_of, wrapped
from ctxprune.tools import ToolOutputs

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import TextContent
except ImportError as error:
    raise MissingExtraError("the MCP server", "mcp") from error

INSTRUCTIONS = (
    "Use `prune` on long text (web pages, logs, JSON, search results, code, diffs) before you read it: it keeps what "
    "answers your question, word for word, and JSON stays JSON. `rerank` orders documents by a question. "
    "`retrieve_original` gives back what was pruned."
)
#: Characters of one text, and documents of one call.
MAX_CHARACTERS, MAX_DOCUMENTS = 2_000_000, 1000

Question = Annotated[str, Field(min_length=1, max_length=20_000, description="What you want to know from it.")]


class Ranked(BaseModel):
    """A document's place in the input, its relevance (higher is better), and its text."""

    index: int
    relevance_score: float
    text: str


def create_server(pruning: Pruning) -> MCPServer:
    """The server over a loaded compressor, for any transport of the SDK."""
    server = MCPServer("ctxprune", version=__version__, instructions=INSTRUCTIONS)

    @server.tool(structured_output=False)
    async def prune(
        text: Annotated[str, Field(max_length=MAX_CHARACTERS, description="What to prune.")],
        question: Question,
        budget: Annotated[int | None, Field(gt=0, description="At most so many tokens.")] = None,
        threshold: Annotated[float | None, Field(ge=0, le=1, description="Keep what scores at least this.")] = None,
    ) -> list[TextContent]:
        """Keep what of a text answers a question. JSON, tables, logs, search hits, diffs and code stay valid."""
        try:
            output = await pruning.prune(text, question, budget=budget, threshold=threshold)
        except CtxpruneError as error:
            raise ToolError(str(error)) from None
        texts = [output.text, pruning.report(output, text)]
        return [TextContent(type="text", text=each) for each in texts if each] or [TextContent(type="text", text="")]

    @server.tool()
    async def rerank(
        question: Question,
        documents: Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS, description="Texts to order.")],
        top_n: Annotated[int | None, Field(gt=0, description="Return only so many of the best.")] = None,
    ) -> list[Ranked]:
        """Order documents by how well they answer a question, the best first."""
        if sum(map(len, documents)) > MAX_CHARACTERS:
            raise ToolError(f"the documents may hold {MAX_CHARACTERS} characters together; send fewer at a time")
        try:
            scores = await pruning.rank(question, documents)
        except CtxpruneError as error:
            raise ToolError(str(error)) from None
        order = sorted(range(len(documents)), key=lambda at: -scores[at])[:top_n]
        return [Ranked(index=at, relevance_score=scores[at], text=documents[at]) for at in order]

    @server.tool(structured_output=False)
    async def retrieve_original(
        hash: Annotated[str, Field(pattern="^[0-9a-f]{24}$", description="From the line below a pruned text.")],
    ) -> str:
        """The whole of a text that was pruned in the last hour."""
        original = pruning.original(hash)
        if original is None:
            raise ToolError(f"no original under {hash}; originals are kept for an hour, the oldest go first")
        return original

    return server


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
