"""Tools of MCP servers, in processes of their own: whatever a server does is an error of its
tool, and the next call is answered.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import psutil
import pytest
import structlog

from harness.domain.agents.agent import AgentTool
from harness.domain.agents.message import MessageToolCall
from harness.domain.agents.model_call import ToolCaller, ToolResult
from harness.domain.errors import ToolServerFailed
from harness.domain.providers import api_base_rules
from harness.domain.settings import ToolServer
from harness.runtime.tool_servers import connection
from harness.runtime.tool_servers.runtime import ToolServers
from tests.support.site.processes import free_port
from tests.support.site.tool_server import BAD, FILE, TOOLS

pytestmark = pytest.mark.req("E1")
ROOT = Path(__file__).parents[2]
CALLER = ToolCaller("ag_1", "se_1", "tu_1")
PIPES = ToolServer(command=sys.executable, args=("-P", FILE))
TOKEN = "tok-1234567890"  # noqa: S105 - of a server that tells it


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def running(**servers: ToolServer) -> AsyncIterator[ToolServers]:
    environ = {"TOOL_TOKEN": TOKEN, "TOOL_MODE": "calm", "SWAPGATE_SECRET": "never"}
    tools = ToolServers(servers, environ, now)
    try:
        yield tools
    finally:
        await tools.aclose()


async def offered(tools: ToolServers, *names: str) -> list[str]:
    return [tool.name for tool in await tools.list_tools([AgentTool(name) for name in names])]


async def call(
    tools: ToolServers, name: str, arguments: str = "{}", *, timeout_s: float = 240.0
) -> ToolResult:
    return await tools.run(MessageToolCall("c_1", name, arguments), CALLER, timeout_s)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", FILE, str(port)]
    )
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["pipes", "http"])
def server(request: pytest.FixtureRequest) -> ToolServer:
    if request.param == "pipes":
        return PIPES
    return ToolServer(url=request.getfixturevalue("address"))


async def reached(tools: ToolServers) -> None:
    """An HTTP server may still be starting."""
    for _ in range(100):
        if await offered(tools, "files"):
            return
        await asyncio.sleep(0.3)
    raise AssertionError("the server never answered")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time to start a server."""
    monkeypatch.setattr(connection, "OPEN_S", 240.0)
    monkeypatch.setattr(connection, "LIST_S", 240.0)
    monkeypatch.setattr(connection, "PAUSE_S", 0.0)
    monkeypatch.setattr(connection, "LISTED_S", 3600.0)


async def test_a_tool_runs_over_pipes_and_over_http(server: ToolServer) -> None:
    async with running(files=server) as tools:
        await reached(tools)

        assert await call(tools, "files__add", '{"a": 2, "b": 3}') == ToolResult("c_1", "5")
        assert tools.runs("files__add")
        assert not tools.runs("files__unknown")


async def test_what_no_provider_would_take_is_not_offered() -> None:
    async with running(files=PIPES) as tools:
        everything = await offered(tools, "files")

        assert everything == [f"files__{tool.name}" for tool in TOOLS if tool.name not in BAD]
        assert await offered(tools, "files.add", "files.far", "other", "spawn") == [
            "files__add"
        ]


async def test_a_tool_named_like_a_built_in_one_is_another_one() -> None:
    async with running(files=PIPES) as tools:
        assert "files__spawn" in await offered(tools, "files")
        assert not tools.runs("spawn")
        assert not tools.has(AgentTool("spawn"))
        assert (await call(tools, "files__spawn")).content == "spawn was called"


