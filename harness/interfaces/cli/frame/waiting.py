"""`follow` loads a value until it ends, with a progress line on stderr and a deadline. `watch`
implements `--watch`: it redraws a terminal, and prints one line per change into a pipe or a
file. With `--json` each line is a document.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from time import sleep
from typing import Final, Generic, TypeVar

import click

from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_estimate, format_usd
from harness.frame.plain_data import write_json
from harness.frame.ports import Clock
from harness.interfaces.cli.frame.output import document, timestamp
from harness.interfaces.cli.frame.session import Session

TIMED_OUT: Final = 5  # exit code
PAUSE_S: Final = 0.5
# The progress line shows the time left after this many seconds.
PACE_KNOWN_S: Final = 5.0
LOG_STEPS: Final = 20  # maximum number of progress lines in a log

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str  # `prop_1: evaluating`
    done: int = 0
    wanted: int = 0  # 0 if nothing is counted
    at_most: bool = False  # the work may end before `done` reaches `wanted`
    unit: str = "samples"
    cost_usd: float | None = None  # so far; None if a price is unknown
    note: str = ""

    def describe(self, left_s: float | None = None) -> str:
        """Builds the progress line.

        Args:
            left_s: remaining seconds at this pace; None if unknown.
        """
        parts = [self.stage]
        if self.wanted:
            up_to = "up to " if self.at_most else ""
            parts.append(f"{self.done:,} of {up_to}{self.wanted:,} {self.unit}")
        if self.done and self.cost_usd is not None:
            parts.append(f"{format_usd(self.cost_usd)} so far")
        if left_s is not None and self.done < self.wanted:
            bound = "at most " if self.at_most else "about "
            parts.append(f"{bound}{format_estimate(left_s)} left")
        return ", ".join(parts) + (f": {self.note}" if self.note else "")

    @property
    def milestone(self) -> object:
        """A key: a log gets only the first line with each key."""
        return (
            self.stage,
            self.note,
            self.wanted and self.done * LOG_STEPS // self.wanted,
        )


class ProgressLine:
    """A line that is overwritten on a terminal; a log gets one line per milestone."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._previous_key: object = None
        # Monotonic seconds at the first call, and `Progress.done` at that time.
        self._start: tuple[float, int] | None = None

    def say(self, progress: Progress, now_s: float) -> None:
        """Writes the line if it changed.

        Args:
            now_s: monotonic seconds.
        """
        text = progress.describe(self._estimate_left_s(progress, now_s))
        line_key = text if self._terminal else progress.milestone
        if line_key == self._previous_key:
            return
        self._previous_key = line_key
        click.echo(
            f"\r\033[K{text}" if self._terminal else text,
            err=True,
            nl=not self._terminal,
        )

    def _estimate_left_s(self, progress: Progress, now_s: float) -> float | None:
        """Estimates from the pace since the first call; None in the first PACE_KNOWN_S."""
        start_s, done_before = self._start = self._start or (now_s, progress.done)
        elapsed_s = now_s - start_s
        done_since = progress.done - done_before
        if elapsed_s < PACE_KNOWN_S or done_since <= 0:
            return None
        return (progress.wanted - progress.done) * elapsed_s / done_since

    def end(self) -> None:
        if self._terminal and self._previous_key is not None:
            click.echo(err=True)


def follow(
    session: Session,
    load: Callable[[], T],
    *,
    ended: Callable[[T], bool],
    describe: Callable[[T], Progress],
    timeout_s: float | None,
) -> tuple[T, bool]:
    """Loads a value until it ends. Returns the last value, and whether it ended in time."""
    clock = session.installation.clock
    progress_line = ProgressLine()
    deadline = None if timeout_s is None else clock.monotonic() + timeout_s
    try:
        while True:
            value = load()
            progress_line.say(describe(value), clock.monotonic())
            if ended(value):
                return value, True
            if deadline is not None and clock.monotonic() >= deadline:
                return value, False
            sleep(PAUSE_S)
    finally:
        progress_line.end()


REDRAW_S: Final = 2.0
# `watch` sleeps this many times as long as loading took, to limit the load on the database.
PAUSE_FACTOR: Final = 3

Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Watched(Generic[Shown]):
    load: Callable[[], Shown]
    draw: Callable[[Shown], None]  # prints the value, also without `--watch`
    lines: Callable[[Shown], Mapping[str, str]]  # a log's line for each subject
    document: Callable[[Shown], object]
    ended: Callable[[Shown], bool]


def show(
    session: Session,
    watched: Watched[Shown],
    *,
    is_watching: bool,
) -> None:
    if is_watching:
        watch(session, watched)
    elif session.json:
        document(watched.document(watched.load()))
    else:
        watched.draw(watched.load())


def watch(session: Session, watched: Watched[Shown]) -> None:
    """Shows the value until it has ended. Raises errors of `load` that are not retryable."""
    clock = session.installation.clock
    if session.json:
        _print_lines(
            watched,
            clock,
            lambda value: {"": write_json(watched.document(value))},
        )
    elif sys.stdout.isatty():
        _redraw(watched, clock)
    else:
        _print_lines(
            watched,
            clock,
            lambda value: _add_time(watched.lines(value), clock),
        )


def _read_repeatedly(watched: Watched[Shown], clock: Clock) -> Iterator[Shown | SwapproofError]:
    """Yields each loaded value, or the retryable error, until the value has ended."""
    is_first = True
    while True:
        start_s = clock.monotonic()
        reading: Shown | SwapproofError
        try:
            reading = watched.load()
        except SwapproofError as error:
            if is_first or not error.retryable:
                raise
            reading = error
        yield reading
        if not isinstance(reading, SwapproofError) and watched.ended(reading):
            return
        is_first = False
        sleep(max(REDRAW_S, PAUSE_FACTOR * (clock.monotonic() - start_s)))


def _print_lines(
    watched: Watched[Shown],
    clock: Clock,
    write: Callable[[Shown], Mapping[str, str]],
) -> None:
    previous_texts: dict[str, str] = {}
    for reading in _read_repeatedly(watched, clock):
        if isinstance(reading, SwapproofError):
            click.echo(f"swapproof: {reading}; trying again", err=True)
            continue
        for subject, line in write(reading).items():
            # Compares without the time: a line in which only the time differs is no change.
            text = line.partition("\t")[2] or line
            if previous_texts.get(subject) != text:
                previous_texts[subject] = text
                click.echo(line.replace("\t", "  ", 1))


def _add_time(lines: Mapping[str, str], clock: Clock) -> Mapping[str, str]:
    now = timestamp(clock.now())
    return {subject: f"{now}\t{line}" for subject, line in lines.items()}


class _TerminalText(StringIO):
    """Keeps a command's output, which is drawn on a terminal later."""

    def isatty(self) -> bool:
        return True


def _redraw(watched: Watched[Shown], clock: Clock) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawing = ""
    footer = ""
    with Live(console=Console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        for reading in _read_repeatedly(watched, clock):
            if isinstance(reading, SwapproofError):
                footer = f"not refreshed since then: {reading}; trying again"
            else:
                drawing = _draw_to_text(watched, reading)
                footer = f"{timestamp(clock.now())} UTC, refreshed every {REDRAW_S:g} s; "
                footer = "" if watched.ended(reading) else f"{footer}Ctrl-C stops"
            live.update(Text.from_ansi(f"{drawing}\n{footer}".rstrip()), refresh=True)


def _draw_to_text(watched: Watched[Shown], value: Shown) -> str:
    text = _TerminalText()
    with redirect_stdout(text), redirect_stderr(text):
        watched.draw(value)
    return text.getvalue()
