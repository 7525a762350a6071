"""Records each finished request, and corrects a limited key's reserved tokens.

The accounting makes the record (`CompletedRequest`) once after the answer. Metrics, ledger,
limits and later observers read it. The failover log names targets that a request left.
`router.recording` stores both.
"""

import itertools
import re
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
    """Replaces a limited key's reserved tokens by the used tokens."""

    part: ClassVar[RouterPart] = RouterPart.LIMITS
    of_limited: ClassVar[bool] = True

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def after_answer(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        reservation = observed.reservation
        if reservation is not None and reservation.limit.tokens_per_min is not None:
            self._admission.settle(reservation, _count_used_tokens(reservation, response))


def _count_used_tokens(reservation: RateReservation, response: RoutedResponse) -> int:
    """Returns the tokens that a request used.

    Without the provider's count, uses the estimate of the input. Returns 0 if no target read
    the request.
    """
    result = response.progress.result
    # Inlines `response.usage`, which is faster.
    usage = (result.usage or NO_USAGE) if isinstance(result, UpstreamAnswer) else response.usage
    if usage.input_tokens:
        return usage.input_tokens + usage.output_tokens
    if isinstance(result, CommittedStream) or usage.output_tokens:
        return reservation.input_tokens + usage.output_tokens
    return 0


# Up to Python 3.11, finding a member in its class takes ten times as long.
_RESPONSES: Final = Endpoint.RESPONSES
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
# The types of items that only some targets can read.
_NATIVE_ITEM: Final = re.compile(r'"(?:item_reference|compaction(?:_trigger)?)"').search
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
            charged_to = ""
            is_counted = True
            is_unanswered_request = False
            gap_s = waited_s = 0.0
            observed.outcome = ANSWERED
        elif is_plain and isinstance(result, CommittedStream) and result.went_well:
            outcome = "ok"
            usage = result.events.used()
            charged_to = ""
            is_counted = result.events.counted
            gap_s = result.longest_gap_s
            waited_s = 0.0
            is_unanswered_request = False
            observed.outcome = ANSWERED
        else:
            response.note_faults()
            outcome = response.outcome
            usage = response.usage
            is_counted = not isinstance(result, CommittedStream) or result.events.is_whole
            observed.outcome = decide_outcome(response)
            gap_s = observed.outcome.gap_s
            waited_s = observed.outcome.waited_s
            charged_to = charged_failure(observed.outcome)
            is_unanswered_request = is_unanswered(response)
            if outcome in ERRORS and result is None and fallback_model(observed):
                outcome = HANDED_ON
        target = progress.attempts[-1].upstream if result is not None else None
        target_name = target.name if target else ""
        if result is None and outcome in (FAILED, HANDED_ON):
            target_name = _find_last_target(observed, progress)
        payee = target
        is_bounded = False
        input_tokens, output_tokens, cached_tokens = usage[:3]
        is_embedding = observed.request.endpoint is _EMBEDDINGS
        if not (is_counted and input_tokens and (output_tokens or is_embedding)):
            bound = bound_usage(observed, response, usage)
            if bound is not None:
                payee, usage = bound
                is_bounded = True
                target_name = payee.name
                input_tokens, output_tokens = usage[:2]
                self._counters["requests_with_bounds"] += 1
        named_model = result.model if isinstance(result, ANSWERS) else ""
        body_fields = observed.request.members.found
        if not CHOOSING_FIELDS.isdisjoint(body_fields) and is_model_chosen(body_fields):
            named_model = ""  # else one caller could end a rollout: it asks for another model
        price: TokenPrice | None = None
        if payee is not None and payee.price is not None:
            price = full_price = payee.price
            long_price = full_price.long
            if usage[-1] not in STANDARD_TIERS or (
                long_price is not None and input_tokens > long_price.above_tokens
            ):
                price = full_price.for_answer(input_tokens, usage[-1])
        cost_usd = 0.0
        is_priced = True
        if price is not None:
            cost_usd = price.cost_usd(*usage[:-1])
        elif usage != NO_USAGE:
            is_priced = False
            self._counters["requests_without_price"] += 1
        # The arguments have no names, because names take longer.
        observed.record = CompletedRequest(
            observed.route.route.name,
            observed.arm._value_,
            target.id if target else "",
            observed.revision,
            observed.request.stream,
            outcome in ERRORS,
            bool(charged_to),
            (self._clock.monotonic() - observed.started) * 1000,
            input_tokens,
            output_tokens,
            cost_usd,
            observed.key_id,
            is_priced,
            cached_tokens,
            charged_to,
            named_model,
            target_name,
            outcome,
            progress.first_token_s,
            outcome == REFUSED,
            gap_s,
            waited_s,
            is_bounded,
            is_unanswered_request,
            hash(observed.sticky_key),
            observed.outcome.kind,
        )

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        record = observed.record or _build_minimal_record(observed)
        observed.record = record
        final_outcome = observed.outcome or ROUTER_FAULT
        self._recorder.finish(observed.ticket, record, observed.sample, final_outcome)
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
            request.endpoint is _RESPONSES and _NATIVE_ITEM(request.text)
        ):
            need = native_need(request.endpoint, request.value)
            if need:
                self._recorder.note_asked(need, record.route)


