import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from harness.frame.people.access import key_hash
from harness.providers.target import Provider, Target
from harness.routing.reliability.breaker import BreakerPolicy
from harness.routing.table import KeyGrant, Route, RoutingTable, Snapshot
from tests.integration.test_wheel import uv
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    DONE,
    EVENTS,
    ROLE,
    ReceivedRequest,
    event,
    running_upstream,
)
from tests.support.router.live_router import (
    KEY,
    QUICK,
    SECRET,
    running_router,
)
from tests.support.site import npm_clients
from tests.support.site.npm_clients import FOLDER, without
from tests.wire import anthropic, chats, openai
from tests.wire.server import Json, Reply

pytestmark = [
    pytest.mark.verify,
    pytest.mark.req("B8", "A2"),
    pytest.mark.timeout(900),
]

INSTALL_S: Final = 300
RUN_S: Final = 240
PAUSE_S: Final = 0.2
# Heartbeats in each pause; a failure closes no circuit to the next reader.
BEATING: Final = replace(
    QUICK,
    heartbeat_s=0.05,
    breaker=BreakerPolicy(failures=1_000_000, share=1.0),
)
# The oldest that streams calls of tools, with what it needs of its day, and the newest.
CLIENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "pypi-openai-oldest": ("openai==1.3.0", "httpx<0.28"),
    "pypi-openai-newest": ("openai",),
    "pypi-anthropic-oldest": ("anthropic==0.40.0", "httpx<0.28"),
    "pypi-anthropic-newest": ("anthropic",),
    "npm-oldest": (
        "openai@4.87.3",
        "@anthropic-ai/sdk@0.40.0",
        "ai@5.0.0",
        "@ai-sdk/openai@2.0.0",
        "@ai-sdk/openai-compatible@1.0.0",
        "@ai-sdk/anthropic@2.0.0",
        "@langchain/core@1.0.0",
        "@langchain/openai@1.0.0",
        "@langchain/anthropic@1.0.0",
        "zod@3.25.76",
    ),
    "npm-newest": (
        "openai",
        "@anthropic-ai/sdk",
        "ai",
        "@ai-sdk/openai",
        "@ai-sdk/openai-compatible",
        "@ai-sdk/anthropic",
        "@langchain/core",
        "@langchain/openai",
        "@langchain/anthropic",
        "zod",
    ),
}
CALLS: Final = (("find_town", {"n": 1}), ("find_town", {"n": 2}))


class Case(NamedTuple):
    """reply: what the model says. end: how its stream ends early; None for well."""

    reply: Reply
    end: ScriptedEvent | str | None = None


CASES: Final[Mapping[str, Case]] = {
    "parallel": Case(Reply("one two", calls=CALLS, stop="tools")),
    "odd": Case(Reply("one two", calls=CALLS, stop="tools")),
    "thinking": Case(Reply("one two", reasoning="hm, so")),
    "refused": Case(Reply("one two", stop="refusal")),
    "cut": Case(Reply("one two"), ScriptedEvent.RESET),
    "failed": Case(Reply("one two"), "error"),
}
ERRORS: Final = {
    "chats": b'data: {"error":{"message":"The server had an error","type":"server_error"}}\n\n',
    "claude": b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",'
    b'"message":"Overloaded"}}\n\n',
}
PYTHON_READERS: Final = Path(npm_clients.__file__).with_name("sdk_readers.py")
KINDS: Final = {"chats": "custom", "claude": "anthropic"}


def call(arguments: str) -> bytes:
    function = {"name": "find_town", "arguments": arguments}
    return event(
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "function": function,
                }
            ]
        }
    )


# Events behind an `id:`, a name that is repeated, two calls in one index.
ODD: Final = tuple(
    b"id: %d\n" % number + piece
    for number, piece in enumerate(
        (
            ROLE,
            event({"content": "one "}),
            event({"content": "two"}),
            call('{"n":'),
            call("1}"),
            call('{"n":2}'),
            event(finish="tool_calls"),
        )
    )
)


