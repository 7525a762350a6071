"""Which requests are kept for a suite (F9), and what is taken along of them.

Here nothing is read, redacted or written: that would hold up the requests of others. What is
taken lives in memory alone until the parent's `router.observers.capture_writer` has redacted
it.
"""

from typing import Final

from harness.domain.privacy.capture import is_drawn
from harness.domain.reliability.failover import user_hash
from harness.domain.routing.capabilities import Endpoint
from harness.ports import Clock
from router.observers.request_accounting import RequestEntry
from router.recording.capture_draft import CaptureDraft
from router.recording.port import Recording
from router.request.attempt import UpstreamAnswer
from router.request.body import ClientRequest
from router.request.routed_response import AnswerCopy, RoutedResponse
from router.server.asgi import Scope, header
from router.snapshot.compiled import CompiledRoute

# More than this of a request or an answer is not labelled by hand.
MAX_BYTES: Final = 128 * 1024
OPT_OUT: Final = b"x-swapgate-capture"
OFF: Final = b"off"


class CaptureSampler:
    """secret: under which users are hashed."""

    def __init__(self, secret: bytes, clock: Clock, recorder: Recording) -> None:
        self._secret = secret
        self._clock = clock
        self._recorder = recorder

    def copied(
        self, scope: Scope, route: CompiledRoute, request: ClientRequest, request_id: str
    ) -> AnswerCopy | None:
        """Where its answer is to be put; None when it is not drawn, or must not be kept."""
        share_bps = route.route.settings.capture_bps
        if not share_bps or request.endpoint is Endpoint.EMBEDDINGS:
            return None
        if not is_drawn(request_id, share_bps):
            return None
        if header(scope, OPT_OUT) == OFF or request.value("store") is False:
            self._recorder.counters["captures_refused"] += 1
            return None
        if len(request.text) > MAX_BYTES:
            self._recorder.counters["captures_too_large"] += 1
            return None
        return AnswerCopy(MAX_BYTES)

    def take(
        self, exchange: RoutedResponse, copied: AnswerCopy | None, entry: RequestEntry
    ) -> None:
        """It has ended; one without an answer is nothing to label."""
        upstream, result = exchange.course.upstream, exchange.course.result
        if copied is None or exchange.outcome != "ok" or upstream is None:
            return
        if isinstance(result, UpstreamAnswer):
            copied.add(result.body)
        if copied.too_large:
            self._recorder.counters["captures_too_large"] += 1
            return
        job = exchange.job
        settings = job.route.route.settings
        draft = CaptureDraft(
            route=job.route.route.name,
            request=entry.request_id,
            endpoint=job.request.endpoint.value,
            stream=job.request.stream,
            arm=job.arm.value,
            target=upstream.name,
            revision=entry.revision,
            data_class=settings.data_class,
            user_hash=user_hash(entry.sticky_key, self._secret),
            share_bps=settings.capture_bps,
            per_day=settings.capture_per_day,
            keep_days=settings.capture_keep_days,
            at=self._clock.now().isoformat(),
            asked=job.request.text,
            answer=copied.text,
        )
        self._recorder.capture(draft)
