"""An almost correct JSON answer is repaired step by step; each repair has a name.

Python source is parsed by one thread at a time: CPython before 3.11.8 and 3.12.2 counts a
tree's depth once for all threads (gh-106905). When the garbage collector runs Python code
meanwhile, another thread may begin a tree of its own: one of the two ends in `SystemError: AST
constructor recursion depth mismatch`.
"""

import ast
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from evals.scorers.unwrap import inside_fence

_ONE_AT_A_TIME: Final = threading.Lock()


def parse_source(source: str) -> ast.Module:
    """Parses Python code, one at a time. Raises SyntaxError, or ValueError for null bytes."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def parse_literal(text: str) -> object:
    """The value of a Python literal. Raises as `ast.literal_eval`."""
    with _ONE_AT_A_TIME:
        return ast.literal_eval(text)


LONGEST = 200_000  # characters; a longer answer is not searched
MOST_PARTS = 20  # in braces; an object behind more of them is not found

# One that does not end goes to the end: else every quote would start a search of its own.
STRINGS = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)
TRAILING_COMMA = re.compile(r",(\s*[}\]])")
BARE_KEY = re.compile(r"([{,]\s*)([A-Za-z_]\w*)(\s*:)")


def loads(text: str) -> Any:
    def refuse(_constant: str) -> None:
        raise ValueError

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def json_object(text: str) -> dict[str, Any] | None:
    found = loads(text)
    return found if isinstance(found, dict) else None


def unfenced(text: str) -> str:
    fenced = inside_fence(text)
    return text if fenced is None else fenced


def braces_only(text: str) -> str:
    """The first part from a `{` to the brace that closes it that is a JSON object.

    Without one, the longest such part: prose has braces too, but short ones. Without any, from
    the first `{` to the last `}`.
    """
    found: list[str] = []
    start = text.find("{")
    while start >= 0 and len(found) < MOST_PARTS:
        part = balanced(text, start)
        if not part:
            break
        if json_object(part):
            return part
        found.append(part)
        start = text.find("{", start + len(part))
    first, last = text.find("{"), text.rfind("}")
    if found:
        return max(found, key=len)
    return text[first : last + 1] if 0 <= first < last else text


def balanced(text: str, start: int) -> str:
    depth, in_string, escaped = 0, False, False
    for at in range(start, len(text)):
        char = text[at]
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            in_string = not in_string
        elif not in_string and char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[start : at + 1]
    return ""


def unescaped(text: str) -> str:
    r"""A whole object inside a JSON string, or one with `\"` for every quote."""
    inner = loads(text)
    if isinstance(inner, str):
        return inner.strip()
    return (
        text.replace('\\"', '"').replace("\\\\", "\\") if re.match(r'\{\s*\\"', text) else text
    )


def outside_strings(text: str, mend: Callable[[str], str]) -> str:
    parts, end = [], 0
    for string in STRINGS.finditer(text):
        parts += [mend(text[end : string.start()]), string.group()]
        end = string.end()
    return "".join([*parts, mend(text[end:])])


def without_trailing_commas(text: str) -> str:
    return outside_strings(text, lambda part: TRAILING_COMMA.sub(r"\1", part))


def from_python(text: str) -> str:
    try:
        return json.dumps(parse_literal(text), allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def quoted_keys(text: str) -> str:
    return BARE_KEY.sub(r'\1"\2"\3', text)


REPAIRS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("code_fence", unfenced),
    ("double_escaped", unescaped),
    ("extra_prose", braces_only),
    ("double_escaped", unescaped),
    ("trailing_comma", without_trailing_commas),
    ("single_quotes", from_python),
    ("bare_keys", quoted_keys),
)


def repaired(answer: str) -> tuple[dict[str, Any], str] | None:
    """The object and the rules that it broke, joined by `+`; None when none can be found."""
    text = answer.strip()
    if len(text) > LONGEST:
        return None
    for rules, mended in steps(text):
        found = json_object(mended)
        if found is not None:
            return found, rules
    return None


def steps(text: str) -> Iterator[tuple[str, str]]:
    done: list[str] = []
    yield "", text
    for name, repair in REPAIRS:
        mended = repair(text)
        if mended == text:
            continue
        if name == "extra_prose":
            name = "leading_prose" if text.endswith(mended) else "trailing_prose"  # noqa: PLW2901 - named by where it stood
        text, done = mended, [*done, name] if name not in done else done
        yield "+".join(done), text
