"""Server-sent events of one upstream stream, on their way to the client. Pure.

Metadata (role, empty deltas, pings) is held back until the first real output: the commit
point. Each event stays as it came, byte for byte, but for the value of `model`.
"""

import re
from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError
from router.jsonspan import Edit, Members, decode, read_object, spliced
from router.usage import Usage, usage_of

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
DONE: Final = b"data: [DONE]\n\n"
_EVENT_END: Final = re.compile(rb"\r?\n\r?\n|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})


class StreamFilter:
    """One upstream stream. `feed` what arrives and send on what it returns.

    committed: output came; what `feed` returns from then on may be sent. failure: why the
    stream is broken, empty while it is not; nothing may be fed after it. finished: it ended
    as it should. output_events: deltas with output, where no usage was reported.
    """

    def __init__(self, json_name: str, *, show_usage: bool) -> None:
        self.committed = False
        self.finished = False
        self.failure = ""
        self.usage: Usage | None = None
        self.output_events = 0
        self._json_name = json_name
        self._show_usage = show_usage
        self._buffer = b""
        self._choices: set[object] = set()
        self._ended: set[object] = set()

    def feed(self, data: bytes) -> bytes:
        """The complete events in it, ready for the client."""
        self._buffer += data
        out: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(self._buffer):
            out.append(self._event(self._buffer[start : end.start()], end.group()))
            start = end.end()
            if self.failure or self.finished:
                break
        self._buffer = self._buffer[start:]
        if len(self._buffer) > MAX_EVENT_BYTES and not self.failure:
            self.failure = f"an event larger than {MAX_EVENT_BYTES} bytes"
        return b"".join(out)

    def end(self) -> bytes:
        """The upstream closed the stream: what is still to be sent."""
        rest = self.feed(b"\n\n") if self._buffer.strip() and not self.failure else b""
        if self.finished or self.failure:
            return rest
        return rest + self._finish(DONE)

    def _finish(self, event: bytes) -> bytes:
        if not self._ended or self._choices - self._ended:
            self.failure = "the stream ended without a finish_reason"
            return b""
        self.committed = self.finished = True
        return event

    def _event(self, event: bytes, end: bytes) -> bytes:
        payload = _data_of(event)
        if payload is None:  # a comment, a ping
            return event + end
        if payload == b"[DONE]":
            return self._finish(event + end)
        try:
            text = decode(payload)
            members = read_object(text)
        except InputError as error:
            self.failure = f"an event that is not valid: {error}"
            return b""
        if not self._read(members):
            return b""
        model = members.values.get("model")
        if model is None:
            return event + end
        edit = Edit(model.start, model.end, self._json_name)
        return _with_data(event, payload, spliced(text, [edit])) + end

    def _read(self, members: Members) -> bool:
        """Take note of the event; whether the client is to see it."""
        values = members.values
        error = values.get("error")
        if error is not None and error.value:
            self.failure = "the stream carries an error"
            return False
        usage = values.get("usage")
        if usage is not None:
            self.usage = usage_of(usage.value) or self.usage
        listed = values.get("choices")
        choices = listed.value if listed is not None else None
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, Mapping):
                    self._choice(choice)
        return self._show_usage or bool(choices) or not (usage and usage.value)

    def _choice(self, choice: Mapping[object, object]) -> None:
        index = choice.get("index")
        self._choices.add(index if isinstance(index, int) else 0)
        if _has_output(choice.get("delta")):
            self.output_events += 1
            self.committed = True
        if choice.get("finish_reason") is not None:
            self._ended.add(index if isinstance(index, int) else 0)
            self.committed = True


def _has_output(delta: object) -> bool:
    return isinstance(delta, Mapping) and any(
        value not in _NOTHING for name, value in delta.items() if name != "role"
    )


def _data_of(event: bytes) -> bytes | None:
    """The event's data; None when it has none."""
    if event.startswith(b"data:") and b"\n" not in event and b"\r" not in event:
        return event[5:].strip()
    lines = [line[5:].strip() for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _with_data(event: bytes, old: bytes, new: bytes) -> bytes:
    if old in event:
        return event.replace(old, new, 1)
    # Data over several lines: the other lines stay, the data come last.
    others = [line for line in _LINE_END.split(event) if not line.startswith(b"data:")]
    return b"\n".join([*others, *(b"data: " + line for line in new.split(b"\n"))])
