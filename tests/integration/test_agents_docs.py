"""The commands in docs/agents.md work as they stand, one after the other, and its tables have
every endpoint and every error.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import ReceivedRequest, completion, streamed
from tests.support.site.agents_endpoints import ENDPOINTS
from tests.support.site.agents_site import OPENAI_KEY, AgentsSite, agents_site

pytestmark = [pytest.mark.req("E1", "E2"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/agents.md").read_text(encoding="utf-8")
ADDRESS = "http://localhost:8080"


def answer(asked: ReceivedRequest) -> ScriptedTurn:
    told = "It was 1001." if "1001" in str(asked.json["messages"]) else "I do not know."
    return streamed(told) if asked.json.get("stream") else completion(told)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentsSite]:
    monkeypatch.setenv(OPENAI_KEY, "sk-made-up")
    with agents_site(tmp_path, with_openai=True) as made:
        made.upstream.turns["gpt-4o-mini"] = answer
        yield made


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects that stand one after the other, with events between them left out."""
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, start)
        yield value


def test_every_command_works(site: AgentsSite) -> None:
    commands = "".join(re.findall(r"```sh\n(.*?)```", DOCS, flags=re.DOTALL))
    assert ADDRESS in commands
    here = commands.replace(ADDRESS, site.world.url.replace("127.0.0.1", "localhost"))

    done = subprocess.run(  # noqa: S603 - the documented commands are what is tried
        ["bash", "-euo", "pipefail", "-c", here],  # noqa: S607
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr + done.stdout
    assert "event: turn.completed" in done.stdout
    shown = list(json_values(done.stdout))
    assert [value["content"] for value in shown if value.get("steps")] == ["It was 1001."] * 2
    assert shown[-1] == {"items": [], "total": 0, "next": None}
    assert {value.get("model") for value in shown if value.get("name") == "support"} == {
        "openai:gpt-4o-mini"
    }
    sent = site.upstream.asked[-1].json["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]


def test_every_endpoint_is_in_the_table() -> None:
    told = re.findall(r"`(GET|POST|PATCH|DELETE) ([^`?]+)`", DOCS)
    named = {(method, path.replace("{sid}", "{session_id}")) for method, path in told}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{agent_id}", "{id}").replace("{user_id}", "{userId}")
        short = re.sub(r"^.*(?=/\{session_id\})", "…", path)
        assert {(endpoint.method, path), (endpoint.method, short)} & named, endpoint.name
