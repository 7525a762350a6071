"""Records each finished request, and corrects a limited key's reserved tokens.

The record (`CompletedRequest`) is made once after the answer; metrics, ledger, limits and
later observers read it. The failover log names targets that a request left. Storing is the
work of `router.recording`.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from harness.agents.caller import AgentCaller
from harness.frame.ports import Clock
from harness.gate.online.outcome import ANSWERED, ROUTER_FAULT
from harness.providers.answer_signs import CHOOSING_FIELDS, is_model_chosen
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import STANDARD_TIERS, TokenPrice
from harness.routing.plan import ExclusionReason
from harness.routing.reliability.failover import (
    Failover,
    hash_callers,
    keep_sentence,
)
from harness.routing.reliability.latency import LEAST_WAIT_S
from router.access.admission import Admission, RateReservation
from router.access.front_door import CALLER
from router.frame.body import ClientRequest
from router.frame.failure import UpstreamFailed
from router.observers.needs_sample import MAX_CHARACTERS, SAMPLE_SIZE, NeedsSample
from router.protocols.answers import NO_USAGE
from router.recording.internal_errors import EventLog, RouterPart
from router.recording.metrics import RouterMetrics
from router.recording.port import Recording
from router.recording.sums import CompletedRequest
from router.request.answer_cost import bound_usage
from router.request.client_directives import caller_keys
from router.request.outcome import charged_failure, decide_outcome
from router.request.request_observers import RequestObserver
from router.request.request_state import (
    FAILING,
    RequestProgress,
    RoutedRequest,
    UpstreamAnswer,
)
from router.request.routed_response import (
    ANSWERS,
    FAILED,
    REFUSED,
    RoutedResponse,
)
from router.request.stream_relay import CommittedStream
from router.upstream.endpoint_translation import NATIVE_HINTS, native_need


class TokenSettlement(RequestObserver):
    """Corrects a limited key's reserved tokens by the tokens that were used."""

    part: ClassVar[RouterPart] = RouterPart.LIMITS
    of_limited: ClassVar[bool] = True

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def after_answer(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        reservation = observed.reservation
        if reservation is not None and reservation.limit.tokens_per_min is not None:
            self._admission.settle(reservation, _actual_tokens(reservation, response))


def _actual_tokens(reservation: RateReservation, response: RoutedResponse) -> int:
    """Returns the tokens that a request used: as counted, else the estimate of its input.

    0 if no target read the request.
    """
    result = response.progress.result
    # Inlines `response.usage`, which is faster.
    usage = (result.usage or NO_USAGE) if isinstance(result, UpstreamAnswer) else response.usage
    if usage.input_tokens:
        return usage.input_tokens + usage.output_tokens
    if isinstance(result, CommittedStream) or usage.output_tokens:
        return reservation.input_tokens + usage.output_tokens
    return 0


# Up to Python 3.11, to find a member in its class takes ten times as long.
_RESPONSES: Final = Endpoint.RESPONSES
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
_REFERENCE: Final = '"item_reference"'
HANDED_ON: Final = (
    "handed_on"  # an outcome: no target answered, and the agent asks another model
)
ERRORS: Final = (FAILED, REFUSED)  # the caller gets an error


class RequestAccounting(RequestObserver):
    """Makes the record of each request, and enters it into the metrics and the statistics."""

    part: ClassVar[RouterPart] = RouterPart.RECORDING

    def __init__(
        self,
        recorder: Recording,
        metrics: RouterMetrics,
        clock: Clock,
    ) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._counters: Counter[str] = recorder.counters
        self._clock = clock
        sample = NeedsSample(clock)
        recorder.more_names = sample.take
        self._waiting = sample.waiting

    def after_answer(  # noqa: C901, PLR0915 - inlined, because each call takes time
        self, observed: RoutedRequest, response: RoutedResponse
    ) -> None:
        progress = response.progress
        result = progress.result
        is_plain = len(progress.attempts) == 1 and not (
            response.caller_gone
            or response.router_failed
            or observed.plan.left_out
            or progress.shut_out
        )
        if is_plain and isinstance(result, UpstreamAnswer) and not result.is_fallback:
            # Inlines the properties used below, which is faster.
            outcome = "ok"
            usage = result.usage or NO_USAGE
            charge = ""
            counted = True
            unanswered = False
            gap_s = waited_s = 0.0
            observed.outcome = ANSWERED
        elif is_plain and isinstance(result, CommittedStream) and result.went_well:
            outcome = "ok"
            usage = result.events.used()
            charge = ""
            counted = result.events.counted
            gap_s = result.longest_gap_s
            waited_s = 0.0
            unanswered = False
            observed.outcome = ANSWERED
        else:
            response.note_faults()
            outcome = response.outcome
            usage = response.usage
            counted = not isinstance(result, CommittedStream) or result.events.is_whole
            observed.outcome = decide_outcome(response)
            gap_s = observed.outcome.gap_s
            waited_s = observed.outcome.waited_s
            charge = charged_failure(observed.outcome)
            unanswered = is_unanswered(response)
            if outcome in ERRORS and result is None and fallback_model(observed):
                outcome = HANDED_ON
        target = progress.attempts[-1].upstream if result is not None else None
        name = target.name if target else ""
        if result is None and outcome in (FAILED, HANDED_ON):
            name = _last_target(observed, progress)
        payee = target
        bounded = False
        input_tokens, output_tokens, cached_tokens = usage[:3]
        is_embedding = observed.request.endpoint is _EMBEDDINGS
        if not (counted and input_tokens and (output_tokens or is_embedding)):
            bound = bound_usage(observed, response, usage)
            if bound is not None:
                payee, usage = bound
                bounded = True
                name = payee.name
                input_tokens, output_tokens = usage[:2]
                self._counters["requests_with_bounds"] += 1
        named = result.model if isinstance(result, ANSWERS) else ""
        found = observed.request.members.found
        if not CHOOSING_FIELDS.isdisjoint(found) and is_model_chosen(found):
            named = ""  # else one caller could end a rollout by asking for another model
        price: TokenPrice | None = None
        if payee is not None and payee.price is not None:
            price = full = payee.price
            long = full.long
            if usage[-1] not in STANDARD_TIERS or (
                long is not None and input_tokens > long.above_tokens
            ):
                price = full.for_answer(input_tokens, usage[-1])
        cost_usd = 0.0
        priced = True
        if price is not None:
            cost_usd = price.cost_usd(*usage[:-1])
        elif usage != NO_USAGE:
            priced = False
            self._counters["requests_without_price"] += 1
        # By position, because arguments by name take longer.
        observed.record = CompletedRequest(
            observed.route.route.name,
            observed.arm._value_,
            target.id if target else "",
            observed.revision,
            observed.request.stream,
            outcome in ERRORS,
            bool(charge),
            (self._clock.monotonic() - observed.started) * 1000,
            input_tokens,
            output_tokens,
            cost_usd,
            observed.key_id,
            priced,
            cached_tokens,
            charge,
            named,
            name,
            outcome,
            progress.first_token_s,
            outcome == REFUSED,
            gap_s,
            waited_s,
            bounded,
            unanswered,
            hash(observed.sticky_key),
            observed.outcome.kind,
        )

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        record = observed.record or _minimal_record(observed)
        observed.record = record
        ended = observed.outcome or ROUTER_FAULT
        self._recorder.finish(observed.ticket, record, observed.sample, ended)
        request = observed.request
        if len(self._waiting) < SAMPLE_SIZE and len(request.text) <= MAX_CHARACTERS:
            self._waiting.append((record, request, observed.route))
        result = response.progress.result
        if not (isinstance(result, UpstreamAnswer) and result.irregularity is None):
            for irregularity in response.irregularities:
                self._metrics.irregular(record.target_name, irregularity)
        if isinstance(result, ANSWERS):
            for piece in result.refused:
                self._metrics.refused_piece(record.target_name, piece)
        if not NATIVE_HINTS.isdisjoint(request.members.found) or (
            request.endpoint is _RESPONSES and _REFERENCE in request.text
        ):
            need = native_need(request.endpoint, request.value)
            if need:
                self._recorder.note_asked(need, record.route)


def is_unanswered(response: RoutedResponse) -> bool:
    """Returns whether the caller left before any output, after a wait that a person notices."""
    if not response.caller_gone or response.progress.result is not None:
        return False
    return response.ended_at - response.job.begun >= LEAST_WAIT_S


def _last_target(observed: RoutedRequest, progress: RequestProgress) -> str:
    """Returns the target that was tried last, else the last one with an open circuit. Another
    target that the plan left out did not fail.
    """
    if progress.attempts:
        return progress.attempts[-1].upstream.name
    opened = (
        excluded.target
        for excluded in observed.plan.left_out
        if excluded.because is ExclusionReason.OPEN
    )
    skipped = (*opened, *progress.shut_out)
    return observed.route.upstreams[skipped[-1]].name if skipped else ""


def fallback_model(observed: RoutedRequest) -> str:
    """Returns the model that an agent asks next if no target answers; empty without an
    agent.
    """
    caller: AgentCaller | None = observed.scope.get(CALLER)
    return caller.fallback if caller is not None else ""


def _minimal_record(observed: RoutedRequest) -> CompletedRequest:
    return CompletedRequest(
        observed.route.route.name,
        observed.arm.value,
        revision=observed.revision,
        stream=observed.request.stream,
        key=observed.key_id,
        priced=False,
    )


# A target that is left out for one of these reasons counts as a failover.
LEFT_OUT: Final = {reason: failure.value for reason, failure in FAILING.items()}
OPEN: Final = LEFT_OUT[ExclusionReason.OPEN]


# Fields with the same name in a row and its event.
_TOLD: Final = (
    "request",
    "route",
    "arm",
    "endpoint",
    "stream",
    "body_bytes",
    "messages",
    "tools",
    "target",
    "provider",
    "status",
    "code",
    "place",
    "sentence",
    "attempts",
    "next_target",
)


class LeftTarget(NamedTuple):
    """A target that a request left, and why.

    attempts, ms: how often and how long the request tried it, in all; 0 if it was left out.
    """

    target: str
    provider: str
    failure: str  # a value of FailureClass or of LEFT_OUT
    refusal: UpstreamFailed | None = None
    attempts: int = 0
    ms: float = 0.0


class FailoverLog(RequestObserver):
    """Logs the targets that a request failed over from. secret: used to hash users."""

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
        job = response.job
        progress = response.progress
        record = observed.record
        if observed.outcome is ANSWERED or (
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
        at = self._clock.now()
        user_ = hash_callers(caller_keys(observed.request, observed.sticky_key), self._secret)
        sizes = request_size(job.request)
        route = job.route.route.name
        arm = job.arm.value
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
    """Yields the targets that were left out, then the targets that failed."""
    upstreams = job.route.upstreams
    for out in job.plan.left_out:
        if out.because in LEFT_OUT:
            upstream = upstreams[out.target]
            yield LeftTarget(upstream.name, upstream.provider.name, LEFT_OUT[out.because])
    for target in job.plan.targets:
        upstream = upstreams[target]
        made = [attempt for attempt in progress.attempts if attempt.upstream.id == target]
        last = made[-1].failure if made else None
        # If the client gets a target's error, the request did not fail over from that target.
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
    """Returns the first target of `left` that was tried, else `answered`.

    left: the targets after the one that the row is about.
    """
    return next(
        (target.target for target in left if target.failure not in LEFT_OUT.values()),
        answered,
    )


def request_size(request: ClientRequest) -> dict[str, Any]:
    """Returns the size of a request for the failover log, without any content."""
    field = "input" if request.endpoint is Endpoint.RESPONSES else "messages"
    messages = request.value(field)
    tools = request.value("tools")
    text = request.text
    return {
        "stream": request.stream,
        "body_bytes": len(text if text.isascii() else text.encode("utf-8", "surrogatepass")),
        "messages": len(messages) if isinstance(messages, list) else 0,
        "tools": len(tools) if isinstance(tools, list) else 0,
    }
