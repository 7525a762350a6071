"""Reads a complete or streamed chat completion into answer blocks.

A translation needs it if the target speaks chats and the client another protocol. The
writer of the client's protocol gets the blocks (`messages.answer_writer`,
`responses.answer_writer`). For clients that speak chats, `dialect` and `stream` pass the
answer on instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from secrets import token_hex
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from router.conversation.intake import (
    RESPONSE_FORMAT,
    AnswerIds,
    arguments_text,
    clean_name,
    seal_thoughts,
)
from router.conversation.split_choices import join_choices
from router.frame.body import empty_answer_error, first_object, iter_objects
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject
from router.protocols.answers import (
    BROKEN_CALL,
    AnswerBlock,
    AnswerEnd,
    AnswerEnding,
    AnswerHead,
    AnswerWriter,
    BlockKind,
    CallPieces,
    FinishReason,
    TokenUsage,
    WholeAnswer,
    call_of_piece,
    parse_json,
    piece_place,
    read_content,
    read_count,
    read_ending,
    read_usage,
)
from router.protocols.event_stream import SsePayloads, read_event
from router.protocols.provider_failures import check_ending, error_in_answer

_FINISH_BY_ENDING: Final[Mapping[AnswerEnding, FinishReason]] = {
    AnswerEnding.GOOD: FinishReason.STOP,
    AnswerEnding.CUT: FinishReason.LENGTH,
    AnswerEnding.REFUSED: FinishReason.FILTERED,
}
_CALL_REASONS: Final = ("tool_calls", "function_call")


def read_chat_answer(members: ParsedObject, *, thinking: bool) -> WholeAnswer:
    """Reads an answer. Raises UpstreamFailed for an error or a malformed answer.

    Args:
        thinking: whether the client wants the thinking; it is left out otherwise.
    """
    if members.get("error") and not members.get("choices"):
        raise error_in_answer(members.get("error"))
    choice: Mapping[Any, object] = first_object(members, "choices")
    choices = members.get("choices")
    if isinstance(choices, list) and len(choices) > 1:
        choice = join_choices(list(iter_objects(choices)))
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without a message")
    head = read_head(members)
    blocks = tuple(_read_blocks(message))
    if not thinking:
        blocks = tuple(block for block in blocks if block.kind is not BlockKind.THINKING)
    finish = choice.get("finish_reason")
    if not finish and not blocks:
        raise empty_answer_error("finish_reason")
    if finish:
        check_ending(finish, has_output=True, silence=True)  # the endpoint checks for output
    has_call = any(block.kind is BlockKind.CALL for block in blocks)
    has_refusal = any(block.kind is BlockKind.REFUSAL for block in blocks)
    end = read_end(
        finish,
        choice,
        read_usage(members.get("usage"), head.tier),
        has_call=has_call,
        has_refusal=has_refusal,
    )
    end = end._replace(reasoning_tokens=read_reasoning_tokens(members))
    return WholeAnswer(head, blocks, end)


def read_head(members: ParsedObject) -> AnswerHead:
    """Reads the head of an answer or chunk. An answer without id gets one."""
    created = members.get("created")
    # Some providers write the time as a float.
    seconds = int(created) if isinstance(created, int | float) and 0 < created < 2**53 else 0
    # An answer needs a unique id that is not empty.
    answer_id = str(members.get("id") or "") or token_hex(12)
    tier = str(members.get("service_tier") or "")
    return AnswerHead(answer_id, str(members.get("model") or ""), seconds, tier)


def read_end(
    reason: object,
    choice: Mapping[Any, object],
    usage: TokenUsage | None,
    *,
    has_call: bool,
    has_refusal: bool,
) -> AnswerEnd:
    """Reads the end.

    Args:
        choice: may name the stop sequence.
        has_call: turns `stop` into a call's ending, because some servers report `stop` after
            calls.
        has_refusal: outweighs the reason.
    """
    if reason in _CALL_REASONS:
        finish = FinishReason.CALLS
    else:
        ending = read_ending(reason) if reason else AnswerEnding.GOOD
        finish = _FINISH_BY_ENDING.get(ending, FinishReason.UNKNOWN)
    if has_refusal:
        finish = FinishReason.FILTERED
    elif has_call and finish is FinishReason.STOP:
        finish = FinishReason.CALLS
    # vLLM puts the stop sequence into `stop_reason`.
    stop = choice.get("stop_reason")
    sequence = stop if isinstance(stop, str) and finish is FinishReason.STOP else ""
    word = str(reason) if finish is FinishReason.UNKNOWN else ""
    return AnswerEnd(finish, sequence, usage, word)


def read_reasoning_tokens(members: Mapping[str, object] | ParsedObject) -> int:
    """Returns the tokens of thinking among the output tokens; 0 without the count."""
    usage = members.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return read_count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0


def read_thinking(part: Mapping[object, object]) -> str:
    """Reads thinking under the name of DeepSeek and vLLM, then under OpenRouter's."""
    for name in ("reasoning_content", "reasoning"):
        thinking = part.get(name)
        if isinstance(thinking, str) and thinking:
            return thinking
    return ""


