"""The base of the stream filters. It forwards events unchanged, except for `model`. Pure.

It holds metadata back until the first real output: the commit point. Before it, another
target may still answer; after it, the client sees this target's stream to its end. The
filters of the protocols are `chat.stream`, `messages.dialect` and `responses.dialect`. Time
limits are kept in `router.request.stream_relay`.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.frame.sse import LINE_END, EventPayloads, SseParser, event_data
from router.conversation.intake import AnswerIds
from router.frame.body import to_json
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    JsonSpan,
    ParsedObject,
    TextEdit,
    apply_edits,
    parse_finite_object,
    parse_object,
)
from router.protocols.answer_signals import AnswerSignals
from router.protocols.answers import (
    BROKEN_CALL,
    AnswerEnding,
    CallCollector,
    TokenUsage,
    describe_failed_ending,
    ending_failure,
    read_ending,
)
from router.protocols.provider_failures import classify_error


class Irregularity(StrEnum):
    """A harmless deviation of an answer from its protocol."""

    NO_FINISH_REASON = "no_finish_reason"  # a complete answer has no finish reason
    NO_LAST_EVENT = "no_last_event"  # a stream closed after its finish reason
    NOT_FINITE = "not_finite"  # NaN or an infinity in an event
    UNKNOWN_END = "unknown_end"  # the router does not know the finish reason
    SKIPPED = "skipped_event"  # an unreadable event that the route allows the router to skip


def end_irregularity(reason: object) -> Irregularity | None:
    """Returns the irregularity of a finish reason; None for a known one."""
    if not reason:
        return Irregularity.NO_FINISH_REASON
    unknown = read_ending(reason) is AnswerEnding.UNKNOWN
    return Irregularity.UNKNOWN_END if unknown else None


# `_read` returns it if only the value of the event's top-level `model` changes.
MODEL_ALONE: Final[Sequence[TextEdit]] = (TextEdit(0, 0, ""),)
# The usual bytes before an event's data.
_BEFORE_DATA: Final = frozenset({b"data:", b"data: ", b"\ndata:", b"\rdata:"})


class StreamFilter(SseParser):
    """Filters one stream.

    failure: the reason why the stream broke. finished: the stream ended well.
    json_name: the new `model`, as JSON; None to keep the provider's.

    `feed` takes the provider's bytes and returns the client's. The caller may send them
    once `committed` is set, and stops at `failure` or `finished`.
    """

    def __init__(self, json_name: str | None) -> None:
        self.committed = False  # output arrived: the router may send the result of `feed`
        # The class of `failure`, or of an end that reports a failed provider.
        self.failure_class: FailureClass | None = None
        self.refusal = b""  # the provider's error, if the failure is an error event
        self.usage: TokenUsage | None = None
        self.counted = False  # the provider counted the output, at least so far
        self.tier: object = None  # the last service tier in an event
        self.given_usage: object = None  # as the provider sent it
        self.output_events = 0  # deltas with output: the token count if there is no usage
        self.progress_events = 0  # events with progress: not pings, not empty deltas
        self.irregularities: set[Irregularity] = set()
        self.finish_reasons: list[str] = []
        self.model = ""  # the first model name in an event
        self._signals: AnswerSignals | None = None
        self.signals_fault: Exception | None = None  # the stream continues without signals
        self.skips = False  # the router skips unreadable events
        self._calls: CallCollector | None = None  # None until a call arrives
        self.silence = False  # the route accepts empty answers
        # The first event's input tokens are the router's estimate, and no count.
        self.estimates_input = False
        self.request_body = ""  # the client's
        self._own_ids: AnswerIds | None = None  # None until an answer needs an id
        self._json_name = json_name

    @property
    def ended(self) -> bool:
        """Whether the finish reason has arrived, so that only usage and the last event are
        missing.
        """
        return False

    @property
    def signals(self) -> AnswerSignals | None:
        """The answer's signals so far; None if no guardrail needs them."""
        return self._signals

    def listen(self, make_signals: Callable[[], AnswerSignals | None]) -> None:
        """Begins to collect signals. A fault in them never breaks the stream."""
        try:
            self._signals = make_signals()
        except Exception as error:
            self.signals_fault = error

    def _note(self, read: Callable[..., None], *arguments: object) -> None:
        try:
            read(self._signals, *arguments)
        except Exception as error:
            self._signals = None
            self.signals_fault = error

    @property
    def ids(self) -> AnswerIds:
        """The ids of this answer's calls, built when the first one needs a change."""
        if self._own_ids is None:
            self._own_ids = AnswerIds(self.request_body)
        return self._own_ids

    def used(self) -> TokenUsage:
        """Returns the tokens so far: the provider's count, else one for each event with
        output.
        """
        if self.usage is not None:
            return self.usage
        tier = self.tier if isinstance(self.tier, str) else ""
        return TokenUsage(0, self.output_events, tier=tier)

    @property
    def is_whole(self) -> bool:
        """Whether `used` is the provider's final count, and no lower bound."""
        return self.counted and (self.finished or self.ended)

    @abstractmethod
    def broken(self, message: str, failure: FailureClass) -> bytes:
        """Returns the last event of a broken stream, in this protocol, for the client."""

    @abstractmethod
    def _read(self, text: str, members: ParsedObject) -> Sequence[TextEdit] | None:
        """Reads an event's data. Returns the changes to it, or None to hold the event back.

        A filter that returns MODEL_ALONE has read the model, too.
        """

    @abstractmethod
    def _handle_done(self, event: bytes) -> bytes:
        """Handles the event that contains `[DONE]`."""

    @abstractmethod
    def _handle_early_close(self) -> bytes:
        """Returns the client's bytes after the provider closed the stream early."""

    def end(self) -> bytes:
        """Returns the client's bytes after the provider closed the stream.

        Sets `failure` if the provider closed it early.
        """
        unfinished = self._join()
        if self.ended and _is_incomplete(unfinished):
            self._buffer = b""  # after the finish reason, an incomplete event does not matter
        rest = self.feed(b"\n\n") if self._buffer.strip() and not self.failure else b""
        if self.finished or self.failure:
            return rest
        return rest + self._handle_early_close()

    def _model_edit(self, model: JsonSpan | None) -> Sequence[TextEdit]:
        if model is None:
            return ()
        if not self.model and isinstance(model.value, str):
            self.model = model.value
        if self._json_name is None:
            return ()
        return (TextEdit(model.start, model.end, self._json_name),)

    def _fail(self, why: str, failure: FailureClass = FailureClass.MALFORMED) -> None:
        self.failure = why
        self.failure_class = failure

    def _refuse_more(self, why: str) -> None:
        # The streams together hold too much. The provider is not to blame for that.
        self._fail(why, FailureClass.INTERNAL)

    def _fail_with_error(self, error: object) -> None:
        """Fails the stream with the provider's error. The client gets the error."""
        self._fail("the stream carries an error", classify_error(error))
        self.refusal = json.dumps({"error": error}).encode()

    def _ends_well(self, reason: object, *, has_output: bool) -> bool:
        """Notes a finish reason. Fails the stream if the client cannot use the answer.

        Returns whether the client can use it.
        """
        failure = ending_failure(reason, has_output=has_output, silence=self.silence)
        if failure is not None:
            self._fail(describe_failed_ending(failure, reason), failure)
            return False
        if read_ending(reason) is AnswerEnding.UNKNOWN:
            self.irregularities.add(Irregularity.UNKNOWN_END)
        return True

    def _has_broken_call(self, reason: object) -> bool:
        """Fails the stream if a call's arguments are not a JSON object at its end.

        If the length limit cut the arguments, the client gets them.
        """
        calls = self._calls
        if calls is None or not calls.broken or read_ending(reason) is AnswerEnding.CUT:
            return False
        self._fail(BROKEN_CALL)
        return True

    def _event(self, event: bytes, end: bytes) -> bytes:
        """Returns the event for the client, with its changes; empty if it is held back."""
        payload = event_data(event)
        if payload is None and event.startswith(b'error: {"'):
            payload = b'{"error":%b}' % event[7:]  # llamafile, and llama.cpp until 2025
        if payload is None:
            return _keep_comments(event, end)
        if payload == b"[DONE]":
            return self._handle_done(event + end)
        try:
            members = parse_object(payload)
        except InputError as error:
            finite_members = self._read_not_finite(payload, error)
            if finite_members is None:
                return b""
            members = finite_members
            clean_payload = members.text.encode()
            event = with_data(event, payload, clean_payload)
            payload = clean_payload
        edits = self._read(members.text, members)
        if edits is None:
            return b""
        if edits is MODEL_ALONE:
            written = members.with_text("model", self._json_name or "")
            if written is not None:
                return with_data(event, payload, written) + end
            edits = self._model_edit(members.text_place("model"))
        if edits:
            event = with_data(event, payload, apply_edits(members.text, edits))
        return event + end

    def _read_not_finite(self, payload: bytes, error: InputError) -> ParsedObject | None:
        """Reads an event with NaN or infinities.

        If the event has another error, skips it or fails the stream, as the route says.
        """
        try:
            members = parse_finite_object(payload)
        except InputError:
            if self.skips:
                self.irregularities.add(Irregularity.SKIPPED)
            else:
                self._fail(f"an event that is not valid: {error}")
            return None
        self.irregularities.add(Irregularity.NOT_FINITE)
        return members


