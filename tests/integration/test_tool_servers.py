import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
import structlog

from harness.agents import tool_servers
from harness.agents.message import MessageToolCall
from harness.agents.tool_servers import ToolServers
from harness.agents.turn import ToolCaller, ToolResult
from harness.providers import api_base_rules
from harness.routing.agent import AgentTool
from harness.routing.settings import ToolServer, TurnBounds
from tests.support.site.processes import free_port
from tests.support.site.tool_server import (
    BAD,
    TOKEN,
    TOOLS,
    tool_server_process,
)

pytestmark = pytest.mark.req("E1")
ROOT = Path(__file__).parents[2]
ENVIRON = {"TOOL_TOKEN": TOKEN}
FIVE = ToolResult("c_1", "5")


def build(**servers: ToolServer) -> ToolServers:
    return ToolServers(servers, ENVIRON, asyncio.get_running_loop().time)


async def offered(tools: ToolServers, *names: str) -> list[str]:
    return [tool.name for tool in await tools.list_tools([AgentTool(name) for name in names])]


async def call(
    tools: ToolServers,
    name: str,
    arguments: str = "{}",
    *,
    timeout_s: float = 240.0,
) -> ToolResult:
    caller = ToolCaller("se_1", TurnBounds(timeout_s=timeout_s))
    return await tools.run(MessageToolCall("c_1", name, arguments), caller)


async def add(tools: ToolServers) -> ToolResult:
    return await call(tools, "files__add", '{"a": 2, "b": 3}')


async def until_offered(tools: ToolServers) -> None:
    for _ in range(300):
        if await offered(tools, "files"):
            return
        tools._lists.clear()
        await asyncio.sleep(0.3)
    raise AssertionError("the server never answered")


@pytest.fixture(scope="module")
def files() -> Iterator[ToolServer]:
    port = free_port()
    with tool_server_process(port):
        yield ToolServer(f"http://127.0.0.1:{port}/mcp", {"x-token": "TOOL_TOKEN"})


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_servers, "LIST_S", 240.0)
    monkeypatch.setattr(tool_servers, "CACHE_S", 3600.0)


@pytest.fixture
async def tools(files: ToolServer) -> ToolServers:
    made = build(files=files)
    await until_offered(made)
    return made


async def test_what_no_provider_would_take_is_not_offered(tools: ToolServers) -> None:
    bad = [*BAD, "tell"]  # that one tells the server's key
    everything = await offered(tools, "files")

    assert everything == [f"files__{tool.name}" for tool in TOOLS if tool.name not in bad]
    assert await offered(tools, "files.add", "files.far", "other", "spawn") == ["files__add"]
    unknown = await call(tools, "files__unknown")
    assert (unknown.is_error, "not available now" in unknown.content) == (True, True)


async def test_a_tool_named_like_a_built_in_one_is_another_one(tools: ToolServers) -> None:
    assert "files__spawn" in await offered(tools, "files")
    assert (await call(tools, "spawn")).is_error
    assert await offered(tools, "spawn") == []
    assert (await call(tools, "files__spawn")).content == "spawn was called"


def test_an_agent_may_be_given_tools_of_configured_servers_alone() -> None:
    servers = {"files"}
    for name in ("files", "files.add"):
        assert AgentTool(name).is_of_server(servers)
    for name in ("other", "other.add", "files.", ".add", "add"):
        assert not AgentTool(name).is_of_server(servers), name
    assert not AgentTool("files", {"type": "object"}).is_of_server(servers)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("hang", "{}", "no answer within 1 s"),
        ("long", "{}", "2097152"),
        ("fail", "{}", "there is no such file"),
        ("add", '{"a": 1}', ""),
    ],
)
async def test_a_tool_that_misbehaves_is_an_error_and_the_next_call_is_answered(
    tools: ToolServers,
    name: str,
    arguments: str,
    reason: str,
) -> None:
    timeout_s = 1.0 if name == "hang" else 240.0
    result = await call(tools, f"files__{name}", arguments, timeout_s=timeout_s)

    assert result.is_error
    assert reason in result.content
    assert await add(tools) == FIVE


async def test_a_server_that_tells_its_key_tells_it_to_no_model(tools: ToolServers) -> None:
    assert (await call(tools, "files__secret")).content == "the token is [hidden]"


async def test_a_call_that_is_cancelled_leaves_the_server_as_it_was(tools: ToolServers) -> None:
    hanging = asyncio.create_task(call(tools, "files__hang"))
    assert await add(tools) == FIVE
    hanging.cancel()
    await asyncio.wait({hanging})

    assert hanging.cancelled()
    assert await add(tools) == FIVE


