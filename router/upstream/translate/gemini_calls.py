"""Joins the pieces in which Google streams a call's arguments.

A model that streams arguments sends a call's name first, then pieces of its values by their
JSON path, and last an empty `functionCall`. litellm reads only complete calls.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from harness.frame.failures import FailureClass
from router.frame.body import iter_objects, list_objects
from router.frame.failure import UpstreamFailed

Json = dict[str, Any]
_PATH_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(['\"])(.*?)\3\]")
# The reason of an end without a cut.
_COMPLETE_REASON: Final = "STOP"
# The most entries that a path may add to a list.
_MOST_ENTRIES: Final = 10_000
_VALUE_NAMES: Final = ("stringValue", "numberValue", "boolValue", "nullValue")


class GeminiCalls:
    """Collects one stream's calls in pieces."""

    def __init__(self) -> None:
        self._part: Json | None = None  # the part of the call that continues

    def join(self, event: Json) -> None:
        """Replaces the pieces in an event by the calls that the event completes.

        The answer's end completes the last call.
        """
        candidates = event.get("candidates")
        for candidate in list_objects(candidates):
            content = candidate.get("content")
            parts = content.get("parts") if isinstance(content, dict) else None
            if isinstance(content, dict) and isinstance(parts, list):
                content["parts"] = [
                    complete_part for part in parts for complete_part in self._join_part(part)
                ]
            if self._part is not None and candidate.get("finishReason") == _COMPLETE_REASON:
                joined_content = content if isinstance(content, dict) else {"role": "model"}
                joined_content["parts"] = [
                    *list_objects(joined_content.get("parts")),
                    self._part,
                ]
                candidate["content"] = joined_content
                self._part = None

    def _join_part(self, part: Any) -> list[Any]:
        call = part.get("functionCall") if isinstance(part, dict) else None
        if not isinstance(call, dict):
            return [part]
        complete_parts = []
        if self._part is not None and call.get("name"):  # the call before had no last piece
            complete_parts = [self._part]
            self._part = None
        if self._part is None:
            if not call.get("name"):
                return complete_parts
            call["args"] = call.get("args") or {}
            self._part = part
        args = self._part["functionCall"]["args"]
        for piece in iter_objects(call.pop("partialArgs", None)):
            _add_piece(args, piece)
        if call.pop("willContinue", False):
            return complete_parts
        complete_part = self._part
        self._part = None
        return [*complete_parts, complete_part]


def _add_piece(args: Json, piece: Mapping[str, object]) -> None:
    """Adds a piece of a value to the arguments, in place. Joins the pieces of a text."""
    steps: list[str | int] = []
    for name, index, _, quoted_name in _PATH_STEP.findall(str(piece.get("jsonPath"))):
        steps.append(int(index) if index else name or quoted_name)
    value_name = next((name for name in _VALUE_NAMES if name in piece), None)
    is_too_far = any(isinstance(step, int) and step > _MOST_ENTRIES for step in steps)
    if not steps or value_name is None or is_too_far:
        return
    holder: Any = args
    for step, following in pairwise(steps):
        holder = _take_entry(holder, step, [] if isinstance(following, int) else {})
    earlier_value = _take_entry(holder, steps[-1], None)
    value = None if value_name == "nullValue" else piece[value_name]
    are_texts = isinstance(earlier_value, str) and isinstance(value, str)
    holder[steps[-1]] = f"{earlier_value}{value}" if are_texts else value


def _take_entry(holder: Any, step: str | int, default: object) -> Any:
    """Returns the entry at a step. Adds the default if the entry is missing."""
    if isinstance(holder, list) and isinstance(step, int):
        holder += [None] * (step + 1 - len(holder))
        if holder[step] is None:
            holder[step] = default
        return holder[step]
    if isinstance(holder, dict) and isinstance(step, str):
        return holder.setdefault(step, default)
    why = "a call's argument has a path that does not fit the pieces before"
    raise UpstreamFailed(FailureClass.MALFORMED, why)
