import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest

from harness.app.store.store import Store
from harness.frame.errors import IllegalTransition, RevisionConflict
from harness.frame.people.access import SYSTEM
from harness.frame.people.records import ApiKeys
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import RunState
from harness.providers.records import Credentials, Providers, Targets
from harness.routing.records.interventions import Switches
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import ChangeSettings
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
    ours = sqlite_stores()
    theirs = sqlite_stores()
    ours.etag()
    mark = ours.change_mark()
    assert theirs.etag()
    assert ours.change_mark() == mark


def test_a_commit_of_anybody_changes_the_mark(sql_stores: Opener) -> None:
    ours = sql_stores()
    theirs = sql_stores()
    marks = [ours.change_mark()]
    for number, writer in enumerate((ours, theirs)):
        with writer.write() as tx:
            Suites(tx).put(replace(PIN, name=f"suite-{number}"), NOW)
        marks.append(ours.change_mark())
    assert len({*marks}) == len(marks)


WRITES: dict[str, Callable[[Transaction], object]] = {
    "targets": lambda tx: Targets(tx).add(OLD),
    "routing": create_route,
    "providers": lambda tx: Providers(tx).put(PROVIDER),
    "proposals": lambda tx: Proposals(tx).add(proposal()),
    "suites": lambda tx: Suites(tx).put(PIN, NOW),
    "runs": lambda tx: EvalRuns(tx).add(RUN),
    "verdicts": lambda tx: Verdicts(tx).store(PASSED, "p_1"),
    "observations": lambda tx: Observations(tx).append([BLOCK], []),
    "audit": lambda tx: AuditLog(tx).append(SYSTEM, "b", "c", {}),
    "keys": lambda tx: ApiKeys(tx).add(KEY),
}


def test_writing_in_a_read_is_refused(store: Store) -> None:
    for write in WRITES.values():
        with (
            store.read() as tx,
            pytest.raises(IllegalTransition, match=r"store\.write"),
        ):
            write(tx)


def test_a_read_is_one_moment(store: Store) -> None:
    with store.read() as tx:
        assert Routing(tx).table().revision == 0
        with ThreadPoolExecutor(1) as other:
            other.submit(seeded, store).result()
        assert Routing(tx).table().revision == 0
        assert list(Proposals(tx).list()) == []

    with store.read() as tx:
        assert Routing(tx).table().revision == 1


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
        Routing(tx).commit(
            ChangeSettings(ROUTE, SETTINGS),
            expected_version=1,
            actor="a",
            reason="r",
            now=NOW,
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
                AuditLog(tx).append(SYSTEM, "b", "c", {"n": n})
            with store.write() as tx:
                block = replace(BLOCK, worker=f"w{worker}", sequence=n)
                Observations(tx).append([block], [])

    raised = race(*(lambda n=n, s=s: work(s, n) for n, s in enumerate(stores)))

    assert raised == [None, None, None]
    numbers = list(range(1, 16))
    with stores[0].read() as tx:
        assert Routing(tx).table().revision == 15
        assert [event.number for event in AuditLog(tx).all()] == numbers
        assert AuditLog(tx).first_break() is None
        assert [block.number for block in Observations(tx).blocks("ro_1")] == numbers


# SQLite has one writer at a time.
def test_samples_are_stored_while_somebody_decides(postgres_stores: Opener) -> None:
    deciding = postgres_stores()
    storing = postgres_stores()
    with deciding.write() as tx:
        create_route(tx)
        EvalRuns(tx).add(RUN)

    with deciding.write() as tx:
        start_of = AuditLog(tx).append(SYSTEM, "b", "c", {})
        with storing.write() as other:
            assert EvalRuns(other).store_sample(SAMPLE)
            Observations(other).append([BLOCK], [])

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
    "providers": lambda tx: Providers(tx).put(PROVIDER),
    "keys": lambda tx: ApiKeys(tx).add(KEY),
    "credentials": lambda tx: Credentials(tx).put(CREDENTIAL),
    "switches": lambda tx: Switches(tx).add(SWITCH),
}


@pytest.mark.req("B11", "D3")
def test_waiting_ends_when_another_process_commits(sql_stores: Opener) -> None:
    waiting = settled(sql_stores())
    writing = sql_stores()
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
                ApiKeys(tx).add(replace(KEY, id=f"k_{number}", hash=f"{number}"))
        assert woken.result()


def test_a_lost_connection_does_not_end_the_waiting(postgres_stores: Opener) -> None:
    waiting = settled(postgres_stores())
    writing = postgres_stores()
    with writing._engine.connect() as db:
        db.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%%' AND datname = current_database()"
        )

    with writing.write() as tx:
        ApiKeys(tx).add(KEY)

    assert waiting.wait_for_change(60.0)
    assert not settled(waiting).wait_for_change(0.05)


def test_only_one_process_leads_and_the_next_takes_over(sql_stores: Opener) -> None:
    first = sql_stores()
    second = sql_stores()

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
    first = postgres_stores()
    second = postgres_stores()
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
    decider = sql_stores()
    starter = sql_stores()
    seeded(decider)
    with decider.write() as tx:
        EvalRuns(tx).add(RUN)
    wished = threading.Event()

    def start() -> None:
        with starter.write() as tx:
            EvalRuns(tx).want(RUN.id, RUN.wanted + 1)
            wished.set()
            AuditLog(tx).append(SYSTEM, "start", "c", {})

    with ThreadPoolExecutor(1) as other:
        with decider.write() as tx:
            AuditLog(tx).append(SYSTEM, "decide", "c", {})
            started = other.submit(start)
            wished.wait(0.5)
            EvalRuns(tx).set_state(RUN.id, RunState.STOPPED)
        started.result()
    with decider.read() as tx:
        assert EvalRuns(tx).get(RUN.id) == replace(RUN, wanted=RUN.wanted + 1)


def test_a_snapshot_is_kept_while_nothing_changed(sql_stores: Opener) -> None:
    store = sql_stores()
    other = sql_stores()
    seeded(other)
    first = store.snapshot()

    assert store.snapshot() is first
    with other.write() as tx:
        start_canary(tx)
    assert store.snapshot().table.revision == 2
