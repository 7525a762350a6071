"""Writes a chat's fields as its target takes them, beside the history (`chat_history`).

Some targets refuse more stop sequences than they know, sampling beside thinking, and forms
that clients write out of habit, such as an empty schema. A change that the answer may depend
on is named. The models' abilities are in `harness.providers.models.abilities`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from harness.providers.models.capabilities import Capabilities
from harness.providers.target import Provider
from router.frame.body import list_objects, to_json

Json = dict[str, Any]


class Gate(NamedTuple):
    """The bytes of a chat that may need a change. A chat without them is not parsed.

    field: found faster than `form`.
    """

    field: bytes
    form: re.Pattern[bytes]


class ChatFit(NamedTuple):
    """What to look for in chats to one model. provider: as it is configured now."""

    provider: Provider
    gates: tuple[Gate, ...]


# The model in a body. If a nested member of this name comes first, the router learns from the
# refusal.
MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
_SAMPLING: Final = ("temperature", "top_p")
_STOP: Final = Gate(b'"stop"', re.compile(rb'"stop"\s*:'))
_STOPS: Final = Gate(b'"stop"', re.compile(rb'"stop"\s*:\s*\['))
_TEMPERATURE: Final = Gate(b'"temperature"', re.compile(rb'"temperature"\s*:'))
_TOP_P: Final = Gate(b'"top_p"', re.compile(rb'"top_p"\s*:'))
_BOTH: Final = Gate(b'"temperature"', re.compile(rb'"top_p"\s*:'))
_HABITS: Final = (
    Gate(b'"parallel_tool_calls"', re.compile(rb'"parallel_tool_calls"\s*:\s*null')),
    # A schema without an object inside has no properties.
    Gate(b'"tools"', re.compile(rb'"parameters"\s*:\s*(?:\{[^{}]*\}|null)')),
    Gate(b'"tools"', re.compile(rb'"type"\s*:\s*"custom"')),
    Gate(b'"tool_calls"', re.compile(rb'"content"\s*:\s*\[\s*\]')),
)


def find_gates(can: Capabilities) -> tuple[Gate, ...]:
    """Returns the gates of a model. A chat that passes none of them suits it."""
    found: list[Gate] = []
    if can.sampling is False or can.sampling_while_reasoning is False:
        found += (_TEMPERATURE, _TOP_P)
    elif can.one_sampling_field:
        found.append(_BOTH)
    if can.max_stop_sequences is not None:
        found.append(_STOPS if can.max_stop_sequences else _STOP)
    if can.loose_forms is False:
        found += _HABITS
    return tuple(found)


def fit_chat(body: bytes, provider: Provider) -> tuple[bytes, tuple[str, ...]]:
    """Writes a chat as its target takes it. Returns the body, the same object if nothing
    changes, and the names of the parts that the target does not get.
    """
    chat: Json = json.loads(body)
    before = to_json(chat)
    can = provider.abilities(str(chat.get("model")))
    dropped = [*_fit_sampling(chat, can), *_fit_stops(chat, can)]
    if can.loose_forms is False:
        _fit_habits(chat)
    after = to_json(chat)
    return (body if after == before else after.encode(), tuple(dropped))


def _fit_sampling(chat: Json, can: Capabilities) -> Iterator[str]:
    """Removes sampling fields that the model refuses, alone, together or while it reasons."""
    effort = chat.get("reasoning_effort")
    reasons = effort != "none" if effort is not None else can.reasons_by_default is not False
    refuses = can.sampling is False or (
        not can.sampling and can.sampling_while_reasoning is False and reasons
    )
    for name in _SAMPLING:
        given = chat.get(name)
        # One is the default, which every model takes.
        if refuses and given is not None and given != 1:
            del chat[name]
            yield name
    if can.one_sampling_field and all(chat.get(name) is not None for name in _SAMPLING):
        del chat["top_p"]
        yield "top_p"


def _fit_stops(chat: Json, can: Capabilities) -> Iterator[str]:
    """Keeps as many stop sequences as the model takes, the first ones."""
    stops = chat.get("stop")
    most = can.max_stop_sequences
    if most is None or not stops:
        return
    given = stops if isinstance(stops, list) else [stops]
    if len(given) <= most:
        return
    chat["stop"] = given[:most]
    if not most:
        del chat["stop"]
    yield "stop"


def _fit_habits(chat: Json) -> None:
    """Rewrites forms that mean the same, in place."""
    if chat.get("parallel_tool_calls", True) is None:
        del chat["parallel_tool_calls"]
    for tool in list_objects(chat.get("tools")):
        function = tool.get("function")
        if isinstance(function, dict) and "parameters" in function:
            schema = function["parameters"]
            if schema is None or isinstance(schema, dict):
                shape = {"type": "object", "properties": {}}
                function["parameters"] = {**shape, **(schema or {})}
        if tool.get("type") == "custom" and "custom" not in tool:
            # The form of Responses.
            custom = {name: tool.pop(name) for name in list(tool) if name != "type"}
            tool["custom"] = custom
    for message in list_objects(chat.get("messages")):
        if message.get("content") == [] and message.get("tool_calls"):
            del message["content"]
