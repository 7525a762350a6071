"""Mirrors a sample of requests to a shadow's candidate, and compares both answers.

It begins after the router has sent the user's answer, and drops requests beyond its limits. It
counts and sums comparisons. `shadow_pairs` keeps texts, on routes that keep captures. It does
not mirror requests that refer to the provider's state, or that let the provider run tools,
because a second run could change something. `side_calls` keeps budgets and tasks;
`harness.routing.shadow` compares.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, NamedTuple

from harness.frame.failures import CLIENT_FAILURES, FailureClass
from harness.frame.people.access import OptOut
from harness.providers.models.capabilities import (
    Endpoint,
    Prefill,
    missing_capabilities,
)
from harness.providers.target import Price
from harness.routing.provider_side import find_provider_state
from harness.routing.shadow import (
    COST_USD,
    MIRRORED,
    UNPRICED,
    PairSide,
    ShadowTally,
    compare_pair,
    unit_counts,
    within_budget,
)
from harness.routing.shadow_pair import CandidateOutcome
from harness.routing.table import Arm, is_mirrored
from router.frame.asgi import header
from router.frame.body import ClientRequest
from router.frame.failure import UpstreamFailed
from router.observers.shadow_pairs import (
    EnteredPair,
    ShadowPairs,
    SideAnswer,
    find_storing_obstacle,
)
from router.observers.side_calls import (
    OVER_CAP,
    SideCalls,
    SideParts,
    WorkerSpending,
)
from router.protocols.answers import NO_USAGE, TokenUsage
from router.protocols.transcript import build_transcript
from router.recording.internal_errors import RouterPart
from router.recording.shared_files import SharedMarks
from router.request.attempts import first_token_s
from router.request.needs import detect_needs, estimate_prompt
from router.request.request_state import (
    AnswerCopy,
    RoutedRequest,
    UpstreamAnswer,
)
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import CommittedStream
from router.snapshot.compiled import (
    CompiledRoute,
    CompiledShadow,
    CompiledTarget,
)

log = logging.getLogger(__name__)

# An overloaded provider serves users first.
REST_S: Final = 30.0
BUSY: Final = (FailureClass.RATE_LIMITED, FailureClass.OVERLOADED)
_OUTCOMES: Final = {
    FailureClass.TIMEOUT: CandidateOutcome.TIMED_OUT,
    FailureClass.INTERNAL: CandidateOutcome.INTERRUPTED,
}
# The candidate's answer until it comes: if the router stops meanwhile, it never does.
INTERRUPTED: Final = SideAnswer(None, 0.0, NO_USAGE, CandidateOutcome.INTERRUPTED)
SHADOW_OPT_OUT: Final = b"x-swapproof-shadow"
OFF: Final = b"off"


class MirroredRequest(NamedTuple):
    """A drawn request, from its beginning to its end."""

    shadow: CompiledShadow
    copied: AnswerCopy
    sticky_key: str


class ShadowMirror(SideCalls):
    """Mirrors requests.

    marks: all workers' callers: a caller counts once as evidence. secret: see `ShadowPairs`.
    """

    part = RouterPart.SHADOW

    def __init__(
        self,
        parts: SideParts,
        spending: WorkerSpending,
        marks: SharedMarks,
        secret: bytes,
    ) -> None:
        super().__init__(parts, spending)
        self._marks = marks
        self._pairs = ShadowPairs(secret, parts.clock, parts.recorder, marks)
        self._mirrored_requests: dict[str, MirroredRequest] = {}  # by request id

    def watches(self, route: CompiledRoute) -> bool:
        return route.shadow is not None

    def before_attempt(self, observed: RoutedRequest) -> None:
        """Draws the request and copies its answer, if the shadow may mirror it.

        The shadow mirrors only requests of the incumbent's arm, and only if the plan begins
        with the incumbent.
        """
        compiled_shadow = observed.route.shadow
        request = observed.request
        plan = observed.plan
        if compiled_shadow is None or observed.arm is not Arm.INCUMBENT:
            return
        # While a switch is in effect, the router asks only the switch's target.
        is_switched = plan.forced is not None and plan.forced.in_effect
        if is_switched or plan.targets[:1] != (plan.incumbent,):
            return
        shadow = compiled_shadow.shadow
        has_expired = self._clock.now() >= shadow.expires_at
        if has_expired or request.endpoint is Endpoint.EMBEDDINGS:
            return
        if not is_mirrored(shadow, observed.sticky_key):
            return
        max_bytes = observed.route.route.settings.copy_max_bytes
        has_opted_out = (
            OptOut.SHADOW in observed.opt_outs or header(observed.scope, SHADOW_OPT_OUT) == OFF
        )
        obstacle = (
            ("declined" if has_opted_out else "")
            or mirror_obstacle(
                request, compiled_shadow.upstream, max_bytes, observed.route.incumbent_prefill
            )
            or self._find_obstacle(compiled_shadow)
        )
        if obstacle:
            self._count(shadow.id, obstacle)
            return
        answer_copy = AnswerCopy(max_bytes)
        observed.copies = (*observed.copies, answer_copy)
        mirror = MirroredRequest(compiled_shadow, answer_copy, observed.sticky_key)
        self._mirrored_requests[observed.request_id] = mirror

    def _find_obstacle(self, compiled_shadow: CompiledShadow) -> str:
        upstream = compiled_shadow.upstream
        limits = compiled_shadow.shadow.limits
        shadows = self._recorder.shadows
        shadow_id = compiled_shadow.shadow.id
        # While the database is down, the other workers' spending is unknown.
        if not shadows.knows(shadow_id) or self._holder.stale:
            return "budget_unknown"
        usage = shadows.used(shadow_id, self._clock.now().date())
        if not within_budget(limits, usage, priced=upstream.price is not None):
            return "over_budget"
        return self._find_target_obstacle(upstream)

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        mirror = self._mirrored_requests.pop(observed.request_id, None)
        incumbent = self._read_user_answer(mirror, response) if mirror else None
        if mirror is None or incumbent is None:
            return
        shadow = mirror.shadow.shadow
        running_calls = sum(shadow_id == shadow.id for shadow_id in self._running.values())
        if running_calls < shadow.limits.at_once:
            self._start(response.job, mirror, incumbent)
        else:
            self._count(shadow.id, "dropped")

    def _read_user_answer(
        self, mirror: MirroredRequest, exchange: RoutedResponse
    ) -> SideAnswer | None:
        """Returns the user's answer; None if a comparison would show nothing.

        The incumbent's failure is an answer without a text. A failure that the request
        caused, or a client that left, makes no pair.
        """
        progress = exchange.progress
        result = exchange.progress.result
        if exchange.caller_gone or not progress.attempts:
            return None
        first = progress.attempts[0]
        if first.upstream.id != exchange.job.plan.incumbent:
            return None
        failure = first.failure.failure if first.failure else None
        if failure in CLIENT_FAILURES:
            return None
        if failure is None and isinstance(result, CommittedStream) and exchange.failed:
            failure = result.failure or FailureClass.MALFORMED
        if failure is not None:
            return _build_failure(failure, first.ms)
        text = mirror.copied.whole(result)
        if text is None:
            self._count(mirror.shadow.shadow.id, "too_large")
            return None
        return SideAnswer(text, first.ms, exchange.usage)

    def _start(
        self,
        job: RoutedRequest,
        mirror: MirroredRequest,
        incumbent: SideAnswer,
    ) -> None:
        """Counts the mirrored request, and asks the candidate in a task."""
        if not self._spending.may_ask(mirror.shadow.upstream):
            self._count(mirror.shadow.shadow.id, OVER_CAP)
            return
        # Count it before the request, so that the budget includes requests in progress.
        self._count(mirror.shadow.shadow.id, MIRRORED)
        shadow = mirror.shadow.shadow
        # Mark the caller before the comparison, because the result must not decide whether it
        # counts. All shadows of one proposal share their evidence.
        subject = shadow.proposal or shadow.id
        is_first = self._marks.first(f"{subject}:{mirror.sticky_key}")
        pair = None
        if obstacle := find_storing_obstacle(job):
            self._count(shadow.id, obstacle)
        else:
            pair = self._pairs.enter(job, shadow, incumbent, longest_s=self._longest_s(job))
        work = self._run(job, mirror, incumbent, pair, is_first=is_first)
        self._run_in_task(work, shadow.id)

    def _handle_end(self, task: asyncio.Task[None]) -> None:
        shadow = self._running.pop(task, "")
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            # Its message may contain content.
            log.error(
                "a mirrored request of %s failed: %s",
                shadow,
                type(error).__name__,
            )
            self._count(shadow, "unreadable")

    async def _run(
        self,
        job: RoutedRequest,
        mirror: MirroredRequest,
        incumbent: SideAnswer,
        pair: EnteredPair | None,
        *,
        is_first: bool,
    ) -> None:
        """Asks the candidate, compares the pair, and notes counts, sums and costs.

        Args:
            pair: None if nothing is stored.
            is_first: whether this is the caller's first pair, because a caller counts once as
                evidence.
        """
        compiled_shadow = mirror.shadow
        candidate = INTERRUPTED
        usage = NO_USAGE
        price = compiled_shadow.upstream.price
        cost_usd = None
        try:
            candidate = await self._ask(job, compiled_shadow)
            usage = candidate.usage
            if candidate.answer is not None and not usage.input_tokens:
                # Without a count, the prompt's estimate is a lower bound.
                usage = usage._replace(input_tokens=estimate_prompt(job.request))
            cost_usd = price.answer_usd(*usage) if price else None
        finally:
            self._spending.pay(price, None if usage == NO_USAGE else usage)
            if pair is not None:
                self._pairs.store(pair, candidate, None if usage == NO_USAGE else cost_usd)
        if usage != NO_USAGE:
            self._metrics.spent(compiled_shadow.upstream.name, usage, price)
        if cost_usd is None:
            self._note(compiled_shadow.shadow.id, {UNPRICED: 1})
        else:
            self._note(compiled_shadow.shadow.id, {}, {COST_USD: cost_usd})
        if candidate.outcome is CandidateOutcome.TOO_LARGE:
            self._count(compiled_shadow.shadow.id, "too_large")
            return
        # Parsing a long answer takes time, so a thread does it.
        incumbent_price = job.route.upstreams[job.plan.incumbent].price
        sides = (incumbent, incumbent_price), (candidate, price)
        counts, sums = await asyncio.to_thread(
            lambda: compare_pair(*(_build_side(job.request, *side) for side in sides))
        )
        caller_counts = unit_counts(counts) if is_first else {}
        self._note(compiled_shadow.shadow.id, counts | caller_counts, sums)

    def _longest_s(self, job: RoutedRequest) -> float:
        """Returns the candidate's time limit in seconds."""
        return min(
            job.route.route.settings.total_timeout_s,
            self._settings.total_timeout_s,
        )

    async def _ask(self, job: RoutedRequest, compiled_shadow: CompiledShadow) -> SideAnswer:
        """Asks the candidate once. After an overload, it gets no calls for REST_S."""
        loop = self._calls.timers.loop
        upstream = compiled_shadow.upstream
        began_s = loop.time()
        mirrored_request = replace(
            job,
            begun=began_s,
            deadline=began_s + self._longest_s(job),
            hurried=False,
        )
        deadline_s = mirrored_request.deadline
        max_bytes = job.route.route.settings.copy_max_bytes
        if job.request.stream:
            deadline_s = min(
                deadline_s,
                began_s + first_token_s(job.route, upstream, self._settings),
            )
        attempt = self._build_attempt(upstream, deadline_s, job.request.endpoint)
        try:
            with self._calls.timers.limit(deadline_s):
                result = await self._calls.make(mirrored_request, attempt, lambda _: None)
        except (UpstreamFailed, TimeoutError) as error:
            failure = FailureClass.TIMEOUT
            if isinstance(error, UpstreamFailed):
                failure = error.failure
            if failure in BUSY:
                self._rests_until[upstream.id] = self._clock.monotonic() + REST_S
            return _build_failure(failure, (loop.time() - began_s) * 1000)
        latency_ms = (loop.time() - began_s) * 1000
        if isinstance(result, UpstreamAnswer):
            answer_copy = AnswerCopy(max_bytes)
            return _build_answer(answer_copy.whole(result), latency_ms, result.usage)
        return await _drain(result, latency_ms, max_bytes)

    def _count(self, shadow: str, name: str) -> None:
        self._recorder.counters[f"shadow_{name}"] += 1
        self._note(shadow, {name: 1})

    def _note(
        self,
        shadow: str,
        counts: Mapping[str, int],
        sums: Mapping[str, float] | None = None,
    ) -> None:
        if counts or sums:
            day = self._clock.now().date()
            worker = self._recorder.worker
            self._recorder.shadows.note((ShadowTally(shadow, day, worker, counts, sums or {}),))


