"""Tool call order writes a streamed chat's tool calls one after the other, as other protocols
want them, even where the provider sends pieces of several calls in turns.
"""

from collections.abc import Mapping

from harness.domain.reliability.failures import FailureClass
from router.conversation.call_ids import AnswerIds
from router.protocols.answer_blocks import AnswerBlock, AnswerWriter, BlockKind
from router.protocols.call_pieces import BROKEN_CALL, CallPieces, arguments_text, call_of_piece
from router.upstream.failure import UpstreamFailed


class StreamedToolCall(CallPieces):
    """Holds a tool call as far as it came. unsent: of its arguments, those not written yet."""

    __slots__ = ("opened", "unsent")

    def __init__(self) -> None:
        super().__init__()
        self.unsent = ""
        self.opened = False


class ToolCallOrder:
    """Writes calls in order: in the other protocols a block ends before the next begins, so a
    call waits for its turn.

    A provider that sends pieces of several calls in turns has the later ones kept until the
    first is whole; with one that sends them in order, nothing waits.
    """

    def __init__(self, writer: AnswerWriter) -> None:
        self.begun = False
        self._writer = writer
        self._calls: list[StreamedToolCall] = []
        self._by_index: dict[str, list[StreamedToolCall]] = {}
        self._at = 0
        self._ids = AnswerIds("")

    def piece(self, delta: Mapping[str, object]) -> bytes:
        self.begun = True
        function = delta.get("function")
        given = function if isinstance(function, Mapping) else {}
        piece = delta.get("id"), given.get("name"), arguments_text(given.get("arguments"))
        # Some providers leave the index out.
        calls = self._by_index.setdefault(str(delta.get("index")), [])
        call = call_of_piece(calls, StreamedToolCall, *piece)
        if call not in self._calls:
            self._calls.append(call)
        new = call.add(*piece)
        if new and self._calls.index(call) < self._at:
            why = "a tool call went on after the next one"
            raise UpstreamFailed(FailureClass.MALFORMED, why)
        call.unsent = call.unsent + new if call.opened else call.text
        return self._go_on()

    def flush(self) -> bytes:
        """Returns what is left, as the answer has nothing more of them. Raises UpstreamFailed
        for a call whose arguments are no JSON object.
        """
        out = b""
        for call in self._calls[self._at :]:
            if call.broken:
                raise UpstreamFailed(FailureClass.MALFORMED, BROKEN_CALL)
            out += self._write(call) + self._writer.close()
            self._at += 1
        self._by_index.clear()
        return out

    def _go_on(self) -> bytes:
        out = b""
        while self._at < len(self._calls):
            call = self._calls[self._at]
            last = self._at + 1 == len(self._calls)
            # Its name is whole once its arguments begin.
            if not call.name or not call.pieces or (last and call.is_empty):
                break
            out += self._write(call)
            if last or not call.whole:
                break
            out += self._writer.close()
            self._at += 1
        return out

    def _write(self, call: StreamedToolCall) -> bytes:
        out = b""
        if not call.opened:
            if not call.name:
                raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
            own = self._ids.of_call(call.id, self._at)
            out = self._writer.open(AnswerBlock(BlockKind.CALL, "", own, call.name))
            call.opened = True
        if call.unsent:
            out += self._writer.more(call.unsent)
            call.unsent = ""
        return out
