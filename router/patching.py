"""A client's request as one target is to see it: few edits, every other byte kept."""

import json
from collections.abc import Mapping
from typing import Final

from harness.domain.capabilities import Endpoint
from harness.domain.targets import Target
from router.body import ClientRequest
from router.jsonspan import Edit, Value, spliced, walk_array, walk_object

# Routing's own; a target's parameters cannot change what was routed.
RESERVED: Final = frozenset({"model", "messages", "stream"})
SYSTEM_ROLES: Final = ("system", "developer")


def patched(request: ClientRequest, target: Target, *, serialize_tools: bool = False) -> bytes:
    """`model` is the target's; its parameters and its request patch are applied.

    Without settings of the client's own this is what evals send (`evals.wire.body`): what was
    measured is what serves.

    A stream asks for its usage, so that it can be counted; `router.stream` takes the extra
    event out again when the client did not ask. serialize_tools: one tool call at a time.
    """
    values = request.members.values
    model = values["model"]
    edits = [Edit(model.start, model.end, _json(target.model))]
    if request.endpoint is Endpoint.EMBEDDINGS:
        return spliced(request.text, edits)  # the target's settings are about words
    wanted = _wanted(request, target)
    if serialize_tools and not request.serial_tools:
        wanted["parallel_tool_calls"] = False
    if wanted:
        edits += [
            Edit(values[name].start, values[name].end, _json(value))
            for name, value in wanted.items()
            if name in values
        ]
        new = "".join(
            f",{_json(name)}:{_json(value)}"
            for name, value in wanted.items()
            if name not in values
        )
        edits.append(Edit(request.members.close, request.members.close, new))
    addendum = target.request_patch.prompt_addendum
    if addendum and "messages" in values:
        edits += _with_addendum(request.text, values["messages"], addendum)
    return spliced(request.text, edits)


def _wanted(request: ClientRequest, target: Target) -> dict[str, object]:
    """Top-level fields to set: defaults, then the patch, then the stream's usage."""
    values = request.members.values
    patch = target.request_patch
    wanted: dict[str, object] = {k: v for k, v in target.parameters.items() if k not in values}
    wanted.update(patch.parameters)
    # A null that takes the place of nothing says nothing.
    wanted = {
        name: value
        for name, value in wanted.items()
        if name not in RESERVED and (value is not None or name in values)
    }
    if patch.response_format:
        wanted["response_format"] = patch.response_format
    if request.stream:
        options = wanted.get("stream_options", request.value("stream_options"))
        given = dict(options) if isinstance(options, Mapping) else {}
        if given.get("include_usage") is not True:
            wanted["stream_options"] = {**given, "include_usage": True}
    return wanted


def _with_addendum(text: str, messages: Value, addendum: str) -> list[Edit]:
    """The addendum at the end of the first system or developer message, or as a new one."""
    if not isinstance(messages.value, list):
        return []
    for message in walk_array(text, messages.start):
        role = message.value.get("role") if isinstance(message.value, dict) else None
        if role in SYSTEM_ROLES:
            content = walk_object(text, message.start).values.get("content")
            return _appended(content, addendum) if content else []
    new = _json({"role": "system", "content": addendum}) + ("," if messages.value else "")
    return [Edit(messages.start + 1, messages.start + 1, new)]


def _appended(content: Value, addendum: str) -> list[Edit]:
    last = content.end - 1  # before the closing quote or bracket
    if isinstance(content.value, str):
        return [Edit(last, last, _json(f"\n\n{addendum}")[1:-1])]
    if isinstance(content.value, list):
        part = _json({"type": "text", "text": addendum})
        return [Edit(last, last, ("," if content.value else "") + part)]
    return [Edit(content.start, content.end, _json(addendum))]


def _json(value: object) -> str:
    # ASCII only: a lone surrogate, which JSON may carry as an escape, has no UTF-8.
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
