"""The commands in docs/reference/api.md work as they stand, one after the other."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.control.control_plane import SmallInstallation
from tests.support.site.management_api import Door, served

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")


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
    commands = "".join(re.findall(r"```sh\n(.*?)```", DOCS, flags=re.DOTALL))
    assert all(line for line in commands.splitlines())
    with served(careful.app) as address, turning(careful.world):
        done = subprocess.run(  # noqa: S603 - the documented commands are what is tried
            ["bash", "-euo", "pipefail", "-c", commands],  # noqa: S607
            env={
                "PATH": os.environ["PATH"],
                "API": f"{address}/api/v1",
                "KEY": careful.keys["admin"],
                "ROUTE": "chat",
                "CANDIDATE": "sim/better",
            },
            capture_output=True,
            check=False,
            text=True,
            timeout=600,
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith('{"whole": true, "first_break": null}')
    [proposal] = careful.get("/proposals")["items"]
    assert (proposal["phase"], proposal["proposer"]) == ("rolled_back", "a proposer")


def test_every_endpoint_is_in_the_table(door: Door) -> None:
    told = set(re.findall(r"/[a-z-]+(?:/[a-z{}-]+)*", DOCS))
    for path in door.document["paths"]:
        short = path.removeprefix("/api/v1")
        beside = re.sub(r"(resume|abort)$", "pause", short)
        beside = re.sub(r"(promote|finish)$", "advance", beside)
        assert short in told or beside in told, path
