"""Finds which tests run which lines, so that a changed line is tried by those alone."""

import ast
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

from benchmarks.figures.mutants import Mutant


@dataclass
class CoveringTests:
    """tests: by file and line. seconds: each test's, by its node id."""

    tests: Mapping[Path, Mapping[int, Collection[str]]]
    seconds: Mapping[str, float]

    def select(self, mutant: Mutant) -> Sequence[str]:
        """The tests that run the changed statement, the quickest first."""
        lines = self.tests.get(mutant.file, {})
        names = {
            name
            for line in _statement_lines(mutant.file, mutant.line)
            for name in lines.get(line, ())
        }
        return sorted(names, key=lambda name: (self.seconds.get(name, 0.0), name))


@dataclass(eq=False)  # pytest keeps its plugins in sets
class LineTracer:
    """A plugin of pytest that notes the lines of `files` by the test that ran them."""

    files: Sequence[Path]
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._coverage = coverage.Coverage(
            config_file=False,
            data_file=None,
            include=[str(file.absolute()) for file in self.files],
        )

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._coverage.switch_context(item.nodeid)
        yield
        self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def collect(self) -> CoveringTests:
        self._coverage.stop()
        data = self._coverage.get_data()
        tests: dict[Path, dict[int, list[str]]] = {}
        for file in self.files:
            by_line = data.contexts_by_lineno(str(file.absolute()))
            tests[file] = defaultdict(list, {n: [*filter(None, c)] for n, c in by_line.items()})
        return CoveringTests(tests, self.seconds)


def _statement_lines(file: Path, line: int) -> range:
    """The lines of the innermost statement; of one with a body, those before the body."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.stmt) or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            continue
        body = getattr(node, "body", None)
        end = body[0].lineno if body else (node.end_lineno or node.lineno) + 1
        lines = range(node.lineno, max(end, node.lineno + 1))
        if line in lines and (len(best) == 1 or len(lines) < len(best)):
            best = lines
    return best
