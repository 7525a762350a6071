from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.control.failure_runs import FailureRun, follow_run
from harness.routing.control.outage_rule import MIN_REQUESTS
from harness.routing.records.traffic import MinuteOutcomes

pytestmark = pytest.mark.req("B9", "F5")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def follow(looks: Sequence[tuple[int, int]], run: FailureRun | None = None) -> FailureRun:
    """Follows looks at one minute.

    Args:
        looks: its answered and failed requests so far.
    """
    for answered, failed in looks:
        run = follow_run(run, [MinuteOutcomes(AT, answered, failed)])
    assert run is not None
    return run


def test_three_failures_after_good_requests_of_the_same_minute_show_an_outage() -> None:
    assert not follow([(20, 0), (20, 2)]).shows_outage
    assert follow([(20, 0), (20, 2), (20, 3)]).shows_outage


def test_an_answer_begins_a_new_count() -> None:
    assert follow([(20, 0), (20, 3), (21, 3)]).in_a_row == 0
    assert follow([(20, 0), (20, 3), (21, 3), (21, 5)]).in_a_row == 2


def test_failures_beside_an_answer_between_two_looks_do_not_count() -> None:
    assert follow([(20, 0), (21, 9), (22, 18)]).in_a_row == 0


def test_a_run_goes_on_in_the_next_minute() -> None:
    run = follow([(20, 0), (20, 2)])
    minutes = [MinuteOutcomes(AT, 20, 2), MinuteOutcomes(AT + timedelta(minutes=1), 0, 1)]
    assert follow_run(run, minutes).shows_outage


def test_the_first_look_shows_nothing_because_the_order_is_unknown() -> None:
    assert follow([(1, 9)]).in_a_row == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_a_run_never_exceeds_the_failures_since_the_last_look_with_an_answer(
    steps: list[tuple[int, int]],
) -> None:
    answered = failed = since = 0
    run = None
    for number, (more_answered, more_failed) in enumerate(steps):
        answered += more_answered
        failed += more_failed
        since = 0 if more_answered or number == 0 else since + more_failed
        run = follow([(answered, failed)], run)
        assert run.in_a_row == since
        assert run.shows_outage is (since >= MIN_REQUESTS)
