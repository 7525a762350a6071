"""The commands in docs/reference/agents.md work as they stand; its tables are complete."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.app.demo.environment import PORTS, DemoEnvironment
from harness.control.agents import switches
from harness.control.context import Context
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.operations.access import SYSTEM
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import ReceivedRequest, completion, streamed
from tests.support.router.router_process import eventually
from tests.support.site import documented_commands
from tests.support.site.agents_endpoints import ENDPOINTS
from tests.support.site.agents_site import OPENAI_KEY, AgentsSite, agents_site
from tests.support.site.documented_commands import run_in_bash, shell_blocks

pytestmark = [pytest.mark.req("E1", "E2"), pytest.mark.slow]

DOCS = (documented_commands.DOCS / "reference/agents.md").read_text(encoding="utf-8")
ADDRESS = "http://localhost:8080"


def answer(asked: ReceivedRequest) -> ScriptedTurn:
    told = "It was 1001." if "1001" in str(asked.json["messages"]) else "I do not know."
    return streamed(told) if asked.json.get("stream") else completion(told)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSite]:
    spare = {"incumbent": "sim/sim-base"}
    sections = {"routes": {"chat": spare, "chat-web": spare}}
    folder = tmp_path_factory.mktemp("agents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OPENAI_KEY, "sk-made-up")
        with agents_site(
            folder, with_openai=True, with_control=True, sections=sections
        ) as made:
            made.upstream.turns["gpt-4o-mini"] = answer
            yield made


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects that stand one after the other, with events between them left out."""
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, start)
        yield value


def test_every_command_works(site: AgentsSite) -> None:
    commands = "".join(shell_blocks("reference/agents.md"))
    assert ADDRESS in commands
    here = commands.replace(ADDRESS, site.world.url.replace("127.0.0.1", "localhost"))

    said = run_in_bash(here)

    assert "event: turn.completed" in said
    shown = list(json_values(said))
    assert [value["content"] for value in shown if value.get("steps")] == ["It was 1001."] * 2
    assert shown[-1] == {"items": [], "total": 0, "next": None}
    assert {value.get("model") for value in shown if value.get("name") == "support"} == {
        "openai:gpt-4o-mini"
    }
    sent = site.upstream.asked[-1].json["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]


def test_the_demo_has_what_the_commands_name(tmp_path: Path) -> None:
    demo = DemoEnvironment(tmp_path)
    demo.choose_ports(PORTS)
    demo.write_config()

    made = yaml.safe_load(demo.config.read_text(encoding="utf-8"))

    named = json.loads(re.findall(r"-d '(\{\n.*?\})'", DOCS, flags=re.DOTALL)[0])
    provider, _, model = named["model"].partition(":")
    assert model in made["providers"][provider]["prices"]
    assert named["config"]["fallbackModel"] in made["routes"]
    assert made["agents"]["open_on_loopback"]
    assert f":{PORTS['router']}" in ADDRESS


@pytest.mark.verify
@pytest.mark.req("C1", "C4")
def test_the_commands_of_a_switch_work_and_wait_for_a_person(site: AgentsSite) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)```", DOCS, flags=re.DOTALL)
    here = commands.replace(ADDRESS, site.world.url.replace("127.0.0.1", "localhost"))
    _, _, agent, _, session = site.session().split("/")
    ctx = site.world.installation.context
    with subprocess.Popen(  # noqa: S603 - the documented commands are what is tried
        ["bash", "-euo", "pipefail", "-c", here],  # noqa: S607
        env={"PATH": os.environ["PATH"], "AGENT": agent, "SESSION": session},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        eventually(lambda: pending_of(ctx, session) or running.poll() is not None)
        (request,) = pending_of(ctx, session)
        switches.approve_switch(ctx, SYSTEM, request.id, "go on")
        shown, _ = running.communicate(timeout=120)

    assert running.returncode == 0, shown
    listed, switched = json_values(shown)
    assert "openai/gpt-4o-mini" in [model["model"] for model in listed["models"]]
    assert (switched["status"], switched["request"]) == ("approved", request.id)


def pending_of(ctx: Context, session: str) -> Sequence[ModelSwitchRequest]:
    with ctx.store.read() as tx:
        return tx.switch_requests.pending(session=session)


def test_every_endpoint_is_in_the_table() -> None:
    told = re.findall(r"`(GET|POST|PATCH|DELETE) ([^`?]+)`", DOCS)
    named = {(method, path.replace("{sid}", "{session_id}")) for method, path in told}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{agent_id}", "{id}").replace("{user_id}", "{userId}")
        short = re.sub(r"^.*(?=/\{session_id\})", "…", path)
        assert {(endpoint.method, path), (endpoint.method, short)} & named, endpoint.name
