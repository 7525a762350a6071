"""Writes a chat's fields as its target accepts them. `chat_history` writes the history.

Some targets refuse many stop sequences, sampling beside thinking, and strict schemas with
optional fields. Some also refuse loose forms, such as an empty schema. The module names a
change that the answer may depend on. The models' abilities are in
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
    """The bytes of a chat that may need a change. The router does not parse other chats.

    field: the router searches for it first, because that is faster than `form`.
    """

    field: bytes
    form: re.Pattern[bytes]


class ModelFit(NamedTuple):
    """The gates for requests to one model. provider: its configuration at that time."""

    provider: Provider
    can: Capabilities
    gates: tuple[Gate, ...]  # of chats and responses
    message_gates: tuple[Gate, ...]  # of Messages, which `field_forms` writes


# The model in a body. If a nested member of this name comes first, the router learns from the
# refusal.
MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
_STOP: Final = Gate(b'"stop"', re.compile(rb'"stop"\s*:'))
_STOP_LIST: Final = Gate(b'"stop"', re.compile(rb'"stop"\s*:\s*\['))
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
_TEMPERATURE_AND_TOP_P: Final = Gate(b'"temperature"', re.compile(rb'"top_p"\s*:'))
_LIMIT: Final = Gate(b'"max_tokens"', re.compile(rb'"max_tokens"\s*:\s*[1-9]\d{4}'))
_STRICT: Final = Gate(b'"strict"', re.compile(rb'"strict"\s*:\s*true'))
_LOOSE_FORMS: Final = (
    Gate(b'"parallel_tool_calls"', re.compile(rb'"parallel_tool_calls"\s*:\s*null')),
    # A schema without an object inside has no properties.
    Gate(b'"tools"', re.compile(rb'"parameters"\s*:\s*(?:\{[^{}]*\}|null)')),
    Gate(b'"tools"', re.compile(rb'"type"\s*:\s*"custom"')),
    Gate(b'"tool_calls"', re.compile(rb'"content"\s*:\s*\[\s*\]')),
)


def find_gates(can: Capabilities) -> tuple[Gate, ...]:
    """Returns the gates of a model. A chat suits the model if no gate finds its bytes."""
    gates: list[Gate] = []
    if can.sampling is False or can.sampling_while_reasoning is False:
        gates += (_TEMPERATURE, _TOP_P, _TOP_K, *_PENALTIES)
    elif can.temperature_with_top_p is False:
        gates.append(_TEMPERATURE_AND_TOP_P)
    if can.max_stop_sequences is not None:
        gates.append(_STOP_LIST if can.max_stop_sequences else _STOP)
    if can.strict_schema is StrictSchema.ALL_REQUIRED:
        gates.append(_STRICT)
    if can.loose_forms is False:
        gates += _LOOSE_FORMS
    return tuple(gates)


def find_message_gates(can: Capabilities) -> tuple[Gate, ...]:
    """Returns the gates of a model for requests by Messages."""
    gates: list[Gate] = []
    if can.thinking is not ThinkingForm.UNKNOWN or can.thinks_always:
        gates.append(_THINKING)
    if can.thinks_always:
        gates.append(_CHOICE)
    if can.max_output_tokens is not None:
        gates.append(_LIMIT)
    if can.efforts is not None:
        gates.append(_EFFORT)
    if can.sampling is False:
        gates += (_TEMPERATURE, _TOP_P, _TOP_K)
    elif can.temperature_with_top_p is False:
        gates.append(_TEMPERATURE_AND_TOP_P)
    return tuple(gates)


def fit_chat(body: bytes, can: Capabilities) -> tuple[bytes, tuple[str, ...]]:
    """Writes a chat, or the sampling and schemas of a response, as its target accepts it.

    Returns the body, which is the same object if nothing changes, and the names of the parts
    that the target does not get.
    """
    chat: Json = json.loads(body)
    before = to_json(chat)
    dropped = [*_fit_sampling(chat, can), *_fit_stops(chat, can)]
    if can.strict_schema is StrictSchema.ALL_REQUIRED:
        dropped += _fit_schemas(chat, can.strict_schema)
    if can.loose_forms is False and "messages" in chat:
        _tighten_forms(chat)
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
    """Keeps the first stop sequences, up to the model's limit."""
    stops = chat.get("stop")
    max_stops = can.max_stop_sequences
    if max_stops is None or not stops:
        return
    sequences = stops if isinstance(stops, list) else [stops]
    if len(sequences) <= max_stops:
        return
    chat["stop"] = sequences[:max_stops]
    if not max_stops:
        del chat["stop"]
    yield "stop"


def _fit_schemas(chat: Json, demands: StrictSchema) -> Iterator[str]:
    """Unsets `strict` where a schema misses the demands. The target would refuse the schema."""
    text = chat.get("text")  # of Responses
    forms = (
        ("response_format.json_schema.strict", chat.get("response_format"), "json_schema"),
        ("text.format.strict", text if isinstance(text, dict) else None, "format"),
        *(("tools.strict", tool, "function") for tool in list_objects(chat.get("tools"))),
    )
    for name, holder, inner_name in forms:
        if not isinstance(holder, dict):
            continue
        schema_holder = holder.get(inner_name, holder)  # a tool of Responses is flat
        if not isinstance(schema_holder, dict) or schema_holder.get("strict") is not True:
            continue
        if not meets_strict(
            schema_holder.get("schema", schema_holder.get("parameters")), demands
        ):
            schema_holder["strict"] = False
            yield name


def _tighten_forms(chat: Json) -> None:
    """Rewrites forms that mean the same, in place."""
    if chat.get("parallel_tool_calls", True) is None:
        del chat["parallel_tool_calls"]
    for tool in list_objects(chat.get("tools")):
        function = tool.get("function")
        if isinstance(function, dict) and "parameters" in function:
            schema = function["parameters"]
            if schema is None or isinstance(schema, dict):
                empty_schema = {"type": "object", "properties": {}}
                function["parameters"] = {**empty_schema, **(schema or {})}
        if tool.get("type") == "custom" and "custom" not in tool:
            # The form of Responses.
            custom = {name: tool.pop(name) for name in list(tool) if name != "type"}
            tool["custom"] = custom
    for message in list_objects(chat.get("messages")):
        if message.get("content") == [] and message.get("tool_calls"):
            del message["content"]
