from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.people.limits import KeySpend, SpendTotals, total_spend
from harness.gate.pins import MAX_SIGHTINGS, Sighting
from router.recording.sums import (
    LONGEST_NAME,
    NOTE_EVERY_S,
    CompletedRequest,
    DayTotals,
    ServedNames,
    Sums,
    spend_rows,
)
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("F6", "G5")

DAY = date(2026, 3, 30)
ENDED = CompletedRequest("r", "incumbent", "t", 1, False, False, False, 1.0, 0, 0, 0.0, "k")  # noqa: FBT003 - as it stands


class Spends(DayTotals[KeySpend, SpendTotals]):
    """What a process adds up of its keys. new: rows that are not stored yet."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.new: Sums[KeySpend] = Sums("spends")
        super().__init__(worker, self.new, "key", total_spend)


def add(
    spends: Spends,
    day: date,
    *,
    tokens: int,
    cost_usd: float | None,
) -> None:
    priced = cost_usd is not None
    ended = ENDED._replace(output_tokens=tokens, cost_usd=cost_usd or 0.0, priced=priced)
    spends.note(spend_rows([ended], datetime.combine(day, time(12), UTC), spends.worker))


def test_it_is_known_at_once_and_written_once() -> None:
    spends = Spends("w1")
    add(
        spends,
        DAY,
        tokens=10,
        cost_usd=0.5,
    )
    add(
        spends,
        DAY,
        tokens=5,
        cost_usd=None,
    )

    assert spends.used("k", DAY) == SpendTotals(DAY, 0.5, 0.5, 1)
    assert spends.new.take() == [KeySpend("k", DAY, "w1", 2, 15, 0.5, 1)]
    assert spends.new.take() == []
    assert spends.used("k", DAY) == SpendTotals(DAY, 0.5, 0.5, 1)
    assert spends.used("other", DAY) == SpendTotals(DAY)


def test_a_clock_that_goes_back_over_midnight_hides_nothing_of_the_day_after() -> None:
    spends = Spends("w1")
    tomorrow = DAY + timedelta(1)
    add(
        spends,
        tomorrow,
        tokens=0,
        cost_usd=1.0,
    )
    spends.new.take()
    spends.know(["k"], [KeySpend("k", tomorrow, "w0", 1, 1, 5.0, 0)])

    assert spends.used("k", DAY).month_usd == 6.0
    assert spends.used("k", tomorrow) == SpendTotals(tomorrow, 6.0, 6.0)


class Two:
    """Two processes, the rows that both have written, and what was added in truth."""

    def __init__(self) -> None:
        self.today = date(2026, 3, 25)
        self.workers = {name: Spends(name) for name in ("w1", "w2")}
        self.stored: dict[tuple[str, date], KeySpend] = {}
        self.added: dict[tuple[str, date], float] = defaultdict(float)

    def add(self, name: str, dollars: int) -> None:
        add(
            self.workers[name],
            self.today,
            tokens=1,
            cost_usd=float(dollars),
        )
        self.added[name, self.today] += dollars

    def write(self, name: str, _: int = 0) -> None:
        for row in self.workers[name].new.take():
            known = self.stored.get((row.worker, row.day))
            both = row.cost_usd + (known.cost_usd if known else 0.0)
            self.stored[row.worker, row.day] = replace(row, cost_usd=both)

    def read(self, name: str, _: int = 0) -> None:
        self.workers[name].know(["k"], self.stored.values())

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
        totals = spends.used("k", two.today)
        assert (totals.day_usd, totals.month_usd) == (
            expected.day_usd,
            expected.month_usd,
        )


class Names(ServedNames):
    def __init__(self, clock: ManualClock) -> None:
        self.new: Sums[Sighting] = Sums("sightings")
        super().__init__(clock, self.new)

    def taken(self) -> list[tuple[str, str]]:
        return [(sighting.target, sighting.served.model) for sighting in self.new.take()]


def test_a_new_name_is_noted_at_once_and_a_known_one_not_each_time() -> None:
    names = Names(ManualClock())
    for model in ("old", "old", "new", "old", "", "new"):
        names.note("t", model)
    names.note("other", "old")

    assert names.taken() == [
        ("t", "old"),
        ("t", "new"),
        ("other", "old"),
    ]
    names.note("t", "old")
    assert names.taken() == []


def test_a_name_that_comes_back_is_noted_again_and_the_newest_sighting_is_kept() -> None:
    clock = ManualClock()
    names = Names(clock)
    names.note("t", "old")
    (first,) = names.new.take()
    clock.advance(NOTE_EVERY_S)
    names.note("t", "old")

    (again,) = names.new.take()
    assert (again.last_at - first.last_at).total_seconds() == NOTE_EVERY_S
    for pair in ([first, again], [again, first]):  # of several workers
        names.new.add(pair)
        assert names.new.take() == [again]


def test_a_provider_that_invents_long_names_fills_nothing() -> None:
    clock = ManualClock()
    names = Names(clock)
    for turn in range(3):
        for number in range(1000):
            names.note("t", f"{turn}-{number}")
        assert len(names.taken()) == MAX_SIGHTINGS
        clock.advance(NOTE_EVERY_S)

    names.note("t", "x" * 100_000)
    names.note("t", "x" * 100_000 + "y")
    assert names.taken() == [("t", "x" * LONGEST_NAME)]
