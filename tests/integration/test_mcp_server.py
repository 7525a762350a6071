"""`swapproof mcp` as the official MCP client sees it, by pipes and HTTP, in real processes."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from harness.agents import switches
from harness.agents.records import Sessions
from harness.frame.people.access import SYSTEM, Role
from harness.operations import keys
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.agent import SessionState
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ReceivedRequest,
    completion,
)
from tests.support.site.agents_site import AgentsSite, agents_site
from tests.support.site.processes import free_port

pytestmark = pytest.mark.req("C1", "C6", "C8")
BASE = "sim-base"
BETTER = "sim-better"
ROOT = Path(__file__).parents[2]
READING = {
    "list_routes",
    "compare",
    "canary_status",
    "canary_who",
    "list_candidates",
    "manage_credentials",
}


@dataclass
class McpSite:
    site: AgentsSite
    keys: dict[str, str]

    def pipes(self, key: str = "", *words: str) -> Client:
        command = self.site.world.place.command("mcp", *words)
        environ = {name: value for name, value in os.environ.items() if "SWAPPROOF" not in name}
        if key:
            environ["SWAPPROOF_MANAGEMENT_KEY"] = self.keys[key]
        return Client(StdioServerParameters(command=command[0], args=command[1:], env=environ))

    @asynccontextmanager
    async def http(self, key: str = "", **headers: str) -> AsyncIterator[Client]:
        if key:
            headers["authorization"] = f"Bearer {self.keys[key]}"
        url = f"{self.site.world.place.url('mcp')}/mcp"
        async with (
            httpx2.AsyncClient(headers=headers, timeout=300) as http_client,
            Client(streamable_http_client(url, http_client=http_client)) as client,
        ):
            yield client


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpSite]:
    with agents_site(tmp_path_factory.mktemp("mcp")) as site:
        world = site.world
        made = {
            name: keys.create_key(
                world.installation.context,
                SYSTEM,
                name,
                secret=world.installation.secret,
                role=role,
                service=role is not None,
            )[1]
            for name, role in (
                ("viewer", Role.VIEWER),
                ("proposer", Role.PROPOSER),
                ("data", None),
            )
        }
        port = free_port()
        world.place.ports["mcp"] = port
        world.place.start("mcp", "mcp", "--http", "--port", str(port))
        world.place.answers("mcp", "/healthz")
        yield McpSite(site, made)


# Each pipe has a server of its own, which takes seconds to start.
@pytest.fixture(params=[pytest.param("pipes", marks=pytest.mark.verify), "http"])
def connect(request: pytest.FixtureRequest, place: McpSite) -> Any:
    return place.pipes if request.param == "pipes" else place.http


async def tools_of(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def called(
    client: Client,
    name: str,
    **arguments: object,
) -> Any:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    return json.loads(text_of(result))


async def refused(
    client: Client,
    name: str,
    **arguments: object,
) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error, text_of(result)
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    return "".join(getattr(block, "text", "") for block in result.content)


@pytest.mark.spine
async def test_an_agent_sees_routes_credentials_and_canaries(connect: Any) -> None:
    async with connect("viewer") as client:
        assert await tools_of(client) >= READING
        [route] = await called(client, "list_routes")
        credentials = await called(client, "manage_credentials", action="list")
        canaries = await called(client, "canary_status")

        assert (route["route"], route["incumbent"]) == (
            "chat",
            "sim/sim-base",
        )
        assert [provider["name"] for provider in credentials["items"]] == ["sim"]
        assert canaries["items"] == []
        assert "no canary yet" in await refused(client, "canary_status", route="chat")


async def test_an_agent_proposes_a_swap_and_has_no_tool_to_approve_it(
    connect: Any, place: McpSite
) -> None:
    async with connect("proposer") as client:
        names = await tools_of(client)
        assert names == {
            *READING,
            "preview_swap",
            "propose_swap",
            "switch_model",
            "spawn",
        }
        assert not [name for name in names if "approve" in name or "promote" in name]
        given = {
            "route": "chat",
            "candidate": "sim/sim-better",
            "reason": "better",
        }
        preview = await called(client, "preview_swap", **given)
        assert preview["candidate"] == "sim/sim-better"
        assert preview["cost_text"].startswith("The price of sim/")
        proposal = await called(client, "propose_swap", **given)
        try:
            assert (proposal["phase"], proposal["proposer"]) == (
                "proposed",
                "proposer",
            )
            compared = await called(client, "compare", route="chat")
            assert compared["proposal"]["id"] == proposal["id"]
            assert "chat" in await refused(client, "propose_swap", **given)
            for name in ("approve_proposal", "promote_canary", "approve"):
                assert "there is no tool" in await refused(client, name)
        finally:
            place.site.world.place.run("proposal", "cancel", proposal["id"])


async def test_a_role_below_and_a_data_key_are_not_shown_what_they_may_not_do(
    connect: Any,
) -> None:
    given = {
        "route": "chat",
        "candidate": "sim/sim-better",
        "reason": "better",
    }
    async with connect("viewer") as client:
        assert await tools_of(client) == READING
        assert "needs proposer" in await refused(client, "propose_swap", **given)
    async with connect("data") as client:
        assert await tools_of(client) == {"switch_model", "spawn"}
        assert "needs a management key" in await refused(client, "list_routes")


async def test_wrong_arguments_are_named(connect: Any) -> None:
    async with connect("proposer") as client:
        assert "candidate" in await refused(client, "propose_swap", route="chat")
        assert "wage: unknown key" in await refused(client, "list_routes", wage=7)
        said = "candidat: unknown key; did you mean 'candidate'?"
        assert said in await refused(
            client,
            "propose_swap",
            route="chat",
            candidat="x",
        )
        assert "give one of" in await refused(client, "compare")
        assert "action" in await refused(client, "manage_credentials", action="set")
        given = {
            "route": "chat",
            "candidate": "sim/sim-better",
            "reason": "a\0b",
        }
        assert "a NUL" in await refused(client, "propose_swap", **given)
        assert "a NUL" in await refused(
            client,
            "spawn",
            session="se_\0",
            tasks=[],
        )


async def test_the_operator_without_a_key_may_propose_at_most(place: McpSite) -> None:
    async with place.pipes() as client:
        assert await tools_of(client) >= {*READING, "propose_swap"}
        assert len(await called(client, "list_routes")) == 1


async def test_without_a_key_http_shows_this_machine_what_there_is(place: McpSite) -> None:
    async with place.http() as client:
        assert "propose_swap" not in await tools_of(client)
        assert len(await called(client, "list_routes")) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer sg-mgmt-wrong"}, 401),
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"x-forwarded-for": "10.0.0.1"}, 401),
        ({"content-type": "text/plain"}, 415),
    ],
)
def test_a_stranger_and_a_web_page_get_nothing(
    place: McpSite,
    headers: dict[str, str],
    status: int,
) -> None:
    sent = {"content-type": "application/json", **headers}
    url = f"{place.site.world.place.url('mcp')}/mcp"
    answer = httpx2.post(url, content=b'{"jsonrpc": "2.0"}', headers=sent)

    assert answer.status_code == status, answer.text


def test_a_server_with_a_wrong_key_says_so_and_ends(place: McpSite) -> None:
    environ = {**os.environ, "SWAPPROOF_MANAGEMENT_KEY": "sg-mgmt-wrong"}
    done = subprocess.run(  # noqa: S603 - our own command
        place.site.world.place.command("mcp"),
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "unknown or revoked" in done.stderr


@pytest.mark.spine
async def test_sub_tasks_run_in_the_name_of_a_session(connect: Any, place: McpSite) -> None:
    def reply(request: ReceivedRequest) -> Any:
        return completion(str(request.json["messages"][-1]["content"]).upper())

    place.site.upstream.turns[BASE] = reply
    path = place.site.session(tools=["spawn"])
    session = path.rpartition("/")[2]
    async with connect("proposer") as client:
        done = await called(
            client,
            "spawn",
            session=session,
            tasks=[{"task": "one"}, {"task": "two"}],
        )

        assert [task["answer"] for task in done["tasks"]] == ["ONE", "TWO"]
        assert "no session" in await refused(
            client,
            "spawn",
            session="se_none",
            tasks=[{"task": "one"}],
        )
        assert "session" in await refused(client, "spawn", tasks=[{"task": "one"}])
        assert "session" in await refused(
            client,
            "switch_model",
            action="switch",
            model="x",
        )
        listed = await called(client, "switch_model", action="list")
        assert {row["provider"] for row in listed["providers"]} == {"sim"}
    async with connect("data") as client:
        # Not its own.
        assert "no session" in await refused(
            client,
            "spawn",
            session=session,
            tasks=[{"task": "one"}],
        )
    async with connect("viewer") as client:
        assert "needs proposer" in await refused(
            client,
            "spawn",
            session=session,
            tasks=[{"task": "one"}],
        )


def configurations() -> list[dict[str, Any]]:
    """Of MCP clients, as the docs have them."""
    text = (ROOT / "docs" / "reference" / "mcp.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"(?s)```json\n(.+?)```", text)]
    found = [
        server
        for block in blocks
        for section in ("mcpServers", "servers")
        for server in block.get(section, {}).values()
    ]
    assert len(found) == 3
    return found


@pytest.mark.parametrize("entry", configurations(), ids=str)
async def test_the_configurations_in_the_docs_reach_a_server(
    place: McpSite, entry: dict[str, Any]
) -> None:
    if "url" in entry:
        assert entry["url"] == "http://127.0.0.1:8086/mcp"
        assert entry["headers"] == {"Authorization": "Bearer sg-mgmt-…"}
        async with place.http("proposer") as client:
            assert "list_routes" in await tools_of(client)
        return
    config = str(place.site.world.place.config)
    arguments = [config if word.endswith(".yaml") else word for word in entry["args"]]
    command = Path(sys.executable).with_name(entry["command"])
    environ = dict.fromkeys(entry["env"], place.keys["proposer"])
    server = StdioServerParameters(command=str(command), args=arguments, env=environ)
    async with Client(server) as client:
        assert "propose_swap" in await tools_of(client)


async def test_a_server_of_one_session_acts_in_the_name_of_no_other(place: McpSite) -> None:
    place.site.upstream.turns[BASE] = lambda _: completion("done")
    own, other = (place.site.session(tools=["spawn"]).rpartition("/")[2] for _ in range(2))
    async with place.pipes("proposer", "--session", own) as client:
        [spawn] = [tool for tool in (await client.list_tools()).tools if tool.name == "spawn"]
        assert "session" not in spawn.input_schema["properties"]
        tasks = [{"task": "one"}]
        assert own in await refused(
            client,
            "spawn",
            session=other,
            tasks=tasks,
        )
        assert own in await refused(
            client,
            "switch_model",
            session=other,
            action="list",
        )
        done = await called(client, "spawn", tasks=tasks)

    assert done["tasks"][0]["status"] == "done"


@pytest.mark.req("C4", "C6")
@pytest.mark.spine
async def test_calls_of_an_mcp_client_wait_for_one_approval_of_their_set(
    connect: Any, place: McpSite
) -> None:
    place.site.upstream.turns[BASE] = lambda _: completion("done")
    ctx = place.site.world.installation.context
    targets.add_target(ctx, SYSTEM, Target("sim", "sim-better"))
    place.site.upstream.turns["sim-better"] = lambda _: completion("better")
    path = place.site.session(tools=["spawn"])
    session = path.rpartition("/")[2]

    async def pending() -> list[Any]:
        found = await asyncio.to_thread(place.site.client.get, f"{path}/switch_requests")
        return [one for one in found.json()["items"] if one["status"] == "pending"]

    async with connect("proposer") as client:
        one = {
            "session": session,
            "task": "one",
            "model": "sim/sim-better",
        }
        schemas = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        assert {"task", "model", "tasks"} <= set(schemas["spawn"]["properties"])
        calls = [asyncio.create_task(called(client, "spawn", **one)) for _ in range(2)]
        for _ in range(600):
            if waiting := await pending():
                break
            await asyncio.sleep(0.1)
        [request] = waiting
        assert not any(call.done() for call in calls)
        await asyncio.to_thread(switches.approve_switch, ctx, SYSTEM, request["request"])
        done = await asyncio.gather(*calls)

    assert [answer["tasks"][0]["answer"] for answer in done] == [
        "better",
        "better",
    ]


async def test_a_call_that_the_client_cancels_ends_its_sub_tasks(
    connect: Any, place: McpSite
) -> None:
    hung = ScriptedTurn(hang=True)
    place.site.upstream.turns[BASE] = lambda _: hung
    place.site.upstream.asked.clear()
    path = place.site.session(tools=["spawn"])
    session = path.rpartition("/")[2]
    tasks = [{"task": "one"}, {"task": "two"}]
    async with connect("proposer") as client:
        call = asyncio.create_task(
            client.call_tool("spawn", {"session": session, "tasks": tasks})
        )
        for _ in range(600):
            if len(place.site.upstream.asked) == 2:
                break
            await asyncio.sleep(0.1)
        assert len(place.site.upstream.asked) == 2
        call.cancel()
        ctx = place.site.world.installation.context
        for _ in range(300):
            with ctx.store.read() as tx:
                children = [Sessions(tx).get(id_) for id_ in Sessions(tx).children(session)]
            if all(c.state is SessionState.CLOSED for c in children):
                break
            await asyncio.sleep(0.1)
    assert [(c.state, c.turn) for c in children] == [(SessionState.CLOSED, "")] * 2
    assert all(request.left.wait(60) for request in place.site.upstream.asked)
