"""The rows of a canary's exposures, as real routers write them."""

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from harness.gate.online.exposures import KEPT, EventKind, Exposure, ExposureEvent
from harness.gate.online.outcome import OutcomeKind
from harness.routing.records.exposures import Exposures
from harness.routing.records.proposals import Rollouts
from tests.support.router.router_process import (
    Routed,
    ask,
    eventually,
    routed,
    start_canary,
)
from tests.support.site.small_disk import full, small_disk

pytestmark = pytest.mark.slow


class Facts(NamedTuple):
    """The stored rows of the rollout. arms: the exposures by arm."""

    exposures: Sequence[Exposure]
    events: Sequence[ExposureEvent]
    counted: int

    @property
    def first(self) -> dict[int, Exposure]:
        """The earliest exposure of each caller."""
        earliest: dict[int, Exposure] = {}
        for row in sorted(self.exposures, key=lambda row: row.admitted_at):
            earliest.setdefault(row.caller, row)
        return earliest

    def of(self, kind: EventKind) -> list[ExposureEvent]:
        return [event for event in self.events if event.kind is kind]


def read_facts(world: Routed) -> Facts:
    with world.installation.store.read() as tx:
        (rollout,) = Rollouts(tx).live()
        rows = Exposures(tx)
        counted = sum(row.requests for row in rows.counts(rollout.id) if row.reason == KEPT)
        return Facts(rows.exposures(rollout.id), rows.events(rollout.id), counted)


FIRST = "ada"


def await_rows(world: Routed) -> None:
    """Asks as one caller until the router counts it for the canary."""
    with world.client() as client:
        eventually(lambda: ask(client, user=FIRST) and len(read_facts(world).exposures) > 0)


def assert_each_row_is_there_once(facts: Facts) -> None:
    rows: list[Exposure | ExposureEvent] = [*facts.exposures, *facts.events]
    numbers = [row.number for row in rows]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    requests = Counter((row.worker, row.ticket) for row in facts.exposures)
    ends = Counter((row.worker, row.ticket) for row in facts.of(EventKind.ENDED))
    assert set(requests.values()) | set(ends.values()) == {1}
    assert ends.keys() <= requests.keys()


@pytest.mark.req("F1")
def test_each_callers_first_request_and_its_later_ones_become_rows(
    provider: str, database_url: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider, database_url, router={"workers": 2}) as world:
        world.start()
        start_canary(world, tmp_path)
        await_rows(world)
        with world.client() as client:
            for number in range(30):
                for _ in range(2):
                    ask(client, user=f"caller-{number}", stream=number % 2 == 0)
        assert world.place.terminate("router") == 0
        facts = read_facts(world)
        blocks = world.blocks()

    assert_each_row_is_there_once(facts)
    first = facts.first.values()
    # Today's blocks and the rows tell the same, since an arm of one half keeps all callers.
    assert len(first) == sum(block.units for block in blocks)
    assert sum(row.canary for row in first) == sum(block.canary_units for block in blocks)
    assert facts.counted == len(facts.exposures)
    for event in (*facts.of(EventKind.ENDED), *facts.of(EventKind.TURN)):
        assert event.outcome is OutcomeKind.ANSWERED
        assert event.began_at <= event.at
    for event in facts.of(EventKind.ENDED):
        assert event.latency_s is not None
        assert event.latency_s > 0.0
        assert event.output_tokens is not None
        assert event.output_tokens > 0
        assert event.cost_usd is None  # these models have no price
    assert {event.served for event in facts.events} <= {"sim-base", "sim-better"}
    assert not list((tmp_path / "home" / "exposures").glob("*.*"))


@pytest.mark.req("G5")
def test_a_killed_worker_and_a_killed_parent_lose_no_row_that_was_written(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider, router={"workers": 2}) as world:
        world.start()
        start_canary(world, tmp_path)
        await_rows(world)
        with world.load() as load:
            load.more()
            os.kill(world.workers()[0].pid, signal.SIGKILL)
            load.more(60, known=10)
        known = load.answered
        world.kill()
        before = read_facts(world)
        world.start()  # it stores what the killed processes left behind
        eventually(lambda: not _left_behind(tmp_path, world))
        facts = read_facts(world)
        assert world.place.terminate("router") == 0

    assert_each_row_is_there_once(facts)
    assert len(facts.exposures) >= len(before.exposures)
    # Each request is a caller of its own; those in flight at the kills never ended.
    assert len(facts.first) >= known - 10
    ended = {(event.worker, event.ticket) for event in facts.of(EventKind.ENDED)}
    open_ = [row for row in facts.exposures if (row.worker, row.ticket) not in ended]
    assert len(open_) <= 10


def _left_behind(folder: Path, world: Routed) -> list[str]:
    """Files that no living process writes."""
    files = (folder / "home" / "exposures").glob("*.*")
    serving = {child.pid for child in world.workers()}
    held = {
        Path(file.path).name
        for pid in serving
        for file in psutil.Process(pid).open_files()
        if "exposures" in file.path
    }
    return [path.name for path in files if path.name not in held]


@pytest.mark.req("A1", "G5")
def test_a_database_that_is_away_costs_no_row_and_stores_none_twice(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        world.start()
        start_canary(world, tmp_path)
        with (
            world.load() as load,
            closing(sqlite3.connect(tmp_path / "swapproof.db", isolation_level=None)) as other,
        ):
            load.more()
            other.execute("BEGIN EXCLUSIVE")
            load.more(60)
            other.rollback()
            load.more()
        assert load.errors == []
        assert world.place.terminate("router") == 0
        facts = read_facts(world)

    assert_each_row_is_there_once(facts)
    assert len(facts.of(EventKind.ENDED)) == len(facts.exposures)
    assert facts.counted == len(facts.exposures)


@pytest.mark.req("G5")
def test_a_full_disk_costs_no_request_and_its_lost_rows_are_bounded_by_the_counts(
    provider: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path) as disk, routed(disk, provider) as world:
        world.start()
        start_canary(world, disk)
        with world.load() as load:
            load.more()
            with full(disk):
                load.more(200)
            load.more()
        assert load.errors == []
        assert world.place.terminate("router") == 0
        facts = read_facts(world)

    assert_each_row_is_there_once(facts)
    assert len(facts.exposures) <= facts.counted


@pytest.mark.req("F1")
def test_two_processes_give_one_caller_one_fingerprint(
    provider: str, postgres_url: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider, postgres_url) as world:
        world.start()
        start_canary(world, tmp_path)
        await_rows(world)
        assert world.place.terminate("router") == 0
        world.start()  # a new process, which knows no caller
        with world.client() as client:
            ask(client, user=FIRST)
        assert world.place.terminate("router") == 0
        facts = read_facts(world)

    assert len({row.worker for row in facts.exposures}) == 2
    assert len(facts.first) == 1
    assert len(facts.exposures) == 2
