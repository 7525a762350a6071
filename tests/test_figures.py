"""Product code writes figures with `harness.frame.formatting` alone, so that one figure looks
the same wherever it is read. What a formatter writes by hand is found in the source.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("harness", "router", "evals", "dashboard", "swapproof")
FORMATTERS = Path("harness/frame/formatting.py")
_SECONDS = re.compile(r" m?s\b")


def hand_made(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                yield from _in_values(values)
            case ast.Constant(value=str(text)) if "${:" in text:
                yield node.lineno, "money"
            case _:
                pass


def _in_values(values: list[ast.expr]) -> Iterator[tuple[int, str]]:
    for before, value in pairwise([ast.Constant(""), *values]):
        # `$tag$` opens a text in SQL.
        if isinstance(value, ast.FormattedValue) and _ends_with_dollar(before):
            yield value.lineno, "money"
    for value, after in pairwise([*values, ast.Constant("")]):
        if not isinstance(value, ast.FormattedValue):
            continue
        spec = _literal(value.format_spec)
        text = _literal(after)
        # Without the space it is CSS.
        if text.startswith((" %", "\N{NO-BREAK SPACE}%")) or spec.endswith("%"):
            yield value.lineno, "a share"
        elif any(_is_hundredfold(part) for part in ast.walk(value.value)):
            yield value.lineno, "a score or a share"
        elif spec.endswith("f") and _SECONDS.match(text):
            yield value.lineno, "a span of time"


def _literal(node: ast.expr | None) -> str:
    """The text of a constant or of a format; empty for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(_literal, values))
        case _:
            return ""


def _ends_with_dollar(before: ast.expr) -> bool:
    text = _literal(before)
    return text.endswith("$") and not text.removesuffix("$")[-1:].isalnum()


def _is_hundredfold(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=ast.Mult(), left=ast.Constant(value=100)):
            return True
        case ast.BinOp(op=ast.Mult() | ast.Div(), right=ast.Constant(value=100)):
            return True
        case _:
            return False


def test_no_figure_is_written_by_hand() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {what}"
        for folder in PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file.relative_to(ROOT) != FORMATTERS
        for line, what in hand_made(ast.parse(file.read_text(encoding="utf-8")))
    ]

    assert not found, "\n".join(["use harness/frame/formatting.py:", *found])
