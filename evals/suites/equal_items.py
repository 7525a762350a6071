"""Finds equal items of a data file: they ask a model the same question and expect the same
answer. Pure, except that an error reads the file for its line numbers.

The comparison uses texts in Unicode's form NFC (`harness.frame.canonical_text`), and ignores
the width of spaces. Case, marks and punctuation can change the meaning of a question; items
that differ only in them are near-duplicates (`item_clusters`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from evals.suites.conversation import FIELDS, conversation
from evals.suites.items import Item, find_line
from harness.frame.canonical_text import canonical_value
from harness.frame.errors import InputError
from harness.frame.plain_data import canonical_json

# Metadata that, like the target, decides the score of an answer.
_DECIDING: Final = ("rules", "schema", "assert", "threshold", "rubric")
_INNER_SPACES: Final = re.compile(r"(?<=\S)\s+")


def find_repeats(
    loaded: Sequence[Item],
    path: Path,
    input_field: str,
) -> Mapping[str, str]:
    """Maps each item that repeats another item to the item that stays: the first with a label.

    Raises InputError with both lines if one question has two targets: a model can only give one
    answer. Items that differ in the rules of their scorer stay.
    """
    places_by_question: dict[str, list[int]] = {}
    for place, item in enumerate(loaded):
        places_by_question.setdefault(_question_key(item), []).append(place)
    repeats: dict[str, str] = {}
    for places in places_by_question.values():
        labelled = [place for place in places if not loaded[place].unlabelled]
        first = (labelled or places)[0]
        for place in labelled:
            if canonical_value(loaded[place].target) != canonical_value(loaded[first].target):
                lines = [find_line(path, index, input_field) for index in (first, place)]
                raise InputError(
                    f"{path}:{lines[1]}: item {loaded[place].id!r} asks the same as item "
                    f"{loaded[first].id!r} in line {lines[0]}, but has another target; keep "
                    "the right one"
                )
        repeats |= {loaded[place].id: loaded[first].id for place in places if place != first}
    return repeats


def refuse_second_target(
    targets: dict[str, tuple[object, str]], item: Item, place: str
) -> None:
    """Raises InputError, with both places, if an earlier record has the same question and
    another target.

    Args:
        targets: the question to its target and place; the call adds the item.
    """
    if item.unlabelled:
        return
    target = canonical_value(item.target)
    first_target, first_place = targets.setdefault(_question_key(item), (target, place))
    if first_target != target:
        raise InputError(
            f"{place}: asks the same as {first_place}, but has another target; keep the right "
            "one"
        )


def _question_key(item: Item) -> str:
    """Builds a key that is equal for items with the same question for a model and the same
    rules for the scorer. Ignores Unicode forms and the width of spaces.
    """
    question = [dict(message) for message in conversation(item)] or item.input
    deciding_metadata = {name: item.metadata.get(name) for name in (*FIELDS, *_DECIDING)}
    return canonical_json(
        _normalize_spaces(canonical_value([question, list(item.choices), deciding_metadata]))
    )


def _normalize_spaces(value: Any) -> Any:
    """Replaces each run of spaces in all texts by one, and drops blank lines. Keeps the
    indentation of lines, which decides what code does.
    """
    match value:
        case str():
            lines = (line for line in value.strip().splitlines() if line.strip())
            return "\n".join(_INNER_SPACES.sub(" ", line.rstrip()) for line in lines)
        case list():
            return [_normalize_spaces(part) for part in value]
        case dict():
            return {key: _normalize_spaces(part) for key, part in value.items()}
        case _:
            return value
