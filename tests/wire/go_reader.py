"""Reads a stream by the rules of OpenAI's Go client, the strictest of its versions: each empty
line ends an event, one without data is fatal, and so is a member named error, be it null.
"""

import json
from typing import Final

from tests.wire.server import Json

LONGEST_LINE: Final = 32 * 1024 * 1024


class GoStreamError(Exception):
    """The client ends here, and its caller gets this error."""


def read_stream(raw: bytes) -> list[Json]:
    """Returns the events' data. Raises GoStreamError."""
    found: list[Json] = []
    data = b""
    for line in raw.splitlines():
        name, _, value = line.partition(b":")
        if len(line) > LONGEST_LINE:
            raise GoStreamError("bufio.Scanner: token too long")
        if name == b"data":
            data += value.removeprefix(b" ") + b"\n"
        elif not line:
            if data.startswith(b"[DONE]"):
                break
            found.append(_event(data))
            data = b""
    return found


def _event(data: bytes) -> Json:
    try:
        event: Json = json.loads(data)
    except ValueError as error:
        raise GoStreamError(f"cannot unmarshal: {error}") from None
    if "error" in event:
        raise GoStreamError(f"received error while streaming: {event['error']}")
    return event
