"""Lets a model judge a sample of both arms' answers, after users have received them.

The router draws the sample before a target answers, so that no answer decides whether the judge
reads it. So a missing verdict is not evidence for or against the canary (statistics.md §2.1).
"""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.people.access import OptOut
from harness.gate.online.outcome import JudgeOutcome, OutcomeKind
from harness.proposals.judge import (
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
from router.observers.capture_head import CAPTURE_OPT_OUT
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

# A worker's limits: sampled exposures that wait for the judge, and running judge calls.
MAX_WAITING: Final = 64
MAX_RUNNING_CALLS: Final = 8
# After a failure of the judge, the router draws no exposures for this time, in either arm.
REST_S: Final = 10.0
# The most sampled exposures in a worker's memory, over all rollouts. The memory prevents that
# the judge reads an exposure twice in a period.
MAX_JUDGED_EXPOSURES: Final = 20_000
MOST_TOKENS: Final = 512
# The router never judges requests with these opt-outs: the judge reads request and answer.
JUDGE_OPT_OUTS: Final = frozenset({OptOut.SHADOW, OptOut.CAPTURE})


class JudgeSample(NamedTuple):
    """A request in the sample, from its beginning to its end."""

    served: CompiledJudge
    canary: Canary
    copied: AnswerCopy


class CanarySampleJudge(SideCalls):
    """Lets a judge read a worker's sampled answers, at most AT_ONCE at a time.

    money: the costs of the live rollouts' judges. spending: the monthly cap for judges.
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
        self._places = MAX_WAITING
        self._call_limit = asyncio.Semaphore(MAX_RUNNING_CALLS)
        self._samples: dict[str, JudgeSample] = {}  # by request id
        self._judged_exposures: BoundedMap[tuple[str, int, str], bool] = BoundedMap(
            MAX_JUDGED_EXPOSURES
        )

    def watches(self, route: CompiledRoute) -> bool:
        return route.judge is not None

    def before_attempt(self, observed: RoutedRequest) -> None:
        """Draws the request into the sample, and copies its answer, if the judge may see it."""
        judge = observed.route.judge
        canary = observed.experiment
        if judge is None or canary is None:
            return
        if observed.request.endpoint is Endpoint.EMBEDDINGS:
            return
        if not self._draw(judge, canary, observed.arm, observed.sticky_key):
            return
        if obstacle := self._find_obstacle(observed, judge, canary):
            self._count(obstacle)
            return
        if not self._spending.may_ask(judge.upstream):
            self._count(OVER_CAP)
            return
        answer_copy = AnswerCopy(observed.route.route.settings.copy_max_bytes)
        self._places -= 1
        self._samples[observed.request_id] = JudgeSample(judge, canary, answer_copy)
        observed.is_judged = True
        observed.copies = (*observed.copies, answer_copy)

    def _draw(
        self,
        compiled_judge: CompiledJudge,
        canary: Canary,
        arm: Arm,
        exposure: str,
    ) -> bool:
        """Returns whether the exposure is in the sample of its period, for the first time.

        Args:
            exposure: the sticky key.

        Both arms may have different shares, see `sampling_share_bps`.
        """
        rule = canary.unit_rule
        is_candidate = canary.is_candidate(arm)
        share_bps = sampling_share_bps(
            compiled_judge.judge,
            candidate=is_candidate,
            candidate_bps=canary.candidate_bps,
        )
        period = 1 + int(rule.age_s(self._clock.now()) // rule.period_s)
        if not is_sampled(exposure, canary.rollout, period, share_bps):
            return False
        judged_key = canary.rollout, period, exposure
        if self._judged_exposures.get(judged_key):
            return False
        self._judged_exposures.put(judged_key, True)  # noqa: FBT003 - a mark
        return True

    def _find_obstacle(
        self,
        observed: RoutedRequest,
        judge: CompiledJudge,
        canary: Canary,
    ) -> str:
        """Names the reason not to judge a drawn request, for the counters; empty without one.

        The reason is known before the answer, so it can favour no arm.
        """
        scope = observed.scope
        if JUDGE_OPT_OUTS & observed.opt_outs or OFF in (
            header(scope, SHADOW_OPT_OUT),
            header(scope, CAPTURE_OPT_OUT),
        ):
            return "declined"
        if len(observed.request.text) > observed.route.route.settings.copy_max_bytes:
            return "too_large"
        return self._find_judge_obstacle(judge, canary) or ("" if self._places > 0 else "full")

    def _find_judge_obstacle(self, judge: CompiledJudge, canary: Canary) -> str:
        spent_usd = self._money.spent(canary.rollout)
        # While the database is down, the other workers' spending is unknown.
        if spent_usd is None or self._holder.stale:
            return "budget_unknown"
        if not has_budget(judge.judge, *spent_usd, self._workers):
            return "over_budget"
        return self._find_target_obstacle(judge.upstream)

    def at_end(self, observed: RoutedRequest, response: RoutedResponse) -> None:
        """Starts the judgement of a drawn request.

        If the arm's own target gave no good answer, the judge reads nothing. The exposure then
        counts as good here, and as a failure in the guardrail on errors.
        """
        sample = self._samples.pop(observed.request_id, None)
        ticket = observed.ticket
        if sample is None:
            return
        if ticket is None:
            self._places += 1
            return
        if observed.outcome is None or observed.outcome.kind is not OutcomeKind.ANSWERED:
            # The judge reads only the arm's own answers; its guardrail omits the exposure.
            self._places += 1
            self._recorder.judged(sample.canary.rollout, ticket, JudgeOutcome.GOOD, 0.0)
            self._count("without_answer")
            return
        answer = sample.copied.whole(response.progress.result)
        judgement = self._run(sample, ticket, response.job, answer)
        self._run_in_task(judgement, sample.canary.rollout)

    def _handle_end(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        self._places += 1
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its message may contain content.
            log.error("a judgement failed: %s", type(error).__name__)

    async def _run(
        self,
        sample: JudgeSample,
        ticket: Ticket,
        job: RoutedRequest,
        answer: str | None,
    ) -> None:
        """Judges one answer within the judge's time limit. Records the outcome and its cost.

        Records NO_VERDICT after any failure, because the exposure waits for a verdict.
        """
        outcome = JudgeOutcome.NO_VERDICT
        cost_usd = 0.0
        usage = None
        try:
            deadline_s = self._calls.timers.loop.time() + sample.served.judge.timeout_s
            with self._calls.timers.limit(deadline_s):
                async with self._call_limit:
                    if answer is not None:
                        (outcome, cost_usd, usage) = await self._request_verdict(
                            sample,
                            job,
                            answer,
                            deadline_s,
                        )
        except (UpstreamFailed, TimeoutError):
            self._rests_until[sample.served.upstream.id] = self._clock.monotonic() + REST_S
            self._count("failed")
        finally:
            self._spending.pay(sample.served.upstream.price, usage)
            self._count(outcome.name.lower())
            self._recorder.judged(sample.canary.rollout, ticket, outcome, cost_usd)

    async def _request_verdict(
        self,
        sample: JudgeSample,
        job: RoutedRequest,
        answer: str,
        deadline_s: float,
    ) -> tuple[JudgeOutcome, float, TokenUsage | None]:
        """Asks the judge. Returns the outcome, the cost in US dollars, and the tokens.

        The tokens are None if unknown.
        """
        judge = sample.served.judge
        upstream = sample.served.upstream
        request = job.request
        try:
            # Parsing a long answer takes time, so a thread does it.
            body = await asyncio.to_thread(_write_body, judge.criteria, request, answer)
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
        judge_request = replace(
            job,
            request=read_request(body, Endpoint.CHAT),
            plan=job.route.plans[Endpoint.CHAT][Arm.INCUMBENT],
            begun=loop.time(),
            deadline=deadline_s,
            passed_up=(),
            hurried=False,
        )
        attempt = self._build_attempt(upstream, deadline_s, Endpoint.CHAT)
        self._count("asked")
        reply = await self._calls.make(judge_request, attempt, lambda _: None)
        if not isinstance(reply, UpstreamAnswer):
            return JudgeOutcome.NO_VERDICT, 0.0, None
        usage = reply.usage or NO_USAGE
        if not usage.input_tokens:
            # Without a count, the prompt's estimate is a lower bound.
            usage = usage._replace(input_tokens=estimate_prompt(judge_request.request))
        cost_usd = 0.0
        if upstream.price is not None:
            # At a tier without a known price, `_spending` counts the call as unpriced.
            cost_usd = upstream.price.answer_usd(*usage) or 0.0
            self._metrics.spent(upstream.name, usage, upstream.price)
        self._money.note(sample.canary.rollout, cost_usd)
        return parse_verdict(_read_text(reply)), cost_usd, usage

    def _count(self, name: str) -> None:
        self._recorder.counters[f"judge_{name}"] += 1


def _write_body(
    criteria: str,
    client_request: ClientRequest,
    answer: str,
) -> bytes:
    """Writes the judge's chat. Raises the errors of `build_transcript`."""
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


def _read_text(reply: UpstreamAnswer) -> str:
    choices = reply.members.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    message = first.get("message") if isinstance(first, dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    return text if isinstance(text, str) else ""
