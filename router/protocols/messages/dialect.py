"""The messages dialect patches `/v1/messages` requests and filters their answers.

It serves targets that speak Anthropic's protocol, so it translates nothing.
`message_request` translates requests for other targets. The interface is
`chat.dialect.ChatDialect`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from harness.frame.failures import FailureClass
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import ANTHROPIC_VERSION, RequestTarget
from router.frame.body import (
    MESSAGES_PATH,
    ClientRequest,
    empty_answer_error,
    iter_objects,
    patched_body,
    setting_edits,
    to_json,
)
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    ParsedObject,
    TextEdit,
    member_edit,
    member_spans,
)
from router.frame.replies import Reply
from router.protocols.answer_signals import AnswerSignals, read_schema
from router.protocols.answers import (
    NO_USAGE,
    CallCollector,
    TokenUsage,
    read_count,
    read_hour_count,
)
from router.protocols.caller_names import conversation_opening
from router.protocols.chat.dialect import CHAT_RESERVED, ChatDialect
from router.protocols.event_stream import (
    Irregularity,
    StreamFilter,
    end_irregularity,
)
from router.protocols.messages.answer_writer import (
    TYPE_BY_CLASS,
    anthropic_error,
)
from router.protocols.provider_failures import check_ending, error_in_answer


def read_block_signals(
    signals: AnswerSignals,
    place: object,
    block: object,
) -> None:
    """Reads the signals of a content block.

    Args:
        place: its index in the answer.
    """
    if not isinstance(block, Mapping):
        return
    match block.get("type"):
        case "text":
            # Other blocks may interrupt the text, so all text blocks count as one text.
            signals.text("text", block.get("text"))
        case "tool_use":
            signals.call(place, block.get("name"), block.get("input"))
        case _:
            pass


def read_delta_signals(
    signals: AnswerSignals,
    place: object,
    delta: object,
) -> None:
    """Reads the signals of a piece of a content block.

    Args:
        place: the block's index.
    """
    if not isinstance(delta, Mapping):
        return
    match delta.get("type"):
        case "text_delta":
            signals.text("text", delta.get("text"))
        case "input_json_delta":
            signals.call(place, None, delta.get("partial_json"))
        case _:
            pass


STOP_EVENT: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
# Blocks that arrive in pieces; a call begins with its name. Other blocks arrive complete.
STREAMED_BLOCKS: Final = frozenset(
    {"text", "thinking", "tool_use", "server_tool_use", "mcp_tool_use"}
)
CALL_BLOCKS: Final = STREAMED_BLOCKS - {"text", "thinking"}
COMPLETE_REASONS: Final = (
    "end_turn",
    "tool_use",
)  # the most frequent reasons of a complete answer; `ENDS` has all
STOP_SEQUENCE: Final = "stop_sequence"
_EMPTY_VALUES: Final[tuple[object, ...]] = (None, "", [], {})
# Stands for the tier of Anthropic's fast mode. `fast` is OpenAI's name of another tier.
FAST_MODE: Final = "fast_mode"
_THOUGHT_PIECES: Final = frozenset({"thinking", "signature"})


def read_message_tokens(usage: object) -> TokenUsage | None:
    """Reads a message's usage; None without one.

    Anthropic's `input_tokens` excludes tokens read from the cache or written to it.
    `TokenUsage.input_tokens` includes them, as OpenAI's count does.
    """
    if not isinstance(usage, dict):
        return None
    get = usage.get
    written_tokens = hour_tokens = cached_tokens = 0
    if cache_writes := get("cache_creation_input_tokens"):
        written_tokens = read_count(cache_writes)
        hour_tokens = min(read_hour_count(get("cache_creation")), written_tokens)
    if cache_reads := get("cache_read_input_tokens"):
        cached_tokens = read_count(cache_reads)
    input_tokens = written_tokens + cached_tokens + read_count(get("input_tokens"))
    tier = get("service_tier")
    if get("speed") == "fast":
        tier = FAST_MODE  # its tokens cost more than those of the reported tier
    tier = tier if isinstance(tier, str) else ""
    total = TokenUsage(
        input_tokens,
        read_count(get("output_tokens")),
        cached_tokens,
        written_tokens,
        hour_tokens,
        tier,
    )
    return _with_compactions(total, get("iterations")) if get("iterations") else total


def _with_compactions(total: TokenUsage, iterations: object) -> TokenUsage:
    """Adds the tokens of compactions, which the usage itself leaves out."""
    for iteration in iter_objects(iterations):
        if iteration.get("type") == "compaction":
            compaction = read_message_tokens({**iteration, "iterations": None}) or NO_USAGE
            total = TokenUsage(
                total.input_tokens + compaction.input_tokens,
                total.output_tokens + compaction.output_tokens,
                total.cached_tokens + compaction.cached_tokens,
                total.written_tokens + compaction.written_tokens,
                total.hour_tokens + compaction.hour_tokens,
                total.tier,
            )
    return total


class MessagesStream(StreamFilter):
    """The stream ends with `message_stop`, or with the connection after a stop reason."""

    def __init__(self, json_name: str | None) -> None:
        super().__init__(json_name)
        self._stopped = self._has_answer = False
        self._usage: TokenUsage | None = None
        self._latest_type: object = ""  # type of the latest event
        self._held_block_end = b""  # the end of a block, until another event follows

    def used(self) -> TokenUsage:
        """Returns the tokens so far: an estimate, or the last event's count if it arrived."""
        counts = self._usage or NO_USAGE
        if self.counted:
            return counts
        # The first event counts only the first output token.
        output_tokens = max(counts.output_tokens, self.output_events)
        return counts._replace(output_tokens=output_tokens)

    def broken(self, message: str, failure: FailureClass) -> bytes:
        kind = TYPE_BY_CLASS.get(failure, "api_error")
        error = {
            "type": "error",
            "error": {"type": kind, "message": message},
        }
        return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"

    @property
    def ended(self) -> bool:
        return self._stopped

    def _event(self, event: bytes, end: bytes) -> bytes:
        """Holds the end of a block back until the next event.

        Claude Code repeats a request after a broken stream only if no block has ended.
        """
        self._latest_type = ""
        sent = super()._event(event, end)
        if self._latest_type == "content_block_stop":
            self._held_block_end, sent = sent, self._held_block_end
        elif self._held_block_end and sent and self._latest_type not in ("", "ping"):
            sent = self._held_block_end + sent
            self._held_block_end = b""
        return sent

    def _handle_done(self, event: bytes) -> bytes:
        return event  # this protocol has no `[DONE]`

    def _handle_early_close(self) -> bytes:
        if not self._stopped:
            self._fail("the stream ended without a stop_reason")
            return b""
        self.finished = True
        self.irregularities.add(Irregularity.NO_LAST_EVENT)
        return STOP_EVENT

    def _read(self, text: str, members: ParsedObject) -> Sequence[TextEdit] | None:
        kind = self._latest_type = members.get("type")
        if not isinstance(kind, str) and not self.committed:
            self._fail("an event without a type")
            return None
        edits: Sequence[TextEdit] = ()
        match kind:
            case "error":
                error = members.get("error")
                self._fail_with_error(error)
                return None
            case "content_block_delta":
                delta = members.get("delta")
                self._note_delta(members.get("index"), delta)
                if self.signals is not None:
                    self._note(read_delta_signals, members.get("index"), delta)
            case "content_block_start":
                self.progress_events += 1
                block = members.get("content_block")
                edits = self._note_block(members, block)
                if self.signals is not None:
                    self._note(read_block_signals, members.get("index"), block)
            case "message_start":
                return self._note_start(text, members)
            case "message_delta":
                self._note_end(members)
                return None if self.failure else ()
            case "message_stop":
                return self._handle_stop()
            case _:  # a block's end, a ping or an event of a newer protocol has no output
                self.progress_events += kind != "ping"
        return edits

    def _note_delta(self, place: object, delta: object) -> None:
        """Notes a piece of a block. Output that is not only white space commits the stream."""
        if _has_output(delta):
            if isinstance(delta, dict) and "partial_json" in delta:
                if self._calls is None:
                    self._calls = CallCollector()
                self._calls.add(place, None, None, delta["partial_json"])
            self.output_events += 1
            self.progress_events += 1
            if not (self.committed and self._has_answer) and isinstance(delta, dict):
                text = delta.get("text")
                is_blank = isinstance(text, str) and text.isspace()
                self.committed = self.committed or not is_blank
                is_answer = not is_blank and _THOUGHT_PIECES.isdisjoint(delta)
                self._has_answer = self._has_answer or is_answer

    def _note_block(self, members: ParsedObject, block: object) -> Sequence[TextEdit]:
        """Notes the beginning of a block; returns the edits that give a call an id."""
        if not isinstance(block, dict):
            return ()
        kind = str(block.get("type"))
        # An answer with a call's name is not empty, but the name does not commit it.
        self._has_answer = self._has_answer or kind in CALL_BLOCKS or is_answer_block(block)
        if kind not in STREAMED_BLOCKS or any(
            block.get(part) for part in ("text", "thinking", "input")
        ):
            self.committed = True
        if kind != "tool_use" or not self.ids.mend_call(block, members.get("index")):
            return ()
        return (member_edit(members, "content_block", to_json(block)),)

    def _note_start(self, text: str, members: ParsedObject) -> Sequence[TextEdit]:
        message = members.values.get("message")
        if message is None or not isinstance(message.value, dict):
            return ()
        self.given_usage = message.value.get("usage")
        self._usage = None if self.estimates_input else read_message_tokens(self.given_usage)
        spans = member_spans(text, message.start, message.value).values
        edits = [*self._model_edit(spans.get("model"))]
        if not message.value.get("id", True):
            id_span = spans["id"]
            edits.append(
                TextEdit(id_span.start, id_span.end, to_json(self.ids.of_answer("msg")))
            )
        if message.value.get("content"):
            self._note_content(message.value)
        return edits

    def _note_content(self, message: Mapping[str, object]) -> None:
        """Notes the blocks of the first event. Some answers are complete there, such as those
        after a provider's own tool.
        """
        for number, block in enumerate(iter_objects(message.get("content"))):
            self.progress_events += 1
            self._has_answer = self._has_answer or is_answer_block(block)
            self.committed = True
            if self.signals is not None:
                self._note(read_block_signals, ("first", number), block)
        if message.get("stop_reason"):
            self._note_stop(message["stop_reason"])

    def _note_end(self, members: ParsedObject) -> None:
        """Reads the stop reason and the last usage."""
        delta = members.get("delta")
        if isinstance(delta, dict) and delta.get("stop_reason"):
            self._note_stop(delta["stop_reason"])
            if self.failure:
                return
        given_usage = members.get("usage")
        tokens = read_message_tokens(given_usage)
        if isinstance(given_usage, dict) and tokens:
            earlier_fields = self.given_usage if isinstance(self.given_usage, dict) else {}
            self.given_usage = {**earlier_fields, **given_usage}
            earlier_usage = self._usage or NO_USAGE
            # The last event may omit the input tokens.
            input_from = tokens if tokens.input_tokens else earlier_usage
            self._usage = input_from._replace(
                output_tokens=tokens.output_tokens,
                tier=tokens.tier or earlier_usage.tier,
            )
            self.counted = True

    def _note_stop(self, reason: object) -> None:
        self.finish_reasons.append(str(reason))
        has_answer = self._has_answer or reason == STOP_SEQUENCE
        if not (
            (has_answer and reason in COMPLETE_REASONS)
            or self._ends_well(reason, has_output=has_answer)
        ):
            return
        if self._calls is not None and self._has_broken_call(reason):
            return
        self._stopped = self.committed = True
        self.progress_events += 1
        if self.signals is not None:
            self._note(AnswerSignals.note_end, reason)

    def _handle_stop(self) -> Sequence[TextEdit] | None:
        if not self._stopped:
            self._fail("the stream ended without a stop_reason")
            return None
        self.finished = True
        return ()


