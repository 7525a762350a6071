"""Tool call order writes a streamed chat's tool calls one after the other, as other protocols
want them, even where the provider sends pieces of several calls in turns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.domain.reliability.failures import FailureClass
from router.protocols.answer_blocks import AnswerBlock, AnswerWriter, BlockKind
from router.protocols.answer_validity import parse_json
from router.protocols.chat.answer_reader import tool_call_id
from router.upstream.failure import UpstreamFailed


@dataclass(slots=True, eq=False)
class StreamedToolCall:
    """Holds a tool call as far as it came."""

    id: object
    name: str = ""
    kept: list[str] = field(default_factory=list)  # its arguments so far
    unsent: str = ""  # of those, what was not written yet
    opened: bool = False

    @property
    def whole(self) -> bool:
        """Tells whether the call's arguments are complete. None at all may still come."""
        text = "".join(self.kept)
        return text.rstrip().endswith("}") and isinstance(parse_json(text), Mapping)


class ToolCallOrder:
    """Writes calls in order: in the other protocols a block ends before the next begins, so a
    call waits for its turn.

    A provider that sends pieces of several calls in turns has the later ones kept until the
    first is whole; with one that sends them in order, nothing waits.
    """

    def __init__(self, writer: AnswerWriter, answer: Callable[[], str]) -> None:
        self.begun = False
        self._writer = writer
        self._answer = answer
        self._calls: list[StreamedToolCall] = []
        self._by_index: dict[str, StreamedToolCall] = {}
        self._at = 0

    def piece(self, delta: Mapping[str, object]) -> bytes:
        self.begun = True
        call = self._call_for(delta)
        function = delta.get("function")
        if isinstance(function, Mapping):
            name, arguments = function.get("name"), function.get("arguments")
            if isinstance(name, str) and not call.opened:
                call.name += name
            if isinstance(arguments, str) and arguments:
                if self._calls.index(call) < self._at:
                    why = "a tool call went on after the next one"
                    raise UpstreamFailed(FailureClass.MALFORMED, why)
                call.kept.append(arguments)
                call.unsent += arguments
        return self._go_on()

    def flush(self) -> bytes:
        """Returns all that is left, as the answer has nothing more of them."""
        out = b""
        for call in self._calls[self._at :]:
            out += self._write(call) + self._writer.close()
            self._at += 1
        self._by_index.clear()
        return out

    def _call_for(self, delta: Mapping[str, object]) -> StreamedToolCall:
        """By its index; some providers leave it out, or give several calls the same one."""
        index, own = str(delta.get("index")), delta.get("id")
        known = self._by_index.get(index)
        if known is None or (own and known.id and own != known.id):
            known = StreamedToolCall(own)
            self._calls.append(known)
            self._by_index[index] = known
        known.id = known.id or own
        return known

    def _go_on(self) -> bytes:
        out = b""
        while self._at < len(self._calls):
            call = self._calls[self._at]
            last = self._at + 1 == len(self._calls)
            if not call.name:
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
            own = tool_call_id(call.id, self._answer(), self._at)
            out = self._writer.open(AnswerBlock(BlockKind.CALL, "", own, call.name))
            call.opened = True
        if call.unsent:
            out += self._writer.more(call.unsent)
            call.unsent = ""
        return out
