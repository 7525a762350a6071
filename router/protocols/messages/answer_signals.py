"""Reads what guardrails ask of a Messages request and answer (Anthropic): the JSON schema and
the tools of the request, and into `AnswerSignals` the blocks of the answer or of its stream.
"""

from collections.abc import Mapping

from router.protocols.answer_signals import AnswerSignals
from router.protocols.chat.answer_signals import ANY
from router.protocols.object_lists import iter_objects
from router.request.body import ClientRequest


def schema_of(request: ClientRequest) -> Mapping[str, object] | None:
    """The schema of the JSON that is to be answered; None for none."""
    config = request.value("output_config")
    wanted = config.get("format") if isinstance(config, Mapping) else None
    # Before it had its place, it was a field of its own.
    wanted = wanted or request.value("output_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return None
    schema = wanted.get("schema")
    return schema if isinstance(schema, Mapping) else ANY


def tools_of(request: ClientRequest) -> dict[str, object]:
    """The offered tools' parameters, by name; None for what the provider knows itself."""
    return {
        str(tool.get("name")): tool.get("input_schema")
        for tool in iter_objects(request.value("tools"))
    }


def read_block_signals(signals: AnswerSignals, place: object, block: object) -> None:
    """Adds the signals of a block of content: whole, or as a stream begins it."""
    if not isinstance(block, Mapping):
        return
    match block.get("type"):
        case "text":
            # They are one text, cut by what stands between.
            signals.text("text", block.get("text"))
        case "tool_use":
            signals.call(place, block.get("name"), block.get("input"))
        case _:
            pass


def read_delta_signals(signals: AnswerSignals, place: object, delta: object) -> None:
    if not isinstance(delta, Mapping):
        return
    match delta.get("type"):
        case "text_delta":
            signals.text("text", delta.get("text"))
        case "input_json_delta":
            signals.call(place, None, delta.get("partial_json"))
        case _:
            pass
