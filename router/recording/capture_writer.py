"""Redacts and stores captured requests in a thread. No log or spool contains their text.

`router.observers.capture` and `shadow_pairs` make the drafts, `harness.frame.redaction` redacts
them. A pair's two answers are redacted together, so that both have the same placeholders. If
the writer cannot store a capture, it drops and counts the capture, because a spool would keep
content on the disk.
"""

import json
import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from harness.frame.redaction import Redactor
from harness.routing.capture import (
    ANSWER_UNREADABLE,
    PROVIDER_STATE,
    SETTINGS,
    CapturedRequest,
    CaptureResult,
    capture_id,
)
from harness.routing.provider_side import find_provider_file, find_provider_state
from harness.routing.request_settings import read_settings
from harness.routing.shadow_pair import CANDIDATE, CandidateOutcome
from router.frame.database import RouterDatabase
from router.protocols.transcript import build_answer, build_question
from router.recording.port import CaptureDraft

log = logging.getLogger(__name__)

# The most waiting drafts; each has at most three times the route's `copy_max_bytes`.
MAX_WAITING: Final = 100
MAX_BATCH: Final = 20
STOP_S: Final = 5.0
COUNTER_BY_RESULT: Final = {
    CaptureResult.STORED: "captures_stored",
    CaptureResult.REPEATED: "captures_repeated",
    CaptureResult.FULL: "captures_over_day",
    CaptureResult.LATE: "captures_dropped",
}


class CaptureWriter:
    """Redacts and stores drafts in its own thread, so that a long draft delays no observation.

    secret: the key from which it derives the captures' ids.
    """

    def __init__(
        self,
        store: RouterDatabase,
        redactor: Redactor,
        secret: bytes,
        counters: Counter[str],
    ) -> None:
        self._store = store
        self._redactor = redactor
        self._secret = secret
        self._counters = counters
        self._drafts: queue.Queue[CaptureDraft | None] = queue.Queue(MAX_WAITING)
        self._full: dict[str, object] = {}
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)

    def put(self, draft: CaptureDraft) -> None:
        """Queues a draft; drops and counts it if MAX_WAITING drafts wait. Never waits."""
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
        is_last = False
        while not is_last:
            drafts = [self._drafts.get()]
            with suppress(queue.Empty):
                while len(drafts) < MAX_BATCH:
                    drafts.append(self._drafts.get_nowait())
            is_last = None in drafts
            self._store_drafts([draft for draft in drafts if draft is not None])

    def _store_drafts(self, drafts: Sequence[CaptureDraft]) -> None:
        """Redacts and stores drafts in one transaction. Counts failures and raises nothing."""
        captures = [
            (capture, draft.per_day)
            for draft in drafts
            if self._has_room(draft) and (capture := self._try_redact(draft)) is not None
        ]
        if not captures:
            return
        try:
            with self._store.write() as tx:
                results = [
                    tx.captures.store(capture, most_per_day=max_per_day)
                    if capture.shadow is None
                    else tx.captures.store_pair(capture)
                    for capture, max_per_day in captures
                ]
        except Exception as error:  # noqa: BLE001 - its text may contain the row
            log.warning("%d captures are lost: %s", len(captures), type(error).__name__)
            self._counters["captures_dropped"] += len(captures)
            return
        for (capture, _), result in zip(captures, results, strict=True):
            if not (_is_entry(capture) and result is CaptureResult.STORED):
                self._counters[COUNTER_BY_RESULT[result]] += 1
            if result is CaptureResult.FULL:
                self._full[capture.route] = capture.at.date(), capture.share_bps

    def _has_room(self, draft: CaptureDraft) -> bool:
        """Returns whether the route may have further captures today.

        After a full day, a change of `share_bps` permits further ones. A shadow limits its
        pairs itself.
        """
        head = draft.head
        is_full = self._full.get(head.route) == (head.at.date(), head.share_bps)
        if head.shadow is not None or not is_full:
            return True
        self._counters["captures_over_day"] += 1
        return False

    def _try_redact(self, draft: CaptureDraft) -> CapturedRequest | None:
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
    """Redacts a draft. Raises the errors of `build_question`, and InputError."""
    head = draft.head
    if _is_entry(head):
        return replace(head, rules=redactor.digest)
    # A draft that is too large counts, so the writer stores it without content.
    if head.too_large:
        return _redact(head, {"left_out": head.request}, redactor, secret)
    question = build_question(head.endpoint, draft.client_body)
    # A broken answer must not remove its request.
    answers: dict[str, object] = {}
    if draft.answer and not _read_into(answers, "answer", head, draft.answer):
        head = replace(head, outcome=ANSWER_UNREADABLE)
    if draft.candidate_answer and not _read_into(
        answers, CANDIDATE, head, draft.candidate_answer
    ):
        head = _mark_unreadable(head)
    try:
        capture = _redact(head, {**question, **answers}, redactor, secret)
    except Exception:
        if not answers:
            raise
        head = replace(head, outcome=ANSWER_UNREADABLE) if "answer" in answers else head
        head = _mark_unreadable(head) if CANDIDATE in answers else head
        capture = _redact(head, question, redactor, secret)
    return _add_marks(capture, draft.client_body, redactor)


def _is_entry(head: CapturedRequest) -> bool:
    """Tells whether this is a shadow pair whose answer is pending."""
    candidate = head.candidate
    return candidate is not None and candidate.outcome is CandidateOutcome.PENDING


def _read_into(
    answers: dict[str, object], member: str, head: CapturedRequest, text: str
) -> bool:
    """Reads an answer's body or events. Returns False if they do not follow their protocol."""
    try:
        answers[member] = build_answer(head.endpoint, text, stream=head.stream)
    except Exception:  # noqa: BLE001 - its text may contain content
        return False
    return True


def _mark_unreadable(head: CapturedRequest) -> CapturedRequest:
    if head.candidate is None:
        return head
    candidate = replace(head.candidate, outcome=CandidateOutcome.UNREADABLE)
    return replace(head, candidate=candidate)


def _add_marks(
    capture: CapturedRequest, client_body: str, redactor: Redactor
) -> CapturedRequest:
    """Adds facts about the request that its transcript omits: its settings, which a copy must
    have, and why a copy could act at the provider. A suite of traffic draws no such capture.
    """
    body = json.loads(client_body)
    marks: dict[str, object] = {SETTINGS: redactor.redact(read_settings(body)).value}
    if reason := find_provider_state(body.get) or find_provider_file(body):
        marks[PROVIDER_STATE] = reason
    return replace(capture, content={**capture.content, **marks})


def _redact(
    head: CapturedRequest,
    transcript: Mapping[str, object],
    redactor: Redactor,
    secret: bytes,
) -> CapturedRequest:
    result = redactor.redact(transcript)
    return replace(
        head,
        id=head.id or capture_id(head.route, result.value, secret),
        rules=redactor.digest,
        redactions=dict(sorted(result.counts.items())),
        content={} if head.too_large else result.value,
    )
