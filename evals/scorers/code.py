"""`code`: the answer is Python, and its tests run to their end in a child with limits.

The target is an object with `test` and perhaps `entry_point` and `prompt` (HumanEval's form:
target_field `prompt+test+entry_point`), or the test itself, a text.
"""

import contextlib
import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from evals.parsing import tree_of
from evals.samples import Item
from evals.scorers.cell import PROTECTIONS
from evals.scorers.scored import (
    UNSCORED,
    NotJudged,
    Options,
    Scored,
    Scorer,
    right_or_wrong,
)
from harness.domain.errors import InputError

CELL: Final = Path(__file__).with_name("cell.py")
LONGEST: Final = 100_000  # characters; a longer answer is not run
BLOCKS: Final = re.compile(r"```[\w+-]*[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
START_S: Final = 20.0  # for the interpreter itself, on a busy machine


@dataclass(frozen=True, slots=True)
class Ran:
    """passed: it came to its end. protection: what kept it off the network; empty when it did
    not live to say so.
    """

    passed: bool
    protection: str


@dataclass(frozen=True, slots=True)
class Task:
    """prompt: what the answer may continue, often the head of a function."""

    prompt: str
    test: str
    entry_point: str


def task_of(item: Item) -> Task:
    """Raises InputError for a target of another form."""
    target = {"test": item.target} if isinstance(item.target, str) else item.target
    if not isinstance(target, dict) or not isinstance(target.get("test"), str):
        raise InputError(
            f"item {item.id!r}: scorer 'code' needs a target with `test`, Python code"
        )
    parts = [target.get(name, "") for name in ("prompt", "test", "entry_point")]
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"item {item.id!r}: prompt, test and entry_point must be texts")
    return Task(*parts)


def code(answer: str, item: Item, options: Options) -> Scored:
    """strict: the answer as it stands. lenient: the code in its fences. Raises NotJudged when
    no child can be started.
    """
    if not answer.strip():
        return UNSCORED
    task = task_of(item)
    if run(program(answer, task), options).passed:
        return right_or_wrong(strict=True, lenient=True)
    fenced = "\n".join(BLOCKS.findall(answer))
    if not fenced.strip():
        return right_or_wrong(strict=False, lenient=False)
    forgiven = run(program(fenced, task), options).passed
    outside = BLOCKS.sub("", answer).strip()
    rule = "extra_prose" if outside else "code_fence"
    return right_or_wrong(strict=False, lenient=forgiven, rule=rule)


def program(answer: str, task: Task) -> str:
    """The answer, behind its prompt where it goes on from there, with the tests after it."""
    whole = not task.entry_point or defines(answer, task.entry_point)
    # A whole function still needs what the prompt imports.
    head = imports(task.prompt) if whole else task.prompt
    call = f"check({task.entry_point})" if task.entry_point else ""
    return f"{head}{answer}\n\n{task.test}\n\n{call}\n"


def defines(text: str, name: str) -> bool:
    return (
        re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b", text, re.MULTILINE)
        is not None
    )


def imports(prompt: str) -> str:
    """The prompt's import lines and helpers; the prompt itself where it is whole Python."""
    try:
        tree_of(prompt)
    except SyntaxError:
        lines = [line for line in prompt.splitlines() if re.match(r"(?:from|import) ", line)]
        return "".join(f"{line}\n" for line in lines)
    return f"{prompt}\n"


def run(source: str, options: Options) -> Ran:
    """Raises NotJudged when the child cannot be started."""
    if len(source) > LONGEST or "\0" in source:
        return Ran(passed=False, protection="")
    word = secrets.token_hex(16)
    order = {
        "program": source,
        "word": word,
        "memory_bytes": int(options["memory_mb"]) * 2**20,
        "cpu_s": math.ceil(options["timeout_s"]) + 1,
    }
    with tempfile.TemporaryDirectory(prefix="swapgate-code-") as folder:
        said, code = _child(json.dumps(order).encode(), folder, options["timeout_s"])
    lines = said.decode(errors="replace").splitlines()
    protection = lines[0] if lines and lines[0] in PROTECTIONS else ""
    return Ran(passed=lines[1:] == [word] and code == 0, protection=protection)


def _child(order: bytes, folder: str, timeout_s: float) -> tuple[bytes, int]:
    """What it said, and its exit code; it and whatever it started are gone afterwards."""
    try:
        child = subprocess.Popen(  # noqa: S603 - our own child, in which the answer is data
            [sys.executable, "-I", "-S", str(CELL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise NotJudged(f"no process for the code could be started: {error}") from None
    with child:
        try:
            said, _ = child.communicate(order, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            said = b""
            # Not reaped yet, so that the number is still its own; the group is as well.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return said, child.wait()


PROBE: Final[Options] = {"timeout_s": START_S, "memory_mb": 512}


@cache
def protection() -> str:
    """What keeps a model's code off the network on this machine. Raises NotJudged."""
    found = run("", PROBE)
    if not found.passed:
        raise NotJudged("Python cannot run code in a child process on this machine")
    return found.protection


def check(item: Item, options: Options) -> str | None:
    for name, low, high in (("timeout_s", 0.1, 300), ("memory_mb", 64, 16_384)):
        value = options[name]
        if not isinstance(value, int | float) or not low <= value <= high:
            raise InputError(f"scorer 'code': option {name!r} must be from {low} to {high}")
    task = task_of(item)
    try:
        tree_of(task.test)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"item {item.id!r}: its test is not Python: {error}") from None
    return None


CODE = Scorer("code", code, {"timeout_s": 10, "memory_mb": 512}, check=check, blocking=True)
