"""The form that all text events of one stream share: they are read and written unparsed.

The form comes from a parsed event, and only a text that is plainly one JSON string may stand in
it.
"""

import json
import re
from collections.abc import Callable
from typing import Final, NamedTuple, Self

from harness.domain.errors import InputError

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
