"""Finds routes whose targets failed several requests in a row, within the current minute. Pure.

A minute's sums do not show the order of its requests. So the control plane compares them with
the sums that it saw before: a request that got an answer begins a new count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from harness.routing.control.outage_rule import MIN_REQUESTS
from harness.routing.records.traffic import MinuteOutcomes


@dataclass(frozen=True, slots=True)
class FailureRun:
    """The requests of a route since the last look that saw an answer.

    answered, failed: the sums of each minute at that look. in_a_row: requests that targets
    failed since then.
    """

    answered: Mapping[datetime, int] = field(default_factory=dict)
    failed: Mapping[datetime, int] = field(default_factory=dict)
    in_a_row: int = 0

    @property
    def shows_outage(self) -> bool:
        return self.in_a_row >= MIN_REQUESTS


def follow_run(run: FailureRun | None, minutes: Iterable[MinuteOutcomes]) -> FailureRun:
    """Returns the run after another look.

    Args:
        run: None for a route's first look, whose order of requests is unknown.
        minutes: a route's newest minutes.
    """
    seen = list(minutes)
    answered = {minute.minute: minute.answered for minute in seen}
    failed = {minute.minute: minute.failed for minute in seen}
    if run is None or any(
        count > run.answered.get(minute, 0) for minute, count in answered.items()
    ):
        return FailureRun(answered, failed)
    in_a_row = sum(
        max(0, count - run.failed.get(minute, 0)) for minute, count in failed.items()
    )
    return FailureRun(run.answered, run.failed, in_a_row)
