"""How many seconds nobody leads after a leader is killed, frozen, or cut off from PostgreSQL.

Two real control processes on one PostgreSQL, each in a network namespace of its own. Takes root
and Linux. `python -m benchmarks.control.takeover [--times 10] [--faults killed frozen cut-off]`
"""

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from tests.support.site.processes import Site, site
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

LOOK_EVERY_S: Final = 0.02
GIVE_UP_S: Final = 120.0
GOAL_S: Final = 10.0
# Between two faults: the one that was hurt is back, and asks for the lead again.
SETTLES_S: Final = 3.0
Leader = tuple[int, int]  # its term, and its process id


@dataclass
class Machine:
    """A control process in a network namespace. number: of its network, 10.216.number.0/30."""

    place: Site
    number: int
    port: int
    pid: int = 0

    @property
    def namespace(self) -> str:
        return f"swapgate{self.number}-{os.getpid()}"

    @property
    def link(self) -> str:
        return f"sg{self.number}-{os.getpid()}"

    @property
    def address(self) -> str:
        return f"10.216.{self.number}.2"

    def connect(self) -> None:
        outside, inside = f"10.216.{self.number}.1/30", f"{self.address}/30"
        run("ip", "netns", "add", self.namespace)
        peer = ["type", "veth", "peer", "name", "eth0", "netns", self.namespace]
        run("ip", "link", "add", self.link, *peer)
        run("ip", "addr", "add", outside, "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        run("ip", "-n", self.namespace, "addr", "add", inside, "dev", "eth0")
        for device in ("eth0", "lo"):
            run("ip", "-n", self.namespace, "link", "set", device, "up")

    def start(self) -> None:
        url = f"postgresql://postgres@10.216.{self.number}.1:{self.port}/postgres"
        with (self.place.folder / f"{self.namespace}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [
                    *("ip", "netns", "exec", self.namespace),
                    *self.place.command("serve", "control"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "SWAPGATE__DATABASE_URL": url},
            )
        self.place.children[self.namespace] = process
        self.pid = process.pid

    def disconnect(self) -> None:
        with suppress(subprocess.CalledProcessError):
            run("ip", "netns", "del", self.namespace)


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - `ip` of this machine


def kill(machine: Machine) -> None:
    machine.place.kill(machine.namespace)


def freeze(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGSTOP)


def thaw(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGCONT)


def cut(machine: Machine) -> None:
    run("ip", "link", "set", machine.link, "down")


def mend(machine: Machine) -> None:
    run("ip", "link", "set", machine.link, "up")


Act = Callable[[Machine], None]
FAULTS: Final[dict[str, tuple[Act, Act]]] = {
    "killed": (kill, Machine.start),
    "frozen": (freeze, thaw),
    "cut-off": (cut, mend),
}


@contextmanager
def two_machines(folder: Path, database: PostgresNode) -> Iterator[Sequence[Machine]]:
    with ExitStack() as stack:
        place = stack.enter_context(site(folder, {"database_url": database.dsn}))
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        installation.close()
        machines = [Machine(place, number, database.port) for number in (1, 2)]
        for machine in machines:
            stack.callback(machine.disconnect)
            machine.connect()
            machine.start()
        stack.callback(place.close)
        yield machines


class Observer:
    """Reads on a connection of its own who leads, and who is connected."""

    def __init__(self, database: PostgresNode) -> None:
        self._db = psycopg.connect(database.dsn, autocommit=True)

    def leader(self) -> Leader:
        row = self._db.execute("SELECT term, owner FROM leadership").fetchone()
        assert row is not None  # noqa: S101 - the migrations make it
        return int(row[0]), int(str(row[1]).rpartition("-")[2] or 0) if row[0] else 0

    def is_connected(self, machine: Machine) -> bool:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE client_addr = %s"
        row = self._db.execute(statement, (machine.address,)).fetchone()
        return row is not None and row[0] > 0

    def close(self) -> None:
        self._db.close()


def wait(condition: Callable[[], bool]) -> float:
    """How long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > GIVE_UP_S:
            raise TimeoutError("it did not happen in time")
        time.sleep(LOOK_EVERY_S)
    return time.monotonic() - began


def measure(
    observer: Observer, machines: Sequence[Machine], fault: str, times: int
) -> list[float]:
    """Of each time, the seconds until another process leads."""
    hurt, heal = FAULTS[fault]
    found = []
    for _ in range(times):
        wait(lambda: all(map(observer.is_connected, machines)))
        time.sleep(SETTLES_S)
        term, pid = observer.leader()
        (leader,) = (machine for machine in machines if machine.pid == pid)
        hurt(leader)
        found.append(wait(lambda term=term: observer.leader()[0] > term))  # type: ignore[misc]
        assert observer.leader() != (term, pid)  # noqa: S101 - what is measured
        heal(leader)
    return found


def row(fault: str, found: Sequence[float]) -> str:
    return (
        f"| {fault} | {len(found)} | {min(found):.1f} | {statistics.median(found):.1f} | "
        f"{max(found):.1f} |"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=10)
    options.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    chosen = options.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="swapgate-takeover-") as folder,
        postgres_node(host="0.0.0.0") as database,  # noqa: S104 - two namespaces reach it
        two_machines(Path(folder), database) as machines,
    ):
        observer = Observer(database)
        wait(lambda: observer.leader()[0] > 0)
        print("| the leader is | times | least s | median s | most s |\n|---|--:|--:|--:|--:|")
        for fault in chosen.faults:
            print(row(fault, measure(observer, machines, fault, chosen.times)), flush=True)
        observer.close()
    print(f"goal: {GOAL_S:.0f} s")


if __name__ == "__main__":
    main()
