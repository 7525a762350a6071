import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest

from harness.domain.errors import IllegalTransition, RevisionConflict
from harness.domain.evals.run import RunState
from harness.domain.operations.access import SYSTEM
from harness.domain.routing.route_changes import ChangeSettings
from harness.store.store import Store
from harness.store.transaction import Transaction
from tests.contract.conftest import Opener
from tests.contract.test_store_routing import SWITCH
from tests.support.store.records import (
    BLOCK,
    CREDENTIAL,
    KEY,
    NOW,
    OLD,
    PASSED,
    PIN,
    PROVIDER,
    ROUTE,
    RUN,
    SAMPLE,
    SETTINGS,
    create_route,
    proposal,
    seeded,
    start_canary,
)

pytestmark = pytest.mark.both_databases


def test_a_read_changes_no_mark(sqlite_stores: Opener) -> None:
    ours, theirs = sqlite_stores(), sqlite_stores()
    ours.etag()
    mark = ours.change_mark()
    assert theirs.etag()
    assert ours.change_mark() == mark


def test_a_commit_of_anybody_changes_the_mark(sql_stores: Opener) -> None:
    ours, theirs = sql_stores(), sql_stores()
    marks = [ours.change_mark()]
    for number, writer in enumerate((ours, theirs)):
        with writer.write() as tx:
            tx.suites.put(replace(PIN, name=f"suite-{number}"), NOW)
        marks.append(ours.change_mark())
    assert len({*marks}) == len(marks)


WRITES: dict[str, Callable[[Transaction], object]] = {
    "targets": lambda tx: tx.routing.add_target(OLD),
    "routing": create_route,
    "providers": lambda tx: tx.providers.put(PROVIDER),
    "proposals": lambda tx: tx.proposals.add(proposal()),
    "suites": lambda tx: tx.suites.put(PIN, NOW),
    "runs": lambda tx: tx.runs.add(RUN),
    "verdicts": lambda tx: tx.verdicts.store(PASSED, "p_1"),
    "observations": lambda tx: tx.observations.append([BLOCK], []),
    "audit": lambda tx: tx.audit.append(SYSTEM, "b", "c", {}),
    "keys": lambda tx: tx.keys.add(KEY),
}


def test_writing_in_a_read_is_refused(store: Store) -> None:
    for write in WRITES.values():
        with store.read() as tx, pytest.raises(IllegalTransition, match=r"store\.write"):
            write(tx)


def test_a_read_is_one_moment(store: Store) -> None:
    with store.read() as tx:
        assert tx.routing.table().revision == 0
        with ThreadPoolExecutor(1) as other:
            other.submit(seeded, store).result()
        assert tx.routing.table().revision == 0
        assert list(tx.proposals.list()) == []

    with store.read() as tx:
        assert tx.routing.table().revision == 1


def race(*contenders: Callable[[], object]) -> list[BaseException | None]:
    start = threading.Barrier(len(contenders))

    def run(contender: Callable[[], object]) -> None:
        start.wait()
        contender()

    with ThreadPoolExecutor(len(contenders)) as pool:
        runs = [pool.submit(run, contender) for contender in contenders]
        return [run.exception() for run in runs]


def change_settings(store: Store) -> None:
    with store.write() as tx:
        tx.routing.commit(
            ChangeSettings(ROUTE, SETTINGS), expected_version=1, actor="a", reason="r", now=NOW
        )


@pytest.mark.req("F1")
def test_of_writers_in_several_processes_one_wins(sql_stores: Opener) -> None:
    stores = [sql_stores() for _ in range(3)]
    seeded(stores[0])

    raised = race(*(lambda writer=store: change_settings(writer) for store in stores))

    assert raised.count(None) == 1
    assert all(exception is None or type(exception) is RevisionConflict for exception in raised)


def test_what_is_numbered_has_no_gaps_under_many_writers(sql_stores: Opener) -> None:
    stores = [sql_stores() for _ in range(3)]

    def work(store: Store, worker: int) -> None:
        for n in range(5):
            with store.write() as tx:
                create_route(tx, f"route-{worker}.{n}")
                tx.audit.append(SYSTEM, "b", "c", {"n": n})
            with store.write() as tx:
                block = replace(BLOCK, worker=f"w{worker}", sequence=n)
                tx.observations.append([block], [])

    raised = race(*(lambda n=n, s=s: work(s, n) for n, s in enumerate(stores)))

    assert raised == [None, None, None]
    numbers = list(range(1, 16))
    with stores[0].read() as tx:
        assert tx.routing.table().revision == 15
        assert [event.number for event in tx.audit.all()] == numbers
        assert tx.audit.first_break() is None
        assert [block.number for block in tx.observations.blocks("ro_1")] == numbers


