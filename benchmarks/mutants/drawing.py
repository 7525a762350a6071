"""Draws mutants: one comparison, number or truth value of the product's code, changed.

A surviving mutant shows a place that no test watches. The same seed and the same source give
the same mutants.
"""

import ast
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDERS: Final = ("gate", "canary", "routing", "proposals")
OPPOSITES: Final[dict[type[ast.cmpop], tuple[str, str]]] = {
    ast.Lt: (r"<(?!=)", "<="),
    ast.LtE: (r"<=", "<"),
    ast.Gt: (r">(?!=)", ">="),
    ast.GtE: (r">=", ">"),
    ast.Eq: (r"==", "!="),
    ast.NotEq: (r"!=", "=="),
    ast.Is: (r"\bis\b", "is not"),
    ast.IsNot: (r"\bis\s+not\b", "is"),
    ast.In: (r"\bin\b", "not in"),
    ast.NotIn: (r"\bnot\s+in\b", "in"),
}
JOINS: Final[dict[type[ast.boolop], tuple[str, str]]] = {
    ast.And: (r"\band\b", "or"),
    ast.Or: (r"\bor\b", "and"),
}
# They say how Python makes a class or checks a call; changed, they behave the same for callers.
PYTHONS_OWN: Final = frozenset(
    {"slots", "frozen", "kw_only", "eq", "order", "repr", "compare", "init", "strict"}
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change. file: inside the checkout. start, end: offsets in the file's UTF-8 bytes."""

    folder: str
    file: Path
    line: int
    scope: str
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.scope}: {self.before} → {self.after}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def draw(checkout: Path, number: int, seed: int) -> list[Mutant]:
    """Draws as many mutants from each folder, in an order that does not favour one.

    Raises ValueError if a folder has fewer places than its share.
    """
    share = number // len(FOLDERS)
    drawn = []
    for folder in FOLDERS:
        # Each folder has its own chance: a change in one leaves the others' mutants alone.
        chance = random.Random(f"{seed} {folder}")  # noqa: S311 - it draws a sample
        drawn.append(chance.sample(list(places(checkout, folder)), share))
    return [mutant for turn in zip(*drawn, strict=True) for mutant in turn]


def places(checkout: Path, folder: str) -> Iterator[Mutant]:
    """All mutants of `harness/FOLDER`."""
    for file in sorted((checkout / "harness" / folder).rglob("*.py")):
        source = file.read_bytes()
        walk = _Walk(folder, file.relative_to(checkout), source)
        walk.visit(ast.parse(source))
        yield from walk.found


class _Walk(ast.NodeVisitor):
    def __init__(self, folder: str, file: Path, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._folder = folder
        self._file = file
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._scopes: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_scope(node.name, [*node.args.defaults, *node.args.kw_defaults, *node.body])

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_scope(node.name, [*node.args.defaults, *node.args.kw_defaults, *node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_scope(node.name, node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in PYTHONS_OWN:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            self._between(left, right, *OPPOSITES[type(operator)])
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        first, second, *_ = node.values
        self._between(first, second, *JOINS[type(node.op)])
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Python 3.11 does not say where the parts of an f-string are."""

    def visit_Constant(self, node: ast.Constant) -> None:
        match node.value:
            case bool(value):
                self._add(node, *self._span(node), str(not value))
            case int(value):
                self._add(node, *self._span(node), str(value + 1))
            case float(value):
                self._add(node, *self._span(node), str(value * 2 or 1.0))
            case _:
                pass

    def _visit_scope(self, name: str, nodes: Sequence[ast.AST | None]) -> None:
        self._scopes.append(name)
        for node in nodes:
            if node is not None:
                self.visit(node)
        self._scopes.pop()

    def _between(self, left: ast.expr, right: ast.expr, sign: str, other: str) -> None:
        start = self._span(left)[1]
        text = self._source[start : self._span(right)[0]].decode()
        if found := re.search(sign, text):
            first = start + len(text[: found.start()].encode())
            self._add(left, first, first + len(found[0]), other)

    def _span(self, node: ast.expr) -> tuple[int, int]:
        # `ast.parse` always says where a node ends; only nodes made by hand lack it.
        last = self._starts[(node.end_lineno or node.lineno) - 1]
        first = self._starts[node.lineno - 1]
        return first + node.col_offset, last + (node.end_col_offset or 0)

    def _add(self, node: ast.expr, start: int, end: int, after: str) -> None:
        self.found.append(
            Mutant(
                folder=self._folder,
                file=self._file,
                line=node.lineno,
                scope=".".join(self._scopes) or "module",
                start=start,
                end=end,
                before=self._source[start:end].decode(),
                after=after,
            )
        )
