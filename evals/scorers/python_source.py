"""Python source is parsed by one thread at a time, because of a bug in CPython.

CPython before 3.11.8 and 3.12.2 counts a tree's depth once for all threads (gh-106905). When
the garbage collector runs Python code meanwhile, another thread may begin a tree of its own:
one of the two ends in `SystemError: AST constructor recursion depth mismatch`.
"""

import ast
import threading
from typing import Final

_ONE_AT_A_TIME: Final = threading.Lock()


def parse_source(source: str) -> ast.Module:
    """Parses Python code, one at a time. Raises SyntaxError, or ValueError for null bytes."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def parse_literal(text: str) -> object:
    """The value of a Python literal. Raises as `ast.literal_eval`."""
    with _ONE_AT_A_TIME:
        return ast.literal_eval(text)
