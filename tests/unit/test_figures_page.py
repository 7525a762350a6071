"""The page of figures says what each run found, and which has not happened."""

import gc
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from benchmarks.figures import record
from benchmarks.figures.mutants import Mutant, apply_mutant, mutants
from benchmarks.figures.mutation import NOT_APPLIED, NOT_RUN, exit_code, is_noticed
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
        ("85 %", {"count": 21, "failures": 1, "whole": True}, True),
        ("85 %", {"count": 21, "failures": 1, "whole": False}, False),
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
def changeable(tmp_path: Path) -> Iterator[ModuleType]:
    file = tmp_path / "changeable.py"
    file.write_text(SOURCE, "utf-8")
    module = ModuleType("changeable")
    module.__file__ = str(file)
    exec(compile(SOURCE, str(file), "exec"), module.__dict__)  # noqa: S102 - the text above
    yield module
    gc.freeze()  # what a change took back


def test_a_mutant_changes_the_function_wherever_it_is_known(changeable: ModuleType) -> None:
    rises = changeable.rises
    file = Path(str(changeable.__file__))
    by_change = {mutant.change: mutant for mutant in mutants(file)}
    assert set(by_change) == {"Gt -> GtE", "returns None", "and -> or", "True -> False"}

    assert not rises(1, 1)
    assert apply_mutant(by_change["Gt -> GtE"])
    assert rises(1, 1)


def test_a_mutant_changes_a_function_that_the_collector_of_garbage_passes_over(
    changeable: ModuleType,
) -> None:
    [mutant] = [m for m in mutants(Path(str(changeable.__file__))) if m.change == "Gt -> GtE"]

    gc.freeze()  # as the conftest does once the tests are collected
    assert apply_mutant(mutant)
    assert changeable.rises(1, 1)


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


@pytest.mark.parametrize(
    ("code", "noticed"),
    [
        (pytest.ExitCode.TESTS_FAILED, True),
        (-signal.SIGALRM, True),
        (-signal.SIGSEGV, True),
        (pytest.ExitCode.OK, False),
        (pytest.ExitCode.USAGE_ERROR, False),
        (pytest.ExitCode.NO_TESTS_COLLECTED, False),
        (pytest.ExitCode.INTERNAL_ERROR, False),
        (NOT_APPLIED, False),
    ],
)
def test_only_a_failed_test_a_crash_or_an_endless_one_notices_a_mutant(
    code: int, *, noticed: bool
) -> None:
    assert is_noticed(code) is noticed


def test_the_tracer_of_lines_is_a_plugin_for_tests_of_several_folders(tmp_path: Path) -> None:
    """There pytest keeps the plugins in sets, which takes what has a hash."""
    changed = tmp_path / "product_line.py"
    changed.write_text("def double(n):\n    return n + n\n", "utf-8")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "conftest.py").write_text(
            "def pytest_runtest_logreport(report): pass\n", "utf-8"
        )
        test = (
            "from product_line import double\n\n\ndef test_it():\n    assert double(2) == 4\n"
        )
        (tmp_path / folder / f"test_{folder}.py").write_text(test, "utf-8")
    program = (
        "import sys\nfrom pathlib import Path\nimport pytest\n"
        "from benchmarks.figures.covering_tests import LineTracer\n"
        "from benchmarks.figures.mutants import mutants\n"
        "folder, file = Path(sys.argv[1]), Path(sys.argv[1], 'product_line.py')\n"
        "sys.path.insert(0, str(folder))\n"
        "tracer = LineTracer([file])\n"
        "names = [str(folder / 'first'), str(folder / 'second')]\n"
        "options = ['-q', '-p', 'no:cacheprovider', '--import-mode=importlib']\n"
        "options += ['--rootdir', str(folder)]\n"
        "assert pytest.main([*options, *names], plugins=[tracer]) == 0\n"
        "print('selected', *tracer.collect().select(mutants(file)[0]))\n"
    )
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=FIGURES.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    selected = ran.stdout.splitlines()[-1].split()
    assert sorted(selected[1:]) == [
        "first/test_first.py::test_it",
        "second/test_second.py::test_it",
    ]


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
