"""Routers and eval workers share what they know of accounts, in either database."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import cast

import pytest

from harness.app.store.store import Store
from harness.evals.account_meter import AccountMeter, StoredLoads
from harness.frame.errors import StoreUnavailable
from harness.routing.records.account_loads import AccountLoads
from harness.routing.reliability.users_first import CAUTION_S, FREE
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F2")

A = "account a"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(database_url: str, clock: ManualClock) -> Iterator[Store]:
    made = Store(database_url, secret=b"secret", clock=clock, signatures=CONTROL)
    with closing(made) as opened:
        yield opened


def test_an_eval_worker_knows_users_headers_and_429s_from_routers(
    store: Store, clock: ManualClock
) -> None:
    stored = StoredLoads(store)
    routers = [AccountMeter(clock, name) for name in ("router-1", "router-2")]
    worker = AccountMeter(clock, "worker")
    assert worker.permit(A, "m") == FREE

    for router in routers:
        router.note_users(A, "sim", 15.0, 900.0)
        router.note_answer(A, "sim", "m", {"x-ratelimit-remaining-requests": "40"})
        router.refresh(stored)
    worker.refresh(stored)
    permit = worker.permit(A, "m")
    assert (permit.calls, permit.gap_s) == (1, 4.0)
    assert worker.permit("account b", "m") == FREE

    clock.advance(1)
    routers[0].note_refusal(A, "sim", "m", {"retry-after": "7"}, of_user=True)
    routers[0].refresh(stored)
    worker.refresh(stored)
    assert (worker.permit(A, "m").calls, worker.permit(A, "m").wait_s) == (0, 7.0)


def test_a_429_of_a_test_counts_as_a_users_where_users_meet_the_same_limit(
    store: Store, clock: ManualClock
) -> None:
    stored = StoredLoads(store)
    worker = AccountMeter(clock, "worker")
    worker.note_refusal(A, "sim", "m", NO_HEADERS, of_user=False)
    assert worker.permit(A, "m") == FREE

    router = AccountMeter(clock, "router")
    router.note_users(A, "sim", 30.0, 0.0)
    router.refresh(stored)
    worker.refresh(stored)
    worker.note_refusal(A, "sim", "m", NO_HEADERS, of_user=False)
    assert worker.permit(A, "m").calls == 1


def test_reports_are_written_once_a_second_at_most_and_old_ones_are_deleted(
    store: Store, clock: ManualClock
) -> None:
    stored = StoredLoads(store)
    router = AccountMeter(clock, "router")
    worker = AccountMeter(clock, "worker")
    for _ in range(3):
        router.note_refusal(A, "sim", "m", {"retry-after": "7"}, of_user=True)
        router.refresh(stored)
        clock.advance(0.4)
    worker.permit(A, "m")
    worker.refresh(stored)
    written = clock.now().timestamp() - 1.2
    with store.read() as tx:
        (load,) = AccountLoads(tx).recent(clock.now())
    assert load.at.timestamp() == pytest.approx(written)

    clock.advance(CAUTION_S + 1)
    worker.note_call(A, "sim")
    worker.refresh(stored)
    with store.read() as tx:
        (load,) = AccountLoads(tx).recent(clock.now())
    assert (load.source, load.tests) == ("worker", 1)


def test_without_the_database_the_last_reports_count(store: Store, clock: ManualClock) -> None:
    stored = StoredLoads(store)
    router = AccountMeter(clock, "router")
    router.note_users(A, "sim", 30.0, 0.0)
    router.note_answer(A, "sim", "m", {"x-ratelimit-remaining-requests": "30"})
    router.refresh(stored)
    worker = AccountMeter(clock, "worker")
    worker.permit(A, "m")
    worker.refresh(stored)

    class Away:
        def read(self) -> None:
            raise StoreUnavailable("it is away")

        write = read

    clock.advance(2)
    router.note_refusal(A, "sim", "m", {"retry-after": "7"}, of_user=True)
    with pytest.raises(StoreUnavailable):
        router.refresh(StoredLoads(cast("Store", Away())))
    with pytest.raises(StoreUnavailable):
        worker.refresh(StoredLoads(cast("Store", Away())))
    assert worker.permit(A, "m").calls == 1
    assert worker.permit(A, "m").reason

    clock.advance(2)
    router.refresh(stored)
    worker.refresh(stored)
    assert worker.permit(A, "m").calls == 0
