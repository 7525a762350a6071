"""A scripted person at a terminal. `python labeller.py swapproof label ROUTE` runs the command
in a pseudo-terminal, reads each pair, and presses the key that fits this person's preference.

The person prefers an answer that names the day of a parcel's arrival. The person knows neither
the models nor the judge.
"""

import os
import pty
import subprocess
import sys
import termios
import time
from typing import Final

QUESTION: Final = "start it? y, n: "
PROMPT: Final = "or q: "
PREFERRED: Final = "arrives on Friday"
READ_BYTES: Final = 65_536
_LOCAL_MODES: Final = 3  # the index in termios.tcgetattr


def choose_key(screen: str) -> str:
    """Returns the key for the last pair of a screen."""
    _, _, answers = screen.rpartition("── answer A")
    a, _, b = answers.partition("── answer B")
    a_is_good = PREFERRED in a
    b_is_good = PREFERRED in b
    if a_is_good == b_is_good:
        return "t"
    return "a" if a_is_good else "b"


def press(terminal: int, key: str) -> None:
    """Presses a key once the command waits for one: it drops earlier keys."""
    while termios.tcgetattr(terminal)[_LOCAL_MODES] & termios.ICANON:
        time.sleep(0.001)
    os.write(terminal, key.encode())


def label(*command: str) -> int:
    """Labels until the command ends. Returns its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - the documented command
        command, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = ""
    while piece := _read(ours):
        sys.stdout.write(piece)
        screen += piece
        if screen.endswith((QUESTION, PROMPT)):
            press(ours, "y" if screen.endswith(QUESTION) else choose_key(screen))
            screen = ""
    os.close(ours)
    return process.wait()


def _read(terminal: int) -> str:
    """Reads what the command printed; empty after its end."""
    try:
        return os.read(terminal, READ_BYTES).decode(errors="replace")
    except OSError:  # Linux: the other end is closed
        return ""


if __name__ == "__main__":
    sys.exit(label(*sys.argv[1:]))
