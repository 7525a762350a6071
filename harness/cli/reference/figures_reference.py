"""Writes docs/reference/figures.md from benchmarks/figures: the goals and the results."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.cli.reference.markdown_table import code, page, table
from harness.domain.errors import InputError
from harness.domain.formatting import format_count, format_percent, format_span

HEADS = ("Run", "Goal", "Done", "Failures", "Reached", "Took", "When, at which commit, on what")
INTRODUCTION = """\
What the longest runs found. Each run writes its own row; a row whose run has not happened says
so. `make soak` does all of them, and each alone is repeated by its command below."""
MINUTE_S = 60
# Of a run that lasts a given time: what its first and last requests may lack.
TOLERANCE = 0.99


def figures_page(folder: Path) -> str:
    """Writes the page. Raises InputError for a result that has no goal."""
    goals = folder / "figures.yaml"
    figures: dict[str, dict[str, str]] = yaml.safe_load(goals.read_text("utf-8"))
    stored = {
        file.stem: json.loads(file.read_text("utf-8"))
        for file in (folder / "results").glob("*.json")
    }
    if unknown := sorted(set(stored) - set(figures)):
        raise InputError(f"{goals} lacks {', '.join(unknown)}")
    return page(
        "Figures",
        INTRODUCTION,
        table(HEADS, (_row(figure, stored.get(id_)) for id_, figure in figures.items())),
        "## What was run",
        *_runs(figures, stored),
    )


def _row(figure: Mapping[str, Any], result: Mapping[str, Any] | None) -> tuple[str, ...]:
    goal = _goal_text(figure)
    if result is None:
        return figure["what"], goal, "not run yet", "", "no", "", ""
    failures = f"{format_count(result['failures'])} {figure['failure']}"
    return (
        figure["what"],
        goal,
        f"{format_count(result['count'])} {figure['unit']}",
        failures,
        "yes" if is_reached(figure, result) else "**no**",
        format_span(result["seconds"]),
        f"{result['date']}, {code(result['commit'])}, {result['machine']}",
    )


def _goal_text(figure: Mapping[str, Any]) -> str:
    goal = str(figure["goal"])
    if goal.endswith("%"):
        return f"at least {goal} noticed"
    if not goal.endswith("min"):
        goal = f"{format_count(int(goal))} {figure['unit']}"
    return f"{goal}, 0 {figure['failure']}"


def is_reached(figure: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Tells whether a run is as long as its goal asks, and as free of failures. A share says
    nothing of a sample that was cut off.
    """
    goal, count, failures = str(figure["goal"]), result["count"], result["failures"]
    if goal.endswith("%"):
        tried = bool(count and result.get("whole", True))
        return tried and 1 - failures / count >= float(goal[:-1]) / 100
    if goal.endswith("min"):
        long_enough = result["seconds"] >= float(goal[:-3]) * MINUTE_S * TOLERANCE
        return bool(count) and not failures and long_enough
    return bool(count >= int(goal) and not failures)


def _runs(
    figures: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    for id_, figure in figures.items():
        yield f"### {id_}"
        yield f"```text\n{figure['command']}\n```"
        result = stored.get(id_)
        if result is None:
            yield "Not run yet."
        elif str(figure["goal"]).endswith("%"):
            share = 1 - result["failures"] / max(1, result["count"])
            yield f"{format_percent(share)} noticed. {result['detail']}"
        else:
            yield result["detail"]
