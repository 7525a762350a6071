"""The messages dialect patches a `/v1/messages` request (Anthropic's protocol) for its target,
and reads the answer's usage, end and faults.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import ANTHROPIC_VERSION, Target
from router.frame.body import MESSAGES_PATH, ClientRequest
from router.frame.body_patch import patched_body, setting_edits
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject
from router.frame.object_lists import empty_answer_error, iter_objects
from router.frame.replies import Reply
from router.protocols.answer_signals import AnswerSignals, read_schema
from router.protocols.caller_names import conversation_opening
from router.protocols.chat.dialect import CHAT_RESERVED, ChatDialect
from router.protocols.event_stream import Irregularity, StreamFilter, end_irregularity
from router.protocols.messages.answer_writer import anthropic_error
from router.protocols.messages.stream import (
    GOOD,
    STOP_SEQUENCE,
    MessagesStream,
    block_speaks,
    read_block_signals,
    read_message_tokens,
)
from router.protocols.provider_failures import check_ending, error_in_answer
from router.protocols.usage import TokenUsage

NAMES: Final = {"max_completion_tokens": "max_tokens"}
VERSION: Final = b"anthropic-version"
PASSED_UP: Final[Mapping[bytes, bytes]] = {
    VERSION: ANTHROPIC_VERSION.encode(),
    b"anthropic-beta": b"",
}


class MessagesDialect(ChatDialect):
    """A target whose patch sets a `response_format` does not speak it: see
    `router.snapshot.compiler`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.MESSAGES
        self.path = MESSAGES_PATH
        self.passed_up = PASSED_UP
        self.call_mark = '"tool_use"'

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        get = request.members.get
        return conversation_opening(get("messages"), get("system"), skipped)

    def patched(
        self, request: ClientRequest, target: Target, *, serialize_tools: bool = False
    ) -> bytes:
        wanted = setting_edits(request, target, CHAT_RESERVED, NAMES)
        if serialize_tools and not request.serial_tools:
            choice = wanted.get("tool_choice", request.value("tool_choice"))
            given = dict(choice) if isinstance(choice, Mapping) else {"type": "auto"}
            wanted["tool_choice"] = {**given, "disable_parallel_tool_use": True}
        return patched_body(request, target, wanted, "system")

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:
        if members.get("type") == "error":
            raise error_in_answer(members.get("error"))
        content = members.get("content")
        if not isinstance(content, list):
            raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without a message")
        reason = members.get("stop_reason")
        if not reason and not content:
            raise empty_answer_error("stop_reason")
        first = content[0] if content else None
        # Most often it says something, and ends well.
        said = first.get("text") if first.__class__ is dict else None
        is_text = said.__class__ is str and said and not said.isspace()
        if reason and not (is_text and reason in GOOD):
            says = any(map(block_speaks, content))
            # A stop sequence that comes at once is what the client asked for.
            says = says or reason == STOP_SEQUENCE
            check_ending(reason, has_output=says, silence=silence)
        return read_message_tokens(members.get("usage"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:
        reason = members.get("stop_reason")
        return None if reason in GOOD else end_irregularity(reason)

    def schema(self, request: ClientRequest) -> Mapping[str, object] | None:
        config = request.value("output_config")
        wanted = config.get("format") if isinstance(config, Mapping) else None
        # Before it had its place, it was a field of its own.
        return read_schema(wanted or request.value("output_format"))

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        tools = iter_objects(request.value("tools"))
        return {str(tool.get("name")): tool.get("input_schema") for tool in tools}

    def note_signals(self, signals: AnswerSignals, members: ParsedObject) -> None:
        for number, block in enumerate(iter_objects(members.get("content"))):
            read_block_signals(signals, number, block)
        signals.ended(members.get("stop_reason"))

    def stream(self, request: ClientRequest, json_name: str | None) -> StreamFilter:  # noqa: ARG002 - a Dialect
        return MessagesStream(json_name)

    def error(self, reply: Reply, request_id: str) -> Reply:
        return anthropic_error(reply, request_id)


MESSAGES: Final = MessagesDialect()
