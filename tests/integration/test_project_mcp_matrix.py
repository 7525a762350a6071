"""Every tool of the MCP server, with a key of each role of a project, about its own things and
about another's: what others have is answered as what nobody has.
"""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from mcp.server import ServerRequestContext
from mcp_types import CallToolRequestParams, TextContent

from harness.api.agents.access import key_client
from harness.api.mcp.server import McpServer
from harness.api.mcp.tools import MANAGEMENT_TOOLS
from harness.app.installation import Installation
from harness.control.operations import keys
from harness.control.operations.project_scope import installation_alone
from harness.domain.errors import NotAllowed
from harness.domain.operations.access import SYSTEM, Role
from tests.integration.test_api_access import ROLES, world_of
from tests.support.control.control_plane import SECRET
from tests.support.site.management_api import Door

pytestmark = pytest.mark.req("G3", "C1")

OURS, THEIRS = "payments", "search"
CONTEXT = cast("ServerRequestContext[Any, Any]", None)  # a client that is known needs none
# By tool, calls about one project's things.
ABOUT: dict[str, list[dict[str, str]]] = {
    "compare": [{"proposal": "{proposal}"}, {"route": "{route}"}],
    "canary_status": [{"route": "{route}"}],
    "propose_swap": [{"route": "{route}", "candidate": "sim/good"}],
}
CALLS = [(tool, call) for tool, calls in ABOUT.items() for call in calls]
LISTS = ("list_routes", "canary_status")


@dataclass
class Site:
    """names: of each project's things. texts: of the keys, by role of our project."""

    installation: Installation
    names: dict[str, dict[str, str]]
    texts: dict[str, str]

    def server(self, role: str) -> McpServer:
        text = self.texts[role]
        return McpServer(
            self.installation,
            lambda _: key_client(self.installation, text, in_project=True),
            (),
        )

    def call(self, role: str, tool: str, arguments: dict[str, str]) -> tuple[bool, str]:
        """Whether it is refused, and the answer."""
        params = CallToolRequestParams(name=tool, arguments=arguments)
        done = asyncio.run(self.server(role).call_tool(CONTEXT, params))
        (block,) = done.content
        assert isinstance(block, TextContent)
        return bool(done.is_error), block.text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    door = Door(world_of(tmp_path_factory.mktemp("world")))
    installation = door.app.state.installation
    installation.__dict__["context"] = replace(
        installation.context, projects=frozenset({OURS, THEIRS})
    )
    names = {}
    for project in (OURS, THEIRS):
        route = f"{project}::chat"
        suites = [{"suite": "colours"}]
        door.post("/routes", {"name": route, "incumbent": "sim/base", "suites": suites})
        swap = {"route": route, "candidate": "sim/better"}
        made = door.post("/proposals", swap, role="proposer")["id"]
        door.world.until_decided(made)
        door.post(f"/proposals/{made}/approve", {}, role="approver")
        door.world.run_once()  # its canary opens
        names[project] = {"route": route, "proposal": made}
    texts = {
        role: keys.create_key(
            installation.context,
            SYSTEM,
            f"{OURS} {role}",
            secret=SECRET,
            role=Role[role.upper()],
            project=OURS,
        )[1]
        for role in ROLES
    }
    return Site(installation, names, texts)


def filled(call: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    return {field: text.format(**names) for field, text in call.items()}


def test_every_tool_says_whose_it_is() -> None:
    opened = {tool.name for tool in MANAGEMENT_TOOLS if tool.scope is not installation_alone}
    assert opened == {*ABOUT, *LISTS}


@pytest.mark.parametrize("role", ROLES)
def test_a_project_is_shown_the_tools_that_keep_projects_apart(role: str, site: Site) -> None:
    listed = asyncio.run(site.server(role).list_tools(CONTEXT, None)).tools
    shown = {*ABOUT, *LISTS} - ({"propose_swap"} if role == "viewer" else set())
    assert {tool.name for tool in listed} == shown
    for tool in MANAGEMENT_TOOLS:
        if tool.scope is installation_alone:
            refused, said = site.call(role, tool.name, {})
            assert refused
            assert "use a key of the default project" in said


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("tool", "call"), CALLS)
def test_what_another_project_has_is_answered_as_what_nobody_has(
    tool: str, call: dict[str, str], role: str, site: Site
) -> None:
    theirs, answers = site.names[THEIRS], []
    nobodys = {name: f"{id_[:-1]}~" for name, id_ in theirs.items()}
    for names in (theirs, nobodys):
        refused, said = site.call(role, tool, filled(call, names))
        assert refused, said
        for id_ in names.values():
            said = said.replace(id_, "ID")
        answers.append(said)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("tool", LISTS)
def test_a_list_has_the_projects_own_alone(tool: str, role: str, site: Site) -> None:
    refused, said = site.call(role, tool, {})
    assert not refused, said
    assert OURS in said
    assert THEIRS not in said


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("tool", "call"), CALLS)
def test_a_project_asks_about_its_own(
    tool: str, call: dict[str, str], role: str, site: Site
) -> None:
    refused, said = site.call(role, tool, filled(call, site.names[OURS]))
    if tool == "propose_swap":
        assert refused
        busy = "viewer; this needs proposer" if role == "viewer" else "open proposal"
        assert busy in said
    else:
        assert not refused, said
        assert f"{OURS}::chat" in json.dumps(json.loads(said))


def test_agents_and_a_session_of_one_take_no_projects_key(site: Site) -> None:
    with pytest.raises(NotAllowed):
        key_client(site.installation, site.texts["admin"])
