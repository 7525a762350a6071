"""What providers say that they served: noted at once when it is new, and seldom else."""

import pytest

from harness.domain.evals.pins import MAX_SIGHTINGS
from router.recording.served_names import LONGEST_NAME, NOTE_EVERY_S, ServedNames
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("F6")


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
