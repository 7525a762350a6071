"""IPC frames carry JSON messages between workers and their parent, each behind its length.
`encode_frame` makes one, `FrameReader` reads them. All messages:

A worker's report has any of: `ready` (it serves), `live` (rollouts of its snapshot), `rollouts`
(`[id, unit rule]`, numbered from 0 as they come), `units` (in order:
`[ticket, rollout, key, canary, weight_bps, traits]` for an admission,
`[ticket, failed, error class]` for its outcome, followed by what a `GuardrailSample` has under
guardrails, `[ticket, rollout, outcome, cost]` for a judge's verdict), `batch` (a spool's),
`captures` (drafts, never written anywhere), `abort` (this worker stopped a canary), `metrics`
and `ask` (for the text of all metrics, by a number). The parent sends
`{"answer": number, "text": text}`, and `{"aborted": abort}` for a canary that another worker
stopped.

Feedback: a worker sends `{"opinion": [worker, key, request, verdict, label], "of": number}`.
The parent passes it on to the worker of that name, which says
`{"entered": number, "outcome": word}`, and before that may ask
`{"opined": [ticket, bad], "of": number}`: does it still count?
"""

import json
from collections.abc import Iterator
from datetime import datetime
from struct import Struct
from typing import Any, Final

_LENGTH: Final = Struct("!I")


def encode_frame(message: dict[str, Any]) -> bytes:
    data = json.dumps(message, default=datetime.isoformat, separators=(",", ":")).encode()
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Puts messages together again, however the bytes were cut."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are whole now. Raises ValueError for what is none."""
        held = self._held
        held += data
        place = 0
        while len(held) - place >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(held, place)
            end = place + _LENGTH.size + length
            if len(held) < end:
                break
            yield json.loads(held[place + _LENGTH.size : end])
            place = end
        del held[:place]
