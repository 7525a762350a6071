"""Mirrors a sample of requests to a shadow's candidate, and compares both answers.

It begins after the user's answer is sent, and drops requests beyond its limits. Only counts
and sums of comparisons are stored, no text. Requests that refer to the provider's state, or
that let it run tools, are not mirrored: a second run could change something. `side_calls`
keeps budgets and tasks; `harness.routing.shadow` compares.
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
from harness.routing.table import Arm, is_mirrored
from router.frame.asgi import header
from router.frame.body import ClientRequest
from router.frame.failure import UpstreamFailed
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
SHADOW_OPT_OUT: Final = b"x-swapgate-shadow"
OFF: Final = b"off"
# Fields that refer to state at the incumbent's provider, which other providers do not have.
STATEFUL: Final = (
    "previous_response_id",
    "conversation",
    "background",
    "container",
)


class MirroredRequest(NamedTuple):
    """A request that is to be mirrored, from its beginning to its end."""

    shadow: CompiledShadow
    copied: AnswerCopy
    sticky_key: str


class _ShadowAnswer(NamedTuple):
    """The answer of one side, of the incumbent or of the candidate.

    ms: from the attempt's start; for a stream, to its first output.
    """

    answer: str | None  # its body or events; None without an answer
    ms: float
    usage: TokenUsage


class ShadowMirror(SideCalls):
    """Mirrors requests. marks: all workers' callers, because each counts once as evidence."""

    part = RouterPart.SHADOW

    def __init__(
        self,
        parts: SideParts,
        spending: WorkerSpending,
        marks: SharedMarks,
    ) -> None:
        super().__init__(parts, spending)
        self._marks = marks
        self._drawn: dict[str, MirroredRequest] = {}  # by request id

    def watches(self, route: CompiledRoute) -> bool:
        return route.shadow is not None

    def before_attempt(self, observed: RoutedRequest) -> None:
        """Draws the request and copies its answer, if the shadow may mirror it.

        Only requests whose plan begins with the incumbent are mirrored, and never those of
        another arm.
        """
        served = observed.route.shadow
        request = observed.request
        plan = observed.plan
        if served is None or observed.arm is not Arm.INCUMBENT:
            return
        # While a switch is in force, only its target is asked.
        is_switched = plan.forced is not None and plan.forced.in_effect
        if is_switched or plan.targets[:1] != (plan.incumbent,):
            return
        shadow = served.shadow
        over = self._clock.now() >= shadow.expires_at
        if over or request.endpoint is Endpoint.EMBEDDINGS:
            return
        if not is_mirrored(shadow, observed.sticky_key):
            return
        most_bytes = observed.route.route.settings.copy_max_bytes
        declined = (
            OptOut.SHADOW in observed.opt_outs or header(observed.scope, SHADOW_OPT_OUT) == OFF
        )
        obstacle = (
            ("declined" if declined else "")
            or mirror_obstacle(
                request, served.upstream, most_bytes, observed.route.incumbent_prefill
            )
            or self._not_now(served)
        )
        if obstacle:
            self._count(shadow.id, obstacle)
            return
        copy = AnswerCopy(most_bytes)
        observed.copies.append(copy)
        mirror = MirroredRequest(served, copy, observed.sticky_key)
        self._drawn[observed.request_id] = mirror

    def _not_now(self, served: CompiledShadow) -> str:
        upstream = served.upstream
        limits = served.shadow.limits
        shadows = self._recorder.shadows
        id_ = served.shadow.id
        # While the database is down, the other workers' spending is unknown.
        if not shadows.knows(id_) or self._holder.stale:
            return "budget_unknown"
        used = shadows.used(id_, self._clock.now().date())
        if not within_budget(limits, used, priced=upstream.price is not None):
            return "over_budget"
        return self._target_obstacle(upstream)

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        mirror = self._drawn.pop(observed.request_id, None)
        incumbent = self._of_user(mirror, response) if mirror else None
        if mirror is None or incumbent is None:
            return
        shadow = mirror.shadow.shadow
        under_way = sum(id_ == shadow.id for id_ in self._running.values())
        if under_way < shadow.limits.at_once:
            self._start(response.job, mirror, incumbent)
        else:
            self._count(shadow.id, "dropped")

    def _of_user(
        self, mirror: MirroredRequest, exchange: RoutedResponse
    ) -> _ShadowAnswer | None:
        """Returns the user's answer; None if the pair would compare nothing useful.

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
        if failure is not None or (isinstance(result, CommittedStream) and exchange.failed):
            return _ShadowAnswer(None, first.ms, NO_USAGE)
        text = mirror.copied.whole(result)
        if text is None:
            self._count(mirror.shadow.shadow.id, "too_large")
            return None
        return _ShadowAnswer(text, first.ms, exchange.usage)

    def _start(
        self,
        job: RoutedRequest,
        mirror: MirroredRequest,
        incumbent: _ShadowAnswer,
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
        work = self._run(job, mirror, incumbent, is_first=is_first)
        self._run_aside(work, shadow.id)

    def _done(self, task: asyncio.Task[None]) -> None:
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
        incumbent: _ShadowAnswer,
        *,
        is_first: bool,
    ) -> None:
        """Asks the candidate, compares the pair, and notes counts, sums and costs.

        is_first: whether the caller counts here for the first time; each caller counts once
        as evidence.
        """
        served = mirror.shadow
        usage = NO_USAGE
        price = served.upstream.price
        try:
            candidate = await self._ask(job, served)
            usage = candidate.usage
            if candidate.answer is not None and not usage.input_tokens:
                # Without a count, the prompt's estimate is a lower bound.
                usage = usage._replace(input_tokens=estimate_prompt(job.request))
        finally:
            self._spending.pay(price, None if usage == NO_USAGE else usage)
        if usage != NO_USAGE:
            self._metrics.spent(served.upstream.name, usage, price)
        cost_usd = price.answer_usd(*usage) if price else None
        if cost_usd is None:
            self._note(served.shadow.id, {UNPRICED: 1})
        else:
            self._note(served.shadow.id, {}, {COST_USD: cost_usd})
        # Parsing a long answer takes time, so a thread does it.
        own_price = job.route.upstreams[job.plan.incumbent].price
        sides = (incumbent, own_price), (candidate, price)
        counts, sums = await asyncio.to_thread(
            lambda: compare_pair(*(_side(job.request, *side) for side in sides))
        )
        of_caller = unit_counts(counts) if is_first else {}
        self._note(served.shadow.id, counts | of_caller, sums)

    async def _ask(self, job: RoutedRequest, served: CompiledShadow) -> _ShadowAnswer:
        """Asks the candidate once. An overloaded candidate is left alone for REST_S."""
        loop = self._calls.timers.loop
        upstream = served.upstream
        began = loop.time()
        most_s = min(
            job.route.route.settings.total_timeout_s,
            self._settings.total_timeout_s,
        )
        again = replace(
            job,
            begun=began,
            deadline=began + most_s,
            span=None,
            hurried=False,
            probe=None,
        )
        until = again.deadline
        most_bytes = job.route.route.settings.copy_max_bytes
        if job.request.stream:
            until = min(
                until,
                began + first_token_s(job.route, upstream, self._settings),
            )
        made = self._attempt(upstream, until, job.request.endpoint)
        try:
            with self._calls.timers.limit(until):
                result = await self._calls.make(again, made, lambda _: None)
        except (UpstreamFailed, TimeoutError) as error:
            if isinstance(error, UpstreamFailed) and error.failure in BUSY:
                self._rests_until[upstream.id] = self._clock.monotonic() + REST_S
            return _ShadowAnswer(None, (loop.time() - began) * 1000, NO_USAGE)
        ms = (loop.time() - began) * 1000
        if isinstance(result, UpstreamAnswer):
            body = result.body[:most_bytes].decode("utf-8", "replace")
            return _ShadowAnswer(body, ms, result.usage or NO_USAGE)
        return await _drained(result, ms, most_bytes)

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
    most_bytes: int,
    incumbent: Prefill = Prefill.UNKNOWN,
) -> str:
    """Names the reason not to mirror a request to this target; empty if there is no reason.

    incumbent: how the route's incumbent reads a last turn of the assistant.
    """
    if len(request.text) > most_bytes:
        return "too_large"
    if any(request.value(field) for field in STATEFUL) or provider_runs_tools(request):
        return "not_repeatable"
    needs = detect_needs(request, incumbent)
    return "unable" if missing_capabilities(needs, upstream.can) else ""


def provider_runs_tools(request: ClientRequest) -> bool:
    """Returns whether the provider itself would run a tool, such as a search."""
    tools = request.value("tools")
    if not isinstance(tools, list):
        return bool(request.value("mcp_servers"))
    kinds = {tool.get("type") for tool in tools if isinstance(tool, dict)}
    return bool(request.value("mcp_servers")) or not kinds <= {
        None,
        "function",
        "custom",
    }


async def _drained(
    stream: CommittedStream,
    ms: float,
    most_bytes: int,
) -> _ShadowAnswer:
    """Reads the candidate's stream to its end. ms: the time to its first output."""
    copied = AnswerCopy(most_bytes)
    try:
        async with aclosing(stream.sent()) as pieces:
            async for piece in pieces:
                copied.add(piece)
    finally:
        await stream.aclose()
    return _ShadowAnswer(None if stream.failure else copied.text, ms, stream.events.used())


def _side(
    request: ClientRequest,
    answer: _ShadowAnswer,
    price: Price | None,
) -> PairSide:
    content: Mapping[str, Any] | None = None
    if answer.answer is not None:
        endpoint = request.endpoint.value
        content = build_transcript(endpoint, request.text, answer.answer, stream=request.stream)
    usage = answer.usage
    return PairSide(content, answer.ms, usage.output_tokens, _cost(price, usage))


def _cost(price: Price | None, usage: TokenUsage) -> float:
    return (price.answer_usd(*usage) if price else None) or 0.0
