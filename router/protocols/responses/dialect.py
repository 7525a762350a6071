"""The responses dialect patches a `/v1/responses` request for its target and reads the answer's
usage, end and faults. A conversation that the provider keeps stays there: its opening is
unknown here.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import JsonObject, Target
from router.protocols.answer_signals import AnswerSignals
from router.protocols.caller_names import conversation_opening
from router.protocols.chat.dialect import CHAT_RESERVED, ChatDialect
from router.protocols.event_stream import Irregularity, StreamFilter, end_irregularity
from router.protocols.object_lists import empty_answer_error
from router.protocols.provider_failures import check_ending, error_in_answer
from router.protocols.responses.stream import (
    GOES_ON,
    ResponsesStream,
    check_calls,
    end_reason,
    item_answers,
    read_response_usage,
    read_signals,
    schema_of,
    tools_of,
)
from router.protocols.usage import TokenUsage
from router.request.body import ClientRequest
from router.request.body_patch import append_members, field_edits, model_edit, setting_edits
from router.request.json_spans import ParsedObject, TextEdit, apply_edits
from router.upstream.failure import UpstreamFailed

RESERVED: Final = CHAT_RESERVED | {"input"}
NAMES: Final = dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_output_tokens")


class ResponsesDialect(ChatDialect):
    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.RESPONSES
        self.path = "/responses"
        self.call_mark = '_call"'

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        """Returns the opening of the conversation; empty where the provider keeps its
        beginning.
        """
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
        patch = target.request_patch
        if patch.response_format:
            text = wanted.get("text", request.value("text"))
            given = dict(text) if isinstance(text, Mapping) else {}
            wanted["text"] = {**given, "format": _text_format(patch.response_format)}
        addendum = patch.prompt_addendum
        instructions = request.members.values.get("instructions") if addendum else None
        more: list[TextEdit] = []
        if addendum and instructions is None:
            wanted["instructions"] = addendum
        elif addendum and instructions and "instructions" not in wanted:
            more = append_members(instructions, addendum)
        edits = [model_edit(request, target), *field_edits(request, wanted), *more]
        return apply_edits(request.text, edits)

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
        return schema_of(request)

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        return tools_of(request)

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
