"""Names are the field's standard nouns and verbs; each public class name has one meaning."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent
PRODUCT = ("harness", "router", "evals", "dashboard", "swapgate")
FOLDERS = (*PRODUCT, "tests", "benchmarks")
# The last word of some tests' names.
TEST_SORTS = frozenset(["calibration", "docs", "figures", "laws"])
SHOWN = 12

# Modules, classes, functions and methods that once had these names have others now: a reader
# who knows gateways, rollouts and databases could not guess what they meant. Old names that are
# not in the list are the field's own nouns in another meaning: a drift `watch`, the `kinds` of
# providers, the `content` of a report, the `faults` that a simulator injects.
MODULES: Final = re.compile(
    "acting|again|around|asked|blocks|bookkeeper|books|budgets|calling|canary_actions|"
    "canary_hands|capture_desk|cards|case|cases|cell|chain|chance|changes|clearance|course|"
    "crew|draft|drift_by_hand|efforts|endings|evaluating|examinee|exchange|families|floors|"
    "foreign|form|forms|haste|hints|holding|http_call|json_fit|jsonspan|judge_money|kept|"
    "likeness|listening|local_aborts|looks|made_up|minutes|misbehaviour|moments|near|"
    "notices|numerals|objections|opinions|outcomes|outlook|overriding|pace|passed_up|peel|"
    "personal|places|postgres_ear|present|provider_door|provider_place|ready|recent|"
    "refusal_words|rehearse|relay|resolving|said|scratch|sealing|seen|serving|shape|"
    "shipped|sound|sparse|spellings|spends|standing|states|stories|streams|unlock|"
    "whole_calls|wire|wishes|words|work"
)
CLASSES: Final = re.compile(
    "Asked|Because|Course|Crew|Drawn|Ear|Heard|Job|Judged|LeftOut|Line|News|Orders|Room|"
    "Seen|Surroundings|Told|Try|Wish"
)
FUNCTIONS: Final = re.compile(
    "again|apart|around|asked|asleep|because|by_hand|charged|each|found|guest|heard|held|"
    "here|lacking|look|moved|of|own|said|seen|stuck|tell|those|told|told_s|trial|turn|"
    "wishes|words"
)
# An alert is raised and resolved; only what begins, as a span or a stream does, is ended.
ALERT_FUNCTIONS = frozenset(["end", "tell"])
# These give words of a text in the plain sense, and count or list them. What a scorer's source
# says is part of every proof, so its names are not changed without need.
EXEMPT_FUNCTIONS = frozenset(
    [
        ("benchmarks/faults/client.py", "words"),
        ("evals/scorers/unwrap.py", "words"),
    ]
)
# Neither a field nor a parameter. A local variable may have such a name where it is plain
# English: `seen`, in a loop that looks for duplicates.
FIELDS = frozenset(["asked", "haste", "said", "seen", "told", "wish", "wishes"])
# Users see these names: in the API's answers, in the command line's JSON, in the database.
EXEMPT_FIELDS = frozenset(
    [
        ("harness/control/privacy/captures.py", "CaptureSummary.seen"),
        ("harness/domain/privacy/capture.py", "CapturedRequest.seen"),
        ("harness/control/providers/model_lookup.py", "ModelMatch.asked"),
    ]
)
# A scorer's source is hashed into the pins of its suites: another name there is another scorer,
# and every proof of a suite with it would be void.
HASHED = Path("evals/scorers")
# They name nothing: a loop runs over targets, and its variable is a target.
LOOP_VARIABLES = frozenset(["asked", "each", "found", "said", "seen", "those", "told", "wish"])
# No part of any name, public or private.
WORDS = frozenset(["haste", "heard", "said", "told", "wish", "wishes"])
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
    """Every file of the folders, relative to the root; the product's where none is named."""
    return tuple(
        file.relative_to(ROOT)
        for folder in folders or PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
    )


# What gives something a name: the rest of a tree, most of it, is walked once.
NAMING = (
    *(ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda),
    *(ast.For, ast.AsyncFor, ast.comprehension),
)


@dataclass(frozen=True, slots=True)
class FileNames:
    """What a file names. A line comes before each name; the trees of all files together would
    be a burden to every test after these.
    """

    definitions: tuple[tuple[int, str, bool], ...]
    """(line, name, whether it is a class) of every class, function and method, nested ones as
    well. Tests are left out: their names are sentences.
    """

    fields: tuple[tuple[int, str], ...]
    """`Class.field` or `function.parameter` of all that a caller may have to name."""

    bound_by_loops: tuple[tuple[int, str], ...]
    """The variables of loops and comprehensions, and the parameters of lambdas."""

    public_classes: tuple[str, ...]

    public_docstrings: tuple[tuple[int, str], ...]
    """Of the module, and of its public classes, functions and methods."""


@cache
def names_in(file: Path) -> FileNames:
    tree = ast.parse((ROOT / file).read_text())
    nodes = naming_nodes(tree)
    return FileNames(
        definitions=tuple(definitions(nodes, is_test=file.name.startswith("test_"))),
        fields=tuple(fields(nodes)),
        bound_by_loops=tuple(bound_by_loops(nodes)),
        public_classes=tuple(
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ),
        public_docstrings=tuple(docstrings_in(tree)),
    )


