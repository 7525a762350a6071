"""Runs tests in forks of one process that has collected them, with one mutant on in each."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from benchmarks.mutants.schemata import Switch

# A wait beyond the CPU's bound is a test that sleeps or waits for a lock for ever.
WAITS_FACTOR: Final = 8
MARKS: Final = "not (slow or postgres or browser or verify or soak)"


@dataclass(frozen=True, slots=True)
class TestRun:
    """One test that ran. executed, files: see `Switch`. cpu_s: of its setup and call."""

    __test__ = False

    test: str
    has_passed: bool
    cpu_s: float
    executed: frozenset[int]
    files: frozenset[str]


class WarmTests:
    """A pytest plugin: collects, and then lets `work` run tests in forks."""

    def __init__(self, switch: Switch, work: Callable[["WarmTests"], None]) -> None:
        self._switch = switch
        self._work = work
        self._items: dict[str, pytest.Item] = {}
        self._session: pytest.Session | None = None
        self._report: Callable[[TestRun], None] = lambda _: None
        self._failed = False
        self._began_s = 0.0
        self.executed_by_import: frozenset[int] = frozenset()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._session = session
        self._items = {item.nodeid: item for item in session.items}
        self.executed_by_import = frozenset(self._switch.executed)
        self._work(self)
        return True

    @property
    def names(self) -> list[str]:
        return list(self._items)

    def run(
        self, tests: Sequence[str], *, mutant: int | None, stops: bool, cpu_s: int
    ) -> tuple[list[TestRun], bool]:
        """Runs these tests in a fork. Returns what ran, and whether the fork met its bound.

        Args:
            stops: whether the first failure ends it.
            cpu_s: the bound of the whole fork.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            self._live(tests, writer, mutant=mutant, stops=stops, cpu_s=cpu_s)
        os.close(writer)
        os.set_blocking(reader, False)
        text, ended = self._read(reader, child, time.monotonic() + cpu_s * WAITS_FACTOR)
        return list(_parse(text)), not ended

    def _read(self, reader: int, child: int, until_s: float) -> tuple[bytes, bool]:
        pieces = []
        status = None
        while status is None:
            done, found = os.waitpid(child, os.WNOHANG)
            if done:
                status = found
            elif time.monotonic() > until_s:
                _end(child)
                os.waitpid(child, 0)
                status = 1
            else:
                time.sleep(0.05)
            with suppress(BlockingIOError):
                while piece := os.read(reader, 1 << 16):
                    pieces.append(piece)
        os.close(reader)
        _end(child)
        return b"".join(pieces), status == 0

    def _live(
        self, tests: Sequence[str], writer: int, *, mutant: int | None, stops: bool, cpu_s: int
    ) -> None:
        status = 1
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silence, stream)
            self._switch.active = mutant
            self._report = lambda run: _write(writer, run)
            if mutant is None:
                _forget_worlds()
            items = [self._items[test] for test in tests]
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
                if stops and self._failed:
                    break
            status = 0
        finally:
            os._exit(status)

    def pytest_runtest_logstart(self) -> None:
        self._failed = False
        self._switch.executed.clear()
        self._switch.files.clear()
        self._began_s = time.process_time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._report(
            TestRun(
                test=nodeid,
                has_passed=not self._failed,
                cpu_s=time.process_time() - self._began_s,
                executed=frozenset(self._switch.executed),
                files=frozenset(self._switch.files),
            )
        )


def collect(checkout: Path, tests: Sequence[str], plugin: WarmTests) -> int:
    """Collects the tests of a checkout in this process, and lets the plugin run them.

    This process must have imported none of the checkout's modules.
    """
    os.chdir(checkout)
    sys.path.insert(0, str(checkout))
    os.environ |= {"PYTHONPATH": str(checkout), "CI": "true"}
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "--capture=no"]
    return pytest.main([*options, "-m", MARKS, *tests], plugins=[plugin])


def _forget_worlds() -> None:
    """Lets each test live through its beginning, so that it executes that code itself."""
    if worlds := sys.modules.get("tests.support.control.remembered_worlds"):
        worlds.MEMORY.allow_for = lambda _: None


def _write(writer: int, run: TestRun) -> None:
    row = [run.test, run.has_passed, run.cpu_s, sorted(run.executed), sorted(run.files)]
    data = json.dumps(row).encode() + b"\n"
    while data:
        data = data[os.write(writer, data) :]


def _parse(text: bytes) -> Iterator[TestRun]:
    for line in text.splitlines(keepends=True):
        if line.endswith(b"\n"):
            test, has_passed, cpu_s, executed, files = json.loads(line)
            yield TestRun(test, has_passed, cpu_s, frozenset(executed), frozenset(files))


def _end(child: int) -> None:
    """Ends the fork and the processes that its tests started."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
