"""Chooses the test files that watch a mutant: by the imports that lead from them to its module.

Running all tests for each mutant would take days, and so would a trace of them on each commit.
"""

import ast
import re
from collections import deque
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.mutants.drawing import Mutant

# Their stories start whole installations; the folders below find the same faults sooner.
TEST_FOLDERS: Final = ("unit", "contract", "integration")
HOPS: Final = 3


class CoveringTests:
    """The test files of one checkout, with what each imports."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._tests = [
            file.relative_to(checkout)
            for folder in TEST_FOLDERS
            for file in sorted((checkout / "tests" / folder).glob("test_*.py"))
        ]
        self._importers: dict[Path, set[Path]] = {}
        for file in [*checkout.glob("harness/**/*.py"), *checkout.glob("tests/**/*.py")]:
            for imported in _imports(checkout, file):
                self._importers.setdefault(imported, set()).add(file.relative_to(checkout))
        self._text = cache(lambda file: (checkout / file).read_text(encoding="utf-8"))

    def of(self, mutant: Mutant, number: int) -> list[Path]:
        """Returns at most `number` test files, those closest to the mutant's module first.

        A file that names the function or class of the mutant is closer than one that does not.
        """
        hops = self._hops_to(mutant.file)
        names = [name for name in mutant.scope.split(".") if name != "module"]
        words = re.compile(rf"\b({'|'.join(map(re.escape, names)) or '(?!)'})\b")

        def distance(test: Path) -> tuple[bool, int, int]:
            is_named = bool(words.search(self._text(test)))
            return not is_named, hops[test], TEST_FOLDERS.index(test.parts[1])

        return sorted((test for test in self._tests if test in hops), key=distance)[:number]

    def _hops_to(self, module: Path) -> dict[Path, int]:
        """How many imports lead from each file to this module, up to HOPS."""
        hops = {module: 0}
        waiting = deque([module])
        while waiting:
            file = waiting.popleft()
            if hops[file] == HOPS:
                continue
            for importer in self._importers.get(file, ()):
                if importer not in hops:
                    hops[importer] = hops[file] + 1
                    waiting.append(importer)
        return hops


def _imports(checkout: Path, file: Path) -> set[Path]:
    """The files of the checkout that this file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, *(f"{module}.{alias.name}" for alias in names)}
            case _:
                pass
    files = {Path(*name.split(".")).with_suffix(".py") for name in found}
    return {path for path in files if (checkout / path).is_file()}
