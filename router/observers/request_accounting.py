"""Where a request is entered once it is over: statistics, metrics, the failover log."""

from typing import NamedTuple

from harness.domain.routing.table import Arm, Canary
from harness.ports import Clock
from router.observers.canary_guard import CanaryExposure, CanaryGuards
from router.observers.failover_log import FailoverLog
from router.observers.guardrail_probe import GuardrailProbe, RequestCost
from router.observers.short_deadlines import ShortDeadlines
from router.recording.guardrail_sample import GuardrailSample
from router.recording.metrics import RouterMetrics
from router.recording.port import Recording, Ticket
from router.recording.traffic_minutes import CompletedRequest
from router.request.request_state import RoutedRequest
from router.request.routed_response import NO_USAGE, RoutedResponse
from router.server.internal_errors import InternalErrors, RouterPart


class RequestEntry(NamedTuple):
    """What is known of a request before it is served.

    started: the clock's monotonic time. key: the id of the caller's. counted: by this worker's
    own guard.
    """

    ticket: Ticket | None
    revision: int
    started: float
    sticky_key: str
    request_id: str
    key: str
    counted: CanaryExposure | None = None


class RequestAccounting:
    def __init__(
        self,
        recorder: Recording,
        metrics: RouterMetrics,
        failovers: FailoverLog,
        guards: CanaryGuards,
        clock: Clock,
        errors: InternalErrors,
    ) -> None:
        self._errors = errors
        self.haste = ShortDeadlines()
        self._guards = guards
        self._recorder = recorder
        self._metrics = metrics
        self._failovers = failovers
        self._clock = clock

    def admit(
        self, canary: Canary | None, arm: Arm, key: str, watch: GuardrailProbe | None
    ) -> Ticket | None:
        if canary is None or self._guards.stopped(canary):
            # Nobody is charged for what has no canary any more.
            return None
        return self._recorder.admit(canary, arm, key, watch.traits if watch else 0)

    def guard(self, canary: Canary | None, arm: Arm, key: str) -> CanaryExposure | None:
        return self._guards.begin(canary, arm, key) if canary else None

    def count(self, name: str) -> None:
        self._recorder.counters[name] += 1

    def enter(  # noqa: C901 - one book after the other
        self, exchange: RoutedResponse, entry: RequestEntry
    ) -> None:
        """A fault in one of the books leaves the others as they are, and charges no arm."""
        job, course, errors = exchange.job, exchange.course, self._errors
        seen: GuardrailSample | None = None
        outcome = "unknown"
        try:
            exchange.note_faults()
            outcome = exchange.outcome
            ended = self._ended(exchange, entry)
        except Exception as error:
            errors.note(RouterPart.RECORDING, error, job.route, job.arm)
            ended = _minimal_record(job, entry)
        else:
            try:
                seen = _guardrail_sample(exchange, ended)
            except Exception as error:
                errors.note(RouterPart.GUARDRAILS, error, job.route, job.arm)
        faults = errors.taken()
        if faults:
            ended = ended._replace(internal_errors=faults)
        try:
            self._recorder.finish(entry.ticket, ended, seen)
            self._recorder.served_names.note(ended.target, exchange.model)
        except Exception as error:
            errors.note(RouterPart.RECORDING, error, job.route, job.arm)
        try:
            canary = job.route.route.canary
            if canary is not None:
                failed, why = ended.charged, ended.charge
                self._guards.end(canary.rollout, entry.counted, failed=failed, why=why)
        except Exception as error:
            errors.note(RouterPart.SCORING, error, job.route, job.arm)
        try:
            upstream = course.upstream
            if upstream is not None:
                for each in exchange.irregularities:
                    self._metrics.irregular(upstream.name, each)
            self._metrics.finished(
                ended,
                target=upstream.name if upstream else "",
                outcome=outcome,
                first_token_s=course.first_token_s,
            )
            self._failovers.note(
                job,
                course,
                request_id=entry.request_id,
                user=entry.sticky_key,
                ms=ended.latency_ms,
            )
        except Exception as error:
            errors.note(RouterPart.RECORDING, error, job.route, job.arm)

    def _ended(self, exchange: RoutedResponse, entry: RequestEntry) -> CompletedRequest:
        job, course = exchange.job, exchange.course
        upstream, usage = course.upstream, exchange.usage
        cost_usd, priced = 0.0, True
        if upstream is not None and upstream.price is not None:
            cost_usd = upstream.price.cost_usd(*usage)
        elif usage != NO_USAGE:
            priced = False
            self.count("requests_without_price")
        seconds, charge = self._clock.monotonic() - entry.started, exchange.charge
        if exchange.outcome == "ok" and upstream is not None and len(course.attempts) == 1:
            self.haste.answered(job.route.route, upstream.id, seconds)
        return CompletedRequest(
            route=job.route.route.name,
            arm=job.arm.value,
            target=upstream.id if upstream else "",
            revision=entry.revision,
            stream=job.request.stream,
            failed=exchange.failed,
            charged=charge is not None,
            latency_ms=seconds * 1000,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=cost_usd,
            key=entry.key,
            priced=priced,
            cached_tokens=usage.cached_tokens,
            charge=charge,
        )


def _minimal_record(job: RoutedRequest, entry: RequestEntry) -> CompletedRequest:
    """That there was a request, where the rest could not be worked out."""
    return CompletedRequest(
        route=job.route.route.name,
        arm=job.arm.value,
        target="",
        revision=entry.revision,
        stream=job.request.stream,
        failed=False,
        charged=False,
        latency_ms=0.0,
        input_tokens=0,
        output_tokens=0,
        cost_usd=0.0,
        key=entry.key,
        priced=False,
    )


def _guardrail_sample(
    exchange: RoutedResponse, ended: CompletedRequest
) -> GuardrailSample | None:
    watch, course = exchange.job.watch, exchange.course
    if watch is None:
        return None
    spent = RequestCost(
        ended.latency_ms / 1000,
        course.first_token_s,
        course.last_token_s,
        ended.output_tokens,
        ended.cost_usd,
    )
    return watch.seen(exchange.said(), spent, failed=ended.failed or ended.charged)
