"""`watch` shows something again and again until it has ended (`--watch`): on a terminal it is
drawn anew in its place; into a pipe or a file goes a line for each change, with `--json` a
document a line.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from time import sleep
from typing import Final, Generic, TypeVar

import click

from harness.cli.frame.output import document, timestamp
from harness.cli.frame.session import Session
from harness.control.serialize import write_json
from harness.domain.errors import SwapgateError
from harness.ports import Clock

PAUSE_S: Final = 2.0
# What takes long to load is loaded in a quarter of the time at most.
REST: Final = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Watched(Generic[T]):
    """Says how something is loaded, shown and known to have ended."""

    load: Callable[[], T]
    draw: Callable[[T], None]  # prints it as without `--watch`
    lines: Callable[[T], Mapping[str, str]]  # by subject, a line for a log
    document: Callable[[T], object]
    ended: Callable[[T], bool]


def show(session: Session, watched: Watched[T], *, again: bool) -> None:
    """Shows it once, or, with `--watch`, until it has ended."""
    if again:
        watch(session, watched)
    elif session.json:
        document(watched.document(watched.load()))
    else:
        watched.draw(watched.load())


def watch(session: Session, watched: Watched[T]) -> None:
    """Shows it until it has ended. Raises what loading it raises, unless that may pass."""
    clock = session.installation.clock
    if session.json:
        _print_lines(watched, clock, lambda value: {"": write_json(watched.document(value))})
    elif sys.stdout.isatty():
        _redraw(watched, clock)
    else:
        _print_lines(watched, clock, lambda value: _stamped(watched.lines(value), clock))


def _readings(watched: Watched[T], clock: Clock) -> Iterator[T | SwapgateError]:
    """Yields what is loaded, or why it was not, until it has ended."""
    first = True
    while True:
        began = clock.monotonic()
        reading: T | SwapgateError
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
        sleep(max(PAUSE_S, REST * (clock.monotonic() - began)))


def _print_lines(
    watched: Watched[T], clock: Clock, write: Callable[[T], Mapping[str, str]]
) -> None:
    """Prints a line for each subject that changed."""
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


def _redraw(watched: Watched[T], clock: Clock) -> None:
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
                foot = f"{timestamp(clock.now())} UTC, anew every {PAUSE_S:g} s; "
                foot = "" if watched.ended(reading) else f"{foot}Ctrl-C stops"
            live.update(Text.from_ansi(f"{shown}\n{foot}".rstrip()), refresh=True)


def _drawn(watched: Watched[T], value: T) -> str:
    text = _TerminalText()
    with redirect_stdout(text), redirect_stderr(text):
        watched.draw(value)
    return text.getvalue()
