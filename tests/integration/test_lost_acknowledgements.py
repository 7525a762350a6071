import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.errors import StoreUnavailable
from harness.frame.people.limits import KeySpend
from harness.frame.records.transaction import Transaction
from harness.routing.records.observations import Observations
from router.recording.recorder import Recorder
from router.recording.spool import Spool
from router.recording.sums import CompletedRequest
from tests.contract.conftest import SECRET, open_store
from tests.integration.test_migrations import connected
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL

pytestmark = [pytest.mark.req("F3"), pytest.mark.both_databases]

DONE = CompletedRequest(
    route="support",
    arm="incumbent",
    target="t",
    revision=3,
    stream=False,
    failed=False,
    charged=False,
    latency_ms=40.0,
    input_tokens=7,
    output_tokens=5,
    cost_usd=0.5,
    key="k_1",
)


@dataclass
class DeafStore:
    """A store whose answers are lost: what it is told is stored, and its writer never hears."""

    store: Store
    is_deaf: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    @contextmanager
    def write(self) -> Generator[Transaction]:
        with self.store.write() as tx:
            yield tx
        if self.is_deaf:
            raise StoreUnavailable("the connection was lost in the middle of a commit")


@dataclass
class Books:
    """A recorder that flushes when it is told to, over a real database."""

    folder: Path
    store: DeafStore
    clock: ManualClock

    def recorder(self, *, max_bytes: int = 1_000_000) -> Recorder:
        return Recorder(
            RouterStore(cast("Store", self.store)),
            Spool(self.folder / "spool.jsonl", max_bytes=max_bytes),
            worker="w",
            clock=self.clock,
        )

    def stored(self) -> tuple[int, float]:
        """Requests in minutes, and what the key spent."""
        since = self.clock.now() - timedelta(days=9)
        with self.store.read() as tx:
            totals = Observations(tx).totals(since=since)
            spends: list[KeySpend] = list(Observations(tx).spends(since=since.date()))
        return sum(row.requests for row in totals), sum(row.cost_usd for row in spends)


@pytest.fixture
def books(tmp_path: Path, database_url: str) -> Generator[Books]:
    clock = ManualClock()
    store = Store(
        database_url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    with closing(store):
        yield Books(tmp_path, DeafStore(store), clock)


def request(recorder: Recorder, clock: ManualClock) -> None:
    recorder.finish(None, DONE)
    clock.advance(60)


@pytest.mark.parametrize("max_bytes", [1_000_000, 0], ids=["by the spool", "in memory"])
def test_what_is_sent_again_after_a_lost_acknowledgement_counts_once(
    books: Books,
    database_url: str,
    max_bytes: int,
) -> None:
    recorder = books.recorder(max_bytes=max_bytes)
    request(recorder, books.clock)
    recorder.flush()
    books.store.is_deaf = True
    for _ in range(3):
        request(recorder, books.clock)
        recorder.flush()
    assert recorder.counters["flushes_failed"] == 3
    books.store.is_deaf = False
    request(recorder, books.clock)
    recorder.flush()
    assert books.stored() == (5, 2.5)

    # Whose acknowledgement came is not remembered for long.
    request(recorder, books.clock)
    recorder.flush()
    with connected(database_url) as db:
        assert len(db.execute(sa.text("SELECT id FROM observation_batch")).all()) == 1
    assert books.stored() == (6, 3.0)


def test_what_a_router_sent_before_it_was_killed_is_not_counted_by_the_next_one(
    books: Books,
) -> None:
    first = books.recorder()
    books.store.is_deaf = True
    request(first, books.clock)
    first.flush()
    books.store.is_deaf = False
    books.recorder().flush()
    assert books.stored() == (1, 0.5)


def test_a_batch_whose_first_transaction_goes_on_is_waited_for(
    books: Books, database_url: str
) -> None:
    """A router gave up after a time-out; its first transaction is still under way."""
    entered = threading.Event()
    may_end = threading.Event()
    found: list[bool] = []

    def first() -> None:
        with closing(open_store(database_url)) as store, store.write() as tx:
            found.append(Observations(tx).begin_batch("w.1", books.clock.now()))
            entered.set()
            may_end.wait(60)

    def second() -> None:
        with books.store.write() as tx:
            found.append(Observations(tx).begin_batch("w.1", books.clock.now()))

    threads = [
        threading.Thread(target=first),
        threading.Thread(target=second),
    ]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    threads[1].join(0.3)
    assert found == [True]
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert found == [True, False]


def test_notes_of_batches_whose_senders_are_gone_are_deleted(books: Books) -> None:
    now = books.clock.now()
    with books.store.write() as tx:
        Observations(tx).begin_batch("old", now - timedelta(days=91))
        Observations(tx).begin_batch("new", now)
        assert Observations(tx).forget_batches_before(now - timedelta(days=90)) == 1
        assert Observations(tx).begin_batch("old", now)
        assert not Observations(tx).begin_batch("new", now)
