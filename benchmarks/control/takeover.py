"""How many seconds nobody leads after a leader is killed, frozen, or cut off from PostgreSQL.

Two real control processes on one PostgreSQL, each in a network namespace of its own. Takes root
and Linux. `python -m benchmarks.control.takeover [--times 10] [--faults killed frozen cut-off]`
ends with 3 if a change of the leader took longer than the goal.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from tests.support.site.network_hosts import NetworkHost, network_hosts
from tests.support.site.processes import Site, site
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

LOOK_EVERY_S: Final = 0.02
GIVE_UP_S: Final = 120.0
GOAL_S: Final = 10.0
MISSED: Final = 3
# Between two faults: the one that was hurt is back, and asks for the lead again.
SETTLES_S: Final = 3.0
Leader = tuple[int, int]  # its term, and its process id


@dataclass
class Machine:
    """A control process on a host of its own."""

    place: Site
    host: NetworkHost
    port: int
    pid: int = 0

    @property
    def name(self) -> str:
        return self.host.namespace

    def start(self) -> None:
        url = f"postgresql://postgres@{self.host.gateway}:{self.port}/postgres"
        self.place.hosts[self.name] = self.host
        self.place.environment[self.name] = {"SWAPGATE__DATABASE_URL": url}
        self.place.start(self.name, "serve", "control")
        self.pid = self.place.pid(self.name)


def kill(machine: Machine) -> None:
    machine.place.kill(machine.name)


def freeze(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGSTOP)


def thaw(machine: Machine) -> None:
    os.kill(machine.pid, signal.SIGCONT)


def cut(machine: Machine) -> None:
    machine.host.cut()


def mend(machine: Machine) -> None:
    machine.host.mend()


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
        hosts = stack.enter_context(network_hosts(2))
        machines = [Machine(place, host, database.port) for host in hosts]
        for machine in machines:
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
        row = self._db.execute(statement, (machine.host.address,)).fetchone()
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


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=10)
    options.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    chosen = options.parse_args()
    most_s = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="swapgate-takeover-") as folder,
        postgres_node(host="0.0.0.0") as database,  # noqa: S104 - two namespaces reach it
        two_machines(Path(folder), database) as machines,
    ):
        observer = Observer(database)
        wait(lambda: observer.leader()[0] > 0)
        print("| the leader is | times | least s | median s | most s |\n|---|--:|--:|--:|--:|")
        for fault in chosen.faults:
            found = measure(observer, machines, fault, chosen.times)
            most_s = max(most_s, *found)
            print(row(fault, found), flush=True)
        observer.close()
    print(f"goal: {GOAL_S:.0f} s")
    return 0 if most_s <= GOAL_S else MISSED


if __name__ == "__main__":
    sys.exit(main())