def _keep_comments(event: bytes, end: bytes) -> bytes:
    """Returns an event's comments without an empty line after them.

    With an empty line, some clients would read the comments as an event.
    """
    line_end = end[: len(end) // 2]
    return b"".join(line + line_end for line in LINE_END.split(event) if line[:1] == b":")


def _is_incomplete(event: bytes) -> bool:
    payload = event_data(event.strip())
    if payload is None or payload == b"[DONE]":
        return False
    try:
        read_event(payload)
    except InputError:
        return True
    return False


def read_event(payload: bytes) -> tuple[ParsedObject, bool]:
    """Reads an event and replaces NaN and infinities.

    Returns whether all its numbers were finite. Raises InputError.
    """
    try:
        return parse_object(payload), True
    except InputError:
        try:
            return parse_finite_object(payload), False
        except InputError:
            pass
        raise


def with_data(
    event: bytes,
    old: bytes,
    new: bytes,
) -> bytes:
    """Replaces an event's data, and keeps its other lines."""
    before = event[: len(event) - len(old)]
    # Cut the data off the end, because searching for it takes ten times as long.
    if event.endswith(old) and before[-6:] in _BEFORE_DATA:
        return before + new
    if old in event:
        return event.replace(old, new, 1)
    # The data has several lines: keep the other lines, and put the data last.
    others = [line for line in LINE_END.split(event) if not line.startswith(b"data:")]
    return b"\n".join([*others, *(b"data: " + line for line in new.split(b"\n"))])


class SsePayloads(EventPayloads):
    """`read` raises UpstreamFailed (malformed) for an event that is too large."""

    def _error(self, why: str) -> Exception:
        return UpstreamFailed(FailureClass.MALFORMED, why)


def write_event(kind: str, data: dict[str, object]) -> bytes:
    """Writes an event with its type, as Messages and Responses have it."""
    return f"event: {kind}\ndata: {to_json({'type': kind, **data})}\n\n".encode()
