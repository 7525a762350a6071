"""Random histories of the control plane, the promise checked after every step:
`python -m benchmarks.figures.stateful [--steps 100000] [--minutes 0] [--processes 2] [--more]`.

The state machine is tests/support/control/control_plane_machine.py. Part of the steps happen on
PostgreSQL, the others on SQLite; each process does its part of both.
"""

import argparse
import math
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import ClassVar, Final

from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from benchmarks.figures.record import RunResult, record_run
from harness.store.sql import SqlStore
from tests.support.control.control_plane import SECRET
from tests.support.control.control_plane_machine import ControlPlane
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL
from tests.support.store.private_postgres import OwnPostgres, own_postgres

STEPS_EACH: Final = 50
# Histories at a time: between them it is looked whether there are steps enough.
BATCH: Final = 10
POSTGRES_SHARE: Final = 0.1


class CountedPlane(ControlPlane):
    """steps: of all histories on one database, each with its checks."""

    steps: ClassVar[int] = 0

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    def teardown(self) -> None:
        type(self).steps -= 1  # the state before the first step
        super().teardown()


class PostgresPlane(CountedPlane):
    steps: ClassVar[int] = 0
    server: ClassVar[OwnPostgres]

    def open_store(self, clock: ManualClock) -> SqlStore:
        url = self.server.new_database()
        return SqlStore(url, secret=SECRET, clock=clock, signatures=CONTROL)


def run_steps(plane: type[CountedPlane], wanted: int, until: float) -> list[str]:
    """Until there are so many steps, or until that time of the monotonic clock; the history
    that broke the promise, if one did.
    """
    chosen = settings(
        max_examples=BATCH,
        stateful_step_count=STEPS_EACH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    while plane.steps < wanted and time.monotonic() < until:
        try:
            run_state_machine_as_test(plane, settings=chosen)
        except Exception:  # noqa: BLE001 - whatever it is, the promise is broken
            return [traceback.format_exc()]
        print(f"{plane.__name__}: {plane.steps} of {wanted} steps", flush=True)
    return []


def run_part(steps: int, on_postgres: int, limit_s: float) -> tuple[int, int, list[str]]:
    """The steps of one process: how many on SQLite, how many on PostgreSQL, and the faults."""
    began = time.monotonic()
    with own_postgres() as server:
        PostgresPlane.server = server
        share = on_postgres / steps
        faults = run_steps(PostgresPlane, on_postgres, began + share * limit_s)
    faults += run_steps(CountedPlane, steps - on_postgres, began + limit_s)
    return CountedPlane.steps, PostgresPlane.steps, faults


def run(steps: int, minutes: float, processes: int) -> RunResult:
    each = -(-steps // processes)
    part = partial(run_part, each, round(each * POSTGRES_SHARE), minutes * 60 or math.inf)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waited = [pool.submit(part) for _ in range(processes)]
        parts = [future.result() for future in waited]
    on_sqlite = sum(part[0] for part in parts)
    on_postgres = sum(part[1] for part in parts)
    faults = [fault for part in parts for fault in part[2]]
    return RunResult(
        on_sqlite + on_postgres,
        len(faults),
        f"{on_sqlite} steps on SQLite, {on_postgres} on PostgreSQL, "
        f"in histories of at most {STEPS_EACH}",
        faults,
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=100_000)
    options.add_argument("--minutes", type=float, default=0.0, help="at most; 0 for no limit")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--more", action="store_true", help="add to the stored result")
    chosen = options.parse_args()
    return record_run(
        "stateful",
        lambda: run(chosen.steps, chosen.minutes, chosen.processes),
        more=chosen.more,
    )


if __name__ == "__main__":
    sys.exit(main())
