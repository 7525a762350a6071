"""A script in the place of a person: it reads the screens of `swapproof label` in a terminal,
knows the truth of each order, and presses the keys.
"""

import codecs
import json
import os
import pty
import re
import subprocess
import termios
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.real.orders import orders
from tests.acceptance.installation import Installation, eventually

_PROMPT: Final = "a, b, t, ?, s, u or q: "
_ANSWERS: Final = ("── answer A", "── answer B")
_ENDS: Final = re.compile(r"The labels (?:suffice|have ended)\. ")
_MOST_BYTES: Final = 65_536
_LOCAL_MODES: Final = 3  # of a terminal's attributes


@dataclass
class ScriptedLabels:
    """What the script saw and pressed. keys: how often it pressed each key."""

    keys: Counter[str] = field(default_factory=Counter)
    verdict: str = ""
    code: int = 0

    @property
    def labels(self) -> int:
        return self.keys.total()

    @property
    def passed(self) -> bool:
        return "PASSED" in self.verdict

    @property
    def failed(self) -> bool:
        return "FAILED" in self.verdict


def is_right(answer: str, target: Mapping[str, object]) -> bool:
    """Tells whether an answer is the JSON object of an order."""
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    return bool(found == target)


def find_target(request: str) -> Mapping[str, object]:
    """Returns the fields of the order that a request contains. Raises LookupError."""
    for order in orders():
        if order["input"] in request:
            target: Mapping[str, object] = order["target"]
            return target
    raise LookupError(f"no order is in the request: {request[-300:]}")


def choose_key(screen: str) -> str:
    """Returns the key of the only right answer on a screen; t if both or none are right."""
    shown, _, b = screen.rpartition(_ANSWERS[1])
    request, _, a = shown.rpartition(_ANSWERS[0])
    target = find_target(request)
    right = [is_right(answer.strip(), target) for answer in (a, b)]
    return "t" if right[0] == right[1] else ("a" if right[0] else "b")


def label_pairs(place: Installation, name: str) -> ScriptedLabels:
    """Runs `swapproof label` in a pseudo-terminal, and labels until the command ends."""
    found = ScriptedLabels()
    ours, theirs = pty.openpty()
    with subprocess.Popen(  # noqa: S603 - the command under test
        [str(place.program), "label", name, "--yes"],
        cwd=place.folder,
        env=place.variables({"TERM": "dumb"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        screen = ""
        while printed := _read(ours):
            screen += decoder.decode(printed).replace("\r\n", "\n")
            if screen.endswith(_PROMPT):
                key = choose_key(screen.removesuffix(_PROMPT))
                found.keys[key] += 1
                _press(ours, key)
                screen = ""
        os.close(ours)
    found.code = process.returncode
    found.verdict = _ENDS.split(screen)[-1].strip()
    return found


def _press(terminal: int, key: str) -> None:
    """Presses a key once the command waits for one: it drops earlier keys."""
    eventually(lambda: not termios.tcgetattr(terminal)[_LOCAL_MODES] & termios.ICANON)
    os.write(terminal, key.encode())


def _read(terminal: int) -> bytes:
    """Reads what the command printed; empty once it has ended."""
    try:
        return os.read(terminal, _MOST_BYTES)
    except OSError:  # Linux: the command has closed the terminal
        return b""