# SQLite has one writer at a time.
def test_samples_are_stored_while_somebody_decides(postgres_stores: Opener) -> None:
    deciding, storing = postgres_stores(), postgres_stores()
    with deciding.write() as tx:
        create_route(tx)
        tx.runs.add(RUN)

    with deciding.write() as tx:
        start_of = tx.audit.append(SYSTEM, "b", "c", {})
        with storing.write() as other:
            assert other.runs.store_sample(SAMPLE)
            other.observations.append([BLOCK], [])

    assert start_of.action == "b"


def settled(store: Store) -> Store:
    """A store whose waiters have heard of all that happened so far."""
    while store.wait_for_change(0.0):
        pass
    return store


def test_waiting_ends_without_a_change_when_the_time_is_up(store: Store) -> None:
    assert not settled(store).wait_for_change(0.05)


SERVED: dict[str, Callable[[Transaction], object]] = {
    "routes": create_route,
    "providers": lambda tx: tx.providers.put(PROVIDER),
    "keys": lambda tx: tx.keys.add(KEY),
    "credentials": lambda tx: tx.credentials.put(CREDENTIAL),
    "switches": lambda tx: tx.switches.add(SWITCH),
}


@pytest.mark.req("B11", "D3")
def test_waiting_ends_when_another_process_commits(sql_stores: Opener) -> None:
    waiting, writing = settled(sql_stores()), sql_stores()
    for write in SERVED.values():
        with writing.write() as tx:
            write(tx)
        assert waiting.wait_for_change(60.0)
        settled(waiting)
    with ThreadPoolExecutor(1) as pool:
        # Each thread hears for itself: the first call settles this one.
        woken = pool.submit(lambda: settled(waiting).wait_for_change(60.0))
        for number in count(2):  # `KEY` is the first
            if woken.done():
                break
            with writing.write() as tx:
                tx.keys.add(replace(KEY, id=f"k_{number}", hash=f"{number}"))
        assert woken.result()


def test_a_lost_connection_does_not_end_the_waiting(postgres_stores: Opener) -> None:
    waiting, writing = settled(postgres_stores()), postgres_stores()
    with writing._engine.connect() as db:
        db.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%%' AND datname = current_database()"
        )

    with writing.write() as tx:
        tx.keys.add(KEY)

    assert waiting.wait_for_change(60.0)
    assert not settled(waiting).wait_for_change(0.05)


def test_only_one_process_leads_and_the_next_takes_over(sql_stores: Opener) -> None:
    first, second = sql_stores(), sql_stores()

    assert second.leader() == ""
    assert first.try_lead("control-1")
    assert first.try_lead("control-1")
    assert not second.try_lead("control-2")
    assert second.leader() == "control-1"
    first.close()
    while not second.try_lead("control-2"):  # the server frees the lock a moment later
        pass
    assert second.leader() == "control-2"


def test_a_leader_that_lost_its_connection_leads_no_more(postgres_stores: Opener) -> None:
    first, second = postgres_stores(), postgres_stores()
    assert first.try_lead("control-1")
    with second._engine.connect() as db:
        db.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'control-1' AND datname = current_database()"
        )

    while not second.try_lead("control-2"):  # the server frees the lock a moment later
        pass
    assert not first.try_lead("control-1")


def test_a_decision_and_a_wish_for_more_items_never_wait_for_each_other(
    sql_stores: Opener,
) -> None:
    decider, starter = sql_stores(), sql_stores()
    seeded(decider)
    with decider.write() as tx:
        tx.runs.add(RUN)
    wished = threading.Event()

    def start() -> None:
        with starter.write() as tx:
            tx.runs.want(RUN.id, RUN.wanted + 1)
            wished.set()
            tx.audit.append(SYSTEM, "start", "c", {})

    with ThreadPoolExecutor(1) as other:
        with decider.write() as tx:
            tx.audit.append(SYSTEM, "decide", "c", {})
            started = other.submit(start)
            wished.wait(0.5)
            tx.runs.set_state(RUN.id, RunState.STOPPED)
        started.result()
    with decider.read() as tx:
        assert tx.runs.get(RUN.id) == replace(RUN, wanted=RUN.wanted + 1)


def test_a_snapshot_is_kept_while_nothing_changed(sql_stores: Opener) -> None:
    store, other = sql_stores(), sql_stores()
    seeded(other)
    first = store.snapshot()

    assert store.snapshot() is first
    with other.write() as tx:
        start_canary(tx)
    assert store.snapshot().table.revision == 2
