"""Compiles all drawn mutants into one program, with a switch that turns one of them on.

One process then imports and collects the tests once, and needs a fork alone for each mutant.
The switch also notes which mutants a test executes. Source: Untch, Offutt, Harrold 1993,
"Mutation analysis using mutant schemata".
"""

import ast
import builtins
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

from benchmarks.mutants.drawing import Mutant

SWITCH: Final = "_is_mutant_on"


class Switch:
    """Which mutant is on, by its number, and which of them the program executed.

    files: the modules with mutants in which a function ran, besides.
    """

    def __init__(self) -> None:
        self.active: int | None = None
        self.executed: set[int] = set()
        self.files: set[str] = set()

    def __call__(self, number: int) -> bool:
        self.executed.add(number)
        return number == self.active

    def enter(self, file: str) -> None:
        self.files.add(file)


def instrument(source: bytes, mutants: Mapping[int, Mutant], file: str) -> ast.Module:
    """Returns the program with all mutants in it.

    Raises ValueError for a mutant at a place that is no expression, as in a pattern.
    """
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    places = _Places(starts)
    places.visit(tree)
    chosen: dict[int, ast.expr] = {}
    for number, mutant in mutants.items():
        node = places.smallest_around(mutant)
        first, last = places.span(node)
        text = source[first : mutant.start] + mutant.after.encode() + source[mutant.end : last]
        body = ast.parse(b"(" + text + b")", mode="eval").body
        test = ast.parse(f"{SWITCH}({number})", mode="eval").body
        chosen[id(node)] = _either(test, body, chosen.get(id(node), node), node)
    _Replacing(chosen, file).visit(tree)  # in place: no module is replaced
    return ast.fix_missing_locations(tree)


def _either(test: ast.expr, body: ast.expr, other: ast.expr, place: ast.expr) -> ast.expr:
    for node in (*ast.walk(test), *ast.walk(body)):
        ast.copy_location(node, place)
    return ast.copy_location(ast.IfExp(test=test, body=body, orelse=other), place)


class _Places(ast.NodeVisitor):
    def __init__(self, starts: Sequence[int]) -> None:
        self._starts = starts
        self._nodes: list[ast.expr] = []

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.pattern | ast.JoinedStr):
            return
        if isinstance(node, ast.expr):
            self._nodes.append(node)
        self.generic_visit(node)

    def span(self, node: ast.expr) -> tuple[int, int]:
        last = self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        return self._starts[node.lineno - 1] + node.col_offset, last

    def smallest_around(self, mutant: Mutant) -> ast.expr:
        around = []
        for node in self._nodes:
            first, last = self.span(node)
            if first <= mutant.start and mutant.end <= last:
                around.append((last - first, node))
        if not around:
            raise ValueError(f"{mutant} is at no expression that runs")
        return min(around, key=lambda pair: pair[0])[1]


class _Replacing(ast.NodeTransformer):
    def __init__(self, chosen: Mapping[int, ast.expr], file: str) -> None:
        self._chosen = chosen
        self._file = file

    def visit(self, node: ast.AST) -> ast.AST:
        new = self._chosen.get(id(node))
        changed = super().visit(node)
        if isinstance(changed, ast.FunctionDef | ast.AsyncFunctionDef):
            enter = ast.parse(f"{SWITCH}.enter({self._file!r})").body[0]
            for part in ast.walk(enter):
                ast.copy_location(part, changed.body[0])
            changed.body.insert(1 if ast.get_docstring(changed) is not None else 0, enter)
        return changed if new is None else new


class _Loader(SourceFileLoader):
    """Compiles a module with its mutants, and keeps no bytecode of it."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._tree, self.get_filename(fullname), "exec", dont_inherit=True)


class MutatedModules(MetaPathFinder):
    """Finds the modules of a checkout that have mutants."""

    def __init__(self, checkout: Path, mutants: Mapping[int, Mutant]) -> None:
        by_file: dict[Path, dict[int, Mutant]] = {}
        for number, mutant in mutants.items():
            by_file.setdefault(mutant.file, {})[number] = mutant
        self._trees: dict[Path, ast.Module] = {}
        for file, own in by_file.items():
            source = (checkout / file).read_bytes()
            self._trees[checkout / file] = instrument(source, own, str(file))

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith("harness."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None or Path(spec.origin) not in self._trees:
            return spec
        spec.loader = _Loader(name, spec.origin, self._trees[Path(spec.origin)])
        return spec


def put_in(checkout: Path, mutants: Mapping[int, Mutant]) -> Switch:
    """Lets this process import the checkout's modules with the mutants in them, all off."""
    switch = Switch()
    setattr(builtins, SWITCH, switch)
    sys.meta_path.insert(0, MutatedModules(checkout, mutants))
    return switch
