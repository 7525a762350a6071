"""The page of figures says what each run found, and which has not happened."""

import json
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from benchmarks.figures import record
from benchmarks.figures.mutants import Mutant, apply_mutant, mutants
from benchmarks.figures.mutation import NOT_RUN, exit_code
from harness.cli.operations.docs import FIGURES
from harness.cli.reference.figures_reference import figures_page, is_reached
from harness.domain.errors import InputError

GOALS = yaml.safe_load((FIGURES / "figures.yaml").read_text("utf-8"))
KILLS: dict[str, Any] = GOALS["kills"]
MUTANT = Mutant(Path("module.py"), 0, 1, "Lt -> LtE")
RESULT = {
    "count": 1000,
    "failures": 0,
    "detail": "200 of each kind.",
    "seconds": 750,
    "date": "2026-11-22",
    "commit": "abc1234",
    "machine": "2 cores",
}


def page_with(folder: Path, **results: object) -> str:
    (folder / "results").mkdir()
    (folder / "figures.yaml").write_text(yaml.safe_dump({"kills": KILLS}), "utf-8")
    for name, result in results.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(result), "utf-8")
    return figures_page(folder)


def test_a_row_whose_run_has_not_happened_says_so(tmp_path: Path) -> None:
    text = page_with(tmp_path)

    assert "| not run yet |  | no |  |  |" in text


def test_a_row_says_when_and_where_its_run_happened(tmp_path: Path) -> None:
    text = page_with(tmp_path, kills=RESULT)

    assert "| 1,000 kills | 0 lost, torn or doubled | yes | 12 min |" in text
    assert "| 2026-11-22, `abc1234`, 2 cores |" in text
    assert "200 of each kind." in text


def test_a_result_without_a_goal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"figures.yaml lacks other"):
        page_with(tmp_path, other=RESULT)


@pytest.mark.parametrize(
    ("goal", "result", "reached"),
    [
        (1000, {"count": 1000, "failures": 0}, True),
        (1000, {"count": 999, "failures": 0}, False),
        (1000, {"count": 1000, "failures": 1}, False),
        ("85 %", {"count": 100, "failures": 15}, True),
        ("85 %", {"count": 100, "failures": 16}, False),
        ("85 %", {"count": 0, "failures": 0}, False),
        ("10 min", {"count": 9, "failures": 0, "seconds": 600}, True),
        ("10 min", {"count": 9, "failures": 0, "seconds": 500}, False),
        ("10 min", {"count": 9, "failures": 1, "seconds": 600}, False),
    ],
)
def test_a_goal_is_reached_by_a_whole_run_without_failures_alone(
    goal: object, result: dict[str, Any], *, reached: bool
) -> None:
    assert is_reached({**KILLS, "goal": goal}, result) is reached


@pytest.mark.parametrize("figure", GOALS)
def test_each_figure_has_a_command_that_is_there(figure: str) -> None:
    python, option, module, *_ = GOALS[figure]["command"].split()

    assert (python, option) == ("python", "-m")
    assert (FIGURES.parents[1] / Path(*module.split("."))).with_suffix(".py").exists()


SOURCE = '''
def rises(old, new):
    """Whether it does."""
    return new > old

class Door:
    @property
    def opens(self):
        return not (self.locked and True)
'''


@pytest.fixture
def changeable(tmp_path: Path) -> ModuleType:
    file = tmp_path / "changeable.py"
    file.write_text(SOURCE, "utf-8")
    module = ModuleType("changeable")
    module.__file__ = str(file)
    exec(compile(SOURCE, str(file), "exec"), module.__dict__)  # noqa: S102 - the text above
    return module


def test_a_mutant_changes_the_function_wherever_it_is_known(changeable: ModuleType) -> None:
    rises = changeable.rises
    file = Path(str(changeable.__file__))
    by_change = {mutant.change: mutant for mutant in mutants(file)}
    assert set(by_change) == {"Gt -> GtE", "returns None", "and -> or", "True -> False"}

    assert not rises(1, 1)
    assert apply_mutant(by_change["Gt -> GtE"])
    assert rises(1, 1)


def test_a_mutant_changes_a_property(changeable: ModuleType) -> None:
    door = changeable.Door()
    door.locked = False
    [mutant] = [m for m in mutants(Path(str(changeable.__file__))) if m.change == "and -> or"]

    assert door.opens
    assert apply_mutant(mutant)
    assert not door.opens


def test_tests_that_were_killed_from_outside_noticed_no_mutant() -> None:
    assert exit_code(1 << 8, MUTANT) == 1
    assert exit_code(signal.SIGALRM, MUTANT) == -signal.SIGALRM
    with pytest.raises(RuntimeError, match="did not run to their end"):
        exit_code(signal.SIGKILL, MUTANT)
    with pytest.raises(RuntimeError, match="did not run to their end"):
        exit_code(NOT_RUN << 8, MUTANT)


def test_a_run_that_is_interrupted_writes_no_row_and_a_whole_one_says_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)

    def interrupted() -> record.RunResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record.record_run("kills", interrupted)
    assert not list(tmp_path.iterdir())

    assert record.record_run("kills", lambda: record.RunResult(1, 0)) == 0
    written = json.loads((tmp_path / "kills.json").read_text("utf-8"))
    assert written["machine"].endswith(" before")
    assert "load" in written["machine"]
    assert written["commit"]


def test_a_further_run_adds_to_the_stored_one_and_takes_no_failure_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    runs = [record.RunResult(500, 1, "One half."), record.RunResult(501, 0, "The other.")]
    for commit, run in zip(("aaa", "bbb"), runs, strict=True):
        record.write_result("kills", run, seconds=60, commit=commit, load=0, more=True)
    record.write_result("kills", runs[1], seconds=60, commit="bbb", load=0, more=True)

    written = json.loads((tmp_path / "kills.json").read_text("utf-8"))

    assert (written["count"], written["failures"], written["seconds"]) == (1502, 1, 180)
    assert written["commit"] == "aaa and bbb"
    assert written["detail"] == ("One half. And 501 more: The other. And 501 more: The other.")
