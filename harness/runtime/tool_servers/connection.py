"""A connection to one tool server: the tools that it announces, read and bounded, and calls of
them. It is opened when it is first used, and again after it broke, but not at once.

Nothing that the server does may be more than an error of this one tool: it may hang, die, send
anything, and announce what providers would refuse in a request.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import structlog
from mcp import Client, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    TextContent,
    Tool,
)

from harness.domain.errors import SchemaTooLarge, ToolServerFailed
from harness.domain.json_schema import THREAD_LIMITS, is_valid, schema_fault
from harness.runtime.tool_servers.transports import Transport

T = TypeVar("T")
log = structlog.get_logger("swapgate.agents")
# They log what servers send.
for _library in ("mcp", "httpx2"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False

# Of a session that the server does not know any more, and of a connection that is none.
_ENDED: Final = (CONNECTION_CLOSED, INVALID_REQUEST)
MAX_ERROR_CHARS: Final = 2_000
# To start a command, which may have to fetch itself first (npx, uvx), or open a connection.
OPEN_S: Final = 30.0
# To read what the server announces.
LIST_S: Final = 10.0
# For a server to let a session end; a command may take `transports.ENDS_S` three times.
ENDS_S: Final = 10.0
PAUSE_S: Final = 60.0  # for which a server that could not be reached is left alone
LISTED_S: Final = 60.0  # for which what it announces is believed
MAX_TOOLS: Final = 64
MAX_PAGES: Final = 10
MAX_SCHEMA_CHARS: Final = 20_000
MAX_SCHEMA_DEPTH: Final = 24
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ServerConnection:
    """Belongs to one event loop. Close it by `aclose`."""

    def __init__(
        self,
        name: str,
        open_transport: Callable[[], Transport],
        monotonic: Callable[[], float],
    ) -> None:
        self._name, self._open, self._monotonic = name, open_transport, monotonic
        self._lock = asyncio.Lock()
        self._client: Client | None = None
        # Enters and leaves the client, whose scopes want one task.
        self._keeper: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._tools: Mapping[str, Tool] = {}
        self._listed_at = self._failed_at = float("-inf")
        self._fault = ""

    async def tools(self) -> Mapping[str, Tool]:
        """Lists the server's tools by name. Raises ToolServerFailed."""
        client = await self._connected()
        if self._monotonic() - self._listed_at > LISTED_S:
            self._tools = await self._within(self._list(client), LIST_S)
            self._listed_at = self._monotonic()
        return self._tools

    async def call(self, tool: str, arguments: dict[str, Any], timeout_s: float) -> str:
        """The tool's text. Raises ToolServerFailed, also where the tool itself says that it
        failed.
        """
        known = (await self.tools()).get(tool)
        if known is None:
            raise self._failure(f"it has no tool {tool!r} any more")
        client = await self._connected()
        asked = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
        # Not `client.call_tool`: it judges results by the server's own patterns, for as long as
        # they take, on the event loop.
        answer = client.session.send_request(asked, CallToolResult)
        result = await self._within(answer, timeout_s)
        text = _text(result)
        if result.is_error:
            raise ToolServerFailed(text or "the tool failed, and does not say why")
        await asyncio.to_thread(_check_result, known, result)
        return text

    async def aclose(self) -> None:
        async with self._lock:
            await self._disconnect()

    async def _connected(self) -> Client:
        """Raises ToolServerFailed."""
        async with self._lock:
            if self._client is not None and self._keeper and not self._keeper.done():
                return self._client
            if self._monotonic() - self._failed_at < PAUSE_S:
                raise self._failure(f"it is away ({self._fault})")
            await self._disconnect()
            opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep(opened))
            try:
                self._client = await self._within(opened, OPEN_S)
            except ToolServerFailed:
                self._keeper.cancel()
                self._failed_at = self._monotonic()
                self._fault = self._fault or f"no answer within {OPEN_S:g} s"
                raise
            except asyncio.CancelledError:
                # The server may never answer, and whoever disconnects waits for the keeper.
                self._keeper.cancel()
                raise
            return self._client

    async def _disconnect(self) -> None:
        self._client = None
        await self._end_keeper()
        self._closing, self._fault = asyncio.Event(), ""
        self._listed_at = float("-inf")

    async def _end_keeper(self) -> None:
        self._closing.set()
        if self._keeper is not None:
            _, left = await asyncio.wait({self._keeper}, timeout=ENDS_S)
            if left:
                # The server lets its session not end; a command is ended all the same.
                self._keeper.cancel()
                await asyncio.wait(left)

    async def _keep(self, opened: asyncio.Future[Client]) -> None:
        closing = self._closing
        try:
            async with Client(self._open(), cache=None) as client:
                opened.set_result(client)
                await closing.wait()
        except Exception as error:  # noqa: BLE001 - whatever a server may bring about
            self._fault = _reason(error)
        finally:
            opened.cancel()

    async def _within(self, answer: Awaitable[T], timeout_s: float) -> T:
        """What the server answers in time. A connection that ends meanwhile ends the wait."""
        assert self._keeper is not None  # noqa: S101 - whoever waits has opened it
        asked = asyncio.ensure_future(answer)
        try:
            await asyncio.wait(
                {asked, self._keeper},
                timeout=timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if asked.done() and not asked.cancelled():
                return asked.result()
        except MCPError as error:
            if error.code in _ENDED:
                # Another session, or another process, answers the next call.
                self._client = None
                await self._end_keeper()
            raise self._failure(self._fault or str(error)[:MAX_ERROR_CHARS]) from None
        except Exception as error:  # noqa: BLE001 - as in `_keep`
            raise self._failure(f"its answer cannot be read ({type(error).__name__})") from None
        finally:
            asked.cancel()
        if self._keeper.done():
            raise self._failure(self._fault or "it ended")
        raise self._failure(f"no answer within {timeout_s:g} s")

    def _failure(self, reason: str) -> ToolServerFailed:
        return ToolServerFailed(f"tool server {self._name}: {reason}")

    async def _list(self, client: Client) -> Mapping[str, Tool]:
        tools: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            for announced in page.tools[:MAX_TOOLS]:
                fault = await asyncio.to_thread(_tool_fault, announced)
                if not fault and announced.name in tools:
                    fault = "it is announced twice"
                if not fault and len(tools) == MAX_TOOLS:
                    fault = f"there are more than {MAX_TOOLS}"
                if fault:
                    name = announced.name[:64]
                    log.warning("tool_left_out", server=self._name, tool=name, reason=fault)
                else:
                    tools[announced.name] = announced
            cursor = page.next_cursor
            if not cursor:
                break
        return tools


def _tool_fault(announced: Tool) -> str:
    """Why no model can be told of it; empty where one can. A provider refuses the request with
    it, and so the session's whole turn.
    """
    if not _TOOL_NAME.fullmatch(announced.name):
        return "its name is no function's: 1 to 64 letters, digits, '-' and '_'"
    if announced.input_schema.get("type") != "object":
        return "its schema is not of an object"
    return _schema_fault(announced.input_schema) or _schema_fault(announced.output_schema)


def _schema_fault(schema: object) -> str:
    if schema is None:
        return ""
    if _depth(schema, MAX_SCHEMA_DEPTH) < 0:
        return f"its schema is more than {MAX_SCHEMA_DEPTH} levels deep"
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA_CHARS:
        return f"its schema has more than {MAX_SCHEMA_CHARS} characters"
    if re.search(r'"\$(ref|dynamicRef)": "[^#]', text):
        return "its schema refers to another document"
    try:
        fault = schema_fault(schema)
    except Exception as error:  # noqa: BLE001 - the library's, of what is no schema at all
        fault = type(error).__name__
    return f"its schema is none: {fault[:200]}" if fault else ""


def _depth(value: object, left: int) -> int:
    """What is left of the levels below the deepest member; less than 0 where there are more."""
    if left < 0 or not isinstance(value, dict | list):
        return left
    members = value.values() if isinstance(value, dict) else value
    return min((_depth(member, left - 1) for member in members), default=left)


def _text(result: CallToolResult) -> str:
    """What a model can be shown: texts, else the structured content as JSON."""
    parts = [
        block.text if isinstance(block, TextContent) else f"[{block.type}: not shown]"
        for block in result.content
    ]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _check_result(tool: Tool, result: CallToolResult) -> None:
    """Raises ToolServerFailed for a result that is not what the tool announces."""
    if tool.output_schema is None:
        return
    try:
        fits = is_valid(result.structured_content, tool.output_schema, THREAD_LIMITS)
    except SchemaTooLarge:
        fits = True  # too long to tell; what it says is shown as it is
    except Exception:  # noqa: BLE001 - the library's, for a schema that refers to nothing
        fits = False
    if not fits:
        raise ToolServerFailed("the result is not what the tool's own schema announces")


def _reason(error: BaseException) -> str:
    """Of a group, the first one's. Its text may hold what the server sent: not all of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{error}"[:200] or type(error).__name__
