"""A sandboxed program's two processes are started, awaited for their verdict, and cleaned
up.
"""

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final

CHILD: Final = Path(__file__).with_name("child.py")
START_S: Final = 60.0  # for two interpreters, on a busy machine
END_S: Final = 5.0
MOST_SAID: Final = 4096  # bytes of the verdict's pipe


class SandboxUnavailable(Exception):
    """Raised when no verdict could be reached, which says nothing against the answer."""


@dataclass(frozen=True, slots=True)
class SandboxProgram:
    """An answer in code with the tests that it has to pass."""

    answer: str  # what the model wrote, behind the prompt where it goes on from there
    test: str
    head: str = ""  # the prompt's imports and helpers, for the tests
    call: str = ""  # what starts the tests, perhaps nothing
    # The answer's function that they are about; empty for none in particular.
    entry_point: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a contained process."""

    timeout_s: float  # from when both processes have started
    memory_bytes: int  # of each


def run_tests(program: SandboxProgram, bounds: Bounds, *, contained: bool) -> bool:
    """Whether the tests came to their end. Raises NotRun where a process cannot be started, or
    contained as it should be.
    """
    word = secrets.token_hex(16)
    common = {
        "contained": contained,
        "memory_bytes": bounds.memory_bytes,
        "cpu_s": math.ceil(bounds.timeout_s) + 1,
    }
    tests = {
        **{name: getattr(program, name) for name in ("test", "head", "call", "entry_point")},
        "word": word,
    }
    with contextlib.ExitStack() as stack:
        asked, answers = _pipe(stack), _pipe(stack)
        ends = (asked[0], answers[1]), (answers[0], asked[1])
        roles = {"answer": {"program": program.answer}, "tests": tests}
        children = [
            stack.enter_context(_child({**common, "role": role, **own}, pipes))
            for (role, own), pipes in zip(roles.items(), ends, strict=True)
        ]
        # A pipe ends for its reader once nobody holds its other end.
        for end in (*asked, *answers):
            end.close()
        deadline = time.monotonic() + START_S
        for child in children:
            _await_start(child, deadline)
        said = _read_all(_out(children[1]), time.monotonic() + bounds.timeout_s)
    return said == word.encode() + b"\n"


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    reader, writer = os.pipe()
    return (
        stack.enter_context(os.fdopen(reader, "rb", 0)),
        stack.enter_context(os.fdopen(writer, "wb", 0)),
    )


@contextlib.contextmanager
def _child(
    order: Mapping[str, object], pipes: tuple[IO[bytes], IO[bytes]]
) -> Iterator[subprocess.Popen[bytes]]:
    """It and whatever it started are gone afterwards."""
    numbers = [pipe.fileno() for pipe in pipes]
    with tempfile.TemporaryDirectory(prefix="swapgate-code-") as folder:
        try:
            child = subprocess.Popen(  # noqa: S603 - our own child, in which the answer is data
                [sys.executable, "-I", "-S", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={},
                start_new_session=True,
                pass_fds=numbers,
            )
        except OSError as error:
            raise SandboxUnavailable(
                f"no process for the code could be started: {error}"
            ) from None
        with child:
            try:
                whole = {**order, "reader": numbers[0], "writer": numbers[1]}
                assert child.stdin is not None  # noqa: S101 - asked for above
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(json.dumps(whole).encode() + b"\n")
                    child.stdin.flush()
                yield child
            finally:
                _end(child, contained=bool(order["contained"]))


def _end(child: subprocess.Popen[bytes], *, contained: bool) -> None:
    """Who waits for a contained process ends it, with all that it started, at SIGTERM."""
    if contained:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_S)
            return
    # Not reaped yet, so that the number is still its own; the group is as well.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _out(child: subprocess.Popen[bytes]) -> IO[bytes]:
    assert child.stdout is not None  # noqa: S101 - `_child` asks for it
    return child.stdout


def _await_start(child: subprocess.Popen[bytes], deadline: float) -> None:
    """The first line is written before any code of the answer's runs. Raises NotRun."""
    line = b""
    # Byte by byte: what comes after the line is the verdict's.
    while not line.endswith(b"\n"):
        byte = _read(_out(child), 1, deadline)
        if not byte:
            break
        line += byte
    if line != b"started\n":
        said = line.decode(errors="replace").strip() or "it did not start"
        raise SandboxUnavailable(
            f"the code's process is {said}" if said.startswith("not ") else said
        )


def _read_all(pipe: IO[bytes], deadline: float) -> bytes:
    """Until its end, the deadline, or more than a verdict has."""
    said = b""
    while len(said) < MOST_SAID and (more := _read(pipe, MOST_SAID, deadline)):
        said += more
    return said


def _read(pipe: IO[bytes], most: int, deadline: float) -> bytes:
    """Empty at the end, and when the time is up."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    left_ms = max(0, math.ceil((deadline - time.monotonic()) * 1000))
    return os.read(pipe.fileno(), most) if poll.poll(left_ms) else b""


@cache
def why_not_contained() -> str:
    """Why this machine cannot contain a model's code; empty where it can."""
    try:
        works = run_tests(
            SandboxProgram("x = 1", "assert x == 1"), Bounds(START_S, 2**29), contained=True
        )
    except SandboxUnavailable as error:
        return str(error)
    return "" if works else "a contained process did not come to its end"
