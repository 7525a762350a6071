"""The monthly cap over several processes: what they spend together never passes it, and what a
killed one held counts as spent.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.control.operations.spending_allowance import Allowance, TakenAmount
from harness.domain.operations.spending import (
    HOLD_LASTS,
    ROUNDING_USD,
    MonthSpending,
    SpendingPurpose,
    month_of,
)
from harness.runtime.clock import SystemClock
from harness.runtime.random_ids import SystemRandomIds
from harness.store.store import Store
from tests.support.site.signing_keys import CONTROL
from tests.support.store.sqlite_store import open_sqlite

pytestmark = pytest.mark.req("G5")

SECRET = b"a secret of the installation"
MONTH = date(2026, 5, 1)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened(database_url: str) -> Iterator[Store]:
    made = Store(database_url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)
    with closing(made) as store:
        yield store


def start(url: str, *words: str) -> subprocess.Popen[str]:
    module = "tests.support.control.spending_process"
    command = [sys.executable, "-m", module, url, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command


def test_processes_that_spend_together_stop_just_below_the_cap(
    opened: Store, database_url: str
) -> None:
    now = SystemClock().now()
    with opened.write() as tx:
        tx.spending.set_cap(1.0, now)
    # Each call may cost 3 cents, and costs 2.
    purposes = ("evals", "agents", "agents")
    processes = [start(database_url, "0.03", "0.02", purpose) for purpose in purposes]
    calls = [int(process.communicate(timeout=120)[0]) for process in processes]
    with opened.read() as tx:
        month = tx.spending.month(month_of(now))
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert month.held_usd == 0
    assert month.spent_usd == pytest.approx(sum(calls) * 0.02)
    # When the last one stops, each of the three has less than a call's worth left of its own,
    # and a call more does not fit.
    assert 1.0 - 4 * 0.03 < month.spent_usd <= 1.0 + ROUNDING_USD
    assert sum(row.calls for row in month.purposes) == sum(calls)
    assert set(month.waiting) <= {SpendingPurpose.EVALS, SpendingPurpose.AGENTS}
    assert month.waiting


class Overtaken(Allowance):
    """Another call takes what the first one asked the database for, and ends a little later."""

    def __init__(self, store: Store, clock: SystemClock) -> None:
        ids = SystemRandomIds().token
        super().__init__(store, clock, ids, SpendingPurpose.EVALS, "a test")
        self.overtook = False
        self.refusals: list[str] = []  # as they stood while the first call waited

    def refresh(self, *, at_once: bool = False) -> None:
        super().refresh(at_once=at_once)
        if not self.overtook:
            other = self.try_take(2.5, "sim/base")
            assert other is not None
            self.overtook = True
            threading.Timer(0.2, self._end, (other,)).start()

    def _end(self, other: TakenAmount) -> None:
        self.refusals.append(self.refusal)
        self.settle(other, 0.1)


def test_a_call_that_was_overtaken_while_it_asked_waits_for_what_the_other_leaves(
    opened: Store,
) -> None:
    clock = SystemClock()
    with opened.write() as tx:
        tx.spending.set_cap(5.5, clock.now())
    allowance = Overtaken(opened, clock)

    taken = allowance.take(2.5, "sim/base")

    assert taken is not None
    assert allowance.overtook
    # A run that looked meanwhile would have ended for it.
    assert allowance.refusals == [""]
    allowance.settle(taken, 2.5)
    assert allowance.take(4.0, "sim/base") is None
    assert "monthly cap" in allowance.refusal
    allowance.close()
    with opened.read() as tx:
        month = tx.spending.month(month_of(clock.now()))
    assert month.spent_usd == pytest.approx(2.6)
    assert month.held_usd == 0


@pytest.mark.parametrize("purpose", [SpendingPurpose.EVALS, SpendingPurpose.AGENTS])
def test_what_a_killed_process_held_counts_as_spent_once_it_lapses(
    opened: Store, database_url: str, purpose: SpendingPurpose
) -> None:
    now = SystemClock().now()
    with opened.write() as tx:
        tx.spending.set_cap(1.0, now)
    process = start(database_url, "0.2", "0.1", purpose, "--hang")
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    process.kill()
    process.communicate(timeout=60)
    with opened.read() as tx:
        held = tx.spending.month(month_of(now))
        assert not tx.spending.has_lapsed(now)
    later = SystemClock().now() + HOLD_LASTS
    with opened.write() as tx:
        assert tx.spending.lapse(later) == 1
        spent = tx.spending.month(month_of(now))
    assert [held.spent_usd, held.held_usd] == pytest.approx([0.0, 0.8])
    assert [spent.spent_usd, spent.held_usd] == pytest.approx([0.8, 0.0])
    assert {row.purpose: row.spent_usd for row in spent.purposes}[purpose] > 0


@dataclass
class SteppingClock:
    at: datetime = datetime(2026, 5, 3, tzinfo=UTC)
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.at + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Spender:
    allowance: Allowance
    taken: list[TakenAmount] = field(default_factory=list)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["take", "settle", "refresh", "wait", "long", "close"]),
        st.floats(0.0, 0.4),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spending")


@settings(max_examples=40)
@given(STEPS, st.floats(0.0, 2.0))
def test_no_order_of_calls_waits_and_deaths_passes_the_cap(
    memory: Path, steps: list[tuple[int, str, float]], cap_usd: float
) -> None:
    """The law: what was spent and is held together stays within the cap, and what calls cost
    is never less in the books than it was.
    """
    clock = SteppingClock()
    with closing(open_sqlite(memory / f"{id(clock)}.db", clock, secret=SECRET)) as store:
        with store.write() as tx:
            tx.spending.set_cap(cap_usd, clock.now())
        new_id = SystemRandomIds().token
        spenders = [
            Spender(Allowance(store, clock, new_id, purpose, "a test"))
            for purpose in list(SpendingPurpose)[-3:]
        ]
        cost = 0.0
        for who, step, usd in steps:
            spender = spenders[who]
            match step:
                case "take":
                    taken = spender.allowance.try_take(usd, "sim/base")
                    if taken is None:
                        spender.allowance.refresh(at_once=True)
                        taken = spender.allowance.try_take(usd, "sim/base")
                    spender.taken += [taken] if taken else []
                case "settle" if spender.taken:
                    taken = spender.taken.pop()
                    spent = min(usd, taken.usd)
                    spender.allowance.settle(taken, spent)
                    cost += spent
                case "refresh":
                    spender.allowance.refresh()
                case "wait":
                    clock.seconds += 5 + usd
                case "long":
                    clock.seconds += HOLD_LASTS.total_seconds()
                case "close":
                    spender.allowance.close()
                case _:
                    pass
            assert total(store) <= cap_usd + len(steps) * ROUNDING_USD
        for spender in spenders:
            spender.allowance.close()
        assert total(store) >= cost - len(steps) * ROUNDING_USD


def total(store: Store) -> float:
    with store.read() as tx:
        month: MonthSpending = tx.spending.month(MONTH)
    return month.spent_usd + month.held_usd
