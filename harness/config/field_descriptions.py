"""Gives each field of the configuration's JSON schema the comment that stands beside it in the
source, so that an editor shows it where the file is written.
"""

import ast
import inspect
import io
import sys
import tokenize
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel


def describe_fields(schema: dict[str, Any], root: type[BaseModel]) -> dict[str, Any]:
    for name, cls in _classes(root).items():
        definition = schema if cls is root else schema.get("$defs", {}).get(name, {})
        properties = definition.get("properties", {})
        for base in cls.__mro__[:-1]:
            for field, comment in field_comments(base).items():
                if field in properties:
                    properties[field].setdefault("description", comment)
    return schema


def field_comments(cls: type) -> Mapping[str, str]:
    """Field → its comment: at the end of its line, or in whole lines just before it."""
    return _comments_in(cls.__module__).get(cls.__name__, {})


@cache
def _comments_in(module: str) -> Mapping[str, Mapping[str, str]]:
    """Class → field → comment, of a whole module: to read it for each of its classes took
    longer than all else that `swapgate init` does.
    """
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # only bytecode is installed
        return {}
    comments = {
        token.start[0]: (token.string.lstrip("# "), not token.line[: token.start[1]].strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        node.name: _comments_of_class(node, comments)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }


def _comments_of_class(
    node: ast.ClassDef, comments: Mapping[int, tuple[str, bool]]
) -> Mapping[str, str]:
    described: dict[str, str] = {}
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            comment = _comment_of(field, comments)
            names, colon, text = comment.partition(": ")
            fields = names.split(", ")
            if colon and field.target.id in fields:  # one comment for several fields
                described |= dict.fromkeys(fields, text)
            elif comment:
                described[field.target.id] = comment
    return described


def _comment_of(field: ast.AnnAssign, comments: Mapping[int, tuple[str, bool]]) -> str:
    trailing, alone = comments.get(field.end_lineno or field.lineno, ("", False))
    if trailing and not alone:
        return trailing.partition("noqa:")[0].rstrip("# ")
    lines: list[str] = []
    line = field.lineno - 1
    while line in comments and comments[line][1]:
        lines.insert(0, comments[line][0])
        line -= 1
    return " ".join(lines)


def _classes(root: type) -> dict[str, type]:
    found: dict[str, type] = {}
    waiting: list[type] = [root]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ not in found:
            found[cls.__name__] = cls
            for hint in typing.get_type_hints(cls, include_extras=True).values():
                waiting += _described(hint)
    return found


def _described(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, BaseModel)):
        yield hint
    for inner in typing.get_args(hint):
        yield from _described(inner)