def naming_nodes(tree: ast.Module) -> list[ast.AST]:
    """All nodes that give something a name."""
    found: list[ast.AST] = []
    waiting: list[object] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, ast.AST):
            if isinstance(node, NAMING):
                found.append(node)
            waiting += vars(node).values()
    return found


def definitions(nodes: list[ast.AST], *, is_test: bool) -> Iterator[tuple[int, str, bool]]:
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not (
            is_test and node.name.startswith("test_")
        ):
            yield node.lineno, node.name, isinstance(node, ast.ClassDef)


def fields(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        match node:
            case ast.ClassDef():
                for member in node.body:
                    if isinstance(member, ast.AnnAssign) and isinstance(
                        member.target, ast.Name
                    ):
                        yield member.lineno, f"{node.name}.{member.target.id}"
            case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
                given = [*args.posonlyargs, *args.args, *args.kwonlyargs]
                given += [arg for arg in (args.vararg, args.kwarg) if arg is not None]
                yield from ((arg.lineno, f"{node.name}.{arg.arg}") for arg in given)
            case _:
                pass


def bound_by_loops(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        match node:
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                bound = ast.walk(node.target)
                yield from ((n.lineno, n.id) for n in bound if isinstance(n, ast.Name))
            case ast.Lambda():
                yield from ((arg.lineno, arg.arg) for arg in node.args.args)
            case _:
                pass


def docstrings_in(node: ast.AST) -> Iterator[tuple[int, str]]:
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


@cache
def areas() -> frozenset[str]:
    """The folders of the product: a test's name may begin with the one that it tests."""
    return frozenset(part for file in modules() for part in file.parent.parts)


def stems(file: Path) -> set[str]:
    """What a module's name is, without what says whose test it is, and of which sort."""
    first, *rest = words = file.stem.removeprefix("test_").split("_")
    if rest and first in areas():
        words = rest
    if words[-1] in TEST_SORTS:
        words = words[:-1]
    return {file.stem, "_".join(words)}


def is_strange_function(file: Path, name: str) -> bool:
    if (file.as_posix(), name) in EXEMPT_FUNCTIONS:
        return False
    about_alerts = words_of(file.stem) & {"alert", "alerts"}
    bare = name.strip("_")
    return bool(FUNCTIONS.fullmatch(bare) or (about_alerts and bare in ALERT_FUNCTIONS))


def words_of(name: str) -> set[str]:
    """The words of a name in either spelling: `HeardReply` has `heard` and `reply`."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_"))


def listed(lines: list[str]) -> str:
    more = f"\n… and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def test_no_module_has_a_name_that_only_its_author_understands() -> None:
    strange = [
        f"{file}" for file in modules(*FOLDERS) if any(map(MODULES.fullmatch, stems(file)))
    ]

    assert not strange, listed(strange)


def test_no_class_has_a_name_that_only_its_author_understands() -> None:
    strange = [
        f"{file}:{line}: {name}"
        for file in modules(*FOLDERS)
        for line, name, is_class in names_in(file).definitions
        if is_class and (CLASSES.fullmatch(name.strip("_")) or words_of(name) & WORDS)
    ]

    assert not strange, listed(strange)


def test_no_function_or_method_has_a_name_that_only_its_author_understands() -> None:
    strange = [
        f"{file}:{line}: {name}"
        for file in modules(*FOLDERS)
        for line, name, is_class in names_in(file).definitions
        if not is_class and (is_strange_function(file, name) or words_of(name) & WORDS)
    ]

    assert not strange, listed(strange)


def test_no_field_or_parameter_has_a_name_that_only_its_author_understands() -> None:
    strange = [
        f"{file}:{line}: {name}"
        for file in modules()
        if HASHED not in file.parents
        for line, name in names_in(file).fields
        if name.rpartition(".")[2].strip("_") in FIELDS
        or words_of(name.rpartition(".")[2]) & {"told", "wish", "wishes"}
        if (file.as_posix(), name) not in EXEMPT_FIELDS
    ]

    assert not strange, listed(strange)


def test_every_exemption_is_still_needed() -> None:
    functions = {
        (file.as_posix(), name)
        for file in modules(*FOLDERS)
        for _, name, is_class in names_in(file).definitions
        if not is_class
    }
    named = {(file.as_posix(), name) for file in modules() for _, name in names_in(file).fields}

    assert functions >= EXEMPT_FUNCTIONS
    assert named >= EXEMPT_FIELDS


def test_a_loop_variable_names_what_it_runs_over() -> None:
    strange = [
        f"{file}:{line}: {name}"
        for file in modules(*FOLDERS)
        for line, name in names_in(file).bound_by_loops
        if name in LOOP_VARIABLES
    ]

    assert not strange, listed(strange)


def test_a_public_class_name_has_one_meaning_in_the_product() -> None:
    places = defaultdict(list)
    for file in modules():
        for name in names_in(file).public_classes:
            places[name].append(f"{file}")
    twice = [f"{name}: {', '.join(place)}" for name, place in places.items() if len(place) > 1]

    assert not twice, listed(twice)


def test_a_public_docstring_stands_without_its_neighbours() -> None:
    leaning = [
        f"{file}:{line}: {text.splitlines()[0]}"
        for file in modules()
        for line, text in names_in(file).public_docstrings
        if text[0].islower() or LEANING_WORDS.match(text)
    ]

    assert not leaning, listed(leaning)
