"""The mutants of `benchmarks/mutants`: one place changed, the same ones each time."""

import ast
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from benchmarks.mutants.covering_tests import CoveringTests
from benchmarks.mutants.drawing import FOLDERS, draw, places
from benchmarks.mutants.schemata import SWITCH, Switch, instrument

RULE = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Limit:
    most: int = 3

def is_over(count: int, limit: Limit, *, strict: bool = False) -> bool:
    """Compares."""
    text = f"{count > 1}"
    return (count >= limit.most and strict) or count is None
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        file = tmp_path / "harness" / folder / "rule.py"
        file.parent.mkdir(parents=True)
        file.write_text(RULE, encoding="utf-8")
    return tmp_path


def test_comparisons_joins_numbers_and_truth_values_change_and_pythons_own_words_do_not(
    checkout: Path,
) -> None:
    found = {(m.scope, m.before, m.after) for m in places(checkout, "gate")}

    assert found == {
        ("Limit", "3", "4"),
        ("is_over", "False", "True"),
        ("is_over", ">=", ">"),
        ("is_over", "and", "or"),
        ("is_over", "or", "and"),
        ("is_over", "is", "is not"),
    }


def test_each_mutant_is_another_program(checkout: Path) -> None:
    whole = ast.dump(ast.parse(RULE))

    for mutant in places(checkout, "canary"):
        changed = mutant.applied(RULE.encode()).decode()
        assert ast.dump(ast.parse(changed)) != whole


def test_a_program_with_all_mutants_behaves_as_the_one_that_is_on(checkout: Path) -> None:
    mutants = dict(enumerate(places(checkout, "routing")))
    program = compile(instrument(RULE.encode(), mutants, "rule.py"), "rule.py", "exec")
    for number, mutant in (None, None), *mutants.items():
        switch = Switch()
        switch.active = number
        changed = RULE.encode() if mutant is None else mutant.applied(RULE.encode())

        assert _outcomes(program, {SWITCH: switch}) == _outcomes(changed, {})
        assert switch.executed == set(mutants) or number in switch.executed
        assert switch.files == {"rule.py"}


def _outcomes(program: CodeType | bytes, names: dict[str, object]) -> list[object]:
    exec(program, names)  # noqa: S102 - the program above
    is_over: Any = names["is_over"]
    limit: Any = names["Limit"]
    return [is_over(count, limit()) for count in (2, 3, 4)] + [is_over(4, limit(), strict=True)]


def test_a_seed_draws_the_same_mutants_in_turns_of_the_folders(checkout: Path) -> None:
    drawn = draw(checkout, 16, seed=1)

    assert drawn == draw(checkout, 16, seed=1)
    assert drawn != draw(checkout, 16, seed=2)
    assert [mutant.folder for mutant in drawn] == [*FOLDERS] * 4


def test_the_tests_closest_to_a_mutant_come_first(checkout: Path) -> None:
    unit = checkout / "tests" / "unit"
    unit.mkdir(parents=True)
    (unit / "test_a.py").write_text("from tests.support.b import far\n", encoding="utf-8")
    (unit / "test_c.py").write_text("import harness.gate.rule\n", encoding="utf-8")
    (unit / "test_d.py").write_text("from harness.gate import rule\nrule.is_over\nrule.Limit\n")
    (unit / "test_e.py").write_text("import json\n", encoding="utf-8")
    support = checkout / "tests" / "support"
    support.mkdir()
    (support / "b.py").write_text("from harness.gate.rule import Limit\n", encoding="utf-8")

    mutant = next(iter(places(checkout, "gate")))
    names = [file.name for file in CoveringTests(checkout).of(mutant, 10)]

    assert names == ["test_d.py", "test_c.py", "test_a.py"]
