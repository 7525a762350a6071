"""The blocks of docs/how-to/clients.md run as they stand, with the versions that it names.

Each client is installed anew. Where it uses tools, its route is promoted to another provider's
model in the middle of its session.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from harness.frame.people.access import key_hash
from harness.providers.target import Provider, Target
from harness.routing.table import KeyGrant, Route, RoutingTable, Snapshot
from tests.support.router.live_router import (
    KEY,
    SECRET,
    World,
    running_router,
    snapshot,
    wait_until,
)
from tests.support.site.documented_commands import DOCS
from tests.support.site.npm_clients import without
from tests.wire import anthropic, gemini
from tests.wire.server import Json, Reading, Reply, Strict, serving

TEXT: Final = (DOCS / "how-to" / "clients.md").read_text("utf-8")
ROW: Final = re.compile(r"^\| (.+?) \| (npm|PyPI) (.+?) \| (.+?) \| .+? \|$", re.MULTILINE)
BLOCK: Final = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
USUAL_URL: Final = "http://127.0.0.1:8080"
ANSWER: Final = "It is 9 C in Oslo."
# What the model calls where a client offers it.
CALLS: Final[dict[str, Json]] = {
    "Bash": {"command": "echo 9 C", "description": "Say it"},
    "bash": {"command": "echo 9 C", "description": "Say it"},
    "exec_command": {"cmd": "echo 9 C"},
}
AGENTS: Final = ("Claude Code", "Codex", "opencode")
# npm runs scripts of packages for some of its versions only; these fetch their programs.
SCRIPTS: Final = {
    "@anthropic-ai/claude-code": "install.cjs",
    "opencode-ai": "postinstall.mjs",
}
RUNS: Final = {".py": "python", ".mjs": "node"}  # a file that no command names
OFFLINE: Final = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|dns error|error sending request|Connect"
)
# An older model's words of instructions among the messages; it then gets them as the user's.
REPAIRED: Final = 'Unexpected role \\"system\\"'
INSTALL_S: Final = 600
RUN_S: Final = 240

pytestmark = pytest.mark.verify


@dataclass(frozen=True)
class Client:
    name: str
    registry: str
    packages: tuple[str, ...]
    versions: tuple[str, ...]
    section: str  # of the page


def clients(page: str = TEXT) -> list[Client]:
    return [
        Client(
            name,
            registry,
            tuple(re.findall(r"`(.+?)`", packages)),
            (*versions.split(", "),),
            page.partition(f"\n## {name}\n")[2].partition("\n## ")[0],
        )
        for name, registry, packages, versions in ROW.findall(page)
    ]


def target(
    wire: Strict,
    kind: str,
    model: str,
) -> tuple[Provider, Target]:
    return Provider(kind, kind, wire.api_base, "WIRE_KEY"), Target(kind, model)


@dataclass
class Scene:
    """A router whose route `support` is Claude's, and becomes Gemini's at the first call."""

    claude: Strict
    gemini: Strict
    world: World

    @property
    def changed_model(self) -> bool:
        """Whether a tool loop that began at Claude's went on at Gemini's."""
        return any(turn.results for read in self.gemini.readings for turn in read.turns)

    @property
    def refused(self) -> list[str]:
        told = (*self.claude.refused, *self.gemini.refused)
        return [words for words in told if REPAIRED not in words]

    def promote(self) -> None:
        now = self.world.store.snapshot()
        revision = now.table.revision + 1
        route = now.table.routes["support"]
        table = replace(
            now.table,
            revision=revision,
            routes={"support": replace(route, incumbent=route.fallbacks[0], fallbacks=())},
        )
        self.world.store.put(replace(now, table=table, etag=str(revision)))
        wait_until(lambda: self._revision == revision)

    @property
    def _revision(self) -> int:
        serving_now = self.world.holder.current
        assert serving_now is not None
        return serving_now.revision


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        claude = stack.enter_context(serving(anthropic.strict()))
        google = stack.enter_context(serving(gemini.strict()))
        pairs = (
            target(claude, "anthropic", anthropic.MODEL),
            target(google, "gemini", gemini.MODEL),
        )
        first, second = (model.id for _, model in pairs)
        snapshot = Snapshot(
            RoutingTable(
                1,
                {"support": Route("support", 1, first, None, (second,))},
                {model.id: model for _, model in pairs},
            ),
            {provider.name: provider for provider, _ in pairs},
            (KeyGrant("k", key_hash(KEY, SECRET)),),
            "1",
        )
        world = stack.enter_context(running_router(snapshot, tmp_path))
        found = Scene(claude, google, world)

        def answer(read: Reading) -> Reply:
            tool = next((name for name in CALLS if name in read.tools), None)
            if tool is None or any(turn.results for turn in read.turns):
                return Reply('{"title": "Weather"}' if read.schema else ANSWER)
            found.promote()
            return Reply(calls=((tool, CALLS[tool]),), stop="tools")

        claude.answers = answer
        google.reply = Reply(ANSWER)
        yield found


def install(client: Client, home: Path) -> Path:
    home.mkdir()
    if client.registry == "npm":
        node = shutil.which("node")
        npm = shutil.which("npm")
        if node is None or npm is None:
            without(f"node and npm are not on PATH: {client.name} was not tried")
        pinned = [f"{p}@{v}" for p, v in zip(client.packages, client.versions, strict=True)]
        run(
            [
                npm,
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(home),
                *pinned,
            ],
            home,
        )
        for package in set(client.packages) & set(SCRIPTS):
            run([node, SCRIPTS[package]], home / "node_modules" / package)
        return home / "node_modules" / ".bin"
    uv = str(Path(sys.executable).with_name("uv"))
    pinned = [f"{p}=={v}" for p, v in zip(client.packages, client.versions, strict=True)]
    run(
        [
            uv,
            "venv",
            "--quiet",
            "--python",
            sys.executable,
            str(home / "venv"),
        ],
        home,
    )
    python = str(home / "venv" / "bin" / "python")
    run([uv, "pip", "install", "--quiet", "--python", python, *pinned], home)
    return home / "venv" / "bin"


def run(words: list[str], folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - installs what the page names
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    if done.returncode and OFFLINE.search(done.stderr):
        without(f"no registry can be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]


def commands(
    client: Client,
    folder: Path,
    url: str,
) -> str:
    found = []
    for language, title, text in BLOCK.findall(client.section):
        body = text.replace(USUAL_URL, url)
        if language == "sh":
            found.append(body)
        else:
            file = folder / title.replace("~", ".")
            file.parent.mkdir(exist_ok=True)
            file.write_text(body, "utf-8")
            found += [f"{RUNS[file.suffix]} {title}\n"] if file.suffix in RUNS else []
    whole = "".join(found)
    if re.search(r"^\w+ eval ", whole, re.MULTILINE):  # its file is no program of its own
        whole = "".join(part for part in found if not part.startswith("python"))
    return f"set -eu\n{whole}"


def environment(
    programs: Path,
    folder: Path,
    key: str,
) -> dict[str, str]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {
        "PATH": path,
        "HOME": str(folder),
        "SWAPPROOF_KEY": key,
    }


@pytest.mark.req("A1", "B7")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", clients(), ids=lambda client: client.name)
def test_a_client_answers_with_the_settings_of_its_block(
    client: Client,
    scene: Scene,
    tmp_path: Path,
) -> None:
    programs = install(client, tmp_path / "client")
    folder = tmp_path / "home"
    folder.mkdir()
    if client.registry == "npm":
        (folder / "node_modules").symlink_to(programs.parent)
    done = subprocess.run(  # noqa: S603 - the documented commands are what is tried
        ["/bin/bash", "-c", commands(client, folder, scene.world.url)],
        cwd=folder,
        env=environment(programs, folder, KEY),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"9 C|accuracy +1\.0", done.stdout), done.stdout[-4000:]
    assert scene.refused == []
    assert scene.changed_model == (client.name in AGENTS)


PAGE = (DOCS / "how-to" / "feature-flags.md").read_text("utf-8")


@pytest.mark.req("A1")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("client", clients(PAGE), ids=lambda client: client.name)
def test_an_official_sdk_evaluates_a_route_and_says_how_it_went(
    client: Client, tmp_path: Path
) -> None:
    programs = install(client, tmp_path / "client")
    folder = tmp_path / "home"
    folder.mkdir()
    if client.registry == "npm":
        (folder / "node_modules").symlink_to(programs.parent)
    with running_router(snapshot("http://127.0.0.1:9", weight_bps=10_000), tmp_path) as world:
        done = subprocess.run(  # noqa: S603 - the documented block is what is tried
            ["/bin/bash", "-c", commands(client, folder, world.url)],
            cwd=folder,
            env=environment(programs, folder, KEY),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    assert done.returncode == 0, done.stderr[-4000:]
    assert re.fullmatch(
        r"ask \S+ canary SPLIT\nfeedback (counted|not_scored)\n", done.stdout
    ), done.stdout
