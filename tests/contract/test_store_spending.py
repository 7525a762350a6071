"""The monthly cap: the sum of stored costs stops every process, and each one's own calls under
way count before they are stored.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.control.operations.spending_meter import SpendingMeter, TakenAmount
from harness.domain.errors import StoreUnavailable
from harness.domain.operations.spending import (
    ROUNDING_USD,
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
    month_of,
)
from harness.runtime.clock import SystemClock
from harness.store.store import Store
from tests.support.site.signing_keys import CONTROL
from tests.support.store.sqlite_store import open_sqlite

pytestmark = pytest.mark.req("G5")

SECRET = b"a secret of the installation"
ROOT = Path(__file__).parents[2]
EVALS, AGENTS = SpendingPurpose.EVALS, SpendingPurpose.AGENTS


@pytest.fixture
def opened(database_url: str) -> Iterator[Store]:
    made = Store(database_url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)
    with closing(made) as store:
        yield store


def month(store: Store, at: datetime) -> MonthSpending:
    with store.read() as tx:
        return tx.spending.month(month_of(at))


def start(url: str, purpose: str) -> subprocess.Popen[str]:
    module = "tests.support.control.spending_process"
    command = [sys.executable, "-m", module, url, "0.03", "0.02", purpose]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command


def test_processes_that_spend_together_pass_the_cap_by_one_call_of_each_at_most(
    opened: Store, database_url: str
) -> None:
    now = SystemClock().now()
    with opened.write() as tx:
        tx.spending.set_cap(1.0, now)
    processes = [start(database_url, purpose) for purpose in ("evals", "agents", "agents")]
    calls = [int(process.communicate(timeout=120)[0]) for process in processes]
    spent = month(opened, now)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert spent.spent_usd == pytest.approx(sum(calls) * 0.02)
    assert 1.0 - 0.03 < spent.spent_usd <= 1.0 + 2 * 0.02 + ROUNDING_USD
    assert sum(row.calls for row in spent.purposes) == sum(calls)
    assert set(spent.waiting) == {EVALS, AGENTS}


def test_a_call_waits_for_what_others_of_its_process_leave(opened: Store) -> None:
    clock = SystemClock()
    with opened.write() as tx:
        tx.spending.set_cap(5.5, clock.now())
    meter, refusals = SpendingMeter(opened, clock, EVALS), []
    other = meter.take_here(3.5, "sim/base", 0.0)
    assert other is not None

    def end(other: TakenAmount = other) -> None:
        refusals.append(meter.refusal)
        meter.settle(other, 0.1)

    threading.Timer(0.2, end).start()
    taken = meter.take_here(2.5, "sim/base", 60.0)

    assert taken is not None
    # A run that looked meanwhile would have ended for it.
    assert refusals == [""]
    meter.settle(taken, 2.5)
    assert meter.take_here(4.0, "sim/base", 0.0) is None
    assert "monthly cap" in meter.refusal
    assert month(opened, clock.now()).spent_usd == pytest.approx(2.6)


def test_costs_count_while_they_are_being_stored(opened: Store) -> None:
    clock = SystemClock()
    with opened.write() as tx:
        tx.spending.set_cap(10.0, clock.now())
    meter = SpendingMeter(opened, clock, EVALS)
    taken = meter.take_here(9.5, "sim/base", 0.0)
    assert taken is not None
    meter.settle(taken, 9.5)
    storing = threading.Thread(target=meter.refresh)

    # The first writer, whom the second one waits for.
    with opened.write() as tx:
        tx.spending.set_cap(10.0, clock.now())
        storing.start()
        storing.join(0.2)
        assert meter.try_take(9.5, "sim/base") is None
    storing.join()
    assert meter.try_take(9.5, "sim/base") is None
    assert meter.try_take(0.4, "sim/base") is not None


@dataclass
class SteppingClock:
    at: datetime = datetime(2026, 5, 3, tzinfo=UTC)
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.at + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def test_a_refusal_is_noted_until_a_call_is_granted_and_an_old_sum_is_not_trusted(
    opened: Store,
) -> None:
    clock = SteppingClock()
    meter = SpendingMeter(opened, clock, EVALS)
    assert meter.try_take(0.1, "sim/base") is None  # it has not read the sum yet
    with opened.write() as tx:
        tx.spending.set_cap(1.0, clock.now())
    meter.refresh()
    assert meter.try_take(None, "sim/base") is None
    assert meter.try_take(2.0, "sim/base") is None
    meter.refresh()
    assert month(opened, clock.now()).waiting == (EVALS,)
    taken = meter.try_take(0.1, "sim/base")
    assert taken is not None
    meter.refresh()
    assert month(opened, clock.now()).waiting == ()
    clock.seconds += 31
    assert meter.try_take(0.1, "sim/base") is None
    clock.at += timedelta(days=31)
    meter.settle(taken, 0.05)
    meter.refresh()
    spent = month(opened, datetime(2026, 5, 3, tzinfo=UTC))
    assert (spent.spent_usd, month(opened, clock.now()).spent_usd) == (0.05, 0.0)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["take", "settle", "give back", "refresh", "wait", "fail"]),
        st.floats(0.0, 0.4),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spending")


@settings(max_examples=40)
@given(STEPS, st.floats(0.0, 2.0))
def test_no_order_of_calls_loses_a_cost_or_grants_more_than_stored_and_own_calls_leave(
    memory: Path, steps: list[tuple[int, str, float]], cap_usd: float
) -> None:
    clock = SteppingClock()
    with closing(open_sqlite(memory / f"{id(clock)}.db", clock, secret=SECRET)) as store:
        with store.write() as tx:
            tx.spending.set_cap(cap_usd, clock.now())
        meters = [SpendingMeter(store, clock, purpose) for purpose in (EVALS, AGENTS)]
        taken: list[list[TakenAmount]] = [[], []]
        cost, calls = 0.0, 0
        for who, step, usd in steps:
            match step:
                case "take":
                    meters[who].refresh(at_once=True)
                    own = sum(call.usd for call in taken[who])
                    found = meters[who].try_take(usd, "sim/base")
                    fits = month(store, clock.now()).fits(own + usd)
                    assert (found is not None) is fits
                    taken[who] += [found] if found else []
                case "settle" if taken[who]:
                    call = taken[who].pop()
                    spent = min(usd, call.usd)
                    meters[who].settle(call, spent)
                    cost, calls = cost + spent, calls + 1
                case "give back" if taken[who]:
                    meters[who].give_back(taken[who].pop())
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
    """The database is away for a moment."""

    class Away:
        def write(self) -> None:
            raise StoreUnavailable("it is away")

        read = write

    meter._store = Away()  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        meter.refresh(at_once=True)
    meter._store = store


def test_rows_of_a_purpose_add_up(opened: Store) -> None:
    now = datetime(2026, 5, 3, tzinfo=UTC)
    with opened.write() as tx:
        for usd in (1.0, 0.5):
            tx.spending.add(month_of(now), PurposeSpending(EVALS, usd, 2, 1))
    found = month(opened, now)
    assert (found.spent_usd, found.unpriced) == (1.5, 2)
