"""Filters a streamed chat completion on its way to the client.

Most events are forwarded as they came. The filter reads output, calls and ends on the way,
and parses as little as possible, because an answer has hundreds of events. The base of all
filters is in `router.protocols.event_stream`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Self

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.frame.sse import event_data
from router.conversation.intake import arguments_text, clean_name
from router.frame.body import iter_objects, to_json
from router.frame.json_spans import (
    ParsedObject,
    TextEdit,
    apply_edits,
    member_edit,
    parse_object,
)
from router.frame.replies import error_event
from router.protocols.answer_signals import AnswerSignals, read_signals
from router.protocols.answers import (
    EMPTY,
    CallCollector,
    CallPieces,
    is_thinking,
    piece_place,
    read_usage,
)
from router.protocols.event_stream import (
    MODEL_ALONE,
    Irregularity,
    StreamFilter,
    with_data,
)

# The content of a JSON string without `\u`, because that could be a lone surrogate.
_TEXT_PATTERN: Final = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt])++')
_match_text: Final = _TEXT_PATTERN.fullmatch
_match_name: Final = re.compile(r"[a-z_]+").fullmatch
_find_escape_or_end: Final = re.compile(rb"[\\\n\r]").search
EVENT_END: Final = b"\n\n"
# The most texts that wait for the signals.
MOST_UNREAD_TEXTS: Final = 64
# Stands for the text while the filter makes a form.
_PLACEHOLDER: Final = b"0-swapproof-text-0"


class TextEventForm(NamedTuple):
    """The bytes around an event's text, both the provider's and the client's.

    A provider's text events differ only in their text. For events of this form, the filter
    parses no JSON. between: the bytes between the texts of two such events.
    """

    before: bytes  # the provider's
    after: bytes
    between: bytes
    sent_before: bytes  # the client's
    sent_after: bytes
    sent_between: bytes
    is_content: bool  # False for thinking, for example
    choice: object  # the choice's index

    @classmethod
    def from_event(
        cls,
        event: bytes,
        name: str,
        choice: object,
        write: Callable[[bytes], bytes],
    ) -> Self | None:
        """Makes the form around the text member `name`, or returns None for an unusual event.

        Args:
            write: rewrites an event for the client.

        Raises InputError.
        """
        if not _match_name(name) or event.count(b'"%b"' % name.encode()) != 1:
            return None
        opening = re.search(rb'"%b"[ \t]*:[ \t]*"' % name.encode(), event)
        text = _TEXT_PATTERN.match(event, opening.end()) if opening else None
        if text is None:
            return None
        before = event[: text.start()]
        after = event[text.end() :]
        # Without an escape around the text, every quote begins or ends a string.
        if _find_escape_or_end(before + after) or after[:1] != b'"':
            return None
        try:
            sent_parts = write(before + _PLACEHOLDER + after).split(_PLACEHOLDER)
        except InputError:  # NaN or an infinity: the filter must rewrite such events
            return None
        if len(sent_parts) != 2:
            return None
        after += EVENT_END
        sent_before, sent_after = sent_parts[0], sent_parts[1] + EVENT_END
        between = after + before
        return cls(
            before,
            after,
            between,
            sent_before,
            sent_after,
            sent_after + sent_before,
            name == "content",
            choice,
        )

    def texts(self, data: bytes) -> list[bytes]:
        """Returns the texts of complete events, as JSON strings without their quotes.

        Returns an empty list if an event has another form.
        """
        before = self.before
        after = self.after
        if not (data.startswith(before) and data.endswith(after)):
            return []
        texts = data[len(before) : -len(after)].split(self.between)
        # A space between two texts cannot complete an escape.
        joined = b" ".join(texts)
        if _match_text(joined) is None or (len(texts) > 1 and b"" in texts):
            return []
        if not joined.isascii():
            try:
                joined.decode()
            except UnicodeDecodeError:
                return []
        return texts


def decode_text(text: bytes) -> str:
    """Returns the text of a JSON string without its quotes."""
    return str(json.loads(b'"%b"' % text)) if text.find(b"\\") >= 0 else text.decode()


DONE: Final = b"data: [DONE]\n\n"
_EMPTY_VALUES: Final[tuple[object, ...]] = (None, "", [], {})
_GOOD_REASONS: Final = ("stop", "tool_calls")  # the most frequent good reasons; `ENDS` has all
# Members of a message or delta that are not output.
_METADATA_MEMBERS: Final = frozenset(
    {"role", "name", "id", "annotations", "provider_specific_fields"}
)
# Thinking is output, but an answer with thinking only is empty.
_THINKING_MEMBERS: Final = frozenset(
    {
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "thinking_blocks",
    }
)
_NO_TEXT_EVENT: Final[tuple[str, object] | None] = None


class ChatStream(StreamFilter):
    """Filters one chat stream.

    The stream ends with `[DONE]` after every choice that began has a finish reason. It may
    also end with the connection after `choice_count` choices have finish reasons, because
    some providers send the choices one after another.

    show_usage: the client asked for the usage. choice_count: the number of choices that the
    client asked for.
    """

    def __init__(
        self,
        json_name: str | None,
        *,
        show_usage: bool,
        choice_count: int = 1,
    ) -> None:
        super().__init__(json_name)
        self._show_usage = show_usage
        self._choice_count = choice_count
        self._has_output = False  # text, a call or a refusal arrived
        self._calls_changed = False  # the filter changed the event's calls
        self._counts: dict[int, int] = {}  # number of calls, by choice
        # Calls with an empty object that the filter holds back.
        self._held_calls: dict[int, CallPieces] = {}
        self._choices: set[object] = set()
        self._ended: set[object] = set()
        self._form: TextEventForm | None = None
        self._unread: list[bytes] = []  # texts of the form that `signals` do not know yet
        self._unformed_events = 0  # number of text events that fitted no form
        # Of the last event that fitted no form: text member and choice, if it had text.
        self._text_event: tuple[str, object] | None = None

    def feed(self, data: bytes) -> bytes:
        # Most often the data is one complete text event.
        if self._form is not None and not self._buffer and self._pieces is None:
            sent = self._forward_formed(self._form, data)
            if sent:
                return sent
        return super().feed(data)

    def _event(self, event: bytes, end: bytes) -> bytes:
        if self._form is not None:
            sent = self._forward_formed(self._form, event + end)
            if sent:
                return sent
        self._text_event = _NO_TEXT_EVENT
        sent = super()._event(event, end)
        if self._text_event is not None and not self.failure:
            self._unformed_events += 1
            # Making a form costs as much as parsing an event: try only after 1, 2, 4 … events.
            # Wait until text has arrived, because with a form the filter no longer checks that.
            tries_form = not self._unformed_events & (self._unformed_events - 1)
            if tries_form and (self._has_output or self._text_event[0] in _THINKING_MEMBERS):
                self._form = TextEventForm.from_event(
                    event, *self._text_event, self._rewrite_event
                )
        return sent

    def _forward_formed(self, form: TextEventForm, data: bytes) -> bytes:
        """Forwards events of the known form; returns no bytes for other data."""
        texts = form.texts(data)
        if not texts:
            return b""
        self.output_events += len(texts)
        self.progress_events += len(texts)
        if form.is_content and self._signals is not None:
            self._unread += texts
            if len(self._unread) > MOST_UNREAD_TEXTS:
                self._read_texts(form.choice)
        return form.sent_before + form.sent_between.join(texts) + form.sent_after

    def _read_texts(self, choice: object) -> None:
        texts = b"".join(self._unread)
        self._unread.clear()
        self._note(AnswerSignals.text, choice, decode_text(texts))

    @property
    def signals(self) -> AnswerSignals | None:
        """The signals so far. First, the filter reads all waiting texts at once."""
        if self._unread and self._form is not None:
            self._read_texts(self._form.choice)
        return self._signals

    def _rewrite_event(self, event: bytes) -> bytes:
        """Rewrites a text event for the client. Raises InputError for invalid JSON."""
        payload = event_data(event) or b""
        members = parse_object(payload)
        edits = [*self._model_edit(members.text_place("model"))]
        if not members.found.get("id", True):
            edits.append(self._id_edit(members))
        return with_data(event, payload, apply_edits(members.text, edits)) if edits else event

    def _id_edit(self, members: ParsedObject) -> TextEdit:
        return member_edit(members, "id", to_json(self.ids.of_answer("chatcmpl")))

    def broken(self, message: str, failure: FailureClass) -> bytes:
        return error_event(message, failure.value)

    @property
    def ended(self) -> bool:
        return len(self._ended) >= self._choice_count and self._all_ended

    @property
    def _all_ended(self) -> bool:
        return bool(self._ended) and not self._choices - self._ended

    def _handle_done(self, event: bytes) -> bytes:
        if not self._all_ended:
            self._fail("the stream ended without a finish_reason")
            return b""
        self.committed = self.finished = True
        return event

    def _handle_early_close(self) -> bytes:
        if self._all_ended and not self.ended:
            self._fail(f"{len(self._ended)} of {self._choice_count} choices came")
            return b""
        end = self._handle_done(DONE)
        if end:
            self.irregularities.add(Irregularity.NO_LAST_EVENT)
        return end

    def _read(self, text: str, members: ParsedObject) -> Sequence[TextEdit] | None:  # noqa: ARG002 - the top level is enough
        if members.get("error"):
            self._fail_with_error(members.get("error"))
            return None
        usage = members.get("usage")
        # The chunk with the usage may lack the tier that earlier chunks have.
        self.tier = members.get("service_tier") or self.tier
        if usage is not None:
            self.usage = read_usage(usage, self.tier) or self.usage
            self.counted = self.usage is not None
            self.given_usage = usage
        choices = members.get("choices")
        self._calls_changed = False
        if isinstance(choices, list):
            self._note_choices(choices, without_usage=usage is None)
            if self.failure:
                return None
        if not (self._show_usage or choices) and usage:
            return None
        hides_usage = (
            usage and not self._show_usage
        )  # some providers send it with the last choice
        if (
            hides_usage
            or self._calls_changed
            or (choices and not members.found.get("id", True))
        ):
            return self._edits(members, hides_usage=bool(hides_usage))
        if not self.model and isinstance(model := members.get("model"), str):
            self.model = model
        return () if self._json_name is None else MODEL_ALONE

    def _edits(self, members: ParsedObject, *, hides_usage: bool) -> Sequence[TextEdit]:
        edits = [*self._model_edit(members.text_place("model"))]
        if hides_usage:
            edits.append(member_edit(members, "usage", "null"))
        if not members.found.get("id", True):
            edits.append(self._id_edit(members))
        if self._calls_changed:
            edits.append(member_edit(members, "choices", to_json(members.get("choices"))))
        return edits

    def _note_choices(self, choices: list[object], *, without_usage: bool) -> None:
        text_event: tuple[str, object] | None = None
        for choice in choices:
            if isinstance(choice, dict):
                text_event = self._read_choice(choice)
                if self._held_calls:
                    self._finish_calls(choice)
                if self.usage is None and choice.get("usage"):
                    # Moonshot has it in the last choice.
                    self.given_usage = choice["usage"]
                    self.usage = read_usage(self.given_usage, self.tier)
                    self.counted = self.usage is not None
        if without_usage and len(choices) == 1:
            self._text_event = text_event

    def _read_choice(self, choice: dict[str, object]) -> tuple[str, object] | None:
        """Reads one choice of an event: output, calls and end.

        Returns the text's member and choice if the event has no other output.
        """
        if self.signals is not None:
            self._note(read_signals, choice, "delta")
        index = choice.get("index")
        delta = choice.get("delta")
        number = index if isinstance(index, int) else 0
        self._choices.add(number)
        output_members = 0
        text = None
        if isinstance(delta, dict):
            for name, value in delta.items():
                if name not in _METADATA_MEMBERS and value not in _EMPTY_VALUES:
                    output_members += 1
                    text = name if isinstance(value, str) else None
                    self._has_output = self._has_output or not (
                        name in _THINKING_MEMBERS
                        or (isinstance(value, str) and value.isspace())
                        or (value.__class__ is list and is_thinking(value))
                    )
                    if name == "tool_calls" and isinstance(value, list):
                        self._collect_calls(number, value)
        if output_members:
            self.output_events += 1
            self.progress_events += 1
            self.committed = self.committed or _has_substance(delta)
        reason = choice.get("finish_reason")
        if reason:  # some providers send an empty reason with every delta
            self.finish_reasons.append(str(reason))
            # One of several choices may be empty while later choices have output.
            has_output = self._has_output or len(self._ended) + 1 < self._choice_count
            if not (
                (has_output and reason in _GOOD_REASONS)
                or self._ends_well(reason, has_output=has_output)
            ):
                return None
            if self._calls is not None and self._has_broken_call(reason):
                return None
            self._ended.add(number)
            self.progress_events += 1
            self.committed = True
            return None
        is_alone = output_members == 1 and (index is None or isinstance(index, int))
        return (text, index) if is_alone and text is not None else None

    def _collect_calls(self, choice: int, calls: list[object]) -> None:
        """Collects the pieces of function calls, to check them at the answer's end.

        Rewrites the pieces that a client would join differently than the router.
        """
        if self._calls is None:
            self._calls = CallCollector()
        sent_calls: list[object] = []
        for number, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(call, dict) and isinstance(function, dict):
                place = choice, piece_place(call, number)
                pieces = self._calls.add(
                    place,
                    call.get("id"),
                    clean_name(function.get("name")),
                    arguments_text(function.get("arguments")),
                )
                sent_calls += self._pieces_to_send(pieces, choice, call, function)
            else:
                sent_calls.append(call)
        if sent_calls != calls:
            calls[:] = sent_calls
            self._calls_changed = True

    def _pieces_to_send(
        self,
        pieces: CallPieces,
        choice: int,
        call: dict[str, object],
        function: dict[str, object],
    ) -> list[object]:
        """Returns the pieces to send for a piece of a call. A call gets one id, name and index.

        The filter holds an empty object until the next piece shows whether it is a
        placeholder.
        """
        name = clean_name(function.get("name"))
        arguments = arguments_text(function.get("arguments"))
        held_pieces: list[object] = []
        piece = dict(call)
        sent_function = dict(function)
        if not pieces.sent_id:
            held_pieces = self._release_held_call(choice)
            pieces.number = self._counts.get(choice, 0)
            self._counts[choice] = pieces.number + 1
            place = choice, pieces.number
            pieces.sent_id = piece["id"] = self.ids.of_call(call.get("id"), place)
            piece["type"] = call.get("type") or "function"
            sent_function["name"] = name or pieces.name
            if pieces.is_empty:
                self._held_calls[choice] = pieces
        else:  # some clients join the ids and names of all pieces
            piece.pop("id", None)
            if name == pieces.name:
                sent_function.pop("name", None)
        if self._held_calls.get(choice) is pieces:
            if pieces.is_empty:
                arguments = ""
            else:
                del self._held_calls[choice]
        if arguments is not None:
            sent_function["arguments"] = arguments
        return [
            *held_pieces,
            {
                **piece,
                "index": pieces.number,
                "function": sent_function,
            },
        ]

    def _finish_calls(self, choice: dict[str, object]) -> None:
        """Adds the held arguments to the event with the choice's finish reason."""
        index = choice.get("index")
        delta = choice.get("delta")
        if choice.get("finish_reason") and (
            rest := self._release_held_call(index if isinstance(index, int) else 0)
        ):
            delta = choice["delta"] = delta if isinstance(delta, dict) else {}
            delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *rest]
            self._calls_changed = True

    def _release_held_call(self, choice: int) -> list[object]:
        call = self._held_calls.pop(choice, None)
        return [{"index": call.number, "function": {"arguments": EMPTY}}] if call else []


def has_answer(message: Mapping[str, object]) -> bool:
    """Returns whether a message has text, a call or a refusal; thinking alone is no answer."""
    return any(
        name not in _METADATA_MEMBERS
        and name not in _THINKING_MEMBERS
        and value not in _EMPTY_VALUES
        and not (isinstance(value, str) and value.isspace())
        and not is_thinking(value)
        for name, value in message.items()
    )


def _has_substance(delta: object) -> bool:
    """Returns whether the delta rules out a fail-over. A tool's name alone does not."""
    if isinstance(delta, dict):
        for name, value in delta.items():
            if name in _METADATA_MEMBERS or value in _EMPTY_VALUES:
                continue
            is_blank = isinstance(value, str) and value.isspace()
            if not is_blank and _has_call_begun(name, value):
                return True
    return False


def _has_call_begun(name: str, value: object) -> bool:
    if name == "function_call":
        return not isinstance(value, dict) or bool(value.get("arguments"))
    if name != "tool_calls":
        return True
    return any(
        function.get(arguments_name)
        for call in iter_objects(value)
        for kind, arguments_name in (("function", "arguments"), ("custom", "input"))
        if isinstance(function := call.get(kind), dict)
    )
