"""The official Python clients, oldest supported and newest, read the router's streams: with
heartbeats behind an `id:`, names that are repeated, and two calls in one index.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.test_wheel import uv
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    DONE,
    EVENTS,
    ROLE,
    Upstream,
    event,
    running_upstream,
)
from tests.support.router.live_router import KEY, QUICK, World, running_router, snapshot

pytestmark = [pytest.mark.verify, pytest.mark.req("B8", "A2"), pytest.mark.timeout(600)]

INSTALL_S: Final = 240
RUN_S: Final = 60
BEATING: Final = replace(QUICK, heartbeat_s=0.05)

CHATS: Final = """
import json, sys
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2])
text, names, ids = "", set(), set()
arguments = []
for chunk in client.chat.completions.create(
    model="support", stream=True, messages=[{"role": "user", "content": "hi"}]
):
    ids.add(chunk.id)
    for choice in chunk.choices:
        text += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            names.add(call.function.name)
            arguments.append(call.function.arguments)
print(json.dumps([text, sorted(filter(None, names)), "".join(arguments), all(ids)]))
"""
MESSAGES: Final = """
import json, sys
from anthropic import Anthropic

client = Anthropic(base_url=sys.argv[1], api_key=sys.argv[2])
with client.messages.stream(
    model="support", max_tokens=99, messages=[{"role": "user", "content": "hi"}]
) as stream:
    for _ in stream:
        pass
    message = stream.get_final_message()
calls = [block for block in message.content if block.type == "tool_use"]
text = "".join(block.text for block in message.content if block.type == "text")
inputs = "".join(json.dumps(block.input, separators=(",", ":")) for block in calls)
print(json.dumps([text, sorted({call.name for call in calls}), inputs, bool(message.id)]))
"""
# The oldest that streams calls of tools, with the HTTP library of its day, and the newest.
CLIENTS: Final = (
    ("openai-oldest", CHATS, ("openai==1.3.0", "httpx<0.28")),
    ("openai-newest", CHATS, ("openai",)),
    ("anthropic-oldest", MESSAGES, ("anthropic==0.40.0", "httpx<0.28")),
    ("anthropic-newest", MESSAGES, ("anthropic",)),
)


def call(arguments: str) -> bytes:
    function = {"name": "find_town", "arguments": arguments}
    return event({"tool_calls": [{"index": 0, "id": "call_1", "function": function}]})


def identified(piece: bytes, number: int) -> bytes:
    return b"id: %d\n" % number + piece


STEPS: Final[tuple[bytes | float, ...]] = (
    identified(ROLE, 1),
    identified(event({"content": "one "}), 2),
    0.3,
    identified(event({"content": "two"}), 3),
    identified(call('{"n":'), 4),
    0.3,
    identified(call("1}"), 5),
    identified(call('{"n":2}'), 6),
    identified(event(finish="tool_calls"), 7),
    DONE,
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as running:
        running.turns["m-incumbent"] = ScriptedTurn(headers=EVENTS, steps=STEPS)
        yield running


@pytest.fixture
def world(upstream: Upstream, tmp_path: Path) -> Iterator[World]:
    with running_router(snapshot(upstream.url), tmp_path / "router", BEATING) as running:
        yield running


@pytest.mark.parametrize(("name", "script", "packages"), CLIENTS, ids=[c[0] for c in CLIENTS])
def test_a_client_reads_a_stream_with_heartbeats_and_odd_call_pieces(
    world: World, tmp_path: Path, name: str, script: str, packages: tuple[str, ...]
) -> None:
    python = installed(tmp_path / name, packages)

    done = subprocess.run(  # noqa: S603 - our own script
        [python, "-c", script, world.url, KEY],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    text, names, arguments, has_ids = told
    assert (text, names, arguments) == ("one two", ["find_town"], '{"n":1}{"n":2}')
    assert has_ids


def installed(folder: Path, packages: tuple[str, ...]) -> Path:
    """The Python of a new environment with these packages. Skips where they cannot be had."""
    python = folder / "bin" / "python"
    subprocess.run(  # noqa: S603 - our own environment
        [uv(), "venv", "--quiet", "--python", sys.executable, folder], check=True
    )
    done = subprocess.run(  # noqa: S603 - as above
        [uv(), "pip", "install", "--quiet", "--python", python, *packages],
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"{', '.join(packages)} cannot be installed: {done.stderr[-300:]}")
    return python
