"""The failover log (B5) records each target that a request left; never its content."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from harness.frame.ports import Clock
from harness.providers.models.capabilities import Endpoint
from harness.routing.plan import ExclusionReason
from harness.routing.reliability.failover import Failover, hash_callers, keep_sentence
from router.frame.body import ClientRequest
from router.frame.failure import UpstreamFailed
from router.observers.request_accounting import HANDED_ON, fallback_model
from router.recording.event_log import EventLog
from router.recording.internal_errors import RouterPart
from router.recording.metrics import RouterMetrics
from router.recording.port import Recording
from router.request.client_directives import caller_keys
from router.request.request_observers import RequestObserver
from router.request.request_state import RequestProgress, RoutedRequest
from router.request.routed_response import RoutedResponse

OPEN: Final = "circuit_open"
# Why a target is left out that would have failed had it been asked.
LEFT_OUT: Final = {
    ExclusionReason.OPEN: OPEN,
    ExclusionReason.KEY: ExclusionReason.KEY.value,
    ExclusionReason.DATA_CLASS: ExclusionReason.DATA_CLASS.value,
}


# Of a row, what its event says by the same name.
_TOLD: Final = (
    *("request", "route", "arm", "endpoint", "stream", "body_bytes", "messages", "tools"),
    *("target", "provider", "status", "code", "place", "sentence", "attempts", "next_target"),
)


class LeftTarget(NamedTuple):
    target: str
    provider: str
    failure: str  # the value of a FailureClass, or of LEFT_OUT
    refusal: UpstreamFailed | None = None
    attempts: int = 0
    ms: float = 0.0


class FailoverLog(RequestObserver):
    """Writes down which targets a request left. secret: under which users are hashed."""

    part: ClassVar[RouterPart] = RouterPart.RECORDING

    def __init__(
        self,
        secret: bytes,
        clock: Clock,
        metrics: RouterMetrics,
        recorder: Recording,
        events: EventLog,
    ) -> None:
        self._recorder = recorder
        self._events = events
        self._numbers = itertools.count(1)
        self._secret = secret
        self._clock = clock
        self._metrics = metrics

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        job, progress, record = response.job, response.progress, observed.record
        if (
            not job.plan.left_out
            and len(progress.attempts) == 1
            and progress.result is not None
        ):
            return
        left = list(left_targets(job, progress))
        if not left:
            return
        answered = progress.upstream
        next_ = answered.name if answered else None
        if record is not None and record.outcome == HANDED_ON:
            next_ = f"{fallback_model(observed)} (fallbackModel)"
        at, user_, sizes = (
            self._clock.now(),
            hash_callers(caller_keys(observed.request, observed.sticky_key), self._secret),
            request_size(job.request),
        )
        route, arm = job.route.route.name, job.arm.value
        rows = [
            Failover(
                worker=self._recorder.worker,
                number=next(self._numbers),
                at=at,
                request=observed.request_id,
                route=route,
                arm=arm,
                target=target.target,
                provider=target.provider,
                failure=target.failure,
                status=target.refusal.status if target.refusal else None,
                code=target.refusal.provider_code if target.refusal else "",
                place=target.refusal.place if target.refusal else "",
                sentence=keep_sentence(target.refusal.sentence) if target.refusal else "",
                attempts=target.attempts,
                latency_ms=target.ms,
                endpoint=job.request.endpoint.value,
                user_hash=user_,
                next_target=next_target_name(left[number:], next_),
                **sizes,
            )
            for number, target in enumerate(left, 1)
        ]
        self._recorder.failed_over(rows)
        for row in rows:
            self._metrics.failover(route, row.target, row.failure)
            self._events.put(
                "failover",
                at=at.isoformat(),
                answered_by=answered.name if answered else None,
                user=user_,
                request_ms=round(record.latency_ms if record else 0.0),
                failure_class=row.failure,
                ms=round(row.latency_ms),
                **{name: getattr(row, name) for name in _TOLD},
            )


def left_targets(job: RoutedRequest, progress: RequestProgress) -> Iterator[LeftTarget]:
    """Yields the targets that were left out, then those that were asked in vain."""
    upstreams = job.route.upstreams
    for out in job.plan.left_out:
        if out.because in LEFT_OUT:
            upstream = upstreams[out.target]
            yield LeftTarget(upstream.name, upstream.provider.name, LEFT_OUT[out.because])
    for target in job.plan.targets:
        upstream = upstreams[target]
        made = [attempt for attempt in progress.attempts if attempt.upstream.id == target]
        last = made[-1].failure if made else None
        # Whose refusal the client gets was not left.
        if last is not None and progress.result is not last:
            spent_ms = sum(left_target.ms for left_target in made)
            yield LeftTarget(
                upstream.name,
                upstream.provider.name,
                last.failure.value,
                last,
                len(made),
                spent_ms,
            )
        elif not made and target in progress.shut_out:
            yield LeftTarget(upstream.name, upstream.provider.name, OPEN)


def next_target_name(left: Sequence[LeftTarget], answered: str | None) -> str | None:
    return next(
        (target.target for target in left if target.failure not in LEFT_OUT.values()), answered
    )


def request_size(request: ClientRequest) -> dict[str, Any]:
    said = "input" if request.endpoint is Endpoint.RESPONSES else "messages"
    messages = request.value(said)
    tools, text = request.value("tools"), request.text
    return {
        "stream": request.stream,
        "body_bytes": len(text if text.isascii() else text.encode("utf-8", "surrogatepass")),
        "messages": len(messages) if isinstance(messages, list) else 0,
        "tools": len(tools) if isinstance(tools, list) else 0,
    }