def is_unanswered(response: RoutedResponse) -> bool:
    """Returns whether the caller left before any output, after a wait that a person notices."""
    if not response.caller_gone or response.progress.result is not None:
        return False
    return response.ended_at - response.job.begun >= LEAST_WAIT_S


def _find_last_target(observed: RoutedRequest, progress: RequestProgress) -> str:
    """Returns the last target that the request tried, else the last one with an open circuit.

    If the plan left a target out for another reason, the target did not fail.
    """
    if progress.attempts:
        return progress.attempts[-1].upstream.name
    open_targets = (
        excluded.target
        for excluded in observed.plan.left_out
        if excluded.because is ExclusionReason.OPEN
    )
    skipped = (*open_targets, *progress.shut_out)
    return observed.route.upstreams[skipped[-1]].name if skipped else ""


def fallback_model(observed: RoutedRequest) -> str:
    """Returns the model that an agent asks next after no answer; empty without an agent."""
    caller: AgentCaller | None = observed.scope.get(CALLER)
    return caller.fallback if caller is not None else ""


def _build_minimal_record(observed: RoutedRequest) -> CompletedRequest:
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
_EVENT_FIELDS: Final = (
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
    """A target that a request left, and its failure.

    attempts, ms: the number and the total time of the request's attempts at it; 0 if the plan
    left it out.
    """

    target: str
    provider: str
    failure: str  # a value of FailureClass or of LEFT_OUT
    refusal: UpstreamFailed | None = None
    attempts: int = 0
    ms: float = 0.0


class FailoverLog(RequestObserver):
    """Logs the targets that a request failed over from. secret: the key for hashes of users."""

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
        self._row_numbers = itertools.count(1)
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
        left_rows = list(left_targets(job, progress))
        if not left_rows:
            return
        answering_target = progress.upstream
        next_model_or_target = answering_target.name if answering_target else None
        if record is not None and record.outcome == HANDED_ON:
            next_model_or_target = f"{fallback_model(observed)} (fallbackModel)"
        at = self._clock.now()
        user_hash = hash_callers(
            caller_keys(observed.request, observed.sticky_key), self._secret
        )
        sizes = request_size(job.request)
        route = job.route.route.name
        arm = job.arm.value
        rows = [
            Failover(
                worker=self._recorder.worker,
                number=next(self._row_numbers),
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
                user_hash=user_hash,
                next_target=next_target_name(left_rows[number:], next_model_or_target),
                **sizes,
            )
            for number, target in enumerate(left_rows, 1)
        ]
        self._recorder.failed_over(rows)
        for row in rows:
            self._metrics.failover(route, row.target, row.failure)
            self._events.put(
                "failover",
                at=at.isoformat(),
                answered_by=answering_target.name if answering_target else None,
                user=user_hash,
                request_ms=round(record.latency_ms if record else 0.0),
                failure_class=row.failure,
                ms=round(row.latency_ms),
                **{name: getattr(row, name) for name in _EVENT_FIELDS},
            )


def left_targets(job: RoutedRequest, progress: RequestProgress) -> Iterator[LeftTarget]:
    """Yields the targets that the plan left out, then the targets that failed."""
    upstreams = job.route.upstreams
    for exclusion in job.plan.left_out:
        if exclusion.because in LEFT_OUT:
            upstream = upstreams[exclusion.target]
            yield LeftTarget(upstream.name, upstream.provider.name, LEFT_OUT[exclusion.because])
    for target in job.plan.targets:
        upstream = upstreams[target]
        attempts = [attempt for attempt in progress.attempts if attempt.upstream.id == target]
        last_failure = attempts[-1].failure if attempts else None
        # If the client gets a target's error, the request did not fail over from that target.
        if last_failure is not None and progress.result is not last_failure:
            total_ms = sum(made_attempt.ms for made_attempt in attempts)
            yield LeftTarget(
                upstream.name,
                upstream.provider.name,
                last_failure.failure.value,
                last_failure,
                len(attempts),
                total_ms,
            )
        elif not attempts and target in progress.shut_out:
            yield LeftTarget(upstream.name, upstream.provider.name, OPEN)


def next_target_name(left: Sequence[LeftTarget], answered: str | None) -> str | None:
    """Returns the first target of `left` that the request tried, else `answered`.

    Args:
        left: the targets after the row's target.
        answered: the target that answered, if any.
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
