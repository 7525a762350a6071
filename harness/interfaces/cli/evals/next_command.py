"""The last lines of `swapproof try` on files: the next step, and its command.

The command has the user's own file names, and runs in the folder in which the user ran `try`.
It leads to a suite, to an installation that observes, or to CI.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from harness.evals.file_gate.terms import FileTerms
from harness.evals.run_statement import Acceptance, Direction
from harness.frame.errors import InputError
from harness.frame.text_files import csv_rows, read_text

_OBSERVE: Final = (
    "swapproof init --guided && SWAPPROOF__CONTROL__OBSERVE_ONLY=true swapproof serve all"
)
_SMALL_PROGRAM: Final = "swapproof-try"  # runs `try` without the word
_STEPS: Final[Mapping[str, str]] = {
    "suite": (
        "this report promotes nothing. Make a suite of these questions: Swapproof then "
        "measures both models itself, and gives the candidate 1 % of your callers first"
    ),
    "observe": (
        "this report promotes nothing. Set up Swapproof beside your traffic: with this setting "
        "it measures both models, and holds every swap"
    ),
    "failed": (
        "keep the incumbent, or try another candidate or prompt on the same questions. In CI, "
        "this command fails until a candidate passes"
    ),
    "inconclusive": (
        "add questions, run both models over all of them in your tool, and repeat the command. "
        "Each further --look at results that grew gets less alpha; with --n-max, planned "
        "before the first look, repeats cost nothing"
    ),
    # It gives no advice to look for a gain.
    "loss": (
        "keep the incumbent, or try another candidate or prompt. If you add questions, run "
        "both models over all of them, and repeat the command with the next --look"
    ),
    "running": (
        "run both models over more of the planned questions, and repeat the command with the "
        "new files and the same --n-max: repeats cost nothing"
    ),
    "not_measured": "measure the items without a score again, and repeat the command",
}
_PROMPTFOO_CONFIGS: Final = ("promptfooconfig.yaml", "promptfooconfig.yml")
# Results whose rows have the question and the right answer, which `suite import` needs.
_WITH_ANSWERS: Final = frozenset({"braintrust", "langsmith"})
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Trial:
    """What the user gave `try`, for a command that repeats it."""

    files: tuple[str, ...]
    format: str
    incumbent: str  # the chosen runs and metric; empty without a choice
    candidate: str
    metric: str
    acceptance: Acceptance
    terms: FileTerms


@dataclass(frozen=True, slots=True)
class NextStep:
    sentence: str
    command: str


def find_next_step(trial: Trial, verdict: str, *, is_loss: bool) -> NextStep:
    """Chooses the next step by the verdict.

    Args:
        is_loss: the data point to a worse candidate.
    """
    look = trial.terms.look
    match verdict:
        case "passed":
            need = "; this command needs the package swapproof" if is_small_program() else ""
            if source := _find_suite_source(trial):
                return NextStep(f"{_STEPS['suite']}{need}", _import_command(source, trial))
            return NextStep(f"{_STEPS['observe']}{need}", _OBSERVE)
        case "inconclusive":
            step = _STEPS["loss" if is_loss else "inconclusive"]
            return NextStep(step, shlex.join(_repeat(trial, look + 1)))
        case _:
            return NextStep(_STEPS[verdict], shlex.join(_repeat(trial, look)))


def name_command() -> list[str]:
    """Returns the words that run `try` in the running program."""
    return [_SMALL_PROGRAM] if is_small_program() else ["swapproof", "try"]


def is_small_program() -> bool:
    """Tells whether the running program is `swapproof-try`."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and ctx.find_root().info_name == _SMALL_PROGRAM


def name_suite(file: Path) -> str:
    """Returns the name of a suite that a file becomes."""
    return _NO_NAME.sub("-", file.stem.lower()).strip("-") or "questions"


def _repeat(trial: Trial, look: int) -> list[str]:
    """Returns the words of the same command, for this look."""
    terms = trial.terms
    is_superior = terms.claim == "superior"
    words = [*name_command(), *trial.files]
    values = {
        "--incumbent": trial.incumbent,
        "--candidate": trial.candidate,
        "--metric": trial.metric,
        "--asked-differently": trial.acceptance.asked_differently,
        "--partial": trial.acceptance.partial,
        "--claim": "" if is_superior else terms.claim,
        "--margin": "" if is_superior else f"{terms.margin:g}",
        "--n-max": str(terms.n_max) if terms.n_max is not None else "",
        "--look": str(look) if terms.n_max is None and look > 1 else "",
    }
    if trial.acceptance.direction is Direction.LOWER:
        words.append("--lower-is-better")
    elif trial.acceptance.direction is Direction.HIGHER:
        words.append("--higher-is-better")
    for option, value in values.items():
        words += [option, value] if value else []
    return words


def _find_suite_source(trial: Trial) -> str:
    """Returns a file with the questions and their right answers; empty if none is known."""
    first = Path(trial.files[0])
    if trial.format == "promptfoo":
        places = [
            folder / name for folder in (first.parent, Path()) for name in _PROMPTFOO_CONFIGS
        ]
        return next((str(place) for place in places if place.is_file()), "")
    if trial.format == "inspect":
        return str(first)
    if trial.format in {"csv", "columns"}:
        return str(first) if _has_items(first) else ""
    return str(first) if trial.format in _WITH_ANSWERS else ""


def _has_items(table: Path) -> bool:
    """Tells whether a CSV file has the columns that `suite import` reads."""
    try:
        _, names = next(csv_rows(read_text(str(table)), lambda _, wrong: InputError(wrong)))
    except (InputError, StopIteration):
        return False
    return {"input", "target"} <= {name.strip() for name in names}


def _import_command(source: str, trial: Trial) -> str:
    name = name_suite(Path(source))
    steps = []
    if trial.format == "inspect" and not source.endswith(".json"):
        log = f"{Path(source).stem}.json"
        steps.append(f"{shlex.join(['inspect', 'log', 'dump', source])} > {shlex.quote(log)}")
        source = log
    steps.append("swapproof init --yes")
    steps.append(shlex.join(["swapproof", "suite", "import", source, "--suite", name]))
    return " && ".join(steps)
