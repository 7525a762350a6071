"""The chat stream filters a streamed chat completion on its way to the client."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Self

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass
from harness.frame.sse import event_data
from router.conversation.intake import arguments_text
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
from router.protocols.answers import read_usage
from router.protocols.call_pieces import EMPTY, CallCollector, CallPieces
from router.protocols.event_stream import MODEL_ALONE, Irregularity, StreamFilter, with_data

# What a JSON string holds, without `\u`, which could be half a surrogate pair.
_TEXT: Final = re.compile(rb'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])+')
_NAME: Final = re.compile(r"[a-z_]+").fullmatch
# Stands for any text while a form is made.
_PLACEHOLDER: Final = b"0-swapgate-text-0"


class TextEventForm(NamedTuple):
    """Tells the text of an event that has this form, and what the client gets around it."""

    before: bytes  # the text, as the event comes
    after: bytes
    sent_before: bytes  # the text, as the client gets it
    sent_after: bytes
    is_content: bool  # and not a thought, say
    choice: object  # its index, as it came

    @classmethod
    def from_event(
        cls, event: bytes, name: str, choice: object, write: Callable[[bytes], bytes]
    ) -> Self | None:
        """Makes the form around the only member `name`; None where that is not plain. write:
        what becomes of an event. Raises InputError.
        """
        if not _NAME(name) or event.count(b'"%b"' % name.encode()) != 1:
            return None
        found = re.search(rb'"%b"[ \t]*:[ \t]*"' % name.encode(), event)
        text = _TEXT.match(event, found.end()) if found else None
        if text is None:
            return None
        before, after = event[: text.start()], event[text.end() :]
        # Without an escape in it, every quote begins or ends a string.
        around = before + after
        if b"\\" in around or b"\n" in around or b"\r" in around or after[:1] != b'"':
            return None
        try:
            sent = write(before + _PLACEHOLDER + after).split(_PLACEHOLDER)
        except InputError:  # NaN or an infinity in it: it is not passed on as it comes
            return None
        if len(sent) != 2:
            return None
        return cls(before, after, sent[0], sent[1], name == "content", choice)

    def text(self, event: bytes) -> bytes | None:
        if not (event.startswith(self.before) and event.endswith(self.after)):
            return None
        text = event[len(self.before) : -len(self.after)]
        if _TEXT.fullmatch(text) is None:
            return None
        if not text.isascii():
            try:
                text.decode()
            except UnicodeDecodeError:
                return None
        return text


def decoded(text: bytes) -> str:
    return str(json.loads(b'"%b"' % text)) if b"\\" in text else text.decode()


DONE: Final = b"data: [DONE]\n\n"
_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})
_GOOD: Final = ("stop", "tool_calls")  # most often; `ENDS` has all
# Of a message, or of a piece of one, what stands beside what it says.
_BESIDE: Final = frozenset({"role", "name", "id", "annotations", "provider_specific_fields"})
# An answer that ends with thoughts alone said nothing.
_THOUGHTS: Final = frozenset(
    {"reasoning", "reasoning_content", "reasoning_details", "thinking_blocks"}
)
_NO_TEXT: Final[tuple[str, object] | None] = None


class ChatStream(StreamFilter):
    """Ends with `[DONE]` once every choice that began has a finish reason; with the connection
    once all `wanted` have: choices may come one after another.
    """

    def __init__(self, json_name: str | None, *, show_usage: bool, wanted: int = 1) -> None:
        super().__init__(json_name)
        self._show_usage = show_usage
        self._wanted = wanted
        self._says = False  # words, a call or a refusal came
        self._anew = False  # the event's calls were written anew
        self._counts: dict[int, int] = {}  # of calls, by choice
        self._empty: dict[int, CallPieces] = {}  # whose empty object was kept back
        self._choices: set[object] = set()
        self._ended: set[object] = set()
        self._form: TextEventForm | None = None
        self._without_form = 0  # text events so far that had not the form of those before
        # Of the last event that had no form: the name of its text and its choice, if it was a
        # text event.
        self._text: tuple[str, object] | None = None

    def feed(self, data: bytes) -> bytes:
        # Most often it is one text event, whole.
        if self._form is not None and not self._buffer and data.endswith(b"\n\n"):
            sent = self._formed(self._form, data[:-2])
            if sent is not None:
                return sent + b"\n\n"
        return super().feed(data)

    def _event(self, event: bytes, end: bytes) -> bytes:
        if self._form is not None:
            sent = self._formed(self._form, event)
            if sent is not None:
                return sent + end
        self._text = _NO_TEXT
        sent = super()._event(event, end)
        if self._text is not None and not self.failure:
            self._without_form += 1
            # A form has its price: no short stream pays it, nor one whose events have none.
            # Behind a form nobody asks whether words came.
            if (
                self._without_form > 2
                and not self._without_form & (self._without_form - 1)
                and (self._says or self._text[0] in _THOUGHTS)
            ):
                self._form = TextEventForm.from_event(event, *self._text, self._written)
        return sent

    def _formed(self, form: TextEventForm, event: bytes) -> bytes | None:
        text = form.text(event)
        if text is None:
            return None
        self.output_events += 1
        self.progress_events += 1
        if form.is_content and self.signals is not None:
            self._note(AnswerSignals.text, form.choice, decoded(text))
        return form.sent_before + text + form.sent_after

    def _written(self, event: bytes) -> bytes:
        """A text event as the client gets it. Raises InputError for one that is not JSON."""
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
        return len(self._ended) >= self._wanted and self._all_ended

    @property
    def _all_ended(self) -> bool:
        return bool(self._ended) and not self._choices - self._ended

    def _mark(self, event: bytes) -> bytes:
        if not self._all_ended:
            self._fail("the stream ended without a finish_reason")
            return b""
        self.committed = self.finished = True
        return event

    def _closed(self) -> bytes:
        if self._all_ended and not self.ended:
            self._fail(f"{len(self._ended)} of {self._wanted} choices came")
            return b""
        end = self._mark(DONE)
        if end:
            self.irregularities.add(Irregularity.NO_LAST_EVENT)
        return end

    def _read(self, text: str, members: ParsedObject) -> Sequence[TextEdit] | None:  # noqa: ARG002 - the top level is enough
        if members.get("error"):
            self._refused(members.get("error"))
            return None
        usage = members.get("usage")
        if usage is not None:
            self.usage = read_usage(usage) or self.usage
        choices = members.get("choices")
        self._anew = False
        if isinstance(choices, list):
            self._note_choices(choices, alone=usage is None)
            if self.failure:
                return None
        if not (self._show_usage or choices) and usage:
            return None
        hides = usage and not self._show_usage  # some providers send it with the last choice
        if hides or self._anew or (choices and not members.found.get("id", True)):
            return self._edits(members, hides=bool(hides))
        if not self.model and isinstance(model := members.get("model"), str):
            self.model = model
        return () if self._json_name is None else MODEL_ALONE

    def _edits(self, members: ParsedObject, *, hides: bool) -> Sequence[TextEdit]:
        edits = [*self._model_edit(members.text_place("model"))]
        if hides:
            edits.append(member_edit(members, "usage", "null"))
        if not members.found.get("id", True):
            edits.append(self._id_edit(members))
        if self._anew:
            edits.append(member_edit(members, "choices", to_json(members.get("choices"))))
        return edits

    def _note_choices(self, choices: list[object], *, alone: bool) -> None:
        only: tuple[str, object] | None = None
        for choice in choices:
            if isinstance(choice, dict):
                only = self._choice(choice)
                if self._empty:
                    self._finish_calls(choice)
        if alone and len(choices) == 1:
            self._text = only

    def _choice(self, choice: dict[str, object]) -> tuple[str, object] | None:
        if self.signals is not None:
            self._note(read_signals, choice, "delta")
        index, delta = choice.get("index"), choice.get("delta")
        number = index if isinstance(index, int) else 0
        self._choices.add(number)
        outputs, text = 0, None
        if isinstance(delta, dict):
            for name, value in delta.items():
                if name not in _BESIDE and value not in _NOTHING:
                    outputs += 1
                    text = name if isinstance(value, str) else None
                    self._says = self._says or not (
                        name in _THOUGHTS or (isinstance(value, str) and value.isspace())
                    )
                    if name == "tool_calls" and isinstance(value, list):
                        self._collect(number, value)
        if outputs:
            self.output_events += 1
            self.progress_events += 1
            self.committed = self.committed or _has_substance(delta)
        reason = choice.get("finish_reason")
        if reason:  # some providers send an empty one with every delta
            self.finish_reasons.append(str(reason))
            # One of several choices may say nothing, and the next ones may come later.
            says = self._says or len(self._ended) + 1 < self._wanted
            if not ((says and reason in _GOOD) or self._ends_well(reason, has_output=says)):
                return None
            if self._calls is not None and self._has_broken_call(reason):
                return None
            self._ended.add(number)
            self.progress_events += 1
            self.committed = True
            return None
        is_alone = outputs == 1 and (index is None or isinstance(index, int))
        return (text, index) if is_alone and text is not None else None

    def _collect(self, choice: int, calls: list[object]) -> None:
        """Collects pieces of calls of functions, to check them at the answer's end, and writes
        them anew where a client would not join them as the router does.
        """
        if self._calls is None:
            self._calls = CallCollector()
        sent: list[object] = []
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(call, dict) and isinstance(function, dict):
                sent += self._piece(self._calls, choice, call, function)
            else:
                sent.append(call)
        if sent != calls:
            calls[:] = sent
            self._anew = True

    def _piece(
        self,
        calls: CallCollector,
        choice: int,
        call: dict[str, object],
        function: dict[str, object],
    ) -> list[object]:
        name, given = function.get("name"), arguments_text(function.get("arguments"))
        known = calls.add((choice, str(call.get("index"))), call.get("id"), name, given)
        before: list[object] = []
        piece, said = dict(call), dict(function)
        if not known.sent_id:
            before = self._rest(choice)
            known.number = self._counts.get(choice, 0)
            self._counts[choice] = known.number + 1
            place = choice, known.number
            known.sent_id = piece["id"] = self.ids.of_call(call.get("id"), place)
            piece["type"] = call.get("type") or "function"
            said["name"] = name or known.name
            if known.is_empty:
                self._empty[choice] = known
        else:  # some clients join the ids and names of all pieces
            piece.pop("id", None)
            if name == known.name:
                said.pop("name", None)
        if self._empty.get(choice) is known:
            if known.is_empty:
                given = ""
            else:
                del self._empty[choice]
        if given is not None:
            said["arguments"] = given
        return [*before, {**piece, "index": known.number, "function": said}]

    def _finish_calls(self, choice: dict[str, object]) -> None:
        index, delta = choice.get("index"), choice.get("delta")
        if choice.get("finish_reason") and (
            rest := self._rest(index if isinstance(index, int) else 0)
        ):
            delta = choice["delta"] = delta if isinstance(delta, dict) else {}
            delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *rest]
            self._anew = True

    def _rest(self, choice: int) -> list[object]:
        call = self._empty.pop(choice, None)
        return [{"index": call.number, "function": {"arguments": EMPTY}}] if call else []


def has_answer(message: Mapping[str, object]) -> bool:
    return any(
        name not in _BESIDE
        and name not in _THOUGHTS
        and value not in _NOTHING
        and not (isinstance(value, str) and value.isspace())
        for name, value in message.items()
    )


def _has_substance(delta: object) -> bool:
    """Whether no other target can begin anew behind it. A tool's name alone is no answer."""
    if isinstance(delta, dict):
        for name, value in delta.items():
            if name in _BESIDE or value in _NOTHING:
                continue
            is_blank = isinstance(value, str) and value.isspace()
            if not is_blank and _call_is_begun(name, value):
                return True
    return False


def _call_is_begun(name: str, value: object) -> bool:
    if name == "function_call":
        return not isinstance(value, dict) or bool(value.get("arguments"))
    if name != "tool_calls":
        return True
    return any(
        part.get(given)
        for call in iter_objects(value)
        for kind, given in (("function", "arguments"), ("custom", "input"))
        if isinstance(part := call.get(kind), dict)
    )