def turn_of(asked: ReceivedRequest) -> ScriptedTurn:
    """Plays a model, whose name is its provider's and its case's."""
    provider, _, name = asked.model.partition("-")
    reply, end = CASES[name]
    claude = provider == "claude"
    if not asked.json.get("stream"):
        if end is not None:
            return ScriptedTurn(500, steps=(b'{"error":{"message":"it failed"}}',))
        chat = anthropic.whole(reply) if claude else chats.whole(reply)
        return ScriptedTurn(steps=(json.dumps(chat).encode(),))
    events = list(anthropic.events(reply) if claude else openai.events(reply))
    if not claude:
        thoughts = [event({"reasoning_content": reply.reasoning})] if reply.reasoning else []
        events = [*ODD, DONE] if name == "odd" else [*thoughts, *events]
    # Ends behind a first word; else with a pause in the midst.
    said = next(number for number, piece in enumerate(events) if b"one " in piece) + 1
    last: tuple[Any, ...] = (PAUSE_S, *events[said:])
    if end is not None:
        last = (PAUSE_S, ERRORS[provider] if end == "error" else end)
    return ScriptedTurn(headers=EVENTS, steps=(*events[:said], *last))


def routes() -> list[str]:
    return [f"{provider}-{name}" for provider in KINDS for name in CASES]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_upstream() as upstream:
        upstream.turns = dict.fromkeys(routes(), turn_of)
        targets = {name: Target(name.partition("-")[0], name) for name in routes()}
        snapshot = Snapshot(
            RoutingTable(
                1,
                {name: Route(name, 1, target.id, None, ()) for name, target in targets.items()},
                {target.id: target for target in targets.values()},
            ),
            {
                name: Provider(name, kind, upstream.url, "UP_KEY")
                for name, kind in KINDS.items()
            },
            (KeyGrant("k", key_hash(KEY, SECRET)),),
            "1",
        )
        folder = tmp_path_factory.mktemp("router")
        with running_router(snapshot, folder, BEATING) as world:
            yield world.url


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_reads_what_the_router_writes(
    url: str,
    tmp_path: Path,
    client: str,
) -> None:
    install = installed_packages if client.startswith("npm") else installed_python
    words = install(tmp_path / "client", CLIENTS[client])

    done = subprocess.run(  # noqa: S603 - our own script
        [*words, url, KEY, *routes()],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Json] = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"{place}: {read}" for place, read in told.items() if not is_right(place, read)]
    assert len(told) >= 2 * len(routes())
    assert not wrong, "\n".join(wrong)


def is_right(place: str, read: Json) -> bool:
    """An early end is told as an error, whatever was read before; all else is read as it is."""
    route = place.split()[1]
    reply, end = CASES[route.partition("-")[2]]
    if end is not None:
        return "error" in read
    calls = [list(call) for call in reply.calls]
    # Where the protocol or the client has no place for thoughts, they are no text either.
    thoughts = read.get("thoughts") and reply.reasoning
    return read == {
        "text": reply.text,
        "thoughts": thoughts,
        "calls": calls,
    }


def installed_python(folder: Path, packages: tuple[str, ...]) -> list[Path | str]:
    """Runs the readers by a new environment's Python. Skips where it cannot be had."""
    python = folder / "bin" / "python"
    made: list[Path | str] = [
        uv(),
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        folder,
    ]
    subprocess.run(made, check=True)  # noqa: S603 - our own environment
    install(
        [uv(), "pip", "install", "--quiet", "--python", python, *packages],
        folder,
    )
    return [python, PYTHON_READERS]


def installed_packages(folder: Path, packages: tuple[str, ...]) -> list[Path | str]:
    node = shutil.which("node")
    npm = shutil.which("npm")
    if node is None or npm is None:
        without("node and npm are not on PATH: the clients of npm were not tried")
    folder.mkdir()
    shutil.copy(FOLDER / "readers.mjs", folder)
    words: list[Path | str] = [
        npm,
        "install",
        "--prefix",
        folder,
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]
    install([*words, *packages], folder)
    return [node, folder / "readers.mjs"]


def install(words: list[Path | str], folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - the packages of the table
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a client cannot be installed: {done.stderr[-300:]}")
