"""The MCP server: the tools `prune`, `rerank` and `retrieve_original`, or those of a server that it stands in front of.

In front of another server it has that one's tools, whose results are pruned for the question that is told. A text is
pruned in a thread, with a word on what was left out, and the original is kept for a while under a name that cannot be
guessed. It serves on standard input and output or over HTTP, until its client or a signal ends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ctxprune import __version__, load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import CtxpruneError, InputError, MissingExtraError
from ctxprune.integrations.numbers import NUMBER, WHOLE
from ctxprune.integrations.originals import Originals, OwnOriginals, for_an_hour
from ctxprune.tools import ToolOutput, ToolOutputs
from ctxprune.types import Context, Document

try:
    import uvicorn
    from mcp import Client, MCPError, StdioServerParameters
    from mcp.server.lowlevel import Server
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.server.stdio import stdio_server
    from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
except ImportError as error:
    raise MissingExtraError("the MCP server", "mcp") from error

logger = logging.getLogger(__name__)

RETRIEVE = "retrieve_original"
#: Texts that are pruned at a time; the others wait.
AT_A_TIME = 2


@dataclass(slots=True)
class Pruning:
    """A loaded compressor and the originals of what it pruned."""

    outputs: ToolOutputs
    originals: Originals = field(default_factory=for_an_hour)
    _own: OwnOriginals = field(init=False)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_A_TIME))

    def __post_init__(self) -> None:
        self._own = OwnOriginals(self.originals)

    async def prune(
        self, text: str, question: str, *, budget: int | None = None, threshold: float | None = None
    ) -> ToolOutput:
        """See `ctxprune.tools.prune_tool_output`."""
        async with self._turns:
            return await asyncio.to_thread(self.outputs.prune, text, question, budget=budget, threshold=threshold)

    async def rank(self, question: str, documents: list[str]) -> list[float]:
        """Relevance of each document."""
        async with self._turns:
            return await asyncio.to_thread(self._ranks, question, documents)

    def _ranks(self, question: str, documents: list[str]) -> list[float]:
        compressor: ScoringCompressor = self.outputs.compressor
        (scored,) = compressor.score([Context.of(question, [Document(text) for text in documents])])
        return [extract.score or 0.0 for extract in scored.extracts]

    def original(self, name: str) -> str | None:
        """The text behind a hash of `report`; None for one that is unknown or too old."""
        return self._own.get(name)

    def report(self, output: ToolOutput, original: str, *, retrieve: str = RETRIEVE) -> str:
        """One line beside the pruned text; "" when nothing was removed."""
        if output.status != "compressed":
            return ""
        told = f"ctxprune: {output.tokens_before} tokens cut to {output.tokens_after}; {output.left_out} of {output.of}"
        name = self._own.put(original)
        found = f"; the original: {retrieve} with hash={name}" if name else ""
        warned = "".join(f"; {warning}" for warning in output.warnings)
        return f"[{told} left out{warned}{found}]"


#: The argument that every tool takes beside its own.
QUESTION = "ctxprune_question"
_QUESTION_SCHEMA = {
    "type": "string",
    "description": "What you want to know from the result; only what answers it is returned. Leave it out for all.",
}
_HASH_SCHEMA = {"type": "object", "properties": {"hash": {"type": "string"}}, "required": ["hash"]}
#: Characters a token in running English text; results of fewer tokens than asked for are not worth a reading.
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How results are pruned. min_tokens: shorter texts pass as they are. budget, threshold: of each text."""

    min_tokens: int = 200
    budget: int | None = None
    threshold: float | None = None


def upstream_of(command: list[str]) -> Any:
    """What the SDK's client connects to: a URL, or a command that speaks over its standard input and output.

    Raises InputError for an empty command.
    """
    if not command:
        raise InputError("--wrap needs the command or the URL of the server to stand in front of")
    if len(command) == 1 and command[0].startswith(("http://", "https://")):
        return command[0]
    # with our own environment: whoever configures this server sets the other one's keys there
    return StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))


@asynccontextmanager
async def wrapped(upstream: Any, pruning: Pruning, wrapping: Wrapping) -> AsyncIterator[Server[Any]]:
    """A server over a connection to `upstream` (see `mcp.Client`), which lasts as long as the context."""
    async with Client(upstream) as client:
        yield Proxy(client, pruning, wrapping).server()


