"""Names are the field's standard nouns and verbs; each public class name has one meaning."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent
PRODUCT = ("harness", "router", "evals", "dashboard", "swapproof")
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
EXEMPT: Final = frozenset(["CaptureSummary.seen", "CapturedRequest.seen"])
# A scorer's source is hashed into the pins of its suites: another name there is another scorer,
# and every proof of a suite with it would be void.
HASHED: Final = Path("evals/scorers")
# A docstring that begins so leans on its neighbours, or has no subject and verb: it is read
# alone, in an editor's tooltip or in a list. "Lists the audit events, newest first." stands;
# "Newest first." does not. Nor does one that begins with a parameter: "route: None for all."
LEANING_WORDS: Final = re.compile(
    r"(?:After|Also|And|As|At|Back|Before|But|By|Empty|False|For|From|In|Into|It|Its|Like|"
    "Newest|None|Not|Now|Of|Oldest|On|Or|Same|Since|Such|Their|They|Those|Unless|"
    r"Until|When|With|Within|Without)\b"
)


# Where a canary's evidence is counted, one caller's window in one rollout is an `exposure`.
# These folders do not call it a unit; other folders have units of systemd, of money, of items.
EXPOSURES: Final = (
    "harness/canary",
    "harness/gate/online",
    "router/observers",
    "router/recording",
)
# Stored names: columns, keys of JSON and configuration, metrics.
STORED_UNITS: Final = frozenset(
    [
        "canary_units",
        "control_units",
        "late_canary_units",
        "late_units",
        "unit_rule",
        "units",
        "units_per_hour",
    ]
)
UNIT: Final = re.compile(r"(?:^|_)units?(?:_|$)")
# No part of a text for people, with the words that take their place. A name in code is no such
# text: `exposure` is a table.
OLD_WORDS: Final = {
    re.compile(r"\bdata keys?\b", re.IGNORECASE): "client key",
    re.compile(
        r"\b(?:taken|takes?|took) (?:(?:a|it|its|the) (?:\w+ )*)?back\b", re.IGNORECASE
    ): "rolled back",
    re.compile(r"\b(?:canary|scored) units?\b", re.IGNORECASE): "caller",
    re.compile(r"(?<![-*`])\bexposures?\b", re.IGNORECASE): "caller",
    re.compile(r"\bdistance to trip\b", re.IGNORECASE): "evidence of harm",
    # "User" stays for the end user whose data is deleted, and for the field `user` of requests.
    re.compile(
        r"\b(?:all|answers|any|disliked by|frequent|harm\w*|helps no|hurt\w*|"
        r"(?:candidate|canary|machine)'s|requests of|serves?(?: no)?|simulated?|"
        r"% of (?:the|your)|copies of) users?\b",
        re.IGNORECASE,
    ): "caller",
    re.compile(
        r"\busers(?:'? (?:are|cannot|come first|dislike|get|need|never|noticed|saw|sent|stay)|"
        r"' requests?)\b|\bwithout users\b",
        re.IGNORECASE,
    ): "caller",
}
INTERFACES: Final = Path("harness/interfaces")
# Words of rows that were stored before, which the product still reads.
STORED_TEXTS: Final = frozenset(["promotion taken back by "])
FIRST_PAGES: Final = ("README.md", "SECURITY.md", "clients/python/README.md")
# Pages for people who check the statistics, and decisions as they were written; and a generated
# list of SQL with the names of tables, whose sentences are in the code.
EXACT_PAGES: Final = (
    "docs/adr",
    "docs/explanation/statistics.md",
    "docs/reference/triggers.md",
)


@cache
def product_modules() -> Sequence[tuple[Path, ast.Module]]:
    """Parses the product once, because to read every file takes seconds."""
    return [
        (file.relative_to(ROOT), ast.parse(file.read_text()))
        for folder in PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
    ]


def names_in(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, what is named, and its name: a field or parameter after what it belongs to."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name, body=body):
                yield node.lineno, "class", name
                for member in body:
                    if isinstance(member, ast.AnnAssign) and isinstance(
                        member.target, ast.Name
                    ):
                        yield (
                            member.lineno,
                            "field",
                            f"{name}.{member.target.id}",
                        )
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


def is_strange(
    file: Path,
    kind: str,
    name: str,
) -> bool:
    if name in EXEMPT or (kind == "field" and HASHED in file.parents):
        return False
    bare = name.rpartition(".")[2].strip("_")
    words = set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).lower().split("_"))
    return bool(
        STRANGE[kind].fullmatch(bare) or (kind in ("function", "class") and words & WORDS)
    )


def listed(lines: list[str]) -> str:
    more = f"\n… and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def test_names_are_standard_and_of_one_meaning_and_public_docstrings_stand_alone() -> None:
    strange = list[str]()
    leaning = list[str]()
    classes = defaultdict(set)
    for file, tree in product_modules():
        for line, kind, name in names_in(tree):
            if is_strange(file, kind, name):
                strange.append(f"{file}:{line}: {name}")
            if kind == "class" and not name.startswith("_"):
                classes[name].add(f"{file}")
        for line, text in docstrings_in(tree):
            if text[0].islower() or LEANING_WORDS.match(text):
                leaning.append(f"{file}:{line}: {text.splitlines()[0]}")
    twice = [f"{name}: {', '.join(place)}" for name, place in classes.items() if len(place) > 1]

    assert not strange, listed(strange)
    assert not twice, listed(twice)
    assert not leaning, listed(leaning)


def is_unit(file: Path, kind: str, name: str) -> bool:
    """Tells whether a name calls an exposure a unit, in a folder that counts exposures."""
    bare = name.rpartition(".")[2]
    if bare in STORED_UNITS or not any(Path(place) in file.parents for place in EXPOSURES):
        return False
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).lower()
    return kind != "loop variable" and UNIT.search(words) is not None


def texts_for_people() -> Iterator[tuple[str, str]]:
    """Yields each sentence of the code and of the pages, with its place.

    Docstrings are texts for people only in the interfaces: those of commands and endpoints are
    their help.
    """
    for file, tree in product_modules():
        are_help = INTERFACES in file.parents
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)) if are_help or id(node) not in docs:
                    if " " in text and text not in STORED_TEXTS:
                        yield f"{file}:{node.lineno}", text
                case _:
                    pass
    for page in [*map(ROOT.joinpath, FIRST_PAGES), *sorted((ROOT / "docs").rglob("*.md"))]:
        name = page.relative_to(ROOT).as_posix()
        if not name.startswith(EXACT_PAGES):
            yield name, page.read_text()


def test_an_exposure_is_no_unit_and_people_read_of_callers_client_keys_and_rollbacks() -> None:
    units = [
        f"{file}:{line}: {name}"
        for file, tree in product_modules()
        for line, kind, name in names_in(tree)
        if is_unit(file, kind, name)
    ]
    old = [
        f"{place}: {found[0]!r}: say {new}"
        for place, text in texts_for_people()
        for pattern, new in OLD_WORDS.items()
        if (found := pattern.search(text))
    ]

    assert not units, listed(units)
    assert not old, listed(old)
