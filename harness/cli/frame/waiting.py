"""`follow` waits for something to end, with a progress line on stderr and a deadline;
`who_starts_it` warns where no control process answers.
"""

import sys
from collections.abc import Callable
from time import sleep
from typing import TypeVar

import click

from harness.app.processes import control_answers
from harness.cli.frame.session import Session
from harness.domain.settings import ControlSettings

TIMED_OUT = 5
PAUSE_S = 0.5

T = TypeVar("T")


class ProgressLine:
    """One line that is written over on a terminal; in a log, a line for each new text."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def say(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        click.echo(
            f"\r\033[K{text}" if self._terminal else text, err=True, nl=not self._terminal
        )

    def end(self) -> None:
        if self._terminal and self._last:
            click.echo(err=True)


def follow(
    session: Session,
    load: Callable[[], T],
    *,
    ended: Callable[[T], bool],
    words: Callable[[T], str],
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
            ticker.say(words(found))
            if ended(found):
                return found, True
            if deadline is not None and clock.monotonic() >= deadline:
                return found, False
            sleep(PAUSE_S)
    finally:
        ticker.end()


def who_starts_it(settings: ControlSettings) -> str | None:
    """Advice where no control process answers; None where one does."""
    if control_answers(settings):
        return None
    return (
        f"no control process answers at {settings.host}:{settings.port}: nothing moves until "
        "one runs (`swapgate serve control`)"
    )