def mirror_obstacle(
    request: ClientRequest,
    upstream: CompiledTarget,
    max_bytes: int,
    incumbent: Prefill = Prefill.UNKNOWN,
) -> str:
    """Names the reason not to mirror a request to this target; empty without one.

    Args:
        incumbent: how the route's incumbent reads a last turn of the assistant.
    """
    if len(request.text) > max_bytes:
        return "too_large"
    if find_provider_state(request.value):
        return "not_repeatable"
    needs = detect_needs(request, incumbent)
    return "unable" if missing_capabilities(needs, upstream.can) else ""


async def _drain(
    stream: CommittedStream,
    ms: float,
    max_bytes: int,
) -> SideAnswer:
    """Reads the candidate's stream to its end.

    Args:
        ms: the time to its first output.
    """
    answer_copy = AnswerCopy(max_bytes)
    try:
        async with aclosing(stream.sent()) as pieces:
            async for piece in pieces:
                answer_copy.add(piece)
    finally:
        await stream.aclose()
    if stream.failure:
        return _build_failure(stream.failure, ms, stream.events.used())
    return _build_answer(answer_copy.whole(stream), ms, stream.events.used())


def _build_answer(answer: str | None, ms: float, usage: TokenUsage | None) -> SideAnswer:
    """Builds the candidate's answer.

    Args:
        answer: None if it was too large.
    """
    outcome = CandidateOutcome.TOO_LARGE if answer is None else CandidateOutcome.ANSWERED
    return SideAnswer(answer, ms, usage or NO_USAGE, outcome)


def _build_failure(
    failure: FailureClass, ms: float, usage: TokenUsage = NO_USAGE
) -> SideAnswer:
    """Builds the answer of a side that failed. The router's own fault is not the model's."""
    outcome = _OUTCOMES.get(failure, CandidateOutcome.FAILED)
    return SideAnswer(None, ms, usage, outcome, failure.value)


def _build_side(
    request: ClientRequest,
    answer: SideAnswer,
    price: Price | None,
) -> PairSide:
    content: Mapping[str, Any] | None = None
    if answer.answer is not None:
        endpoint = request.endpoint.value
        content = build_transcript(endpoint, request.text, answer.answer, stream=request.stream)
    usage = answer.usage
    return PairSide(content, answer.ms, usage.output_tokens, _compute_cost_usd(price, usage))


def _compute_cost_usd(price: Price | None, usage: TokenUsage) -> float:
    return (price.answer_usd(*usage) if price else None) or 0.0
