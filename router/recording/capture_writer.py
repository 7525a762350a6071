"""Redacts and stores captured requests. No log and no spool has a word of them."""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from harness.frame.redaction import Redactor
from harness.routing.capture import CapturedRequest, CaptureResult, capture_expiry, capture_id
from harness.store.router_store import RouterStore
from router.protocols.transcript import build_transcript
from router.recording.port import CaptureDraft

log = logging.getLogger(__name__)

# Of drafts, each of at most the route's `copy_max_bytes` twice.
ROOM: Final = 100
TOGETHER: Final = 20
COUNTED: Final = {
    CaptureResult.STORED: "captures_stored",
    CaptureResult.REPEATED: "captures_repeated",
    CaptureResult.FULL: "captures_over_day",
}


class CaptureWriter:
    """Redacts and stores drafts in the recorder's thread. secret: of the captures' ids."""

    def __init__(
        self, store: RouterStore, redactor: Redactor, secret: bytes, counters: Counter[str]
    ) -> None:
        self._store = store
        self._redactor = redactor
        self._secret = secret
        self._counters = counters
        self._drafts: deque[CaptureDraft] = deque()
        self._full: dict[str, object] = {}

    def put(self, draft: CaptureDraft) -> None:
        if len(self._drafts) < ROOM:
            self._drafts.append(draft)
        else:
            self._counters["captures_dropped"] += 1

    def flush(self) -> None:
        """Stores what has come. Raises nothing: what cannot be stored is dropped."""
        while self._drafts:
            self._keep(
                [self._drafts.popleft() for _ in range(min(TOGETHER, len(self._drafts)))]
            )

    def _keep(self, drafts: Sequence[CaptureDraft]) -> None:
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
        except Exception as error:  # noqa: BLE001 - its words may hold what was to be written
            log.warning("%d captures are lost: %s", len(ready), type(error).__name__)
            self._counters["captures_dropped"] += len(ready)
            return
        for (made, _), what in zip(ready, kept, strict=True):
            self._counters[COUNTED[what]] += 1
            if what is CaptureResult.FULL:
                self._full[made.route] = made.at.date(), made.share_bps

    def _room(self, draft: CaptureDraft) -> bool:
        """Whether its route is known to be full for the day; another setting asks again."""
        day = datetime.fromisoformat(draft.at).date()
        if self._full.get(draft.route) != (day, draft.share_bps):
            return True
        self._counters["captures_over_day"] += 1
        return False

    def _made(self, draft: CaptureDraft) -> CapturedRequest | None:
        try:
            return redact_draft(draft, self._redactor, self._secret)
        except Exception as error:  # noqa: BLE001 - its words may hold content
            kind = type(error).__name__
            log.warning("a capture of route %s is not readable: %s", draft.route, kind)
            self._counters["captures_unreadable"] += 1
            return None


def redact_draft(draft: CaptureDraft, redactor: Redactor, secret: bytes) -> CapturedRequest:
    """Redacts a draft. Raises as `build_transcript` does, and InputError."""
    # One that was too large is stored without content: that it came counts.
    result = redactor.redact(
        {"left_out": draft.request}
        if draft.too_large
        else build_transcript(
            draft.endpoint, draft.client_body, draft.answer, stream=draft.stream
        )
    )
    at = datetime.fromisoformat(draft.at)
    return CapturedRequest(
        id=capture_id(draft.route, result.value, secret),
        at=at,
        expires_at=capture_expiry(at, draft.keep_days),
        route=draft.route,
        request=draft.request,
        endpoint=draft.endpoint,
        stream=draft.stream,
        arm=draft.arm,
        target=draft.target,
        revision=draft.revision,
        data_class=draft.data_class,
        user_hash=draft.user_hash,
        share_bps=draft.share_bps,
        rules=redactor.digest,
        redactions=dict(sorted(result.counts.items())),
        content={} if draft.too_large else result.value,
        body_bytes=draft.body_bytes,
        too_large=draft.too_large,
    )
