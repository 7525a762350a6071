"""Copies a sample of requests and answers, to become eval cases.

This module does not read, redact or write them; the parent's `capture_writer` redacts them.
`capture_head` has the parts that a shadow's pairs share with it.
"""

from dataclasses import replace
from typing import Final

from harness.frame.ports import Clock
from harness.providers.models.capabilities import Endpoint
from harness.routing.capture import is_sampled
from router.observers.capture_head import OK, build_capture_head, is_copy_refused
from router.recording.internal_errors import RouterPart
from router.recording.port import CaptureDraft, Recording
from router.request.request_observers import RequestObserver
from router.request.request_state import AnswerCopy, RoutedRequest
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledRoute

ANSWER_TOO_LARGE: Final = "answer_too_large"


class CaptureSampler(RequestObserver):
    """Samples a route's requests. secret: the key for hashes of users.

    Draws by the request's id before the first attempt, so that failed, refused and cancelled
    requests become captures, too. A sample of good answers alone would favour the model that
    gave them. A capture omits the contents of a request that is too large, and an answer that
    is too large.
    """

    part = RouterPart.CAPTURE

    def __init__(
        self,
        secret: bytes,
        clock: Clock,
        recorder: Recording,
    ) -> None:
        self._secret = secret
        self._clock = clock
        self._recorder = recorder
        self._copies: dict[str, AnswerCopy] = {}  # by request id

    def watches(self, route: CompiledRoute) -> bool:
        return route.route.settings.capture_bps > 0

    def before_attempt(self, observed: RoutedRequest) -> None:
        share_bps = observed.route.route.settings.capture_bps
        if not share_bps or observed.request.endpoint is Endpoint.EMBEDDINGS:
            return
        if is_sampled(observed.request_id, share_bps) and self._may_keep(observed):
            copy = AnswerCopy(observed.route.route.settings.copy_max_bytes)
            self._copies[observed.request_id] = copy
            observed.copies = (*observed.copies, copy)

    def _may_keep(self, observed: RoutedRequest) -> bool:
        if is_copy_refused(observed):
            self._recorder.counters["captures_refused"] += 1
            return False
        return True

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        copy = self._copies.pop(observed.request_id, None)
        target = response.progress.upstream
        result = response.progress.result
        if copy is None:
            return
        settings = observed.route.route.settings
        body = observed.request.text
        has_answer = response.outcome == OK
        answer = copy.whole(result) if has_answer else ""
        outcome = response.outcome if has_answer else response.error or response.outcome
        is_too_large = len(body) > settings.copy_max_bytes
        if is_too_large or answer is None:
            self._recorder.counters["captures_too_large"] += 1
        head = replace(
            build_capture_head(observed, self._clock.now(), self._secret),
            target=target.name if target else "",
            body_bytes=len(body) + (settings.copy_max_bytes if answer is None else len(answer)),
            too_large=is_too_large,
            outcome=ANSWER_TOO_LARGE if answer is None else outcome,
        )
        texts = ("", "") if is_too_large else (body, answer or "")
        self._recorder.capture(CaptureDraft(head, settings.capture_per_day, *texts))
