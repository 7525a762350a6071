"""Reads records of other tools' data sets as records of ours: inputs that are messages or
objects, choices with labels, fine-tuning conversations, promptfoo's expected values.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from harness.domain.errors import InputError

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# What a text target begins with where it is one of promptfoo's assertions.
_ASSERTION: Final = re.compile(
    r"(?P<kind>(?:not-)?(?:equals|i?contains(?:-all|-any|-json)?|starts-with|is-json|"
    r"llm-rubric|model-graded-[a-z]+|javascript|similar|factuality|levenshtein))"
    r"(?:\([^)]*\))?(?::\s*(?P<value>.*))?",
    re.DOTALL,
)
# Of an assertion, these stand alone as well; the others need a colon.
_ALONE: Final = frozenset({"is-json", "contains-json", "not-is-json", "not-contains-json"})


def read_record(
    record: Mapping[str, Any], place: str, *, input_field: str, target_fields: tuple[str, ...]
) -> Mapping[str, Any]:
    """Returns the record with a text to ask and a target as scorers take them.

    Raises InputError for an assertion, which is no text to compare with.
    """
    found = dict(record)
    if input_field not in found and isinstance(found.get("messages"), list):
        _split_conversation(found, input_field, target_fields[0])
    asked = found.get(input_field)
    metadata = found.get("metadata")
    if isinstance(asked, list) and isinstance(metadata or {}, dict):
        found["metadata"] = {**(metadata or {}), "messages": asked}
        found[input_field] = _last_text(asked) or json.dumps(asked, ensure_ascii=False)
    elif isinstance(asked, dict) and asked:
        found[input_field] = _only_text(asked) or json.dumps(asked, ensure_ascii=False)
        for name in target_fields:
            if isinstance(found.get(name), dict):
                found[name] = _only_text(found[name]) or found[name]
    _unite_choices(found, target_fields)
    for name in target_fields:
        if isinstance(found.get(name), str):
            found[name] = _without_assertion(found[name], place, name)
    return found


def _split_conversation(found: dict[str, Any], input_field: str, target_field: str) -> None:
    """A conversation whose last answer is the right one, as for fine-tuning."""
    *before, last = found["messages"] or [None]
    if before and isinstance(last, dict) and last.get("role") == "assistant":
        found[input_field] = before
        found.setdefault(target_field, last.get("content"))


def _last_text(messages: list[Any]) -> str:
    texts = (
        message.get("content") for message in reversed(messages) if isinstance(message, dict)
    )
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def _only_text(value: Mapping[str, Any]) -> str:
    texts = [*value.values()]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else ""


def _unite_choices(found: dict[str, Any], target_fields: tuple[str, ...]) -> None:
    """Choices with labels, as ARC has them: the target's label becomes its letter."""
    choices = found.get("choices")
    if not isinstance(choices, dict):
        return
    texts, labels = choices.get("text"), choices.get("label")
    if not isinstance(texts, list) or not isinstance(labels, list):
        return
    found["choices"] = texts
    for name in target_fields:
        if found.get(name) in labels[: len(_LETTERS)]:
            found[name] = _LETTERS[labels.index(found[name])]


def _without_assertion(target: str, place: str, name: str) -> str:
    match = _ASSERTION.fullmatch(target.strip())
    if match is None or (match["value"] is None and match["kind"] not in _ALONE):
        return target
    if match["kind"] == "equals":
        return str(match["value"])
    raise InputError(
        f"{place}: field {name!r}: {target[:60]!r} is promptfoo's assertion {match['kind']}, "
        "and no text to compare with; take a scorer that does the same, and its target alone"
    )