def _read_blocks(message: Mapping[object, object]) -> Iterator[AnswerBlock]:
    thinking = read_thinking(message)
    blocks = list(iter_objects(message.get("thinking_blocks")))
    if thinking or _is_encrypted(blocks):
        yield AnswerBlock(BlockKind.THINKING, thinking, sealed=seal_thoughts(blocks))
    yield from _join_parts(read_content(message.get("content")))
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        yield AnswerBlock(BlockKind.REFUSAL, str(message["refusal"]))
    ids = AnswerIds("")
    for number, call in enumerate(iter_objects(message.get("tool_calls"))):
        function = call.get("function")
        if not isinstance(function, Mapping) or not function.get("name"):
            raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
        arguments = str(arguments_text(function.get("arguments") or {}))
        if not isinstance(parse_json(arguments), Mapping):
            raise UpstreamFailed(FailureClass.MALFORMED, BROKEN_CALL)
        call_id = ids.of_call(call.get("id"), number)
        name = str(clean_name(function["name"]))
        yield AnswerBlock(BlockKind.CALL, arguments, call_id, name)


def _is_encrypted(blocks: Sequence[Mapping[str, object]]) -> bool:
    """Returns whether thinking may lack its text: a response's reasoning is encrypted."""
    return any(block.get("format") == RESPONSE_FORMAT for block in blocks)


def _join_parts(parts: Iterator[tuple[BlockKind, str]]) -> Iterator[AnswerBlock]:
    """Joins consecutive parts of one kind, and leaves out empty ones."""
    last: AnswerBlock | None = None
    for kind, text in parts:
        if last is not None and last.kind is kind:
            last = last._replace(text=last.text + text)
            continue
        if last is not None and last.text:
            yield last
        last = AnswerBlock(kind, text)
    if last is not None and last.text:
        yield last


class StreamedToolCall(CallPieces):
    """The received part of a tool call. unsent: the arguments that still have to be written."""

    __slots__ = ("opened", "unsent")

    def __init__(self) -> None:
        super().__init__()
        self.unsent = ""
        self.opened = False


