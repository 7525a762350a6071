"""The responses dialect patches a `/v1/responses` request for its target and reads the answer's
usage, end and faults. A conversation that the provider keeps stays there: its opening is
unknown here.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import JsonObject, Target
from router.frame.body import RESPONSES_PATH, ClientRequest
from router.frame.body_patch import patched_body, setting_edits
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject
from router.frame.object_lists import empty_answer_error, iter_objects
from router.protocols.answer_signals import ANY, AnswerSignals, read_schema
from router.protocols.caller_names import conversation_opening
from router.protocols.chat.dialect import CHAT_RESERVED, ChatDialect
from router.protocols.chat_way import flat_name
from router.protocols.event_stream import Irregularity, StreamFilter, end_irregularity
from router.protocols.provider_failures import check_ending, error_in_answer
from router.protocols.responses.stream import (
    GOES_ON,
    ResponsesStream,
    check_calls,
    end_reason,
    item_answers,
    read_response_usage,
    read_signals,
)
from router.protocols.usage import TokenUsage

RESERVED: Final = CHAT_RESERVED | {"input"}
NAMES: Final = dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens")


class ResponsesDialect(ChatDialect):
    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.RESPONSES
        self.path = RESPONSES_PATH
        self.call_mark = '_call"'

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        """Returns the opening; empty where the provider keeps its beginning."""
        if request.value("previous_response_id") or request.value("conversation"):
            return []
        given = request.value("input")
        if isinstance(given, str):
            given = [{"role": "user", "content": given}] if given else []
        return conversation_opening(given, request.value("instructions"), skipped)

    def patched(
        self, request: ClientRequest, target: Target, *, serialize_tools: bool = False
    ) -> bytes:
        wanted = setting_edits(request, target, RESERVED, NAMES)
        if serialize_tools and not request.serial_tools:
            wanted["parallel_tool_calls"] = False
        if response_format := target.request_patch.response_format:
            text = wanted.get("text", request.value("text"))
            given = dict(text) if isinstance(text, Mapping) else {}
            wanted["text"] = {**given, "format": _text_format(response_format)}
        return patched_body(request, target, wanted, "instructions")

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:
        if members.get("error"):
            raise error_in_answer(members.get("error"))
        output = members.get("output")
        if not isinstance(output, list):
            raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without an output")
        status = members.get("status")
        if not status and not output:
            raise empty_answer_error("status")
        if status and str(status) not in GOES_ON:
            says = any(map(item_answers, output))
            reason = end_reason(members.get)
            check_ending(reason, has_output=says, silence=silence)
            check_calls(output, reason)
        return read_response_usage(members.get("usage"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:
        if str(members.get("status")) in GOES_ON:
            return None
        return end_irregularity(end_reason(members.get))

    def schema(self, request: ClientRequest) -> Mapping[str, object] | None:
        text = request.value("text")
        return read_schema(text.get("format") if isinstance(text, Mapping) else None)

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        # A namespace's functions stand under names after its own.
        found: dict[str, object] = {}
        for tool in iter_objects(request.value("tools")):
            space = tool.get("name") if tool.get("type") == "namespace" else None
            for offered in iter_objects(tool.get("tools")) if space else (tool,):
                schema = offered.get("parameters") or ANY
                name = flat_name({**offered, "namespace": space})
                found[name] = schema if offered.get("type") == "function" else None
        return found

    def note_signals(self, signals: AnswerSignals, members: ParsedObject) -> None:
        read_signals(signals, members.get("output"), members.get("incomplete_details"))

    def stream(self, request: ClientRequest, json_name: str | None) -> StreamFilter:  # noqa: ARG002 - a Dialect
        return ResponsesStream(json_name)


def _text_format(response_format: JsonObject) -> dict[str, object]:
    """A chat's `response_format` as this endpoint has it: the schema one level up."""
    schema = response_format.get("json_schema")
    flat = {name: v for name, v in response_format.items() if name != "json_schema"}
    return {**flat, **schema} if isinstance(schema, Mapping) else flat


RESPONSES: Final = ResponsesDialect()