class Proxy:
    """Passes requests on to one server. What it offers beside tools, resources and prompts, is passed on unchanged."""

    def __init__(self, client: Client, pruning: Pruning, wrapping: Wrapping) -> None:
        self.client, self.pruning, self.wrapping = client, pruning, wrapping
        self.retrieve = RETRIEVE
        self._takes_question: dict[str, bool] = {}

    def server(self) -> Server[Any]:
        offered = self.client.server_capabilities
        info = self.client.server_info
        handlers: dict[str, Any] = {"on_list_tools": self._list_tools, "on_call_tool": self._call_tool}
        if offered is not None and offered.resources:
            handlers["on_list_resources"] = lambda _, params: self.client.list_resources(cursor=_cursor(params))
            handlers["on_list_resource_templates"] = lambda _, params: self.client.list_resource_templates(
                cursor=_cursor(params)
            )
            handlers["on_read_resource"] = lambda _, params: self.client.read_resource(params.uri)
        if offered is not None and offered.prompts:
            handlers["on_list_prompts"] = lambda _, params: self.client.list_prompts(cursor=_cursor(params))
            handlers["on_get_prompt"] = lambda _, params: self.client.get_prompt(params.name, params.arguments)
        name = f"{info.name} (ctxprune)" if info is not None else "ctxprune"
        return Server(name, version=__version__, instructions=self.client.instructions, **handlers)

    async def _list_tools(self, _: Any, params: Any) -> ListToolsResult:
        listed = await self.client.list_tools(cursor=_cursor(params))
        tools = [self._with_question(tool) for tool in listed.tools]
        if listed.next_cursor is None:
            if any(tool.name == RETRIEVE for tool in listed.tools):
                self.retrieve = f"ctxprune_{RETRIEVE}"
            description = "The whole of a result that was pruned in the last hour, by the hash in the line below it."
            tools.append(Tool(name=self.retrieve, description=description, input_schema=_HASH_SCHEMA))
        return listed.model_copy(update={"tools": tools})

    def _with_question(self, tool: Tool) -> Tool:
        """The tool with one more argument, and without a promise of what its result is made of."""
        schema = dict(tool.input_schema)
        properties = schema.get("properties", {})
        fits = isinstance(properties, dict) and QUESTION not in properties
        self._takes_question[tool.name] = fits
        if fits:
            schema["properties"] = {**properties, QUESTION: _QUESTION_SCHEMA}
        return tool.model_copy(update={"input_schema": schema, "output_schema": None})

    async def _call_tool(self, _: Any, params: CallToolRequestParams) -> CallToolResult:
        arguments = dict(params.arguments or {})
        if not self._takes_question:
            await self._list_all()
        if params.name == self.retrieve:
            return self._original(arguments)
        question = arguments.pop(QUESTION, "") if self._takes_question.get(params.name, True) else ""
        try:
            result = await self.client.call_tool(params.name, arguments or None)
        except MCPError as error:
            return _failed(f"the server behind answered with an error: {error}")
        if result.is_error or not isinstance(question, str) or not question.strip():
            return result
        return await self._pruned(result, question)

    async def _list_all(self) -> None:
        """Learn the tools of a server whose client calls them without having listed them."""
        cursor: str | None = None
        while True:
            listed = await self.client.list_tools(cursor=cursor)
            for tool in listed.tools:
                self._with_question(tool)
                if tool.name == RETRIEVE:
                    self.retrieve = f"ctxprune_{RETRIEVE}"
            cursor = listed.next_cursor
            if cursor is None:
                return

    async def _pruned(self, result: CallToolResult, question: str) -> CallToolResult:
        """The result with shorter texts. Images, links and the like stay, and so does all when pruning fails."""
        content, changed = list[Any](), False
        for block in result.content:
            texts = await self._texts(block.text, question) if isinstance(block, TextContent) else None
            if texts is None:
                content.append(block)
                continue
            changed = True
            content += [block.model_copy(update={"text": texts[0]}), TextContent(type="text", text=texts[1])]
        if not changed:
            return result
        # the same once more, and whole: the client would read it in place of what was pruned
        return result.model_copy(update={"content": content, "structured_content": None})

    async def _texts(self, text: str, question: str) -> tuple[str, str] | None:
        """The pruned text and the line that tells of it; None for a text that stays."""
        if len(text) < self.wrapping.min_tokens * _CHARACTERS_A_TOKEN:
            return None
        try:
            output = await self.pruning.prune(
                text, question, budget=self.wrapping.budget, threshold=self.wrapping.threshold
            )
        except Exception as error:
            logger.warning("a result goes through unpruned: %s", error, exc_info=not isinstance(error, CtxpruneError))
            return None
        report = self.pruning.report(output, text, retrieve=self.retrieve)
        return (output.text, report) if report else None

    def _original(self, arguments: Mapping[str, Any]) -> CallToolResult:
        original = self.pruning.original(str(arguments.get("hash", "")))
        if original is None:
            return _failed("no original under that hash; originals are kept for an hour, the oldest go first")
        return CallToolResult(content=[TextContent(type="text", text=original)])


def _failed(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)


def _cursor(params: Any) -> str | None:
    return getattr(params, "cursor", None)


INSTRUCTIONS = (
    "Use `prune` on long text (web pages, logs, JSON, search results, code, diffs) before you read it: it keeps what "
    "answers your question, word for word, and JSON stays JSON. `rerank` orders documents by a question. "
    "`retrieve_original` gives back what was pruned."
)
#: Characters of one text, and documents of one call.
MAX_CHARACTERS, MAX_DOCUMENTS = 2_000_000, 1000

Count = Annotated[int, Field(gt=0), WHOLE]
Share = Annotated[float, Field(ge=0, le=1), NUMBER]
Question = Annotated[str, Field(min_length=1, max_length=20_000, description="What you want to know from it.")]


class Ranked(BaseModel):
    """A document's place in the input, its relevance (higher is better), and its text."""

    index: int
    relevance_score: float
    text: str


class OwnTools(MCPServer):
    """Refuses arguments that a tool does not take; the SDK would leave them out without a word."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        taken = next(
            (tool.input_schema["properties"] for tool in await self.list_tools() if tool.name == name), arguments
        )
        if unknown := [argument for argument in arguments if argument not in taken]:
            raise ToolError(f"{name} takes no {', '.join(unknown):.80}; it takes {', '.join(taken)}")
        return await super().call_tool(name, arguments, context)


def create_server(pruning: Pruning) -> MCPServer:
    """The server over a loaded compressor, for any transport of the SDK."""
    server = OwnTools("ctxprune", version=__version__, instructions=INSTRUCTIONS)

    @server.tool(structured_output=False)
    async def prune(
        text: Annotated[str, Field(max_length=MAX_CHARACTERS, description="What to prune.")],
        question: Question,
        budget: Annotated[Count | None, Field(description="At most so many tokens.")] = None,
        threshold: Annotated[Share | None, Field(description="Keep what scores at least this.")] = None,
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
        top_n: Annotated[Count | None, Field(description="Return only so many of the best.")] = None,
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
