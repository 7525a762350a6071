"""Edits a client's body for one target; every other byte stays.

Without settings of the client's own a chat is what evals send: what was measured is what
serves.
"""

import json
import math
import sys
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from harness.providers.target import Target
from router.frame.body import ClientRequest
from router.frame.json_spans import TextEdit, apply_edits
from router.frame.json_walk import JsonSpan

NO_NAMES: Final[Mapping[str, str]] = {}


def model_alone(request: ClientRequest, target: Target) -> bytes | None:
    """Returns None where the model's place is not found quickly."""
    return request.members.with_text("model", _quoted(target.model))


def model_edit(request: ClientRequest, target: Target) -> TextEdit:
    model = request.members.text_place("model")
    if model is None:
        raise ValueError("a request names its model")
    return TextEdit(model.start, model.end, _quoted(target.model))


@lru_cache(maxsize=1024)
def _quoted(model: str) -> str:
    return to_json(model)


def setting_edits(
    request: ClientRequest,
    target: Target,
    reserved: Collection[str],
    names: Mapping[str, str] = NO_NAMES,
) -> dict[str, object]:
    """Returns the top-level fields to set: the target's defaults, then its patch.

    reserved: routing's own; a target's parameters cannot change what was routed. names: what
    the endpoint calls a parameter, where that differs.
    """
    if not target.parameters and not target.request_patch.parameters:
        return {}
    values = request.members.values
    defaults = {names.get(name, name): value for name, value in target.parameters.items()}
    patch = {names.get(k, k): v for k, v in target.request_patch.parameters.items()}
    wanted = {name: value for name, value in defaults.items() if name not in values}
    wanted.update(patch)
    # A null that takes the place of nothing says nothing.
    return {
        name: value
        for name, value in wanted.items()
        if name not in reserved and (value is not None or name in values)
    }


def field_edits(request: ClientRequest, wanted: Mapping[str, object]) -> list[TextEdit]:
    if not wanted:
        return []
    members = request.members
    close = members.close
    edits = [
        TextEdit(members.values[name].start, members.values[name].end, to_json(value))
        for name, value in wanted.items()
        if name in members
    ]
    new = "".join(
        f",{to_json(name)}:{to_json(value)}"
        for name, value in wanted.items()
        if name not in members
    )
    return [*edits, TextEdit(close, close, new)]


def append_members(content: JsonSpan, addendum: str) -> list[TextEdit]:
    last = content.end - 1  # before the closing quote or bracket
    if isinstance(content.value, str):
        return [TextEdit(last, last, to_json(f"\n\n{addendum}")[1:-1])]
    if isinstance(content.value, list):
        part = to_json({"type": "text", "text": addendum})
        return [TextEdit(last, last, ("," if content.value else "") + part)]
    return [TextEdit(content.start, content.end, to_json(addendum))]


def patched_body(
    request: ClientRequest, target: Target, wanted: dict[str, object], rules: str
) -> bytes:
    """Writes the body anew. rules: the field of the system prompt, which the addendum ends."""
    addendum, more = target.request_patch.prompt_addendum, []
    given = request.members.values.get(rules) if addendum else None
    if addendum and given is None:
        wanted[rules] = addendum
    elif given is not None and rules not in wanted:
        more = append_members(given, addendum)
    edits = [model_edit(request, target), *field_edits(request, wanted), *more]
    return apply_edits(request.text, edits)


def to_json(value: object) -> str:
    # ASCII only: a lone surrogate, which JSON may carry as an escape, has no UTF-8.
    try:
        return _dumps(value)
    except ValueError:
        return _dumps(_finite(value))


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain)


def _finite(value: object) -> object:
    """JSON allows 1e999, and Python reads it as infinite, which JSON does not allow."""
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