def _has_output(delta: object) -> bool:
    return isinstance(delta, dict) and any(
        value not in _EMPTY_VALUES for name, value in delta.items() if name != "type"
    )


def is_answer_block(block: object) -> bool:
    """Returns whether a block is part of the answer. Blank text and thinking are not."""
    if not isinstance(block, dict):
        return False
    kind = block.get("type")
    if kind == "text":
        return bool(str(block.get("text") or "").strip())
    return kind not in ("thinking", "redacted_thinking")


FIELD_NAMES: Final = {"max_completion_tokens": "max_tokens"}
VERSION_HEADER: Final = b"anthropic-version"
FORWARDED_HEADERS: Final[Mapping[bytes, bytes]] = {
    VERSION_HEADER: ANTHROPIC_VERSION.encode(),
    b"anthropic-beta": b"",
}


class MessagesDialect(ChatDialect):
    """Anthropic's protocol. A target whose patch sets a `response_format` cannot use it."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.MESSAGES
        self.path = MESSAGES_PATH
        self.passed_up = FORWARDED_HEADERS
        self.call_mark = '"tool_use"'

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        get = request.members.get
        return conversation_opening(get("messages"), get("system"), skipped)

    def patched(
        self,
        request: ClientRequest,
        target: RequestTarget,
        *,
        serialize_tools: bool = False,
    ) -> bytes:
        settings = setting_edits(request, target, CHAT_RESERVED, FIELD_NAMES)
        if serialize_tools and not request.serial_tools:
            choice = settings.get("tool_choice", request.value("tool_choice"))
            choice_fields = dict(choice) if isinstance(choice, Mapping) else {"type": "auto"}
            settings["tool_choice"] = {
                **choice_fields,
                "disable_parallel_tool_use": True,
            }
        return patched_body(request, target, settings, "system")

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
        # Most answers have text and end well.
        text = first.get("text") if first.__class__ is dict else None
        is_text = text.__class__ is str and text and not text.isspace()
        if reason and not (is_text and reason in COMPLETE_REASONS):
            has_answer = any(map(is_answer_block, content))
            # An immediate stop sequence is a valid answer.
            has_answer = has_answer or reason == STOP_SEQUENCE
            check_ending(reason, has_output=has_answer, silence=silence)
        return read_message_tokens(members.get("usage"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:
        reason = members.get("stop_reason")
        return None if reason in COMPLETE_REASONS else end_irregularity(reason)

    def schema(self, request: ClientRequest) -> Mapping[str, object] | None:
        config = request.value("output_config")
        text_format = config.get("format") if isinstance(config, Mapping) else None
        # `output_format` is the older name.
        return read_schema(text_format or request.value("output_format"))

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        tools = iter_objects(request.value("tools"))
        return {str(tool.get("name")): tool.get("input_schema") for tool in tools}

    def note_signals(self, signals: AnswerSignals, members: ParsedObject) -> None:
        for number, block in enumerate(iter_objects(members.get("content"))):
            read_block_signals(signals, number, block)
        signals.note_end(members.get("stop_reason"))

    def stream(self, request: ClientRequest, json_name: str | None) -> StreamFilter:  # noqa: ARG002 - a Dialect
        return MessagesStream(json_name)

    def error(self, reply: Reply, request_id: str) -> Reply:
        return anthropic_error(reply, request_id)


MESSAGES: Final = MessagesDialect()
