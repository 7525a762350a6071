import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.store.store import Store
from harness.evals.month_spending import (
    MonthSpending,
    SpendingPurpose,
    month_of,
)
from harness.evals.records import Spending
from harness.evals.spending_meter import (
    UNKNOWN,
    SpendingMeter,
    StoredSpending,
)
from harness.frame.errors import SpendingPaused, StoreUnavailable
from harness.frame.runtime.clock import SystemClock
from tests.support.site.signing_keys import CONTROL
from tests.support.store.sqlite_store import open_sqlite

pytestmark = pytest.mark.req("G5")

SECRET = b"a secret of the installation"
EVALS = SpendingPurpose.EVALS
AGENTS = SpendingPurpose.AGENTS


@pytest.fixture
def opened(database_url: str) -> Iterator[Store]:
    made = Store(
        database_url,
        secret=SECRET,
        clock=SystemClock(),
        signatures=CONTROL,
    )
    with closing(made) as store:
        yield store


def month(store: Store, at: datetime) -> MonthSpending:
    with store.read() as tx:
        return Spending(tx).month(month_of(at))


def spend_to_the_cap(url: str, purpose: SpendingPurpose) -> int:
    """Another process's calls of two cents each, until the cap refuses the next one."""
    calls = 0
    clock = SystemClock()
    with closing(
        Store(
            url,
            secret=SECRET,
            clock=clock,
            signatures=CONTROL,
        )
    ) as store:
        meter = SpendingMeter(StoredSpending(store), clock, purpose)
        meter.refresh(at_once=True)
        while not meter.find_obstacle():
            calls += 1
            meter.pay(0.02)
            meter.refresh()
    return calls


@pytest.mark.both_databases
def test_processes_that_spend_together_pass_the_cap_by_one_call_of_each_at_most(
    opened: Store, database_url: str
) -> None:
    now = SystemClock().now()
    with opened.write() as tx:
        Spending(tx).set_cap(1.0, now)
    with ThreadPoolExecutor(3) as pool:
        calls = list(pool.map(spend_to_the_cap, [database_url] * 3, (EVALS, AGENTS, AGENTS)))
    spent = month(opened, now)
    assert spent.spent_usd == pytest.approx(sum(calls) * 0.02)
    assert 1.0 <= spent.spent_usd + 1e-9 < 1.0 + 3 * 0.02
    assert sum(row.calls for row in spent.purposes) == sum(calls)


def test_costs_count_while_they_are_being_stored(opened: Store) -> None:
    clock = SystemClock()
    with opened.write() as tx:
        Spending(tx).set_cap(10.0, clock.now())
    meter = SpendingMeter(StoredSpending(opened), clock, EVALS)
    meter.require_money()
    meter.pay(10.0)
    storing = threading.Thread(target=meter.refresh)

    # The first writer, whom the second one waits for.
    with opened.write() as tx:
        Spending(tx).set_cap(10.0, clock.now())
        storing.start()
        storing.join(0.2)
        assert "$10.00 spent" in meter.find_obstacle()
    storing.join()
    assert "$10.00 spent" in meter.find_obstacle()


@dataclass
class SteppingClock:
    at: datetime = datetime(2026, 5, 3, tzinfo=UTC)
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.at + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def test_an_unknown_or_old_sum_and_an_unknown_price_allow_no_call_below_a_cap(
    opened: Store,
) -> None:
    clock = SteppingClock()
    meter = SpendingMeter(StoredSpending(opened), clock, EVALS)
    assert meter.find_obstacle() == UNKNOWN
    meter.require_money("sim/base")  # there is no cap
    with opened.write() as tx:
        Spending(tx).set_cap(1.0, clock.now())
    clock.seconds += 3
    meter.require_money()
    with pytest.raises(SpendingPaused, match="the price of sim/base is unknown"):
        meter.require_money("sim/base")
    assert meter.refusal
    meter.require_money()
    assert meter.refusal == ""
    clock.seconds += 31
    assert meter.find_obstacle() == UNKNOWN
    meter.pay(1.0)
    with pytest.raises(SpendingPaused, match=r"cap of \$1.00 is reached: \$1.00 spent"):
        meter.require_money()
    # What another process raised a moment ago counts where a call would be refused.
    with opened.write() as tx:
        Spending(tx).set_cap(2.0, clock.now())
    meter.require_money()
    meter.pay(None)
    clock.at += timedelta(days=31)
    assert meter.find_obstacle() == UNKNOWN
    meter.require_money()
    meter.refresh()
    spent = month(opened, datetime(2026, 5, 3, tzinfo=UTC))
    assert (spent.spent_usd, spent.unpriced) == (1.0, 1)
    assert month(opened, clock.now()).spent_usd == 0.0


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["ask", "pay", "refresh", "wait", "fail"]),
        st.floats(0.0, 0.4),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spending")


@given(STEPS, st.floats(0.0, 2.0))
def test_no_order_of_calls_loses_a_cost_or_allows_a_call_once_all_costs_reach_the_cap(
    memory: Path,
    steps: list[tuple[int, str, float]],
    cap_usd: float,
) -> None:
    clock = SteppingClock()
    with closing(open_sqlite(memory / f"{id(clock)}.db", clock, secret=SECRET)) as store:
        with store.write() as tx:
            Spending(tx).set_cap(cap_usd, clock.now())
        meters = [
            SpendingMeter(StoredSpending(store), clock, purpose) for purpose in (EVALS, AGENTS)
        ]
        cost = 0.0
        calls = 0
        for who, step, usd in steps:
            match step:
                case "ask":
                    meters[who].refresh(at_once=True)
                    reached = month(store, clock.now()).find_obstacle()
                    assert bool(meters[who].find_obstacle()) is bool(reached)
                case "pay":
                    meters[who].pay(usd)
                    cost = cost + usd
                    calls = calls + 1
                case "fail":
                    fail(meters[who], store)
                case "refresh":
                    meters[who].refresh()
                case _:
                    clock.seconds += 5 + usd
        for meter in meters:
            meter.refresh()
        total = month(store, clock.now())
    assert total.spent_usd == pytest.approx(cost)
    assert sum(row.calls for row in total.purposes) == calls


def fail(meter: SpendingMeter, store: Store) -> None:
    class Away:
        def write(self) -> None:
            raise StoreUnavailable("it is away")

        read = write

    meter._stored = StoredSpending(cast("Store", Away()))
    with pytest.raises(StoreUnavailable):
        meter.refresh(at_once=True)
    meter._stored = StoredSpending(store)
