"""The commands in docs/how-to/choose-models.md work as they stand, one after the other."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import ReceivedRequest, completion, error
from tests.support.site.agents_site import AgentsSite, agents_site
from tests.support.site.documented_commands import run_in_bash, shell_blocks
from tests.support.site.processes import free_port

pytestmark = [pytest.mark.req("C1", "C6", "C7", "C8"), pytest.mark.verify]


def answer(asked: ReceivedRequest) -> ScriptedTurn:
    """The model fails at the second message."""
    said = str(asked.json["messages"][-1]["content"])
    return error(503) if "dolphin" in said else completion(f"About {said}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AgentsSite]:
    routes = {
        "chat-web": {"incumbent": "sim/sim-base"},
        "chat-email": {"incumbent": "sim/sim-better"},
    }
    with agents_site(tmp_path, with_control=True, sections={"routes": routes}) as made:
        made.upstream.turns |= {"sim-base": answer, "sim-better": completion("by the other")}
        place = made.world.place
        place.ports["mcp"] = free_port()
        place.start("mcp", "mcp", "--http", "--port", str(place.ports["mcp"]))
        place.answers("mcp", "/healthz")
        yield made


def test_every_command_works(site: AgentsSite) -> None:
    commands = "".join(shell_blocks("how-to/choose-models.md"))
    place = site.world.place
    for address, here in (
        ("http://localhost:8080", site.world.url.replace("127.0.0.1", "localhost")),
        ("http://127.0.0.1:8086", place.url("mcp")),
    ):
        assert address in commands
        commands = commands.replace(address, here)
    swapgate = " ".join(place.command())
    said = run_in_bash(f'swapgate() {{ {swapgate} "$@"; }}\n{commands}', **os.environ)

    shown = re.findall(r'"content": ?"(.*?)"', said)
    assert "About Is a whale a fish?" in shown
    assert said.count("by the other") >= 2
    assert '"from":"auto:chat-web"' in said
    assert "About Name three whales." in said
    assert r"\"name\": \"sim\", \"kind\": \"sim\", \"hasValue\": false" in said
