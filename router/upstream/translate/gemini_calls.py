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
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(['\"])(.*?)\3\]")
# The reason of an end without a cut.
_WHOLE: Final = "STOP"
# The most entries that a path may add to a list.
_MOST_ENTRIES: Final = 10_000
_VALUES: Final = ("stringValue", "numberValue", "boolValue", "nullValue")


class GeminiCalls:
    """Collects one stream's calls in pieces."""

    def __init__(self) -> None:
        self._part: Json | None = None  # the part of the call that continues

    def join(self, event: Json) -> None:
        """Replaces the pieces in an event by the calls that are complete with it, also by the
        answer's end.
        """
        candidates = event.get("candidates")
        for candidate in list_objects(candidates):
            content = candidate.get("content")
            parts = content.get("parts") if isinstance(content, dict) else None
            if isinstance(content, dict) and isinstance(parts, list):
                content["parts"] = [whole for part in parts for whole in self._joined(part)]
            if self._part is not None and candidate.get("finishReason") == _WHOLE:
                found = content if isinstance(content, dict) else {"role": "model"}
                found["parts"] = [*list_objects(found.get("parts")), self._part]
                candidate["content"] = found
                self._part = None

    def _joined(self, part: Any) -> list[Any]:
        call = part.get("functionCall") if isinstance(part, dict) else None
        if not isinstance(call, dict):
            return [part]
        before = []
        if self._part is not None and call.get("name"):  # the call before had no last piece
            before = [self._part]
            self._part = None
        if self._part is None:
            if not call.get("name"):
                return before
            call["args"] = call.get("args") or {}
            self._part = part
        args = self._part["functionCall"]["args"]
        for piece in iter_objects(call.pop("partialArgs", None)):
            _add(args, piece)
        if call.pop("willContinue", False):
            return before
        whole = self._part
        self._part = None
        return [*before, whole]


def _add(args: Json, piece: Mapping[str, object]) -> None:
    """Adds a piece of a value to the arguments, in place. Pieces of a text follow each
    other.
    """
    steps: list[str | int] = []
    for name, index, _, quoted in _STEP.findall(str(piece.get("jsonPath"))):
        steps.append(int(index) if index else name or quoted)
    kind = next((name for name in _VALUES if name in piece), None)
    too_far = any(isinstance(step, int) and step > _MOST_ENTRIES for step in steps)
    if not steps or kind is None or too_far:
        return
    place: Any = args
    for step, following in pairwise(steps):
        place = _entry(place, step, [] if isinstance(following, int) else {})
    before = _entry(place, steps[-1], None)
    value = None if kind == "nullValue" else piece[kind]
    both = isinstance(before, str) and isinstance(value, str)
    place[steps[-1]] = f"{before}{value}" if both else value


def _entry(place: Any, step: str | int, default: object) -> Any:
    """Returns the entry at a step, and adds a missing one."""
    if isinstance(place, list) and isinstance(step, int):
        place += [None] * (step + 1 - len(place))
        if place[step] is None:
            place[step] = default
        return place[step]
    if isinstance(place, dict) and isinstance(step, str):
        return place.setdefault(step, default)
    why = "a call's argument has a path that does not fit the pieces before"
    raise UpstreamFailed(FailureClass.MALFORMED, why)
