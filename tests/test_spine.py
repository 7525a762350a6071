"""The spine: the stories that `make test` runs, at least one for each capability.

`tests/spine.yaml` lists them. `make verify` replaces the main function of each story's
capability by a constant, and the story must fail.
"""

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest
import yaml

from tests.support.site.replaced_function import (
    FAILED,
    copy_checkout,
    replaced,
    return_constant,
    run_stories,
)

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "tests/requirements.yaml"
SHARED = Path(os.environ.get("SWAPPROOF_SHARED", ROOT.parent / "shared"))


@dataclass(frozen=True, slots=True, order=True)
class Proof:
    """function: as in `module:Class.function`, the main one of the capability."""

    function: str
    constant: str
    capability: str
    story: str


def proofs() -> list[Proof]:
    listed = yaml.safe_load((ROOT / "tests/spine.yaml").read_text(encoding="utf-8"))
    return sorted(
        Proof(row["function"], str(row["constant"]), capability, row["story"])
        for capability, rows in listed.items()
        for row in rows
    )


def capabilities() -> set[str]:
    sections = yaml.safe_load(REQUIREMENTS.read_text(encoding="utf-8"))
    return {id_ for sentences in sections.values() for id_ in sentences}


def marked_stories() -> Iterator[str]:
    """The tests with the marker, on themselves or on one of their parameters."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.spine" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                isinstance(part, ast.Attribute) and part.attr == "spine"
                for decorator in node.decorator_list
                for part in ast.walk(decorator)
            ):
                yield f"{file.relative_to(ROOT).as_posix()}::{node.name}"


def test_each_capability_has_one_sentence() -> None:
    sections = yaml.safe_load(REQUIREMENTS.read_text(encoding="utf-8"))

    assert sum(map(len, sections.values())) == len(capabilities())


def test_each_capability_has_a_story() -> None:
    assert capabilities() - {proof.capability for proof in proofs()} == set()


def test_each_listed_story_is_marked_and_each_marked_story_is_listed() -> None:
    assert {proof.story for proof in proofs()} == set(marked_stories())


def test_the_products_page_has_no_capability_that_the_requirements_lack() -> None:
    page = SHARED / "product.md"
    if not page.exists():
        pytest.skip(f"{page} is not here; SWAPPROOF_SHARED says where it is")
    required = re.findall(r"^- ([A-H]\d+) ", page.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(required) - capabilities() == set()


def test_a_replaced_function_keeps_its_signature_and_returns_the_constant() -> None:
    source = "class Gate:\n    async def admit(self, at: float = 1.0) -> bool: return at > 2"

    changed = return_constant(source, "Gate.admit", "None")

    assert "async def admit(self, at: float=1.0) -> bool:\n        return None" in changed


@pytest.mark.parametrize("name", ["missing", "Gate.missing", "Gate"])
def test_a_function_that_is_gone_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        return_constant("class Gate:\n    pass", name, "None")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("spine"))


CONSTANTS = [
    pytest.param(list(rows), id=f"{function}={constant}")
    for (function, constant), rows in groupby(proofs(), lambda p: (p.function, p.constant))
]


@pytest.mark.verify
@pytest.mark.parametrize("rows", CONSTANTS)
def test_no_story_passes_when_its_main_function_returns_a_constant(
    rows: list[Proof], checkout: Path
) -> None:
    stories = sorted({row.story for row in rows})

    with replaced(checkout, rows[0].function, rows[0].constant):
        ended = run_stories(checkout, stories)

    failed = {
        name.split("[")[0]
        for name in re.findall(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)
    }
    assert ended.returncode == FAILED, ended.stdout[-4_000:]
    assert failed >= set(stories), ended.stdout[-4_000:]
