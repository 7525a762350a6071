"""Reads what guardrails ask of a Responses request and answer (OpenAI): the JSON schema and the
tools of the request, and into `AnswerSignals` the items of the finished response.
"""

from collections.abc import Mapping

from router.protocols.answer_signals import AnswerSignals
from router.protocols.chat.answer_signals import ANY
from router.protocols.hosted_tools import flat_name
from router.protocols.object_lists import iter_objects
from router.request.body import ClientRequest


def schema_of(request: ClientRequest) -> Mapping[str, object] | None:
    """The schema of the JSON that is to be answered; empty for any JSON, None for none."""
    text = request.value("text")
    wanted = text.get("format") if isinstance(text, Mapping) else None
    if not isinstance(wanted, Mapping):
        return None
    match wanted.get("type"):
        case "json_object":
            return ANY
        case "json_schema":
            schema = wanted.get("schema")
            return schema if isinstance(schema, Mapping) else ANY
        case _:
            return None


def tools_of(request: ClientRequest) -> dict[str, object]:
    """The offered functions' parameters, by name, a namespace's after its own; None for what
    takes any text.
    """
    found: dict[str, object] = {}
    for tool in iter_objects(request.value("tools")):
        space = tool.get("name") if tool.get("type") == "namespace" else None
        for offered in iter_objects(tool.get("tools")) if space else (tool,):
            schema = offered.get("parameters") or ANY
            name = flat_name({**offered, "namespace": space})
            found[name] = schema if offered.get("type") == "function" else None
    return found


def read_signals(signals: AnswerSignals, output: object, incomplete: object) -> None:
    """Adds the signals of a whole response's `output` and `incomplete_details`; a stream ends
    with the same.
    """
    for item, entry in enumerate(iter_objects(output)):
        match entry.get("type"):
            case "message":
                for number, part in enumerate(iter_objects(entry.get("content"))):
                    _hear_part(signals, (item, number), part)
            case "function_call":
                signals.call(item, flat_name(entry), entry.get("arguments"))
            case _:
                pass
    if isinstance(incomplete, Mapping):
        signals.ended(incomplete.get("reason"))


def _hear_part(signals: AnswerSignals, place: object, part: Mapping[str, object]) -> None:
    match part.get("type"):
        case "output_text":
            signals.text(place, part.get("text"))
        case "refusal":
            signals.refused = True
        case _:
            pass
