"""Reads a complete or streamed response into answer blocks, for a client of another protocol.

`chat_request` made the response's request from a chat, and `chat.answer_writer` writes the
blocks as the chat's answer. Clients that speak Responses get the answer through `dialect`.

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
_FINISHES: Final[Mapping[AnswerEnding, FinishReason]] = {
    AnswerEnding.CUT: FinishReason.LENGTH,
    AnswerEnding.REFUSED: FinishReason.FILTERED,
}
_GAP: Final = "\n\n"
# By the type of a call's item, the member with its arguments.
_ARGUMENTS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
# By the type of an event with a piece of output, the kind of its block.
_DELTAS: Final[Mapping[str, BlockKind]] = {
    "response.output_text.delta": BlockKind.TEXT,
    "response.refusal.delta": BlockKind.REFUSAL,
    "response.reasoning_summary_text.delta": BlockKind.THINKING,
    "response.function_call_arguments.delta": BlockKind.CALL,
    "response.custom_tool_call_input.delta": BlockKind.CALL,
}


def read_response_answer(members: ParsedObject) -> WholeAnswer:
    """Reads an answer, whose encrypted reasoning has its maker's mark.

    Raises UpstreamFailed for an error or a malformed answer.
    """
    if members.get("error"):
        raise error_in_answer(members.get("error"))
    output = members.get("output")
    if not isinstance(output, list):
        raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without an output")
    blocks = tuple(block for item in iter_objects(output) for block in _blocks(item))
    response: Member = {str(name): members.get(str(name)) for name in members.found}
    return WholeAnswer(_head(response), blocks, _end(response, blocks))


def _head(response: Member) -> AnswerHead:
    created = response.get("created_at")
    seconds = int(created) if isinstance(created, int | float) and 0 < created < 2**53 else 0
    tier = str(response.get("service_tier") or "")
    return AnswerHead(
        str(response.get("id") or ""), str(response.get("model") or ""), seconds, tier
    )


def _end(response: Member, blocks: tuple[AnswerBlock, ...]) -> AnswerEnd:
    """Reads the end. Raises UpstreamFailed for a response that failed."""
    reason = end_reason(response.get)
    if reason:
        check_ending(reason, has_output=True, silence=True)  # the endpoint checks for output
    ending = read_ending(reason) if reason else AnswerEnding.GOOD
    called = any(block.kind is BlockKind.CALL for block in blocks)
    good = FinishReason.CALLS if called else FinishReason.STOP
    finish = _FINISHES.get(ending, good)
    word = ""
    if ending is AnswerEnding.UNKNOWN:
        finish = FinishReason.UNKNOWN
        word = str(reason)
    usage = response.get("usage")
    details = usage.get("output_tokens_details") if isinstance(usage, Mapping) else None
    reasoned = details.get("reasoning_tokens") if isinstance(details, Mapping) else 0
    counts = read_response_usage(usage, response.get("service_tier"))
    return AnswerEnd(finish, "", counts, word, read_count(reasoned))


def _blocks(item: Member) -> Iterator[AnswerBlock]:
    kind = str(item.get("type"))
    if kind == "reasoning":
        text = _summary(item)
        sealed = _sealed(item, text)
        if text or sealed:
            yield AnswerBlock(BlockKind.THINKING, text, sealed=sealed)
    elif kind == "message":
        for part in iter_objects(item.get("content")):
            if part.get("type") == "refusal":
                yield AnswerBlock(BlockKind.REFUSAL, str(part.get("refusal") or ""))
            elif part.get("text"):
                yield AnswerBlock(BlockKind.TEXT, str(part["text"]))
    elif kind in _ARGUMENTS:
        yield _call(item, str(item.get(_ARGUMENTS[kind]) or ""))


def _call(item: Member, text: str) -> AnswerBlock:
    if not item.get("name"):
        raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
    id_ = str(item.get("call_id") or item.get("id") or "")
    return AnswerBlock(BlockKind.CALL, text, id_, str(item["name"]))


def _summary(item: Member) -> str:
    parts = iter_objects(item.get("summary"))
    return _GAP.join(str(part["text"]) for part in parts if part.get("text"))


def _sealed(item: Member, summary: str) -> str:
    """Packs encrypted reasoning as a chat's thinking; empty without it or without a mark."""
    sealed = item.get("encrypted_content")
    if not sealed:
        return ""
    form = {"format": RESPONSE_FORMAT}
    if not summary:
        return seal_thoughts([{"type": "redacted_thinking", "data": sealed, **form}])
    said = {"type": "thinking", "thinking": summary, "signature": sealed}
    return seal_thoughts([{**said, **form}])


