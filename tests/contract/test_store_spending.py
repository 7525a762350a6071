"""The monthly cap over several processes: what they spend together never passes it, and what a
killed one held counts as spent.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.control.operations.spending_allowance import Allowance, TakenAmount
from harness.domain.canary.guardrails import ArmSplit, Guardrail, JudgeTally
from harness.domain.evals.run import SampleError
from harness.domain.evals.verdict import InfraError, Passed
from harness.domain.operations.spending import (
    HOLD_LASTS,
    ROUNDING_USD,
    MonthSpending,
    SpendingPurpose,
    month_of,
)
from harness.domain.proposals.proposal import SuiteRuns
from harness.ports import Store
from harness.runtime.clock import SystemClock
from harness.runtime.random_ids import SystemRandomIds
from harness.store.sql import SqlStore
from tests.support.site.signing_keys import CONTROL
from tests.support.store.records import (
    BLOCK,
    NOW,
    RUN,
    SAMPLE,
    create_route,
    proposal,
    rollout,
    verdict,
)
from tests.support.store.sqlite_store import open_sqlite

pytestmark = pytest.mark.req("G5")

SECRET = b"a secret of the installation"
MONTH = date(2026, 5, 1)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened(database_url: str) -> Iterator[SqlStore]:
    made = SqlStore(database_url, secret=SECRET, clock=SystemClock(), signatures=CONTROL)
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


@pytest.mark.req("G3")
def test_a_project_is_told_the_shared_runs_that_it_asked_for_and_its_canarys_judge(
    store: Store,
) -> None:
    """Others asked for one run; one was there before the proposal, and one is a month old. A
    retry took the place of the last.
    """
    route, month = "payments::triage", NOW.date().replace(day=1)
    judged = {Guardrail.JUDGE: JudgeTally(10, 2, 3, 1, ArmSplit(1, 1), 0.25)}
    early = NOW - timedelta(minutes=1)
    with store.write() as tx:
        create_route(tx)
        create_route(tx, route)
        for number, (suite, at) in enumerate(
            (
                ("tickets", NOW),
                ("tickets", early),
                ("tickets", NOW),
                ("payments::tickets", early),
                ("tickets", NOW - timedelta(days=31)),
                ("tickets", NOW),
            ),
            start=1,
        ):
            tx.runs.add(replace(RUN, id=f"r_{number}", suite=suite, created_at=at))
            measured = replace(SAMPLE, run=f"r_{number}", judge_calls=2, judge_cost_usd=0.5)
            assert tx.runs.store_sample(measured)
        tx.proposals.add(proposal("p_other", runs={"tickets": SuiteRuns("r_3", "r_1")}))
        asked = {"tickets": SuiteRuns("r_1", "r_2"), "more": SuiteRuns("r_4", "r_5")}
        tx.proposals.add(proposal(route=route, runs=asked, infra_errors=1))
        before = {"runs": {"tickets": {"incumbent": "r_1", "candidate": "r_6"}}}
        nothing = verdict(InfraError, route=route, id="v_0", inputs=before)
        tx.verdicts.add(nothing, "p_1")
        tx.verdicts.add(verdict(Passed, route=route), "p_1")
        tx.rollouts.add(rollout(route=route))
        tx.observations.append([replace(BLOCK, counts=judged)], [])
        tx.observations.append([replace(BLOCK, sequence=2)], [])

    with store.read() as tx:
        evals, judges, *others = tx.spending.of_project("payments", month, [route])
    assert (evals.spent_usd, evals.calls) == (0.75, 3)
    assert (judges.spent_usd, judges.calls) == (1.75, 16)
    assert {row.spent_usd for row in others} == {0.0}


@pytest.mark.parametrize("suite", ["tickets", "payments::tickets"])
@pytest.mark.parametrize("begun", [NOW, NOW - timedelta(days=31)])
def test_a_project_is_told_the_answers_that_a_retry_took_over_once(
    store: Store, suite: str, begun: datetime
) -> None:
    """A retry has copies of what was answered, in shared suites as in a project's own. Where
    the first run was another month's, so is what it cost.
    """
    route, month = "payments::triage", NOW.date().replace(day=1)
    answered = replace(SAMPLE, item="1", duration_s=1.25, judge_calls=1, judge_cost_usd=0.5)
    again = replace(answered, item="2", duration_s=1.5)
    broken = replace(
        again, strict=None, lenient=None, error=SampleError.INFRA, cost_usd=None, judge_calls=0
    )
    third = replace(answered, item="3", duration_s=2.5)
    with store.write() as tx:
        create_route(tx)
        create_route(tx, route)
        for run, at, answers in (
            ("r_1", begun, (answered, broken)),
            ("r_2", NOW, (answered, again)),
            ("r_3", NOW, (answered, again, third)),
        ):
            tx.runs.add(replace(RUN, id=run, suite=suite, created_at=at))
            for sample in answers:
                assert tx.runs.store_sample(replace(sample, run=run))
        asked = {suite: SuiteRuns("r_3", "r_3")}
        tx.proposals.add(proposal(route=route, runs=asked, created_at=begun, infra_errors=2))
        for number, before in enumerate(("r_1", "r_2"), start=1):
            runs = {"runs": {suite: {"incumbent": before, "candidate": before}}}
            at = NOW - timedelta(hours=3 - number)
            nothing = verdict(InfraError, route=route, inputs=runs, decided_at=at)
            tx.verdicts.add(replace(nothing, id=f"v_{number}"), "p_1")

    with store.read() as tx:
        evals, judges, *_ = tx.spending.of_project("payments", month, [route])
    # The second answer and the third; and in the first month, the first one and the failure.
    first = begun == NOW
    assert (evals.calls, evals.unpriced) == ((4, 1) if first else (2, 0))
    assert evals.spent_usd == (0.75 if first else 0.5)
    assert (judges.calls, judges.spent_usd) == ((3, 2.0) if first else (2, 1.0))
