"""Names are the field's standard nouns and verbs; each public class name has one meaning."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("harness", "router", "evals", "dashboard", "swapgate")
SHOWN = 12

# By what is named: names that a reader who knows gateways, rollouts and databases cannot guess.
# A local variable may have one of them: `seen`, in a loop that looks for duplicates.
STRANGE: Final = {
    "function": re.compile(
        "again|apart|around|asked|asleep|because|by_hand|charged|each|found|guest|heard|held|"
        "here|lacking|look|moved|of|own|said|seen|stuck|tell|those|told|told_s|trial|turn"
    ),
    "class": re.compile(
        "Asked|Because|Course|Crew|Drawn|Ear|Heard|Job|Judged|LeftOut|Line|News|Orders|Room|"
        "Seen|Surroundings|Told|Try|Wish"
    ),
    "field": re.compile("asked|haste|said|seen|told|wish|wishes"),
    "loop variable": re.compile("asked|each|found|said|seen|those|told|wish"),
}
# No part of the name of a function or class, public or private.
WORDS: Final = frozenset(["haste", "heard", "said", "told", "wish", "wishes"])
# Users see these names: in the API's answers, in the command line's JSON, in the database.
EXEMPT: Final = frozenset(["CaptureSummary.seen", "CapturedRequest.seen", "ModelMatch.asked"])
# A scorer's source is hashed into the pins of its suites: another name there is another scorer,
# and every proof of a suite with it would be void.
HASHED: Final = Path("evals/scorers")
# A docstring that begins so leans on its neighbours, or has no subject and verb: it is read
# alone, in an editor's tooltip or in a list. "Lists the audit events, newest first." stands;
# "Newest first." does not. Nor does one that begins with a parameter: "route: None for all."
LEANING_WORDS: Final = re.compile(
    r"(?:After|Also|And|As|At|Back|Before|But|By|Empty|False|For|From|In|Into|It|Its|Like|"
    "Newest|None|Not|Now|Of|Oldest|On|Or|Raises|Same|Since|Such|Their|They|Those|Unless|"
    r"Until|When|With|Within|Without)\b"
)


@cache
def modules(*folders: str) -> tuple[Path, ...]:
    """Every file of the folders, relative to the root."""
    return tuple(
        file.relative_to(ROOT)
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*.py"))
    )


# All that a test of names reads of a file; the trees of all files together would be a burden to
# every test after these.
@cache
def names_in(file: Path) -> tuple[tuple[int, str, str], ...]:
    """Line, what is named, and its name: a field or parameter after what it belongs to."""
    return tuple(_names(ast.parse((ROOT / file).read_text())))


def _names(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name, body=body):
                yield node.lineno, "class", name
                for member in body:
                    if isinstance(member, ast.AnnAssign) and isinstance(
                        member.target, ast.Name
                    ):
                        yield member.lineno, "field", f"{name}.{member.target.id}"
            case (
                ast.FunctionDef(name=name, args=args)
                | ast.AsyncFunctionDef(name=name, args=args)
            ):
                yield node.lineno, "function", name
                given = [
                    *args.posonlyargs,
                    *args.args,
                    args.vararg,
                    *args.kwonlyargs,
                    args.kwarg,
                ]
                yield from ((a.lineno, "field", f"{name}.{a.arg}") for a in given if a)
            case ast.For(target=target) | ast.AsyncFor(target=target):
                yield from _bound(target)
            case ast.comprehension(target=target):
                yield from _bound(target)
            case ast.Lambda(args=args):
                yield from ((arg.lineno, "loop variable", arg.arg) for arg in args.args)
            case _:
                pass


def _bound(target: ast.AST) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node.lineno, "loop variable", node.id


def docstrings_in(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Those of a module and of its public classes, functions and methods."""
    match node:
        case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            if text := ast.get_docstring(node):
                yield node.body[0].lineno, text
        case _:
            return
    if isinstance(node, ast.Module | ast.ClassDef):
        for member in node.body:
            if not getattr(member, "name", "_").startswith("_"):
                yield from docstrings_in(member)


def is_strange(file: Path, kind: str, name: str) -> bool:
    """Tests' own names are sentences, and what they give their doubles is theirs."""
    of_product = file.parts[0] in PRODUCT and HASHED not in file.parents
    if name in EXEMPT or name.startswith("test_") or (kind == "field" and not of_product):
        return False
    bare = name.rpartition(".")[2].strip("_")
    words = set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).lower().split("_"))
    return bool(
        STRANGE[kind].fullmatch(bare) or (kind in ("function", "class") and words & WORDS)
    )


def listed(lines: list[str]) -> str:
    more = f"\n… and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


@pytest.mark.parametrize("kind", STRANGE)
def test_nothing_has_a_name_that_only_its_author_understands(kind: str) -> None:
    strange = [
        f"{file}:{line}: {name}"
        for file in modules(*PRODUCT, "tests", "benchmarks")
        for line, named, name in names_in(file)
        if named == kind and is_strange(file, kind, name)
    ]

    assert not strange, listed(strange)


def test_a_public_class_name_has_one_meaning_in_the_product() -> None:
    places = defaultdict(set)
    for file in modules(*PRODUCT):
        for _, kind, name in names_in(file):
            if kind == "class" and not name.startswith("_"):
                places[name].add(f"{file}")
    twice = [f"{name}: {', '.join(place)}" for name, place in places.items() if len(place) > 1]

    assert not twice, listed(twice)


def test_a_public_docstring_stands_without_its_neighbours() -> None:
    leaning = [
        f"{file}:{line}: {text.splitlines()[0]}"
        for file in modules(*PRODUCT)
        for line, text in docstrings_in(ast.parse((ROOT / file).read_text()))
        if text[0].islower() or LEANING_WORDS.match(text)
    ]

    assert not leaning, listed(leaning)