class ResponseStreamReader:
    """Translates a stream of a response into the events of another protocol.

    An item is written as it arrives, and completed when it is done. Without a last event, it
    writes no end, so the endpoint's filter reports a broken stream.
    """

    def __init__(self, writer: AnswerWriter) -> None:
        self._writer = writer
        self._payloads = SsePayloads()
        self._begun = self._done = False
        self._open: BlockKind | None = None
        self._place: object = None  # the open item's, in the output
        self._part: object = None  # the open part's, in its item
        self._written: dict[object, str] = {}  # by the item's place: its text so far
        self._closed: set[object] = set()  # the places of complete items
        self._waiting: list[tuple[Member, object]] = []  # complete items behind an open call
        self._blocks: list[AnswerBlock] = []
        self.ended = False
        self.progress_events = 0
        self.given_usage: object = None  # as the provider sent it
        self.failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> bytes:
        """Returns the events before the first broken event, which sets `failure`."""
        out: list[bytes] = []
        try:
            out += (self._event(payload) for payload in self._payloads.read(data))
        except UpstreamFailed as error:
            self.failure = error
        return b"".join(out)

    def end(self) -> bytes:
        """Returns the events after the connection's end. A broken end sets `failure`."""
        out: list[bytes] = []
        try:
            out += (self._event(payload) for payload in self._payloads.rest())
        except UpstreamFailed as error:
            if not self.ended:
                self.failure = error
        return b"".join(out)

    def _event(self, payload: bytes) -> bytes:
        if self._done or payload == b"[DONE]":
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
            return self._response(kind, response)
        if kind in _DELTAS:
            return self._delta(_DELTAS[kind], event)
        return self._of_item(kind, event)

    def _of_item(self, kind: str, event: Member) -> bytes:
        item = event.get("item")
        if not isinstance(item, Mapping):
            return b""
        place = event.get("output_index")
        if kind == "response.output_item.done":
            return self._item(item, place)
        return self._added(item, place) if kind == "response.output_item.added" else b""

    def _fail(self, error: object) -> bytes:
        self._done = True
        return self._writer.error(error)

    def _response(self, kind: str, response: Member) -> bytes:
        out = b""
        if not self._begun:
            self._begun = True
            out = self._writer.begin(_head(response))
        if kind == "response.failed":
            return out + self._fail(response.get("error") or {"message": "it failed"})
        if kind not in ENDS:
            return out
        # Some servers send no events of items; others send an empty output at the end.
        for place, item in enumerate(iter_objects(response.get("output"))):
            out += self._item(item, place)
        self._done = self.ended = True
        self.given_usage = response.get("usage")
        out += self._close() + self._take_waiting() + self._close()
        return out + self._writer.end(_end(response, tuple(self._blocks)))

    def _added(self, item: Member, place: object) -> bytes:
        """Opens a call, unless another one is under way: then it is written when done."""
        if str(item.get("type")) not in _ARGUMENTS or self._open is BlockKind.CALL:
            return b""
        return self._open_block(_call(item, ""), place)

    def _delta(self, kind: BlockKind, event: Member) -> bytes:
        text = event.get("delta")
        place = event.get("output_index")
        if not (isinstance(text, str) and text) or place in self._closed:
            return b""
        if kind is BlockKind.CALL or self._open is BlockKind.CALL:
            # Pieces of another item than the open call follow when that item is done.
            return self._more(text) if place == self._place else b""
        out = b""
        part = event.get("summary_index", event.get("content_index"))
        if (self._open, self._place) != (kind, place):
            out = self._open_block(AnswerBlock(kind), place)
        elif part != self._part and kind is BlockKind.THINKING:
            text = _GAP + text
        elif part != self._part:
            out = self._open_block(AnswerBlock(kind), place)
        self._part = part
        return out + self._more(text)

    def _open_block(self, block: AnswerBlock, place: object) -> bytes:
        out = self._close()
        self._open = block.kind
        self._place = place
        self._part = None
        self._blocks.append(block)
        return out + self._writer.open(block)

    def _more(self, text: str) -> bytes:
        self._written[self._place] = self._written.get(self._place, "") + text
        return self._writer.more(text)

    def _close(self, sealed: str = "") -> bytes:
        if self._open is None:
            return b""
        self._open = self._place = None
        return self._writer.close(sealed)

    def _item(self, item: Member, place: object) -> bytes:
        """Completes an item: writes what its events did not bring.

        While a call is under way, an item of another place waits for the call's end.
        """
        if self._open is BlockKind.CALL and place != self._place:
            self._waiting.append((item, place))
            return b""
        if place in self._closed:
            return b""
        self._closed.add(place)
        written = self._written.get(place, "")
        blocks = list(_blocks(item))
        sealed = blocks[0].sealed if blocks else ""
        out = b""
        if place == self._place and self._open is BlockKind.CALL:
            whole = blocks[0].text if blocks else written
            if not whole.startswith(written):
                why = "a tool call that differs from its events"
                raise UpstreamFailed(FailureClass.MALFORMED, why)
            out = self._more(whole[len(written) :]) if whole != written else b""
        elif not written:
            for block in blocks:
                out += self._open_block(block._replace(text="", sealed=""), place)
                out += self._more(block.text) if block.text else b""
        else:
            out = self._remainder(blocks, written, place)
        if place == self._place:
            out += self._close(sealed)
        return out + self._take_waiting()

    def _remainder(self, blocks: Sequence[AnswerBlock], written: str, place: object) -> bytes:
        """Writes the end of an item's text, if its events brought only the beginning."""
        whole = "".join(block.text for block in blocks)
        if len(whole) <= len(written) or not whole.startswith(written):
            return b""
        is_open = place == self._place
        out = b"" if is_open else self._open_block(AnswerBlock(blocks[-1].kind), place)
        return out + self._more(whole[len(written) :])

    def _take_waiting(self) -> bytes:
        waiting = self._waiting
        self._waiting = []
        return b"".join(self._item(*later) for later in waiting)
