"""`follow` waits for something to end, with a progress line on stderr and a deadline. `watch`
shows something until it has ended (`--watch`): a terminal is drawn anew; a pipe or a file gets
a line for each change, with `--json` a document a line.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from time import sleep
from typing import Final, Generic, TypeVar

import click

from harness.frame.errors import SwapgateError
from harness.frame.formatting import format_estimate, format_usd
from harness.frame.plain_data import write_json
from harness.frame.ports import Clock
from harness.interfaces.cli.frame.output import document, timestamp
from harness.interfaces.cli.frame.session import Session

TIMED_OUT: Final = 5
PAUSE_S: Final = 0.5
# The time left is said once the pace is known for so long.
PACE_KNOWN_S: Final = 5.0
LOG_STEPS: Final = 20  # a log gets a line for each twentieth

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
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


class ProgressLine:
    """One line that is written over on a terminal; in a log, a line for each milestone."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last: object = None
        self._began: tuple[float, int] | None = None  # monotonic seconds, and what was done

    def say(self, progress: Progress, now_s: float) -> None:
        """Writes what is new. now_s: monotonic."""
        text = progress.describe(self._time_left_s(progress, now_s))
        new = text if self._terminal else progress.milestone
        if new == self._last:
            return
        self._last = new
        click.echo(
            f"\r\033[K{text}" if self._terminal else text, err=True, nl=not self._terminal
        )

    def _time_left_s(self, progress: Progress, now_s: float) -> float | None:
        """Estimates it from the pace since the first look; None until that is known."""
        began_s, before = self._began = self._began or (now_s, progress.done)
        took_s, did = now_s - began_s, progress.done - before
        if took_s < PACE_KNOWN_S or did <= 0:
            return None
        return (progress.wanted - progress.done) * took_s / did

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
    """Waits for an end; returns what was loaded last, and whether it ended in time."""
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


REDRAW_S: Final = 2.0
# What takes long to load is loaded in a quarter of the time at most.
REST: Final = 3

Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Watched(Generic[Shown]):
    load: Callable[[], Shown]
    draw: Callable[[Shown], None]  # prints it as without `--watch`
    lines: Callable[[Shown], Mapping[str, str]]  # by subject, a line for a log
    document: Callable[[Shown], object]
    ended: Callable[[Shown], bool]


def show(session: Session, watched: Watched[Shown], *, again: bool) -> None:
    if again:
        watch(session, watched)
    elif session.json:
        document(watched.document(watched.load()))
    else:
        watched.draw(watched.load())


def watch(session: Session, watched: Watched[Shown]) -> None:
    """Shows it until it has ended. Raises what loading it raises, unless that may pass."""
    clock = session.installation.clock
    if session.json:
        _print_lines(watched, clock, lambda value: {"": write_json(watched.document(value))})
    elif sys.stdout.isatty():
        _redraw(watched, clock)
    else:
        _print_lines(watched, clock, lambda value: _stamped(watched.lines(value), clock))


def _readings(watched: Watched[Shown], clock: Clock) -> Iterator[Shown | SwapgateError]:
    """Yields what is loaded, or why it was not, until it has ended."""
    first = True
    while True:
        began = clock.monotonic()
        reading: Shown | SwapgateError
        try:
            reading = watched.load()
        except SwapgateError as error:
            if first or not error.retryable:
                raise
            reading = error
        yield reading
        if not isinstance(reading, SwapgateError) and watched.ended(reading):
            return
        first = False
        sleep(max(REDRAW_S, REST * (clock.monotonic() - began)))


def _print_lines(
    watched: Watched[Shown], clock: Clock, write: Callable[[Shown], Mapping[str, str]]
) -> None:
    last: dict[str, str] = {}
    for reading in _readings(watched, clock):
        if isinstance(reading, SwapgateError):
            click.echo(f"swapgate: {reading}; trying again", err=True)
            continue
        for subject, line in write(reading).items():
            # The time stands before a line: it is no change.
            text = line.partition("\t")[2] or line
            if last.get(subject) != text:
                last[subject] = text
                click.echo(line.replace("\t", "  ", 1))


def _stamped(lines: Mapping[str, str], clock: Clock) -> Mapping[str, str]:
    now = timestamp(clock.now())
    return {subject: f"{now}\t{line}" for subject, line in lines.items()}


class _TerminalText(StringIO):
    """Keeps what a command prints as on the terminal that it is drawn on later."""

    def isatty(self) -> bool:
        return True


def _redraw(watched: Watched[Shown], clock: Clock) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown, foot = "", ""
    with Live(console=Console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        for reading in _readings(watched, clock):
            if isinstance(reading, SwapgateError):
                foot = f"not read since then: {reading}; trying again"
            else:
                shown = _drawn(watched, reading)
                foot = f"{timestamp(clock.now())} UTC, anew every {REDRAW_S:g} s; "
                foot = "" if watched.ended(reading) else f"{foot}Ctrl-C stops"
            live.update(Text.from_ansi(f"{shown}\n{foot}".rstrip()), refresh=True)


def _drawn(watched: Watched[Shown], value: Shown) -> str:
    text = _TerminalText()
    with redirect_stdout(text), redirect_stderr(text):
        watched.draw(value)
    return text.getvalue()