async def test_an_agent_may_be_given_tools_of_configured_servers_alone() -> None:
    async with running(files=PIPES) as tools:
        assert tools.has(AgentTool("files"))
        assert tools.has(AgentTool("files.add"))
        for name in ("other", "other.add", "files.", ".add", "add"):
            assert not tools.has(AgentTool(name)), name
        assert not tools.has(AgentTool("files", {"type": "object"}))


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("hang", "{}", "no answer within 1 s"),
        ("long", "{}", "2097152"),
        ("lie", "{}", "not what the tool's own schema announces"),
        ("fail", "{}", "there is no such file"),
        ("add", '{"a": 1}', ""),
    ],
)
async def test_a_tool_that_misbehaves_is_an_error_and_the_next_call_is_answered(
    server: ToolServer, name: str, arguments: str, reason: str
) -> None:
    async with running(files=server) as tools:
        await reached(tools)
        timeout_s = 1.0 if name == "hang" else 240.0
        result = await call(tools, f"files__{name}", arguments, timeout_s=timeout_s)

        assert result.is_error
        assert reason in result.content
        again = await call(tools, "files__add", '{"a": 2, "b": 3}')
        assert again == ToolResult("c_1", "5")


async def test_a_server_that_dies_is_started_again_by_the_next_call() -> None:
    async with running(files=PIPES) as tools:
        await offered(tools, "files")
        result = await call(tools, "files__die")

        assert result.is_error
        assert await call(tools, "files__add", '{"a": 2, "b": 3}') == ToolResult("c_1", "5")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(600)", "no answer within"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "2097152"),
        ("print('no JSON'); import time; time.sleep(600)", "no answer within"),
        ("raise SystemExit(1)", "Connection closed"),
    ],
    ids=["mute", "flood", "noise", "gone"],
)
async def test_a_server_that_is_none_is_left_out_and_then_left_alone(
    monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(connection, "PAUSE_S", 3600.0)
    bad = ToolServer(command=sys.executable, args=("-c", program))
    async with running(bad=bad, files=PIPES) as tools:
        assert await offered(tools, "files")
        if "time.sleep" in program:
            monkeypatch.setattr(connection, "OPEN_S", 1.0)
        names = await offered(tools, "bad", "files")

        assert names
        assert not [name for name in names if name.startswith("bad__")]
        with pytest.raises(ToolServerFailed, match=f"it is away .*{reason}"):
            await tools._connections["bad"].tools()


async def test_a_command_that_is_not_there_is_left_out() -> None:
    async with running(bad=ToolServer(command="/nowhere/tool")) as tools:
        assert await offered(tools, "bad") == []


async def test_a_server_gets_the_variables_that_it_is_configured_with_and_no_others() -> None:
    server = replace(PIPES, env=("TOOL_MODE",))
    unset = replace(PIPES, env=("UNSET",))
    async with running(files=server, unset=unset) as tools:
        await offered(tools, "files")
        names = set((await call(tools, "files__environment")).content.split())

        # Some, such as LC_CTYPE, are Python's own doing.
        assert "TOOL_MODE" in names
        assert not names & {"SWAPGATE_SECRET", "TOOL_TOKEN", "HOME", "PATH"}
        with pytest.raises(ToolServerFailed, match="UNSET is not set"):
            await tools._connections["unset"].tools()


async def test_a_server_that_tells_its_key_tells_it_to_no_model() -> None:
    async with running(files=replace(PIPES, env=("TOOL_TOKEN",))) as tools:
        names = await offered(tools, "files")

        assert (await call(tools, "files__secret")).content == "the token is [hidden]"
        assert "files__tell" not in names
        assert "files__secret" in names


REFUSES = """
import json, os, sys
for line in sys.stdin:
    if id_ := json.loads(line).get("id"):
        error = {"code": -32000, "message": "not with " + os.environ["TOOL_TOKEN"]}
        print(json.dumps({"jsonrpc": "2.0", "id": id_, "error": error}), flush=True)
"""


async def test_no_log_has_the_key_that_a_server_refuses() -> None:
    refuses = ToolServer(command=sys.executable, args=("-c", REFUSES), env=("TOOL_TOKEN",))
    async with running(files=refuses) as tools:
        with structlog.testing.capture_logs() as logged:
            assert await offered(tools, "files") == []

    assert "not with [hidden]" in str(logged)
    assert TOKEN not in str(logged)


async def test_a_call_that_is_cancelled_leaves_the_server_as_it_was() -> None:
    async with running(files=PIPES) as tools:
        await offered(tools, "files")
        hanging = asyncio.create_task(call(tools, "files__hang"))
        pid = (await call(tools, "files__pid")).content
        hanging.cancel()
        await asyncio.wait({hanging})

        assert (await call(tools, "files__pid")).content == pid


async def test_nothing_is_left_when_the_servers_are_closed() -> None:
    async with running(files=PIPES) as tools:
        await offered(tools, "files")
        hanging = asyncio.create_task(call(tools, "files__hang"))
        pid = int((await call(tools, "files__pid")).content)
        assert psutil.pid_exists(pid)

    assert not psutil.pid_exists(pid)
    assert (await hanging).is_error


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[ToolServer, list[bytes]]]:
    """A server of raw bytes, and what it was sent."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            received.append(await reader.read(100))
            writer.write(answer)
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield ToolServer(url=f"http://localhost:{port}/mcp"), received


async def test_a_name_that_leads_to_a_closed_address_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At each connection: it may have led elsewhere the last time.
    monkeypatch.setattr(api_base_rules, "CLOSED_NETWORKS", (ip_network("127.0.0.0/8"),))
    async with listening(b"") as (server, received), running(far=server) as tools:
        assert await offered(tools, "far") == []
        with pytest.raises(ToolServerFailed, match="leads to a closed address"):
            await tools._connections["far"].tools()
    assert not any(received)


async def test_a_redirect_to_another_server_is_not_followed() -> None:
    async with listening(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as (other, received):
        head = f"HTTP/1.1 307 Moved\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n"
        async with listening(head.encode()) as (server, asked), running(far=server) as tools:
            assert await offered(tools, "far") == []
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
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"delete"):
                    await reader.read()  # until the client gives up
                length = re.search(rb"content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                asked = json.loads(body or b"{}")
                answer: dict[str, object] = {"jsonrpc": "2.0", "id": asked.get("id")}
                if asked.get("method") in RESULTS:
                    status, answer["result"] = "200 OK", RESULTS[asked["method"]]
                elif asked.get("method") == "tools/call":
                    status, answer = "404 Not Found", {}
                else:
                    status, answer["error"] = "200 OK", {"code": -32601, "message": "no"}
                text = json.dumps(answer).encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
                    f"mcp-session-id: s1\r\ncontent-length: {len(text)}\r\n\r\n".encode()
                    + text
                )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield ToolServer(url=f"http://127.0.0.1:{port}/mcp")
    finally:
        server.close()


async def test_a_server_that_lets_no_session_end_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "ENDS_S", 0.5)
    async with clinging() as server:
        tools = ToolServers({"clinging": server}, {}, now)
        assert await offered(tools, "clinging") == ["clinging__add"]
        result = await asyncio.wait_for(call(tools, "clinging__add"), 60)
        assert "Session terminated" in result.content
        assert await asyncio.wait_for(offered(tools, "clinging"), 60) == ["clinging__add"]
        await asyncio.wait_for(tools.aclose(), 60)


def test_models_are_served_without_the_library() -> None:
    modules = ("router.server.asgi", "harness.api.agents.process", "harness.cli.program")
    program = f"import sys, {', '.join(modules)}; print('mcp' in sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout.split() == ["False"]


async def test_a_server_that_was_given_up_before_it_answered_holds_nobody_up() -> None:
    tools = ToolServers({"mute": ToolServer(command="sleep", args=("600",))}, {}, now)
    asking = asyncio.create_task(offered(tools, "mute"))
    await asyncio.wait({asking}, timeout=1)
    asking.cancel()
    await asyncio.wait({asking})

    # Without its mending this waited until the server ended by itself.
    await asyncio.wait_for(tools.aclose(), 240)
