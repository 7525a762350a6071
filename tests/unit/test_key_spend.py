from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.evals.pins import MAX_SIGHTINGS
from harness.domain.reliability.spend import KeySpend, SpendTotals, total_spend
from router.recording.key_spend import KeySpendTotals
from router.recording.served_names import LONGEST_NAME, NOTE_EVERY_S, ServedNames
from router.recording.traffic_minutes import CompletedRequest
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("F6", "G5")

DAY = date(2026, 3, 30)
ENDED = CompletedRequest("r", "incumbent", "t", 1, False, False, False, 1.0, 0, 0, 0.0, "k")  # noqa: FBT003 - as it stands


def add(spends: KeySpendTotals, day: date, *, tokens: int, cost_usd: float | None) -> None:
    priced = cost_usd is not None
    ended = ENDED._replace(output_tokens=tokens, cost_usd=cost_usd or 0.0, priced=priced)
    spends.note([ended], datetime.combine(day, time(12), UTC))


def test_it_is_known_at_once_and_written_once() -> None:
    spends = KeySpendTotals("w1")
    add(spends, DAY, tokens=10, cost_usd=0.5)
    add(spends, DAY, tokens=5, cost_usd=None)

    assert spends.spent("k", DAY) == SpendTotals(DAY, 0.5, 0.5, 1)
    assert spends.take() == [KeySpend("k", DAY, "w1", 2, 15, 0.5, 1)]
    assert spends.take() == []
    assert spends.spent("k", DAY) == SpendTotals(DAY, 0.5, 0.5, 1)
    assert spends.spent("other", DAY) == SpendTotals(DAY)


def test_a_clock_that_goes_back_over_midnight_hides_nothing_of_the_day_after() -> None:
    spends, tomorrow = KeySpendTotals("w1"), DAY + timedelta(1)
    add(spends, tomorrow, tokens=0, cost_usd=1.0)
    spends.take()
    spends.know([KeySpend("k", tomorrow, "w0", 1, 1, 5.0, 0)], tomorrow)

    assert spends.spent("k", DAY).month_usd == 6.0
    assert spends.spent("k", tomorrow) == SpendTotals(tomorrow, 6.0, 6.0)


class Two:
    """Two processes, the rows that both have written, and what was added in truth."""

    def __init__(self) -> None:
        self.today = date(2026, 3, 25)
        self.workers = {name: KeySpendTotals(name) for name in ("w1", "w2")}
        self.stored: dict[tuple[str, date], KeySpend] = {}
        self.added: dict[tuple[str, date], float] = defaultdict(float)

    def add(self, name: str, dollars: int) -> None:
        add(self.workers[name], self.today, tokens=1, cost_usd=float(dollars))
        self.added[name, self.today] += dollars

    def write(self, name: str, _: int = 0) -> None:
        for row in self.workers[name].take():
            known = self.stored.get((row.worker, row.day))
            both = row.cost_usd + (known.cost_usd if known else 0.0)
            self.stored[row.worker, row.day] = replace(row, cost_usd=both)

    def read(self, name: str, _: int = 0) -> None:
        self.workers[name].know(self.stored.values(), self.today)

    def night(self, *_: object) -> None:
        # Whoever runs on through midnight writes what the day was.
        for name in self.workers:
            self.write(name)
        self.today += timedelta(1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Two.add, Two.write, Two.read, Two.night]),
            st.sampled_from(["w1", "w2"]),
            st.integers(0, 8),
        ),
        max_size=60,
    )
)
def test_each_process_knows_its_own_and_all_that_is_stored(
    steps: list[tuple[Callable[[Two, str, int], None], str, int]],
) -> None:
    two = Two()
    for step, name, dollars in steps:
        step(two, name, dollars)
    for do in (two.write, two.read):
        for name in two.workers:
            do(name)

    rows = [KeySpend("k", day, name, 1, 1, usd, 0) for (name, day), usd in two.added.items()]
    expected = total_spend(rows, two.today)
    for spends in two.workers.values():
        totals = spends.spent("k", two.today)
        assert (totals.day_usd, totals.month_usd) == (expected.day_usd, expected.month_usd)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def names(clock: ManualClock) -> ServedNames:
    return ServedNames(clock)


def taken(names: ServedNames) -> list[tuple[str, str]]:
    return [(sighting.target, sighting.served.model) for sighting in names.take()]


def test_a_new_name_is_noted_at_once_and_a_known_one_not_each_time(names: ServedNames) -> None:
    for model in ("old", "old", "new", "old", "", "new"):
        names.note("t", model)
    names.note("other", "old")

    assert taken(names) == [("t", "old"), ("t", "new"), ("other", "old")]
    names.note("t", "old")
    assert taken(names) == []


def test_a_name_that_comes_back_is_noted_again(names: ServedNames, clock: ManualClock) -> None:
    names.note("t", "old")
    (first,) = names.take()
    clock.advance(NOTE_EVERY_S)
    names.note("t", "old")

    (again,) = names.take()
    assert (again.last_at - first.last_at).total_seconds() == NOTE_EVERY_S


def test_a_provider_that_invents_names_fills_nothing(
    names: ServedNames, clock: ManualClock
) -> None:
    for turn in range(3):
        for number in range(1000):
            names.note("t", f"{turn}-{number}")
        assert len(taken(names)) == MAX_SIGHTINGS
        clock.advance(NOTE_EVERY_S)


def test_a_long_name_is_cut_and_noted_once(names: ServedNames) -> None:
    for _ in range(2):
        names.note("t", "x" * 100_000)
        names.note("t", "x" * 100_000 + "y")

    assert taken(names) == [("t", "x" * LONGEST_NAME)]


def test_of_what_several_workers_saw_the_newest_is_kept(
    names: ServedNames, clock: ManualClock
) -> None:
    early, late = ServedNames(clock), ServedNames(clock)
    early.note("t", "m")
    clock.advance(1)
    late.note("t", "m")
    newest = late.take()
    names.merge(newest)
    names.merge(early.take())

    assert names.take() == newest
