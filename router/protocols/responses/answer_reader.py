"""Reads a complete or streamed response into answer blocks, for a client of another protocol.

`chat_request` has translated a chat into the response's request, and `chat.answer_writer`
writes the blocks as the chat's answer. Clients that speak Responses get the answer through
`dialect`.

Sources: https://developers.openai.com/api/reference/resources/responses/streaming-events, and
the streams in vercel/ai (packages/openai/src/responses/__fixtures__).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from router.conversation.intake import RESPONSE_FORMAT, seal_thoughts
from router.frame.body import iter_objects
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject
from router.protocols.answers import (
    AnswerBlock,
    AnswerEnd,
    AnswerEnding,
    AnswerHead,
    AnswerWriter,
    BlockKind,
    FinishReason,
    WholeAnswer,
    read_count,
    read_ending,
)
from router.protocols.event_stream import SsePayloads, read_event
from router.protocols.provider_failures import check_ending, error_in_answer
from router.protocols.responses.dialect import (
    ENDS,
    NO_PROGRESS,
    end_reason,
    read_response_usage,
)

Member = Mapping[str, object]
_FINISH_BY_ENDING: Final[Mapping[AnswerEnding, FinishReason]] = {
    AnswerEnding.CUT: FinishReason.LENGTH,
    AnswerEnding.REFUSED: FinishReason.FILTERED,
}
_GAP: Final = "\n\n"
# By the type of a call's item, the member with its arguments.
_ARGUMENTS_BY_TYPE: Final = {"function_call": "arguments", "custom_tool_call": "input"}
# By the type of an event with a piece of output, the kind of its block.
_KIND_BY_DELTA: Final[Mapping[str, BlockKind]] = {
    "response.output_text.delta": BlockKind.TEXT,
    "response.refusal.delta": BlockKind.REFUSAL,
    "response.reasoning_summary_text.delta": BlockKind.THINKING,
    "response.function_call_arguments.delta": BlockKind.CALL,
    "response.custom_tool_call_input.delta": BlockKind.CALL,
}


def read_response_answer(members: ParsedObject) -> WholeAnswer:
    """Reads an answer. Its encrypted reasoning already has the maker's mark.

    Raises UpstreamFailed for an error or a malformed answer.
    """
    if members.get("error"):
        raise error_in_answer(members.get("error"))
    output = members.get("output")
    if not isinstance(output, list):
        raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without an output")
    blocks = tuple(block for item in iter_objects(output) for block in _blocks(item))
    response: Member = {str(name): members.get(str(name)) for name in members.found}
    return WholeAnswer(_read_head(response), blocks, _read_end(response, blocks))


def _read_head(response: Member) -> AnswerHead:
    created = response.get("created_at")
    seconds = int(created) if isinstance(created, int | float) and 0 < created < 2**53 else 0
    tier = str(response.get("service_tier") or "")
    return AnswerHead(
        str(response.get("id") or ""), str(response.get("model") or ""), seconds, tier
    )


def _read_end(response: Member, blocks: tuple[AnswerBlock, ...]) -> AnswerEnd:
    """Reads the end. Raises UpstreamFailed for a response that failed."""
    reason = end_reason(response.get)
    if reason:
        check_ending(reason, has_output=True, silence=True)  # the endpoint checks for output
    ending = read_ending(reason) if reason else AnswerEnding.GOOD
    has_call = any(block.kind is BlockKind.CALL for block in blocks)
    complete_finish = FinishReason.CALLS if has_call else FinishReason.STOP
    finish = _FINISH_BY_ENDING.get(ending, complete_finish)
    word = ""
    if ending is AnswerEnding.UNKNOWN:
        finish = FinishReason.UNKNOWN
        word = str(reason)
    usage = response.get("usage")
    details = usage.get("output_tokens_details") if isinstance(usage, Mapping) else None
    reasoning_tokens = details.get("reasoning_tokens") if isinstance(details, Mapping) else 0
    counts = read_response_usage(usage, response.get("service_tier"))
    return AnswerEnd(finish, "", counts, word, read_count(reasoning_tokens))


def _blocks(item: Member) -> Iterator[AnswerBlock]:
    kind = str(item.get("type"))
    if kind == "reasoning":
        text = _join_summary(item)
        sealed = _seal_reasoning(item, text)
        if text or sealed:
            yield AnswerBlock(BlockKind.THINKING, text, sealed=sealed)
    elif kind == "message":
        for part in iter_objects(item.get("content")):
            if part.get("type") == "refusal":
                yield AnswerBlock(BlockKind.REFUSAL, str(part.get("refusal") or ""))
            elif part.get("text"):
                yield AnswerBlock(BlockKind.TEXT, str(part["text"]))
    elif kind in _ARGUMENTS_BY_TYPE:
        yield _read_call(item, str(item.get(_ARGUMENTS_BY_TYPE[kind]) or ""))


def _read_call(item: Member, text: str) -> AnswerBlock:
    if not item.get("name"):
        raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
    call_id = str(item.get("call_id") or item.get("id") or "")
    return AnswerBlock(BlockKind.CALL, text, call_id, str(item["name"]))


def _join_summary(item: Member) -> str:
    parts = iter_objects(item.get("summary"))
    return _GAP.join(str(part["text"]) for part in parts if part.get("text"))


def _seal_reasoning(item: Member, summary: str) -> str:
    """Packs encrypted reasoning as a chat's thinking; empty without it or without a mark."""
    encrypted = item.get("encrypted_content")
    if not encrypted:
        return ""
    format_member = {"format": RESPONSE_FORMAT}
    if not summary:
        return seal_thoughts(
            [{"type": "redacted_thinking", "data": encrypted, **format_member}]
        )
    thinking_block = {"type": "thinking", "thinking": summary, "signature": encrypted}
    return seal_thoughts([{**thinking_block, **format_member}])


