"""Lists what can be changed in the functions of a module, one small change at a time, and puts
a change into the running program.

A change replaces the code of a function in place, so that every name that stands for it has the
change. What runs at import (constants, defaults, decorators) is not changed.
"""

import ast
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """number: of the change within its file, in the order of `changes`."""

    file: Path
    number: int
    line: int
    change: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.change}"


def mutants(file: Path) -> list[Mutant]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        Mutant(file, number, node.lineno, words)
        for number, (node, words, _) in enumerate(changes(tree))
    ]


def apply_mutant(mutant: Mutant) -> bool:
    """Changes the running function; False where no function has this code now."""
    tree = ast.parse(mutant.file.read_text(encoding="utf-8"))
    before = functions(compile(tree, str(mutant.file), "exec"))
    _, _, change = list(changes(tree))[mutant.number]
    change()
    after = functions(compile(ast.fix_missing_locations(tree), str(mutant.file), "exec"))
    new = {place: code for place, code in after.items() if code != before[place]}
    # The outermost function has the changed one within it.
    applied = False
    gc.unfreeze()  # the tests' conftest freezes what is imported: get_objects leaves it out
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and _is_from(function.__code__, mutant.file):
            code = new.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
            if code is not None:
                function.__code__ = code
                applied = True
    return applied


def _is_from(code: CodeType, file: Path) -> bool:
    return code.co_filename.endswith(str(file))


def functions(module: CodeType) -> dict[tuple[str, int], CodeType]:
    """Every function's code, by qualified name and first line."""
    found = {}
    for constant in module.co_consts:
        if isinstance(constant, CodeType):
            found[constant.co_qualname, constant.co_firstlineno] = constant
            found |= functions(constant)
    return found


Change = tuple[ast.expr | ast.stmt, str, Callable[[], None]]


def changes(tree: ast.Module) -> Iterator[Change]:
    """Each node that can be changed, the change in words, and how to make it."""
    for function in _outermost_functions(tree):
        for statement in function.body:
            yield from _changes_in(statement)


def _outermost_functions(node: ast.AST) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        else:
            yield from _outermost_functions(child)


def _changes_in(node: ast.AST) -> Iterator[Change]:
    """Texts stay as they are: what is said to people is no decision."""
    if isinstance(node, ast.JoinedStr | ast.arguments | ast.Raise):
        return
    yield from _changes_of(node)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes_in(child)


def _changes_of(node: ast.AST) -> Iterator[Change]:  # noqa: C901 - a case a kind of node
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                if other := COMPARISONS.get(type(op)):
                    words = f"{type(op).__name__} -> {other.__name__}"
                    yield node, words, _setter(ops, place, other())
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if swapped := OPERATORS.get(type(op)):
            words = f"{type(op).__name__} -> {swapped.__name__}"
            yield node, words, _attribute_setter(node, "op", swapped())
        case ast.BoolOp(op=ast.And()):
            yield node, "and -> or", _attribute_setter(node, "op", ast.Or())
        case ast.BoolOp(op=ast.Or()):
            yield node, "or -> and", _attribute_setter(node, "op", ast.And())
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            negated = ast.UnaryOp(ast.Not(), test)
            yield node, "condition negated", _attribute_setter(node, "test", negated)
        case ast.Constant(value=bool(value)):
            yield node, f"{value} -> {not value}", _attribute_setter(node, "value", not value)
        case ast.Constant(value=int(number) | float(number)):
            yield (
                node,
                f"{number} -> {number + 1}",
                _attribute_setter(node, "value", number + 1),
            )
        case ast.Return(value=ast.expr()) if not _is_none(node.value):
            yield node, "returns None", _attribute_setter(node, "value", ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "call left out", _attribute_setter(node, "value", ast.Constant(None))
        case _:
            pass


def _is_none(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _setter(places: list[ast.cmpop], place: int, value: ast.cmpop) -> Callable[[], None]:
    def change() -> None:
        places[place] = value

    return change


def _attribute_setter(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    def change() -> None:
        setattr(node, name, value)

    return change
