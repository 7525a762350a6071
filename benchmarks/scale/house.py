"""The installation that is measured: its configuration, environment and store, on SQLite or
PostgreSQL, with one proposal that lived its whole life by Swapgate's own code.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.app.installation import Installation, open_installation
from harness.store.migrate import upgrade
from harness.store.sql import SqlStore
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.command_line import FILE
from tests.support.site.signing_keys import CONTROL, ENVIRONMENT


@dataclass(frozen=True)
class House:
    """Where the installation is, and the two proposals that the rest is copied of, by id."""

    folder: Path
    url: str
    promoted: str
    rejected: str

    @property
    def config(self) -> Path:
        return self.folder / "swapgate.yaml"


def set_environment() -> None:
    """Sets what every process of the installation has in its environment."""
    os.environ["SWAPGATE_SECRET"] = SECRET.decode()
    os.environ.update(ENVIRONMENT)


def build(folder: Path, url: str) -> House:
    """Makes the installation, with a proposal that was promoted and one that was rejected. url:
    of an empty database, or "" for a SQLite file in the folder.
    """
    home = folder / ".swapgate"
    home.mkdir(parents=True, exist_ok=True)
    url = url or f"sqlite:///{home / 'swapgate.db'}"
    text = FILE.replace("home: .swapgate", f"home: {home}\ndatabase_url: {url}")
    (folder / "swapgate.yaml").write_text(text, encoding="utf-8")
    set_environment()
    upgrade(url)
    clock = ManualClock()
    store = SqlStore(url, secret=SECRET, clock=clock, signatures=CONTROL)
    try:
        world = SmallInstallation(folder, store, clock=clock)
        world.set_up()
        rejected = world.until_decided(world.propose("sim/worse").id, turns=40)
        promoted = world.until_decided(world.propose("sim/better").id, turns=40)
        for _ in range(12):
            world.feed()
            world.run_once()
    finally:
        store.close()
    return House(folder, url, promoted.id, rejected.id)


@contextmanager
def opened(house: House) -> Iterator[Installation]:
    """Opens the installation as each command does."""
    set_environment()
    installation = open_installation(house.config)
    try:
        yield installation
    finally:
        installation.store.close()
