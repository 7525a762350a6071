"""`follow` waits for something to end, with a progress line on stderr and a deadline; the line
says how many are done, what they cost so far and about how long the rest takes (`Pace`).
"""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import sleep
from typing import Final, TypeVar

import click

from harness.cli.frame.session import Session
from harness.domain.formatting import format_estimate, format_usd

TIMED_OUT: Final = 5
PAUSE_S: Final = 0.5
# The time left is reckoned from the pace of so long, and said once so much of it is known.
PACE_WINDOW_S: Final = 60.0
PACE_KNOWN_S: Final = 5.0
LOG_STEPS: Final = 20  # a log gets a line for each twentieth

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """Says how far something is that somebody waits for."""

    stage: str  # `prop_1: evaluating`
    done: int = 0
    wanted: int = 0  # 0 where nothing is counted
    at_most: bool = False  # it may end before all that is wanted is done
    unit: str = "samples"
    cost_usd: float | None = None  # of what is done; None where a price is unknown
    note: str = ""

    def describe(self, left_s: float | None = None) -> str:
        """Writes the line. left_s: how long the rest takes at this pace, None if unknown."""
        parts = [self.stage]
        if self.wanted:
            up_to = "up to " if self.at_most else ""
            parts.append(f"{self.done:,} of {up_to}{self.wanted:,} {self.unit}")
        if self.done and self.cost_usd is not None:
            parts.append(f"{format_usd(self.cost_usd)} so far")
        if left_s is not None and self.done < self.wanted:
            most = "at most " if self.at_most else "about "
            parts.append(f"{most}{format_estimate(left_s)} left")
        return ", ".join(parts) + (f": {self.note}" if self.note else "")

    @property
    def milestone(self) -> object:
        """Returns what is equal for lines of which a log needs only the first."""
        return self.stage, self.note, self.wanted and self.done * LOG_STEPS // self.wanted


class Pace:
    """Estimates the time left from what was done in the last minute."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque()

    def time_left_s(self, now_s: float, progress: Progress) -> float | None:
        """Returns None while the pace is not known. now_s: monotonic."""
        readings = self._readings
        if readings and progress.done < readings[-1][1]:
            readings.clear()
        readings.append((now_s, progress.done))
        while len(readings) > 2 and now_s - readings[1][0] >= PACE_WINDOW_S:
            readings.popleft()
        took_s, did = now_s - readings[0][0], progress.done - readings[0][1]
        if took_s < PACE_KNOWN_S or did <= 0:
            return None
        return (progress.wanted - progress.done) * took_s / did


class ProgressLine:
    """One line that is written over on a terminal; in a log, a line for each milestone."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last: object = None
        self._pace = Pace()

    def say(self, progress: Progress, now_s: float) -> None:
        """Writes what is new. now_s: monotonic."""
        left_s = self._pace.time_left_s(now_s, progress)
        text = progress.describe(left_s)
        new = text if self._terminal else progress.milestone
        if new == self._last:
            return
        self._last = new
        click.echo(
            f"\r\033[K{text}" if self._terminal else text, err=True, nl=not self._terminal
        )

    def end(self) -> None:
        if self._terminal and self._last is not None:
            click.echo(err=True)


def follow(
    session: Session,
    load: Callable[[], T],
    *,
    ended: Callable[[T], bool],
    describe: Callable[[T], Progress],
    timeout_s: float | None,
) -> tuple[T, bool]:
    """Waits until what `load` gives has ended: returns what it gave last, and whether it ended
    in time. timeout_s: None waits for ever.
    """
    clock, ticker = session.installation.clock, ProgressLine()
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s
    try:
        while True:
            found = load()
            ticker.say(describe(found), clock.monotonic())
            if ended(found):
                return found, True
            if deadline is not None and clock.monotonic() >= deadline:
                return found, False
            sleep(PAUSE_S)
    finally:
        ticker.end()
