"""The commands in docs/reference/api.md work as they stand, one after the other."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.control.control_plane import SmallInstallation
from tests.support.site.documented_commands import DOCS, run_in_bash, shell_blocks
from tests.support.site.management_api import Door, served

PAGE = (DOCS / "reference/api.md").read_text(encoding="utf-8")


@contextmanager
def turning(world: SmallInstallation) -> Iterator[None]:
    done = threading.Event()

    def run_turns() -> None:
        while not done.wait(0.1):
            world.run_once()

    loop = threading.Thread(target=run_turns)
    loop.start()
    try:
        yield
    finally:
        done.set()
        loop.join()


def test_every_command_works(careful: Door) -> None:
    commands = "".join(shell_blocks("reference/api.md"))
    assert all(line for line in commands.splitlines())
    with served(careful.app) as address, turning(careful.world):
        named = {"ROUTE": "chat", "CANDIDATE": "sim/better"}
        said = run_in_bash(
            commands, API=f"{address}/api/v1", KEY=careful.keys["admin"], **named
        )

    assert said.rstrip().endswith('{"whole": true, "first_break": null}')
    [proposal] = careful.get("/proposals")["items"]
    assert (proposal["phase"], proposal["proposer"]) == ("rolled_back", "a proposer")


def test_every_endpoint_is_in_the_table(door: Door) -> None:
    told = set(re.findall(r"/[a-z-]+(?:/[a-z{}-]+)*", PAGE))
    for path in door.document["paths"]:
        short = path.removeprefix("/api/v1")
        beside = re.sub(r"(resume|abort)$", "pause", short)
        beside = re.sub(r"(promote|finish)$", "advance", beside)
        assert short in told or beside in told, path
