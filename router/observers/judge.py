"""Lets a model judge a sample of both arms' answers, after users have received them.

The router takes the sample before a target answers, so that no answer decides whether it is
judged. A missing verdict is then not evidence for or against the canary (statistics.md §2.1).
"""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.people.access import OptOut
from harness.gate.online.outcome import OutcomeKind
from harness.proposals.judge import (
    JudgeOutcome,
    build_prompt,
    has_budget,
    is_sampled,
    parse_verdict,
    sampling_share_bps,
)
from harness.providers.models.capabilities import Endpoint
from harness.routing.table import Arm, Canary
from router.frame.asgi import header
from router.frame.body import ClientRequest, read_request
from router.frame.failure import UpstreamFailed
from router.frame.limits import BoundedMap
from router.observers.capture import CAPTURE_OPT_OUT
from router.observers.shadow import OFF, SHADOW_OPT_OUT
from router.observers.side_calls import (
    OVER_CAP,
    JudgeBudget,
    SideCalls,
    SideParts,
    WorkerSpending,
)
from router.protocols.answers import NO_USAGE, TokenUsage
from router.protocols.transcript import build_transcript
from router.recording.internal_errors import RouterPart
from router.recording.port import Ticket
from router.request.needs import estimate_prompt
from router.request.request_state import (
    AnswerCopy,
    RoutedRequest,
    UpstreamAnswer,
)
from router.request.routed_response import RoutedResponse
from router.snapshot.compiled import CompiledJudge, CompiledRoute

log = logging.getLogger(__name__)

# A worker's limits: sampled exposures that wait for the judge, and judges under way.
PLACES: Final = 64
AT_ONCE: Final = 8
# After a judge fails, the router draws no exposures for this time, in either arm.
REST_S: Final = 10.0
# How many sampled exposures a worker remembers, over all rollouts, to judge each once in a
# period.
REMEMBERED: Final = 20_000
MOST_TOKENS: Final = 512
# Requests with these opt-outs are not judged, because the judge reads request and answer.
UNSEEN: Final = frozenset({OptOut.SHADOW, OptOut.CAPTURE})


class JudgeSample(NamedTuple):
    """A request in the sample, from its beginning to its end."""

    served: CompiledJudge
    canary: Canary
    copied: AnswerCopy