class ResponseStreamReader:
    """Translates a stream of a response into the events of another protocol.

    The reader writes the pieces of an item as they arrive, and the missing rest when the item
    is done. Without a last event, it writes no end, so the endpoint's filter reports a broken
    stream.
    """

    def __init__(self, writer: AnswerWriter) -> None:
        self._writer = writer
        self._payloads = SsePayloads()
        self._has_begun = self._is_done = False
        self._open: BlockKind | None = None
        self._place: object = None  # the open item's, in the output
        self._part: object = None  # the open part's, in its item
        self._text_by_place: dict[object, str] = {}  # by the item's place: its text so far
        self._complete_places: set[object] = set()  # the places of complete items
        # Complete items behind an open call.
        self._waiting_items: list[tuple[Member, object]] = []
        self._blocks: list[AnswerBlock] = []
        self.ended = False
        self.progress_events = 0
        self.given_usage: object = None  # as the provider sent it
        self.failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> bytes:
        """Returns the events before the first broken event, which sets `failure`."""
        out: list[bytes] = []
        try:
            out += (self._translate_event(payload) for payload in self._payloads.read(data))
        except UpstreamFailed as error:
            self.failure = error
        return b"".join(out)

    def end(self) -> bytes:
        """Returns the events after the connection's end. A broken end sets `failure`."""
        out: list[bytes] = []
        try:
            out += (self._translate_event(payload) for payload in self._payloads.rest())
        except UpstreamFailed as error:
            if not self.ended:
                self.failure = error
        return b"".join(out)

    def _translate_event(self, payload: bytes) -> bytes:
        if self._is_done or payload == b"[DONE]":
            return b""
        try:
            members, _ = read_event(payload)
        except InputError as error:
            why = f"an event that is not valid: {error}"
            raise UpstreamFailed(FailureClass.MALFORMED, why) from None
        event: Member = {str(name): members.get(str(name)) for name in members.found}
        kind = str(event.get("type"))
        self.progress_events += kind not in NO_PROGRESS and event.get("delta") != ""
        if kind == "error" or (event.get("type") is None and "error" in event):
            return self._fail(event.get("error") or event)
        response = event.get("response")
        if isinstance(response, Mapping):
            return self._translate_response(kind, response)
        if kind in _KIND_BY_DELTA:
            return self._translate_delta(_KIND_BY_DELTA[kind], event)
        return self._translate_item_event(kind, event)

    def _translate_item_event(self, kind: str, event: Member) -> bytes:
        item = event.get("item")
        if not isinstance(item, Mapping):
            return b""
        place = event.get("output_index")
        if kind == "response.output_item.done":
            return self._complete_item(item, place)
        return self._open_call(item, place) if kind == "response.output_item.added" else b""

    def _fail(self, error: object) -> bytes:
        self._is_done = True
        return self._writer.error(error)

    def _translate_response(self, kind: str, response: Member) -> bytes:
        out = b""
        if not self._has_begun:
            self._has_begun = True
            out = self._writer.begin(_read_head(response))
        if kind == "response.failed":
            return out + self._fail(response.get("error") or {"message": "it failed"})
        if kind not in ENDS:
            return out
        # Some servers send no events of items; others send an empty output at the end.
        for place, item in enumerate(iter_objects(response.get("output"))):
            out += self._complete_item(item, place)
        self._is_done = self.ended = True
        self.given_usage = response.get("usage")
        out += self._close_block() + self._take_waiting() + self._close_block()
        return out + self._writer.end(_read_end(response, tuple(self._blocks)))

    def _open_call(self, item: Member, place: object) -> bytes:
        """Opens a call. While another call is open, it waits until it is complete."""
        if str(item.get("type")) not in _ARGUMENTS_BY_TYPE or self._open is BlockKind.CALL:
            return b""
        return self._open_block(_read_call(item, ""), place)

    def _translate_delta(self, kind: BlockKind, event: Member) -> bytes:
        text = event.get("delta")
        place = event.get("output_index")
        if not (isinstance(text, str) and text) or place in self._complete_places:
            return b""
        if kind is BlockKind.CALL or self._open is BlockKind.CALL:
            # Pieces of another item than the open call follow when that item is done.
            return self._write_more(text) if place == self._place else b""
        out = b""
        part = event.get("summary_index", event.get("content_index"))
        if (self._open, self._place) != (kind, place):
            out = self._open_block(AnswerBlock(kind), place)
        elif part != self._part and kind is BlockKind.THINKING:
            text = _GAP + text
        elif part != self._part:
            out = self._open_block(AnswerBlock(kind), place)
        self._part = part
        return out + self._write_more(text)

    def _open_block(self, block: AnswerBlock, place: object) -> bytes:
        out = self._close_block()
        self._open = block.kind
        self._place = place
        self._part = None
        self._blocks.append(block)
        return out + self._writer.open(block)

    def _write_more(self, text: str) -> bytes:
        self._text_by_place[self._place] = self._text_by_place.get(self._place, "") + text
        return self._writer.more(text)

    def _close_block(self, sealed: str = "") -> bytes:
        if self._open is None:
            return b""
        self._open = self._place = None
        return self._writer.close(sealed)

    def _complete_item(self, item: Member, place: object) -> bytes:
        """Completes an item: writes the rest that its events did not bring.

        While a call is open, an item of another place waits for the call's end.
        """
        if self._open is BlockKind.CALL and place != self._place:
            self._waiting_items.append((item, place))
            return b""
        if place in self._complete_places:
            return b""
        self._complete_places.add(place)
        written = self._text_by_place.get(place, "")
        blocks = list(_blocks(item))
        sealed = blocks[0].sealed if blocks else ""
        out = b""
        if place == self._place and self._open is BlockKind.CALL:
            whole = blocks[0].text if blocks else written
            if not whole.startswith(written):
                why = "a tool call that differs from its events"
                raise UpstreamFailed(FailureClass.MALFORMED, why)
            out = self._write_more(whole[len(written) :]) if whole != written else b""
        elif not written:
            for block in blocks:
                out += self._open_block(block._replace(text="", sealed=""), place)
                out += self._write_more(block.text) if block.text else b""
        else:
            out = self._write_remainder(blocks, written, place)
        if place == self._place:
            out += self._close_block(sealed)
        return out + self._take_waiting()

    def _write_remainder(
        self, blocks: Sequence[AnswerBlock], written: str, place: object
    ) -> bytes:
        """Writes the end of an item's text, if its events brought only the beginning."""
        whole = "".join(block.text for block in blocks)
        if len(whole) <= len(written) or not whole.startswith(written):
            return b""
        is_open = place == self._place
        out = b"" if is_open else self._open_block(AnswerBlock(blocks[-1].kind), place)
        return out + self._write_more(whole[len(written) :])

    def _take_waiting(self) -> bytes:
        waiting = self._waiting_items
        self._waiting_items = []
        return b"".join(self._complete_item(*item_and_place) for item_and_place in waiting)
