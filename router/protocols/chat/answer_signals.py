"""Reads what guardrails ask of a chat completion: the JSON schema and the tools of the request,
and into `AnswerSignals` a choice of the answer, whole or a streamed piece.
"""

from collections.abc import Mapping

from router.protocols.answer_signals import AnswerSignals
from router.protocols.object_lists import iter_objects
from router.request.body import ClientRequest

ANY: Mapping[str, object] = {}


def schema_of(request: ClientRequest) -> Mapping[str, object] | None:
    """The schema of the JSON that is to be answered; empty for any JSON, None for none."""
    wanted = request.members.get("response_format")
    if not isinstance(wanted, dict):
        return None
    match wanted.get("type"):
        case "json_object":
            return ANY
        case "json_schema":
            given = wanted.get("json_schema")
            schema = given.get("schema") if isinstance(given, Mapping) else None
            return schema if isinstance(schema, Mapping) else ANY
        case _:
            return None


def tools_of(request: ClientRequest) -> dict[str, object]:
    """The offered functions' parameters, by name; None for what takes any text."""
    found: dict[str, object] = {}
    for tool in iter_objects(request.value("tools")):
        function, custom = tool.get("function"), tool.get("custom")
        if isinstance(function, Mapping):
            found[str(function.get("name"))] = function.get("parameters") or ANY
        elif isinstance(custom, Mapping):
            found[str(custom.get("name"))] = None
    return found


def read_signals(signals: AnswerSignals, choice: Mapping[str, object], part: str) -> None:
    """Adds the signals of a choice: whole as `message`, or a piece of it as `delta`."""
    index = choice.get("index")
    message = choice.get(part)
    if isinstance(message, dict):
        signals.text(index, message.get("content"))
        if message.get("refusal"):
            signals.refused = True
        if message.get("tool_calls"):
            _read_calls(signals, index, message["tool_calls"])
    signals.ended(choice.get("finish_reason"))


def _read_calls(signals: AnswerSignals, index: object, calls: object) -> None:
    for number, call in enumerate(iter_objects(calls)):
        place = (index, call.get("index", number))
        function, custom = call.get("function"), call.get("custom")
        if isinstance(function, Mapping):
            signals.call(place, function.get("name"), function.get("arguments"), call.get("id"))
        elif isinstance(custom, Mapping):
            signals.call(place, custom.get("name"), custom.get("input"), call.get("id"))
