"""Only tables decide by an upstream answer's status, code or words. No further code names a
model or a provider. The lists of exceptions may only shrink.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from harness.providers.kinds import PROVIDER_KINDS

pytestmark = pytest.mark.req("B7")
ROOT: Final = Path(__file__).parent.parent
FOLDERS: Final = ("router", "harness/routing/reliability")

# The modules that say what a status, a code, a word of an error or a finish reason means.
TABLES: Final = frozenset(
    {
        "router/protocols/answers.py",
        "router/protocols/provider_failures.py",
        "router/protocols/provider_limits.py",
        "router/protocols/provider_refusals.py",
        "router/upstream/translate/provider_errors.py",
        "harness/routing/reliability/refusal_words.py",
        "harness/routing/reliability/request_repair.py",
        "harness/routing/reliability/turn_order.py",
    }
)
MODULES_OF_TABLES: Final = frozenset(
    file.removesuffix(".py").replace("/", ".") for file in TABLES
)

# Comparisons of a status by file, in places that need no table. A new one belongs into a table.
STATUSES: Final = {
    # Of the router's own replies.
    "router/access/front_door.py": 1,
    "router/frame/replies.py": 3,
    "router/observers/otlp_outcomes.py": 1,
    "router/protocols/messages/answer_writer.py": 1,
    "router/server/request_cycle.py": 1,
    # Of a response object whose answer is not complete.
    "router/protocols/responses/dialect.py": 1,
    # HTTP's framing: a response without a body, or before the final response.
    "router/upstream/pool_connection.py": 3,
}
# Reads of an error's code or words, to show them.
WORDS: Final = {
    "router/frame/failure.py": 3,
    "router/protocols/messages/answer_writer.py": 1,
    "router/request/routed_response.py": 1,
    "router/upstream/translate/translation.py": 1,
}
# Texts with a name of a model or a provider (57), until the table of abilities holds them.
NAMES: Final = {
    "router/conversation/intake.py": 9,
    "router/conversation/native_histories.py": 1,
    "router/conversation/tool_schemas.py": 4,
    "router/frame/failure.py": 1,
    "router/observers/tracing.py": 8,
    "router/upstream/translate/anthropic.py": 6,
    "router/upstream/translate/bedrock.py": 5,
    "router/upstream/translate/gemini.py": 6,
    "router/upstream/translate/request_screening.py": 8,
    "router/upstream/translate/translation.py": 4,
    "router/upstream/translate/transport.py": 4,
    "router/upstream/transports.py": 1,
}

_COMPARES: Final = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_WORDS: Final = frozenset({"provider_code", "sentence", "cause", "message"})
_MEMBERS: Final = frozenset({"code", "message", "type", "status", "error_code", "reason"})
_SEARCHES: Final = frozenset({"search", "match", "fullmatch", "findall", "startswith"})
_OF_AN_ERROR: Final = re.compile("error|refusal|failed|failure")
_FAMILIES: Final = (
    "claude",
    "gpt",
    "gemma",
    "llama",
    "qwen",
    "kimi",
    "grok",
    "sonnet",
    "opus",
    "haiku",
    "codex",
)
# Kinds that are no provider's name, and the package that translates.
_NO_PROVIDERS: Final = frozenset({"sim", "custom", "litellm"})
_PROVIDERS: Final = sorted(PROVIDER_KINDS.keys() - _NO_PROVIDERS)
# Headers of a protocol, such as `anthropic-beta`, name no provider.
_HEADERS: Final = r"(?:anthropic|openai)-[a-z]"
_NAMES: Final = re.compile(
    rf"(?<![a-z])(?!{_HEADERS})({'|'.join((*_FAMILIES, *_PROVIDERS))})(?![a-z])",
    re.IGNORECASE,
)

Finder = Callable[[ast.Module], Iterator[int]]


def imported_from_tables(tree: ast.Module) -> set[str]:
    return {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in MODULES_OF_TABLES
        for name in node.names
    }


def find_statuses(tree: ast.Module) -> Iterator[int]:
    """Yields the line of each comparison of a status with something that no table defines."""
    tables = imported_from_tables(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Match) and name_of(node.subject) == "status":
            yield node.lineno
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], _COMPARES):
            continue
        operands = (node.left, *node.comparators)
        others = [operand for operand in operands if name_of(operand) != "status"]
        known = all(isinstance(o, ast.Name) and o.id in tables for o in others)
        if len(others) < len(operands) and not known:
            yield node.lineno


def find_words(tree: ast.Module) -> Iterator[int]:
    """Yields the line of each place that reads or compares an error's code or words."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=comparators, ops=[op, *_]):
                operands = (left, *comparators)
                if isinstance(op, _COMPARES) and any(map(is_worded, operands)):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(attr="get", value=value), args=[first, *_]):
                if is_of_an_error(value) and member_of(first):
                    yield node.lineno
            case ast.Subscript(value=value, slice=index, ctx=ast.Load()):
                if is_of_an_error(value) and member_of(index):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(attr=attr, value=value), args=args):
                if attr in _SEARCHES and any(map(is_worded, (value, *args))):
                    yield node.lineno
            case _:
                pass


