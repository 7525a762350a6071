"""Writes a chat's fields as its target takes them, beside the history (`chat_history`).

Some targets refuse more stop sequences than they know, sampling beside thinking, strict schemas
with optional fields, and forms that clients write out of habit, such as an empty schema. A
change that the answer may depend on is named. The models' abilities are in
`harness.providers.models.abilities`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

from harness.providers.models.capabilities import (
    Capabilities,
    StrictSchema,
    ThinkingForm,
)
from harness.providers.target import Provider
from router.conversation.field_forms import fit_sampling
from router.conversation.strict_schemas import meets_strict
from router.frame.body import list_objects, to_json

Json = dict[str, Any]


class Gate(NamedTuple):
    """The bytes of a chat that may need a change. A chat without them is not parsed.

    field: found faster than `form`.
    """

    field: bytes
    form: re.Pattern[bytes]


class ModelFit(NamedTuple):
    """What to look for in requests to one model. provider: as it is configured now."""

    provider: Provider
    can: Capabilities
    gates: tuple[Gate, ...]  # of chats and responses
    message_gates: tuple[Gate, ...]  # of Messages, which `field_forms` writes


# The model in a body. If a nested member of this name comes first, the router learns from the
# refusal.
MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
_STOP: Final = Gate(b'"stop"', re.compile(rb'"stop"\s*:'))
_STOPS: Final = Gate(b'"stop"', re.compile(rb'"stop"\s*:\s*\['))
_TEMPERATURE: Final = Gate(b'"temperature"', re.compile(rb'"temperature"\s*:'))
_TOP_P: Final = Gate(b'"top_p"', re.compile(rb'"top_p"\s*:'))
_TOP_K: Final = Gate(b'"top_k"', re.compile(rb'"top_k"\s*:'))
_PENALTIES: Final = tuple(
    Gate(f'"{name}"'.encode(), re.compile(rf'"{name}"\s*:'.encode()))
    for name in ("presence_penalty", "frequency_penalty")
)
_THINKING: Final = Gate(b'"thinking"', re.compile(rb'"thinking"\s*:'))
_CHOICE: Final = Gate(b'"tool_choice"', re.compile(rb'"type"\s*:\s*"(?:any|tool)"'))
_EFFORT: Final = Gate(b'"effort"', re.compile(rb'"effort"\s*:'))
_BOTH: Final = Gate(b'"temperature"', re.compile(rb'"top_p"\s*:'))
_LIMIT: Final = Gate(b'"max_tokens"', re.compile(rb'"max_tokens"\s*:\s*[1-9]\d{4}'))
_STRICT: Final = Gate(b'"strict"', re.compile(rb'"strict"\s*:\s*true'))
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
        found += (_TEMPERATURE, _TOP_P, _TOP_K, *_PENALTIES)
    elif can.temperature_with_top_p is False:
        found.append(_BOTH)
    if can.max_stop_sequences is not None:
        found.append(_STOPS if can.max_stop_sequences else _STOP)
    if can.strict_schema is StrictSchema.ALL_REQUIRED:
        found.append(_STRICT)
    if can.loose_forms is False:
        found += _HABITS
    return tuple(found)


def find_message_gates(can: Capabilities) -> tuple[Gate, ...]:
    """Returns the gates of a model for requests by Messages."""
    found: list[Gate] = []
    if can.thinking is not ThinkingForm.UNKNOWN or can.thinks_always:
        found.append(_THINKING)
    if can.thinks_always:
        found.append(_CHOICE)
    if can.max_output_tokens is not None:
        found.append(_LIMIT)
    if can.efforts is not None:
        found.append(_EFFORT)
    if can.sampling is False:
        found += (_TEMPERATURE, _TOP_P, _TOP_K)
    elif can.temperature_with_top_p is False:
        found.append(_BOTH)
    return tuple(found)


def fit_chat(body: bytes, can: Capabilities) -> tuple[bytes, tuple[str, ...]]:
    """Writes a chat, or the sampling and schemas of a response, as its target takes it.

    Returns the body, which is the same object if nothing changes, and the names of the parts
    that the target does not get.
    """
    chat: Json = json.loads(body)
    before = to_json(chat)
    dropped = [*_fit_sampling(chat, can), *_fit_stops(chat, can)]
    if can.strict_schema is StrictSchema.ALL_REQUIRED:
        dropped += _fit_schemas(chat, can.strict_schema)
    if can.loose_forms is False and "messages" in chat:
        _fit_habits(chat)
    after = to_json(chat)
    return (body if after == before else after.encode(), tuple(dropped))


def _fit_sampling(chat: Json, can: Capabilities) -> list[str]:
    """Removes sampling fields that the model refuses, alone, together or while it reasons."""
    reasoning = chat.get("reasoning")  # of Responses
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    effort = chat.get("reasoning_effort", effort)
    reasons = effort != "none" if effort is not None else can.reasons_by_default is not False
    if not can.sampling and can.sampling_while_reasoning is False and reasons:
        can = replace(can, sampling=False)
    return fit_sampling(chat, can)


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


def _fit_schemas(chat: Json, demands: StrictSchema) -> Iterator[str]:
    """Keeps `strict` only where the schema meets the demands: the target would refuse it."""
    text = chat.get("text")  # of Responses
    forms = (
        ("response_format.json_schema.strict", chat.get("response_format"), "json_schema"),
        ("text.format.strict", text if isinstance(text, dict) else None, "format"),
        *(("tools.strict", tool, "function") for tool in list_objects(chat.get("tools"))),
    )
    for name, holder, inside in forms:
        if not isinstance(holder, dict):
            continue
        form = holder.get(inside, holder)  # a tool of Responses is flat
        if not isinstance(form, dict) or form.get("strict") is not True:
            continue
        if not meets_strict(form.get("schema", form.get("parameters")), demands):
            form["strict"] = False
            yield name


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