class CanarySampleJudge(SideCalls):
    """Lets a judge read a worker's sampled answers, at most AT_ONCE at a time.

    money: what the live rollouts' judges have cost. spending: the monthly cap for judges.
    """

    part = RouterPart.JUDGE

    def __init__(
        self,
        parts: SideParts,
        money: JudgeBudget,
        spending: WorkerSpending,
    ) -> None:
        super().__init__(parts, spending)
        self._money = money
        self._workers = parts.settings.workers
        self._places = PLACES
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._drawn: dict[str, JudgeSample] = {}  # by request id
        self._known: BoundedMap[tuple[str, int, str], bool] = BoundedMap(REMEMBERED)

    def watches(self, route: CompiledRoute) -> bool:
        return route.judge is not None

    def before_attempt(self, observed: RoutedRequest) -> None:
        """Draws the request into the sample, and copies its answer, if the judge may be
        asked.
        """
        served = observed.route.judge
        canary = observed.experiment
        if served is None or canary is None:
            return
        if observed.request.endpoint is Endpoint.EMBEDDINGS:
            return
        if not self._is_next(served, canary, observed.arm, observed.sticky_key):
            return
        if obstacle := self._not_now(observed, served, canary):
            self._count(obstacle)
            return
        if not self._spending.may_ask(served.upstream):
            self._count(OVER_CAP)
            return
        copy = AnswerCopy(observed.route.route.settings.copy_max_bytes)
        self._places -= 1
        self._drawn[observed.request_id] = JudgeSample(served, canary, copy)
        observed.is_judged = True
        observed.copies.append(copy)

    def _is_next(
        self,
        served: CompiledJudge,
        canary: Canary,
        arm: Arm,
        exposure: str,
    ) -> bool:
        """Returns whether the exposure is in the sample of its period. Each exposure is judged
        once a period.

        exposure: the sticky key. Both arms may have different shares, see `sampling_share_bps`.
        """
        rule = canary.unit_rule
        candidate = canary.is_candidate(arm)
        share = sampling_share_bps(
            served.judge,
            candidate=candidate,
            candidate_bps=canary.candidate_bps,
        )
        period = 1 + int(rule.age_s(self._clock.now()) // rule.period_s)
        if not is_sampled(exposure, canary.rollout, period, share):
            return False
        known = canary.rollout, period, exposure
        if self._known.get(known):
            return False
        self._known.put(known, True)  # noqa: FBT003 - a mark
        return True

    def _not_now(
        self,
        observed: RoutedRequest,
        served: CompiledJudge,
        canary: Canary,
    ) -> str:
        """Names the reason not to judge a drawn request, for the counters; empty if there
        is no reason.

        Each reason is known before the answer, so it can favour no arm.
        """
        scope = observed.scope
        if UNSEEN & observed.opt_outs or OFF in (
            header(scope, SHADOW_OPT_OUT),
            header(scope, CAPTURE_OPT_OUT),
        ):
            return "declined"
        if len(observed.request.text) > observed.route.route.settings.copy_max_bytes:
            return "too_large"
        return self._no_judge(served, canary) or ("" if self._places > 0 else "full")

    def _no_judge(self, served: CompiledJudge, canary: Canary) -> str:
        spent = self._money.spent(canary.rollout)
        # While the database is down, the other workers' spending is unknown.
        if spent is None or self._holder.stale:
            return "budget_unknown"
        if not has_budget(served.judge, *spent, self._workers):
            return "over_budget"
        return self._target_obstacle(served.upstream)

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Starts the judgement of a drawn request.

        If the arm's own target gave no good answer, there is nothing to judge: the exposure
        counts as good here, and as a failure in the guardrail on errors.
        """
        drawn = self._drawn.pop(observed.request_id, None)
        ticket = observed.ticket
        if drawn is None:
            return
        if ticket is None:
            self._places += 1
            return
        if observed.outcome is None or observed.outcome.kind is not OutcomeKind.ANSWERED:
            # The judge reads only the arm's own answers; its guardrail leaves the exposure out.
            self._places += 1
            self._recorder.judged(drawn.canary.rollout, ticket, JudgeOutcome.GOOD, 0.0)
            self._count("without_answer")
            return
        answer = drawn.copied.whole(response.progress.result)
        work = self._run(drawn, ticket, response.job, answer)
        self._run_aside(work, drawn.canary.rollout)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        self._places += 1
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its message may contain content.
            log.error("a judgement failed: %s", type(error).__name__)

    async def _run(
        self,
        drawn: JudgeSample,
        ticket: Ticket,
        job: RoutedRequest,
        answer: str | None,
    ) -> None:
        """Judges one answer within the judge's time limit, and records the outcome and its
        cost.

        Records NO_VERDICT after any failure, because the exposure waits for a verdict.
        """
        judged = JudgeOutcome.NO_VERDICT
        cost_usd = 0.0
        usage = None
        try:
            until = self._calls.timers.loop.time() + drawn.served.judge.timeout_s
            with self._calls.timers.limit(until):
                async with self._at_once:
                    if answer is not None:
                        (judged, cost_usd, usage) = await self._request_verdict(
                            drawn,
                            job,
                            answer,
                            until,
                        )
        except (UpstreamFailed, TimeoutError):
            self._rests_until[drawn.served.upstream.id] = self._clock.monotonic() + REST_S
            self._count("failed")
        finally:
            self._spending.pay(drawn.served.upstream.price, usage)
            self._count(judged.name.lower())
            self._recorder.judged(drawn.canary.rollout, ticket, judged, cost_usd)

    async def _request_verdict(
        self,
        drawn: JudgeSample,
        job: RoutedRequest,
        answer: str,
        until: float,
    ) -> tuple[JudgeOutcome, float, TokenUsage | None]:
        """Asks the judge. Returns the outcome, the cost in US dollars, and the tokens; None
        if unknown.
        """
        judge = drawn.served.judge
        upstream = drawn.served.upstream
        request = job.request
        try:
            # Parsing a long answer takes time, so a thread does it.
            body = await asyncio.to_thread(_body, judge.criteria, request, answer)
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            StopIteration,
        ):
            self._count("unreadable")
            return JudgeOutcome.NO_VERDICT, 0.0, None
        loop = self._calls.timers.loop
        own = replace(
            job,
            request=read_request(body, Endpoint.CHAT),
            plan=job.route.plans[Endpoint.CHAT][Arm.INCUMBENT],
            begun=loop.time(),
            deadline=until,
            passed_up=(),
            span=None,
            hurried=False,
            probe=None,
        )
        made = self._attempt(upstream, until, Endpoint.CHAT)
        self._count("asked")
        came = await self._calls.make(own, made, lambda _: None)
        if not isinstance(came, UpstreamAnswer):
            return JudgeOutcome.NO_VERDICT, 0.0, None
        usage = came.usage or NO_USAGE
        if not usage.input_tokens:
            # Without a count, the prompt's estimate is a lower bound.
            usage = usage._replace(input_tokens=estimate_prompt(own.request))
        cost_usd = 0.0
        if upstream.price is not None:
            # At a tier without a known price, `_spending` counts the call as unpriced.
            cost_usd = upstream.price.answer_usd(*usage) or 0.0
            self._metrics.spent(upstream.name, usage, upstream.price)
        self._money.note(drawn.canary.rollout, cost_usd)
        return parse_verdict(_text(came)), cost_usd, usage

    def _count(self, name: str) -> None:
        self._recorder.counters[f"judge_{name}"] += 1


def _body(
    criteria: str,
    client_request: ClientRequest,
    answer: str,
) -> bytes:
    """Writes the judge's chat. Raises the errors of `build_transcript` if the answer is
    unreadable.
    """
    transcript = build_transcript(
        client_request.endpoint.value,
        client_request.text,
        answer,
        stream=client_request.stream,
    )
    request = {
        "model": "judge",
        "messages": [{"role": "user", "content": build_prompt(criteria, transcript)}],
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
    }
    return json.dumps(request).encode()


def _text(came: UpstreamAnswer) -> str:
    choices = came.members.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    message = first.get("message") if isinstance(first, dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    return text if isinstance(text, str) else ""
