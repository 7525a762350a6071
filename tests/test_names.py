"""Names are the field's standard nouns and verbs; each public class name has one meaning."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("harness", "router", "evals", "dashboard", "swapgate")
SHOWN = 12

# Modules, classes, functions and methods that once had these names have others now: a reader
# who knows gateways, rollouts and databases could not guess what they meant.
MODULES = frozenset(
    [
        "again",
        "around",
        "asked",
        "bookkeeper",
        "books",
        "calling",
        "cards",
        "case",
        "cases",
        "chance",
        "content_",
        "course",
        "crew",
        "endings",
        "evaluating",
        "examinee",
        "exchange",
        "families",
        "foreign",
        "haste",
        "hints",
        "holding",
        "kept",
        "likeness",
        "listening",
        "looks",
        "made_up",
        "minutes",
        "misbehaviour",
        "moments",
        "near",
        "notices",
        "numerals",
        "objections",
        "opinions",
        "outcomes",
        "outlook",
        "overriding",
        "pace",
        "passed_up",
        "peel",
        "personal",
        "present",
        "provider_door",
        "provider_place",
        "ready",
        "recent",
        "refusal_words",
        "rehearse",
        "resolving",
        "said",
        "scratch",
        "sealing",
        "seen",
        "serving",
        "shape",
        "shipped",
        "sound",
        "sparse",
        "spellings",
        "spends",
        "standing",
        "stories",
        "streams",
        "unlock",
        "whole_calls",
        "wishes",
        "words",
        "work",
    ]
)
CLASSES = frozenset(
    [
        "Asked",
        "Because",
        "Course",
        "Crew",
        "Drawn",
        "Ear",
        "Heard",
        "Judged",
        "LeftOut",
        "News",
        "Orders",
        "Room",
        "Seen",
        "Surroundings",
        "Told",
        "Try",
        "Wish",
    ]
)
FUNCTIONS = frozenset(
    [
        "again",
        "apart",
        "around",
        "asked",
        "asleep",
        "because",
        "by_hand",
        "charged",
        "each",
        "found",
        "guest",
        "held",
        "heard",
        "here",
        "lacking",
        "look",
        "moved",
        "of",
        "own",
        "said",
        "seen",
        "stuck",
        "tell",
        "those",
        "told",
        "told_s",
        "trial",
        "wishes",
    ]
)
# They name nothing: a loop runs over targets, and its variable is a target.
LOOP_VARIABLES = frozenset(["asked", "each", "found", "said", "seen", "those", "told", "wish"])
# No part of any name, public or private.
WORDS = frozenset(["haste", "heard", "said", "told", "wish", "wishes"])
# A docstring that begins so leans on its neighbours, or has no subject and verb: it is read
# alone, in an editor's tooltip or in a list. "Lists the audit events, newest first." stands;
# "Newest first." does not. Nor does one that begins with a parameter: "route: None for all."
LEANING_WORDS = frozenset(
    [
        "After",
        "Also",
        "And",
        "As",
        "At",
        "Back",
        "Before",
        "But",
        "By",
        "Empty",
        "False",
        "For",
        "From",
        "In",
        "Into",
        "It",
        "Its",
        "Like",
        "Newest",
        "None",
        "Not",
        "Now",
        "Of",
        "Oldest",
        "On",
        "Or",
        "Raises",
        "Same",
        "Since",
        "Such",
        "Their",
        "They",
        "Those",
        "Unless",
        "Until",
        "When",
        "With",
        "Within",
        "Without",
    ]
)


@cache
def modules() -> tuple[Path, ...]:
    """Every product file, relative to the root."""
    return tuple(
        file.relative_to(ROOT)
        for folder in PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
    )


@cache
def definitions(file: Path) -> tuple[tuple[int, str, bool], ...]:
    """(line, name, whether it is a class) of what stands at the top of the file, and of the
    methods of all its classes: a method is called where its class is not in sight.
    """
    return tuple(_definitions(ast.parse((ROOT / file).read_text())))


def _definitions(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.lineno, node.name, True
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name, False
    for class_ in ast.walk(tree):
        if isinstance(class_, ast.ClassDef):
            for member in class_.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield member.lineno, member.name, False


def public_docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """(line, docstring) of the module, and of its public classes, functions and methods."""
    return _docstrings_in(ast.parse((ROOT / file).read_text()))


def _docstrings_in(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            if text := ast.get_docstring(node):
                yield node.body[0].lineno, text
        case _:
            return
    if isinstance(node, ast.Module | ast.ClassDef):
        for member in node.body:
            if not getattr(member, "name", "_").startswith("_"):
                yield from _docstrings_in(member)


def words_of(name: str) -> set[str]:
    """The words of a name in either spelling: `HeardReply` has `heard` and `reply`."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_"))


def listed(lines: list[str]) -> str:
    more = f"\n… and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def test_no_module_has_a_name_that_only_its_author_understands() -> None:
    strange = [f"{file}" for file in modules() if file.stem in MODULES]

    assert not strange, listed(strange)


@pytest.mark.parametrize(("is_class", "banned"), [(True, CLASSES), (False, FUNCTIONS)])
def test_no_class_function_or_method_has_a_name_that_only_its_author_understands(
    is_class: bool,  # noqa: FBT001 - pytest's
    banned: frozenset[str],
) -> None:
    strange = [
        f"{file}:{line}: {name}"
        for file in modules()
        for line, name, of_class in definitions(file)
        if of_class == is_class and (name.strip("_") in banned or words_of(name) & WORDS)
    ]

    assert not strange, listed(strange)


def bound_by_loops(tree: ast.AST) -> Iterator[ast.Name | ast.arg]:
    """The variables of loops and comprehensions, and the parameters of lambdas."""
    for node in ast.walk(tree):
        match node:
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                yield from (n for n in ast.walk(node.target) if isinstance(n, ast.Name))
            case ast.Lambda():
                yield from node.args.args
            case _:
                pass


def test_a_loop_variable_names_what_it_runs_over() -> None:
    strange = [
        f"{file}:{variable.lineno}: {name}"
        for file in modules()
        for variable in bound_by_loops(ast.parse((ROOT / file).read_text()))
        if (name := variable.arg if isinstance(variable, ast.arg) else variable.id)
        in LOOP_VARIABLES
    ]

    assert not strange, listed(strange)


def test_a_public_class_name_has_one_meaning_in_the_product() -> None:
    places = defaultdict(list)
    for file in modules():
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{file}")
    twice = [f"{name}: {', '.join(place)}" for name, place in places.items() if len(place) > 1]

    assert not twice, listed(twice)


def test_a_public_docstring_stands_without_its_neighbours() -> None:
    leaning = [
        f"{file}:{line}: {text.splitlines()[0]}"
        for file in modules()
        for line, text in public_docstrings(file)
        if text[0].islower() or re.split(r"\W", text, maxsplit=1)[0] in LEANING_WORDS
    ]

    assert not leaning, listed(leaning)
