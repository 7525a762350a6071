"""Loads judge references from a data file: answers with people's scores, to measure a judge's
agreement against.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from evals.suites.items import Item, load_items
from harness.domain.errors import InputError

MIN_REFERENCES: Final = 10  # of fewer an interval says nothing


@dataclass(frozen=True, slots=True)
class Reference:
    """An answer that people have scored."""

    item: Item  # what it answers
    answer: str
    score: float


def load_references(path: Path) -> tuple[Reference, ...]:
    """Loads the references of a data file with `input`, `answer`, `score` (0 to 1), and perhaps
    `metadata` with `target` and `rubric`. Raises InputError with the place.
    """
    found = []
    for item in load_items(path, name="reference", target_field="answer+score"):
        given = item.target
        score = given["score"] if isinstance(given, dict) else None
        answer = given["answer"] if isinstance(given, dict) else None
        number = _number(score)
        if not isinstance(answer, str) or number is None:
            raise InputError(
                f"{path}: item {item.id!r}: a reference needs `answer`, a text, and `score`, a "
                "number from 0 to 1"
            )
        shown = replace(item, target=item.metadata.get("target", ""))
        found.append(Reference(shown, answer, number))
    if len(found) < MIN_REFERENCES:
        raise InputError(
            f"{path}: {len(found)} references; agreement needs {MIN_REFERENCES} or more"
        )
    return tuple(found)


def _number(score: object) -> float | None:
    """A CSV file has texts only."""
    try:
        number = float(score) if isinstance(score, int | float | str) else math.nan
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
