"""Redacts and stores captured requests in a thread. No log or spool contains their text.

`router.observers.capture` makes the drafts, `harness.frame.redaction` redacts them. A
capture that cannot be stored is lost and counted, because a spool would keep content on the
disk.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from harness.app.store.router_store import RouterStore
from harness.frame.redaction import Redactor
from harness.routing.capture import (
    ANSWER_UNREADABLE,
    CapturedRequest,
    CaptureResult,
    capture_id,
)
from router.protocols.transcript import build_question, build_transcript
from router.recording.port import CaptureDraft

log = logging.getLogger(__name__)

# The most waiting drafts; each has at most twice the route's `copy_max_bytes`.
ROOM: Final = 100
TOGETHER: Final = 20
STOP_S: Final = 5.0
COUNTED: Final = {
    CaptureResult.STORED: "captures_stored",
    CaptureResult.REPEATED: "captures_repeated",
    CaptureResult.FULL: "captures_over_day",
}


class CaptureWriter:
    """Redacts and stores drafts in its own thread, so that a long draft delays no observation.

    secret: used to derive the captures' ids.
    """

    def __init__(
        self,
        store: RouterStore,
        redactor: Redactor,
        secret: bytes,
        counters: Counter[str],
    ) -> None:
        self._store = store
        self._redactor = redactor
        self._secret = secret
        self._counters = counters
        self._drafts: queue.Queue[CaptureDraft | None] = queue.Queue(ROOM)
        self._full: dict[str, object] = {}
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)

    def put(self, draft: CaptureDraft) -> None:
        """Takes a draft; drops and counts it if ROOM drafts wait. Never waits."""
        try:
            self._drafts.put_nowait(draft)
        except queue.Full:
            self._counters["captures_dropped"] += 1

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stores the waiting drafts within STOP_S; drops and counts the rest."""
        if not self._thread.is_alive():
            return
        with suppress(queue.Full):
            self._drafts.put(None, timeout=STOP_S)
        self._thread.join(timeout=STOP_S)
        if left := self._drafts.qsize():
            self._counters["captures_dropped"] += left

    def _run(self) -> None:
        last = False
        while not last:
            drafts = [self._drafts.get()]
            with suppress(queue.Empty):
                while len(drafts) < TOGETHER:
                    drafts.append(self._drafts.get_nowait())
            last = None in drafts
            self._keep([draft for draft in drafts if draft is not None])

    def _keep(self, drafts: Sequence[CaptureDraft]) -> None:
        """Redacts and stores drafts in one transaction. Raises nothing: what fails is
        counted.
        """
        ready = [
            (made, draft.per_day)
            for draft in drafts
            if self._room(draft) and (made := self._made(draft)) is not None
        ]
        if not ready:
            return
        try:
            with self._store.write() as tx:
                kept = [tx.captures.store(made, most_per_day=most) for made, most in ready]
        except Exception as error:  # noqa: BLE001 - its text may contain the row
            log.warning("%d captures are lost: %s", len(ready), type(error).__name__)
            self._counters["captures_dropped"] += len(ready)
            return
        for (made, _), what in zip(ready, kept, strict=True):
            self._counters[COUNTED[what]] += 1
            if what is CaptureResult.FULL:
                self._full[made.route] = made.at.date(), made.share_bps

    def _room(self, draft: CaptureDraft) -> bool:
        """Returns False if the route has its captures of the day, until `share_bps` changes."""
        head = draft.head
        if self._full.get(head.route) != (head.at.date(), head.share_bps):
            return True
        self._counters["captures_over_day"] += 1
        return False

    def _made(self, draft: CaptureDraft) -> CapturedRequest | None:
        try:
            return redact_draft(draft, self._redactor, self._secret)
        except Exception as error:  # noqa: BLE001 - its text may contain content
            kind = type(error).__name__
            log.warning(
                "a capture of route %s cannot be read: %s",
                draft.head.route,
                kind,
            )
            self._counters["captures_unreadable"] += 1
            return None


def redact_draft(
    draft: CaptureDraft,
    redactor: Redactor,
    secret: bytes,
) -> CapturedRequest:
    """Redacts a draft. Raises the errors of `build_transcript`, and InputError."""
    head = draft.head
    client_body = draft.client_body
    answer = draft.answer
    # A draft that was too large is stored without content, because it still counts.
    if head.too_large:
        copied: dict[str, object] = {"left_out": head.request}
    elif answer:
        try:
            return _redacted(
                head,
                build_transcript(head.endpoint, client_body, answer, stream=head.stream),
                redactor,
                secret,
            )
        except Exception:  # noqa: BLE001 - a broken answer must not remove its request
            head = replace(head, outcome=ANSWER_UNREADABLE)
            copied = build_question(head.endpoint, client_body)
    else:
        copied = build_question(head.endpoint, client_body)
    return _redacted(head, copied, redactor, secret)


def _redacted(
    head: CapturedRequest,
    copied: Mapping[str, object],
    redactor: Redactor,
    secret: bytes,
) -> CapturedRequest:
    result = redactor.redact(copied)
    return replace(
        head,
        id=capture_id(head.route, result.value, secret),
        rules=redactor.digest,
        redactions=dict(sorted(result.counts.items())),
        content={} if head.too_large else result.value,
    )
