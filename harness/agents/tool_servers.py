"""`ToolServers` runs the tools of the configured MCP servers, over streamable HTTP. An agent
names a tool `SERVER.TOOL`; a model calls it `SERVER__TOOL`, because providers refuse a dot in a
function's name.

Each call opens its own MCP session, so that a server that hangs or breaks does not harm other
calls. A server may send anything, and may announce tools that providers would refuse. So this
module limits sizes and times, checks addresses after name resolution, and hides a server's
secrets from models.
"""

import asyncio
import json
import logging
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import httpx2
import structlog
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    TextContent,
    Tool,
)

from harness.agents.message import MessageToolCall
from harness.agents.turn import (
    OfferedTool,
    ToolCaller,
    ToolResult,
    no_such_tool,
)
from harness.frame.errors import ToolServerFailed
from harness.frame.matching import schema_fault
from harness.providers.api_base_rules import may_connect
from harness.routing.agent import AgentTool
from harness.routing.settings import ToolServer

T = TypeVar("T")
log = structlog.get_logger("swapproof.agents")
# These libraries log the content of servers' answers.
for _library in ("mcp", "httpx2"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False

# More than any result that a model may get (`conversation.MAX_RESULT_CHARS`).
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
MAX_ERROR_CHARS: Final = 500
CONNECT_S: Final = 10.0
LIST_S: Final = 30.0  # limit for a list of tools
CLOSE_S: Final = 2.0  # limit for the end of an MCP session
CACHE_S: Final = 60.0  # how long a list, or a failure to list, is cached
MAX_TOOLS: Final = 64
MAX_NAME_CHARS: Final = 64
MAX_DESCRIPTION_CHARS: Final = 4_000
MAX_SCHEMA_CHARS: Final = 20_000
MIN_SECRET_CHARS: Final = 6  # characters; hiding shorter values would damage ordinary texts
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ToolServers:
    """Implements ToolRuntime. environ: holds the variables of `header_envs`."""

    def __init__(
        self,
        servers: Mapping[str, ToolServer],
        environ: Mapping[str, str],
        monotonic: Callable[[], float],
    ) -> None:
        self._servers = servers
        self._environ = environ
        self._monotonic = monotonic
        self._offered: dict[str, tuple[str, Tool]] = {}  # server and tool, by function's name
        self._lists: dict[str, tuple[float, Sequence[Tool]]] = {}  # time and tools, by server

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        """Lists the named tools, except tools of unavailable servers."""
        names = {tool.name for tool in tools if tool.is_of_server(self._servers)}
        servers = sorted({name.partition(".")[0] for name in names})
        lists = await asyncio.gather(*(self._list_usable(server) for server in servers))
        return [
            offered
            for server, announced in zip(servers, lists, strict=True)
            for tool in announced
            if names & {server, f"{server}.{tool.name}"}
            if (offered := self._offer(server, tool)) is not None
        ]

    async def run(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:
        """Runs a tool within the caller's time. A server's failure is a result with
        `is_error`.
        """
        if call.name not in self._offered:
            return no_such_tool(call)
        server, tool = self._offered[call.name]
        params = CallToolRequestParams(
            name=tool.name, arguments=json.loads(call.arguments or "{}")
        )

        def send_call(client: Client) -> Awaitable[CallToolResult]:
            # `client.call_tool` would validate results with the server's own patterns on the
            # event loop, without a time limit.
            return client.session.send_request(CallToolRequest(params=params), CallToolResult)

        try:
            result = await self._call_server(server, send_call, caller.left.timeout_s)
            text = _join_result_texts(result)
            is_error = bool(result.is_error)
            if is_error:
                text = text or "the tool failed without a reason"
        except ToolServerFailed as error:
            text = str(error)
            is_error = True
        return ToolResult(call.id, self._hide_secrets(server, text), is_error=is_error)

    async def _call_server(
        self,
        server: str,
        question: Callable[[Client], Awaitable[T]],
        timeout_s: float,
    ) -> T:
        """Runs a call in a new MCP session. Raises ToolServerFailed."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                Client(
                    _open_streams(self._servers[server], self._environ), cache=None
                ) as client,
            ):
                return await question(client)
        except TimeoutError:
            reason = f"no answer within {timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - a server may cause any error
            reason = _format_error(error)
        raise ToolServerFailed(f"tool server {server}: {reason}")

    async def _list_usable(self, server: str) -> Sequence[Tool]:
        """Lists a server's usable tools, cached for `CACHE_S`; empty for a server that
        fails.
        """
        listed_at, tools = self._lists.get(server, (float("-inf"), ()))
        if self._monotonic() - listed_at <= CACHE_S:
            return tools
        try:
            tools = await self._call_server(server, partial(_list_valid_tools, server), LIST_S)
        except ToolServerFailed as error:
            reason = self._hide_secrets(server, str(error))
            log.warning("tools_left_out", server=server, reason=reason)
            tools = ()
        self._lists[server] = self._monotonic(), tools
        return tools

    def _offer(self, server: str, tool: Tool) -> OfferedTool | None:
        """Builds the tool as models see it. Returns None if its name is too long or used by
        another tool, or if it contains a secret.
        """
        name = f"{server}__{tool.name}"
        first_server, first_tool = self._offered.setdefault(name, (server, tool))
        if len(name) > MAX_NAME_CHARS or (first_server, first_tool.name) != (server, tool.name):
            log.warning(
                "tool_left_out",
                server=server,
                tool=tool.name,
                reason="its name",
            )
            return None
        announcement = json.dumps([tool.description, tool.input_schema], ensure_ascii=False)
        if announcement != self._hide_secrets(server, announcement):
            log.warning("tool_left_out", server=server, reason="it contains a secret")
            return None
        self._offered[name] = server, tool
        description = (tool.description or "")[:MAX_DESCRIPTION_CHARS]
        return OfferedTool(name, description, tool.input_schema, runs_at_client=False)

    def _hide_secrets(self, server: str, text: str) -> str:
        """Hides the server's secrets in a text that a model will get."""
        for variable in self._servers[server].header_envs.values():
            value = self._environ.get(variable, "")
            if len(value) >= MIN_SECRET_CHARS:
                text = text.replace(value, "[hidden]")
        return text


@asynccontextmanager
async def _open_streams(server: ToolServer, environ: Mapping[str, str]) -> AsyncIterator[Any]:
    """Opens the streams of an MCP session. Raises ToolServerFailed for a missing variable. The
    library follows redirects only within the origin.
    """
    for variable in server.header_envs.values():
        if variable not in environ:
            raise ToolServerFailed(f"the environment variable {variable} is not set")
    secret_headers = {
        header: environ[variable] for header, variable in server.header_envs.items()
    }
    client = httpx2.AsyncClient(
        transport=_GuardedTransport(trust_env=False),
        headers={**secret_headers, "accept-encoding": "identity"},
        # `_call_server` limits the time of the whole call.
        timeout=httpx2.Timeout(CONNECT_S, read=None),
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(
            server.url,
            http_client=client,
            max_sse_event_size=MAX_MESSAGE_BYTES,
        ) as streams,
    ):
        yield streams


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    """Refuses addresses that Swapproof may not call, and ends an answer after
    `MAX_MESSAGE_BYTES`. In event streams, the library limits each event instead.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions["trace"] = partial(_check_peer, request.url.host)
        if request.method == "DELETE":  # ends the MCP session
            request.extensions["timeout"] = httpx2.Timeout(CLOSE_S).as_dict()
        answer = await super().handle_async_request(request)
        if answer.headers.get("content-encoding", "identity") != "identity":
            # A few compressed bytes could expand without limit.
            await answer.aclose()
            raise httpx2.ReadError("the server compressed its answer without a request for it")
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(answer.stream, httpx2.AsyncByteStream)  # noqa: S101 - for mypy
            answer.stream = _BoundedStream(answer.stream)
        return answer


async def _check_peer(
    host: str,
    event: str,
    values: Mapping[str, Any],
) -> None:
    """Checks the address of each new connection before the request is sent, because a name may
    resolve to another address each time. The library calls this.
    """
    if event != "connection.connect_tcp.complete":
        return
    stream = values["return_value"]
    address = str(stream.get_extra_info("server_addr")[0])
    if not may_connect(host, address):
        await stream.aclose()
        raise httpx2.ConnectError(
            "its name resolves to an address that Swapproof does not call"
        )


class _BoundedStream(httpx2.AsyncByteStream):
    """An answer's body. Raises StreamError after `MAX_MESSAGE_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for piece in self._stream:
            length += len(piece)
            if length > MAX_MESSAGE_BYTES:
                raise httpx2.StreamError(
                    f"it sent a message of more than {MAX_MESSAGE_BYTES} bytes"
                )
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _list_valid_tools(server: str, client: Client) -> Sequence[Tool]:
    """Lists up to `MAX_TOOLS` tools that providers accept, and logs the others."""
    tools: dict[str, Tool] = {}
    for tool in (await client.list_tools()).tools:
        fault = await asyncio.to_thread(_find_tool_fault, tool)
        if not fault and len(tools) == MAX_TOOLS:
            fault = f"there are more than {MAX_TOOLS}"
        if fault:
            log.warning(
                "tool_left_out",
                server=server,
                tool=tool.name[:64],
                reason=fault,
            )
        else:
            tools.setdefault(tool.name, tool)
    return tuple(tools.values())


def _find_tool_fault(tool: Tool) -> str:
    """Returns why providers would refuse a request with this tool; empty if they would accept
    it.
    """
    if not _TOOL_NAME.fullmatch(tool.name):
        return "its name is not 1 to 64 letters, digits, '-' and '_'"
    if tool.input_schema.get("type") != "object":
        return "its schema does not describe an object"
    try:
        text = json.dumps(tool.input_schema)
        if len(text) > MAX_SCHEMA_CHARS:
            return f"its schema has more than {MAX_SCHEMA_CHARS} characters"
        if re.search(r'"\$(ref|dynamicRef)": "[^#]', text):
            return "its schema refers to another document"
        fault = schema_fault(tool.input_schema)
    except Exception as error:  # noqa: BLE001 - the library may raise any error for a bad schema
        fault = type(error).__name__
    return f"its schema is invalid: {fault[:200]}" if fault else ""


def _join_result_texts(result: CallToolResult) -> str:
    """Joins a result's texts. Describes other blocks by a note. Returns structured content only
    if there is no block.
    """
    parts = [
        block.text if isinstance(block, TextContent) else f"[{block.type}: not shown]"
        for block in result.content
    ]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _format_error(error: BaseException) -> str:
    """Returns the text of the error, or of a group's first error. Limits its length, because a
    server may have sent it.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{error}"[:MAX_ERROR_CHARS] or type(error).__name__
