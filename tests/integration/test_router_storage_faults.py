import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import openai
import pytest

from evals.sim import server as sim
from harness.domain.operations.access import key_hash
from harness.domain.operations.signed_rows import Lineage
from harness.runtime.clock import SystemClock
from harness.store.store import Store
from router.snapshot.holder import load_snapshot
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_upstream import completion, running_upstream
from tests.support.router.live_router import KEY, SECRET, running_router_on, wait_until
from tests.support.router.router_process import routed
from tests.support.site.signing_keys import CONTROL
from tests.support.site.small_disk import full, small_disk
from tests.support.store import records
from tests.support.store.records import OLD, ROUTE

pytestmark = pytest.mark.slow
SLOW_S = 2.0
EVER = datetime(2000, 1, 1, tzinfo=UTC)


class Slow:
    """A store whose every unit of work takes SLOW_S longer. turns: how many have."""

    def __init__(self, store: Store) -> None:
        self.turns = 0
        self._store = store
        self._lock = threading.Lock()

    def _delay(self) -> None:
        time.sleep(SLOW_S)
        with self._lock:
            self.turns += 1

    def etag(self) -> str:
        self._delay()
        return self._store.etag()

    def snapshot(self) -> object:
        self._delay()
        return self._store.snapshot()

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        self._delay()
        return self._store.missing_lineage(known)

    def wait_for_change(self, timeout_s: float) -> bool:
        return self._store.wait_for_change(timeout_s)

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._delay()
        with self._store.write() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Any]:
        self._delay()
        with self._store.read() as tx:
            yield tx


@pytest.mark.req("G5")
@pytest.mark.verify
def test_a_database_that_takes_two_seconds_for_everything_slows_no_request(
    database_url: str, tmp_path: Path
) -> None:
    with (
        running_upstream() as upstream,
        closing(
            Store(database_url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)
        ) as store,
    ):
        upstream.turns = {OLD.model: completion("hello")}
        records.seeded(store)
        with store.write() as tx:
            for name in ("sim", "other"):
                provider = replace(records.PROVIDER, name=name, api_base=upstream.url)
                tx.providers.put(provider)
            hashed = key_hash(KEY, SECRET)
            tx.keys.add(replace(records.KEY, hash=hashed, routes=frozenset()))
        slow = Slow(store)
        with (
            running_router_on(cast("Store", slow), tmp_path, classes=records.CLEARED) as (
                url,
                _,
                recorder,
            ),
            openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client,
        ):
            asked = [while_it_works(slow, client) for _ in range(3)]
            wait_until(
                lambda: recorder.counters["rows_written"] > 0 and recorded(store) == sum(asked),
                timeout_s=30,
            )
    # Were one of them to wait for the database, it would be the only one.
    assert min(asked) >= 5


def while_it_works(slow: Slow, client: openai.OpenAI) -> int:
    before = slow.turns
    wait_until(lambda: slow.turns > before)
    # Reading and recording take turns: in this time each is at work once.
    until, answered = slow.turns + 2, 0
    while slow.turns < until:
        done = client.chat.completions.create(
            model=ROUTE, messages=[{"role": "user", "content": "hi"}]
        )
        assert done.choices[0].message.content == "hello"
        answered += 1
    return answered


def recorded(store: Store) -> int:
    with store.read() as tx:
        return sum(row.requests for row in tx.observations.traffic(since=EVER))


@pytest.fixture(name="disk")
def mounted_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as disk:
        yield disk


@pytest.mark.req("G5")
def test_a_full_disk_costs_no_request_tears_nothing_and_loses_nothing(disk: Path) -> None:
    # Database, spool, snapshot, rates and logs: all of it is on that disk.
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        routed(disk, provider) as world,
    ):
        world.start()
        with world.load() as load:
            load.more()
            with full(disk):
                load.more(200)
                failed = world.counter("swapgate_router_flushes_failed_total")
                assert failed > 0
            load.more()
        assert load.errors == []
        wait_until(lambda: world.recorded() == load.answered, timeout_s=60)
        assert world.counter("swapgate_observations_dropped_total") == 0
        assert load_snapshot(disk / "home" / "snapshot.json").table.routes
        assert world.readyz() == "ok"
        assert world.place.terminate("router") == 0
        with closing(sqlite3.connect(disk / "swapgate.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