class ToolCallOrder:
    """Writes calls in order, because in other protocols a block ends before the next begins."""

    def __init__(self, writer: AnswerWriter) -> None:
        self.has_calls = False
        self._writer = writer
        self._calls: list[StreamedToolCall] = []
        self._by_index: dict[str, list[StreamedToolCall]] = {}
        self._position = 0
        self._ids = AnswerIds("")

    def piece(self, delta: Mapping[str, object], number: int) -> bytes:
        """Adds a piece of a call. Returns the events that the piece completes.

        Args:
            number: the piece's number in its event.

        Raises UpstreamFailed if the piece belongs to a call that is closed already.
        """
        self.has_calls = True
        function = delta.get("function")
        members = function if isinstance(function, Mapping) else {}
        call_piece = (
            delta.get("id"),
            clean_name(members.get("name")),
            arguments_text(members.get("arguments")),
        )
        calls = self._by_index.setdefault(piece_place(delta, number), [])
        call = call_of_piece(calls, StreamedToolCall, *call_piece)
        if call not in self._calls:
            self._calls.append(call)
        new_arguments = call.add(*call_piece)
        if new_arguments and self._calls.index(call) < self._position:
            why = "a tool call continued after the next call began"
            raise UpstreamFailed(FailureClass.MALFORMED, why)
        call.unsent = call.unsent + new_arguments if call.opened else call.text
        return self._write_ready_calls()

    def flush(self) -> bytes:
        """Writes the remaining calls.

        Raises UpstreamFailed for arguments that are not a JSON object.
        """
        out = b""
        for call in self._calls[self._position :]:
            if call.broken:
                raise UpstreamFailed(FailureClass.MALFORMED, BROKEN_CALL)
            out += self._write_call(call) + self._writer.close()
            self._position += 1
        self._by_index.clear()
        return out

    def _write_ready_calls(self) -> bytes:
        """Writes the calls that are complete, and the known part of the last one."""
        out = b""
        while self._position < len(self._calls):
            call = self._calls[self._position]
            is_last = self._position + 1 == len(self._calls)
            # A name is complete when the arguments begin.
            if not call.name or not call.pieces or (is_last and call.is_empty):
                break
            out += self._write_call(call)
            if is_last or not call.whole:
                break
            out += self._writer.close()
            self._position += 1
        return out

    def _write_call(self, call: StreamedToolCall) -> bytes:
        out = b""
        if not call.opened:
            if not call.name:
                raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
            call_id = self._ids.of_call(call.id, self._position)
            out = self._writer.open(AnswerBlock(BlockKind.CALL, "", call_id, call.name))
            call.opened = True
        if call.unsent:
            out += self._writer.more(call.unsent)
            call.unsent = ""
        return out