async def test_a_server_that_dies_is_an_error_and_answers_when_it_is_back() -> None:
    port = free_port()
    tools = build(files=ToolServer(f"http://127.0.0.1:{port}/mcp"))
    with tool_server_process(port):
        await until_offered(tools)
        assert (await call(tools, "files__die")).is_error
        assert (await add(tools)).is_error
    with tool_server_process(port):
        for _ in range(300):
            if (answer := await add(tools)) == FIVE:
                break
            await asyncio.sleep(0.3)
        assert answer == FIVE


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[tuple[ToolServer, list[bytes]]]:
    """A server of raw bytes, and what it was sent. None: it never answers."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            received.append(await reader.read(100))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        headers = {"authorization": "TOOL_TOKEN"}
        yield ToolServer(f"http://localhost:{port}/mcp", headers), received
    finally:
        server.close()


def raw(body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "no answer within"),
        (raw(b"x" * 3_000_000), "2097152"),
        (raw(b"no JSON"), "JSON"),
        (raw(b"<html>", "text/html"), "content type"),
        (b"", ""),
    ],
    ids=["mute", "flood", "noise", "page", "gone"],
)
async def test_a_server_that_is_none_is_left_out_and_then_left_alone(
    monkeypatch: pytest.MonkeyPatch,
    tools: ToolServers,
    answer: bytes | None,
    reason: str,
) -> None:
    if answer is None:
        monkeypatch.setattr(tool_servers, "LIST_S", 1.0)
    async with listening(answer) as (bad, received):
        both = build(bad=bad, files=tools._servers["files"])
        both._lists.update(tools._lists)
        with structlog.testing.capture_logs() as logged:
            names = await offered(both, "bad", "files")
            asked = len(received)
            assert await offered(both, "bad") == []
    assert names
    assert not [name for name in names if name.startswith("bad__")]
    (told,) = [one for one in logged if one["event"] == "tools_left_out"]
    assert told["server"] == "bad"
    assert reason in told["reason"]
    assert len(received) == asked > 0


async def test_no_log_has_the_key_that_a_server_refuses() -> None:
    error = {"code": -32000, "message": f"not with {TOKEN}"}
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": None,
            "error": error,
        }
    ).encode()
    async with listening(raw(body).replace(b"200 OK", b"403 Forbidden")) as (refuses, _):
        with structlog.testing.capture_logs() as logged:
            assert await offered(build(refuses=refuses), "refuses") == []

    assert "not with [hidden]" in str(logged)
    assert TOKEN not in str(logged)


async def test_a_variable_that_is_not_set_is_named_and_its_server_left_out() -> None:
    server = ToolServer("http://127.0.0.1:1/mcp", {"authorization": "UNSET"})
    with structlog.testing.capture_logs() as logged:
        assert await offered(build(unset=server), "unset") == []
    assert "the environment variable UNSET is not set" in str(logged)


async def test_a_name_that_leads_to_a_closed_address_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At each connection: it may have led elsewhere the last time.
    monkeypatch.setattr(api_base_rules, "CLOSED_NETWORKS", (ip_network("127.0.0.0/8"),))
    async with listening(b"") as (server, received):
        with structlog.testing.capture_logs() as logged:
            assert await offered(build(far=server), "far") == []
    assert "resolves to an address that Swapproof does not call" in str(logged)
    assert not any(received)


async def test_a_redirect_to_another_server_is_not_followed() -> None:
    async with listening(raw(b"")) as (other, received):
        head = f"HTTP/1.1 307 Moved\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n"
        async with listening(head.encode()) as (server, asked):
            assert await offered(build(far=server), "far") == []
            assert asked
    assert not received


RESULTS: Mapping[str, Mapping[str, object]] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "clinging", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "add", "inputSchema": {"type": "object"}}]},
}


@asynccontextmanager
async def clinging() -> AsyncIterator[ToolServer]:
    """A server that forgets its session at the first call, and never lets it be ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            closing(writer),
            suppress(asyncio.IncompleteReadError, ConnectionError),
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"delete"):
                    await reader.read()  # until the client gives up
                length = re.search(rb"content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                asked = json.loads(body or b"{}")
                answer: dict[str, object] = {
                    "jsonrpc": "2.0",
                    "id": asked.get("id"),
                }
                if asked.get("method") in RESULTS:
                    status = "200 OK"
                    answer["result"] = RESULTS[asked["method"]]
                elif asked.get("method") == "tools/call":
                    status = "404 Not Found"
                    answer = {}
                else:
                    status = "200 OK"
                    answer["error"] = {"code": -32601, "message": "no"}
                text = json.dumps(answer).encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
                    f"mcp-session-id: s1\r\ncontent-length: {len(text)}\r\n\r\n".encode()
                    + text
                )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield ToolServer(f"http://127.0.0.1:{port}/mcp")
    finally:
        server.close()


async def test_a_server_that_lets_no_session_end_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool_servers, "CLOSE_S", 0.5)
    async with clinging() as server:
        tools = build(clinging=server)
        assert await asyncio.wait_for(offered(tools, "clinging"), 60) == ["clinging__add"]
        result = await asyncio.wait_for(call(tools, "clinging__add"), 60)
        assert "Session terminated" in result.content


def test_models_are_served_without_the_library() -> None:
    modules = (
        "router.frame.asgi",
        "harness.interfaces.api.agents.process",
        "harness.interfaces.cli.program",
    )
    program = f"import sys, {', '.join(modules)}; print('mcp' in sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    assert done.stdout.split() == ["False"]