def find_names(tree: ast.Module) -> Iterator[int]:
    """Yields the line of each text, without docstrings, with a name of a model or provider."""
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in docstrings:
            value = node.value
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if isinstance(text, str) and _NAMES.search(text):
                yield node.lineno


def name_of(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Name(id="str" | "int"), args=[first]):
            return name_of(first)
        case _:
            return ""


def is_worded(node: ast.expr) -> bool:
    """Whether an expression is an error's code or text: `failed.sentence`, `.lower()` of it."""
    match node:
        case ast.Attribute(attr=attr):
            return attr in _WORDS
        case ast.Call(func=ast.Attribute(value=value)):
            return is_worded(value)
        case _:
            return False


def is_of_an_error(node: ast.expr) -> bool:
    return bool(_OF_AN_ERROR.search(name_of(node)))


def member_of(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in _MEMBERS


@cache
def trees() -> Mapping[str, ast.Module]:
    """The files outside the tables, each parsed once."""
    files = {
        path.relative_to(ROOT).as_posix(): path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    return {
        file: ast.parse(path.read_text("utf-8"))
        for file, path in files.items()
        if file not in TABLES
    }


def found_by_file(find: Finder) -> dict[str, int]:
    return dict(+Counter({file: len(list(find(tree))) for file, tree in trees().items()}))


@pytest.mark.parametrize(
    ("find", "listed"),
    [(find_statuses, STATUSES), (find_words, WORDS), (find_names, NAMES)],
    ids=["statuses", "words", "names"],
)
def test_only_tables_decide_by_an_upstream_answer_and_the_exceptions_only_shrink(
    find: Finder, listed: Mapping[str, int]
) -> None:
    assert found_by_file(find) == listed


@pytest.mark.parametrize(
    ("find", "code"),
    [
        (find_statuses, "reply.status == 429"),
        (find_statuses, "200 <= reply.status < 300"),
        (find_statuses, "status in (401, 403)"),
        (find_statuses, "failed.status in _OURS"),
        (find_words, "failed.provider_code == 'rate_limit'"),
        (find_words, "'quota' in failed.sentence.lower()"),
        (find_words, "error.get('code') in CODES"),
        (find_words, "error['message']"),
        (find_words, "_QUOTA.search(failed.message)"),
        (find_names, "kind == 'anthropic'"),
        (find_names, "model.startswith('claude-')"),
    ],
)
def test_a_comparison_outside_the_tables_is_found(find: Finder, code: str) -> None:
    assert list(find(ast.parse(code))) == [1]


def test_a_comparison_with_a_tables_own_name_is_none() -> None:
    table = "from router.protocols.provider_refusals import GOOD_STATUSES\n"

    assert not list(find_statuses(ast.parse(f"{table}reply.status in GOOD_STATUSES")))