class ChatStreamReader:
    """Translates a chat stream into the events of another protocol.

    After a finish reason, it writes the end when the usage, `[DONE]` or the connection's end
    arrives.
    Without a finish reason it writes no end, so the endpoint's filter reports a broken stream.
    thinking: whether it writes thinking.
    """

    def __init__(self, writer: AnswerWriter, *, thinking: bool) -> None:
        self._writer = writer
        self._thinking = thinking
        self._payloads = SsePayloads()
        self._calls = ToolCallOrder(writer)
        self._head = AnswerHead("", "")
        self._has_begun = self._is_done = self._has_refusal = False
        self._open: BlockKind | None = None  # the open block, if it is not a call
        self._choice: Mapping[str, object] | None = None  # the choice with the finish reason
        self._usage: TokenUsage | None = None
        self.given_usage: object = None  # as the provider sent it
        self._reasoning_tokens = 0
        self._delta_count = 0
        # Signed thinking of the open block.
        self._signed_blocks: list[Mapping[str, object]] = []
        self.failure: UpstreamFailed | None = None

    @property
    def ended(self) -> bool:
        """Whether the finish reason has arrived."""
        return self._choice is not None

    @property
    def progress_events(self) -> int:
        """The number of deltas with output so far, including thinking that the client does
        not get.
        """
        return self._delta_count

    def feed(self, data: bytes) -> bytes:
        """Returns the events before the first broken event, which sets `failure`."""
        out = b""
        try:
            for payload in self._payloads.read(data):
                out += self._translate_event(payload)
        except UpstreamFailed as error:
            self.failure = error
        return out

    def end(self) -> bytes:
        """Returns the events after the connection's end. A broken end sets `failure`."""
        out = b""
        try:
            for payload in self._payloads.rest():
                out += self._translate_event(payload)
        except UpstreamFailed as error:
            if not self.ended:  # after the finish reason, an incomplete event does not matter
                self.failure = error
                return out
        try:
            return out + self._finish()
        except UpstreamFailed as error:
            self.failure = error
            return out

    def _translate_event(self, payload: bytes) -> bytes:
        if self._is_done:
            return b""
        if payload == b"[DONE]":
            return self._finish()
        try:
            members, _ = read_event(payload)
        except InputError as error:
            why = f"an event that is not valid: {error}"
            raise UpstreamFailed(FailureClass.MALFORMED, why) from None
        if members.get("error"):
            self._is_done = True
            return self._writer.error(members.get("error"))
        return self._translate_chunk(members)

    def _translate_chunk(self, members: ParsedObject) -> bytes:
        out = b""
        if not self._has_begun:
            if not (members.get("choices") or members.get("id")):
                return b""  # Azure's first event has only the filter's results
            self._has_begun = True
            self._head = read_head(members)
            out = self._writer.begin(self._head)
        tier = members.get("service_tier") or self._head.tier
        self._note_usage(members, tier)
        choices = members.get("choices")
        for choice in iter_objects(choices):
            # Each choice is a part of the answer: a translated request asks for one.
            out += self._translate_delta(choice.get("delta"))
            if reason := choice.get("finish_reason"):
                check_ending(reason, has_output=True, silence=True)
                self._choice = choice
                if self._usage is None:  # Moonshot has it in the last choice
                    self._note_usage(choice, tier)
        if not choices and self._usage is not None and self._choice is not None:
            out += self._finish()
        return out

    def _note_usage(self, holder: Mapping[str, object] | ParsedObject, tier: object) -> None:
        if usage := read_usage(holder.get("usage"), tier):
            self._usage = usage
            self.given_usage = holder.get("usage")
            self._reasoning_tokens = read_reasoning_tokens(holder)

    def _translate_delta(self, delta: object) -> bytes:
        if not isinstance(delta, Mapping):
            return b""
        out = self._write_text(BlockKind.THINKING, read_thinking(delta))
        blocks = list(iter_objects(delta.get("thinking_blocks")))
        if self._thinking and self._open is not BlockKind.THINKING and _is_encrypted(blocks):
            out += self._open_block(BlockKind.THINKING)
        if self._open is BlockKind.THINKING:
            self._signed_blocks += blocks
        for kind, text in read_content(delta.get("content")):
            out += self._write_text(kind, text)
        refusal = delta.get("refusal")
        out += self._write_text(BlockKind.REFUSAL, refusal if isinstance(refusal, str) else "")
        for number, call in enumerate(iter_objects(delta.get("tool_calls"))):
            self._delta_count += 1
            out += self._close_block() + self._calls.piece(call, number)
        return out

    def _write_text(self, kind: BlockKind, text: str) -> bytes:
        if not text:
            return b""
        self._delta_count += 1
        if kind is BlockKind.THINKING and not self._thinking:
            return b""
        self._has_refusal = self._has_refusal or kind is BlockKind.REFUSAL
        out = self._calls.flush() if self._open is kind else self._open_block(kind)
        return out + self._writer.more(text)

    def _open_block(self, kind: BlockKind) -> bytes:
        out = self._calls.flush() + self._close_block() + self._writer.open(AnswerBlock(kind))
        self._open = kind
        return out

    def _close_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        signed_blocks = self._signed_blocks
        self._signed_blocks = []
        return self._writer.close(seal_thoughts(signed_blocks))

    def _finish(self) -> bytes:
        if self._is_done or self._choice is None:
            return b""
        self._is_done = True
        # Without usage, the router counts a delta as a token.
        end = read_end(
            self._choice.get("finish_reason"),
            self._choice,
            self._usage or TokenUsage(0, self._delta_count, tier=self._head.tier),
            has_call=self._calls.has_calls,
            has_refusal=self._has_refusal,
        )
        end = end._replace(reasoning_tokens=self._reasoning_tokens)
        return self._close_block() + self._calls.flush() + self._writer.end(end)
