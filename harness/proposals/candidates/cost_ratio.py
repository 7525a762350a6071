"""Compares the costs of two models for the same answers, from list prices and measured or
estimated tokens, with the ratio at which the route's canary ends. The comparison costs nothing.
An approver may accept a higher ratio.

Without the check, a candidate could pass its evals, and a cost that was known before could then
end its canary. The ratio is a forecast and no proof: the canary's guardrail `cost_per_success`
measures real traffic, and the gate tests a claimed saving.
`harness.routing.reports.monthly_bill` forecasts a route's bill.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from statistics import fmean
from typing import Any, Final

from harness.evals.spending import sum_judging_cost
from harness.frame.errors import InputError, SignatureInvalid
from harness.frame.formatting import format_number
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.budget import MeanUsage
from harness.gate.policy import CanaryPolicy, CostAcceptance
from harness.gate.run import AnswerColumns, is_nothing_readable
from harness.gate.suite_plan import SuitePlan
from harness.proposals.candidates.expected_spread import MOST_SAMPLES
from harness.proposals.context import ProposalsContext
from harness.proposals.registration.suite_plans import plan_suites
from harness.providers.records import Targets
from harness.providers.registry import named_models, targets
from harness.providers.target import Price, Target
from harness.providers.target_price import describe_missing
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns, Suites


def find_mean_usage(
    tx: Transaction,
    plan: SuitePlan,
    target: Target | None,
) -> MeanUsage | None:
    """Computes the means of the newest run with answers; None without such a run. Ignores a run
    without any readable answer, and a row with an invalid signature. An unrecorded cost is
    None (`_price_unrecorded`).

    Uses the run's items below MOST_SAMPLES, of this version of the suite only.
    """
    if target is None:
        return None
    with suppress(SignatureInvalid):
        return _find_measured_usage(tx, plan, target)
    return None


def _find_measured_usage(
    tx: Transaction,
    plan: SuitePlan,
    target: Target,
) -> MeanUsage | None:
    for run in EvalRuns(tx).of_suite(target.id, plan.suite, plan.suite_digest):
        answers = EvalRuns(tx).figures(run.id, below=MOST_SAMPLES).answered
        has_readable = not is_nothing_readable(zip(answers.error, answers.rule, strict=True))
        if len(answers) and has_readable:
            has_judge = Suites(tx).get(plan.suite_digest).judged
            return _mean_usage_of(answers, has_judge=has_judge)
    return None


def _mean_usage_of(answers: AnswerColumns, *, has_judge: bool) -> MeanUsage:
    """Computes the means of answers. A cost is None if one answer has an unknown cost.

    Args:
        has_judge: whether the suite has a judge, whose cost then counts.
    """
    costs = [cost for cost in answers.cost_usd if cost is not None]
    judge_cost = sum_judging_cost(answers, judged=has_judge)
    count = len(answers)
    return MeanUsage(
        answers=count,
        input_tokens=fmean(answers.input_tokens),
        output_tokens=fmean(answers.output_tokens),
        cost_usd=fmean(costs) if len(costs) == count else None,
        duration_s=fmean(answers.duration_s),
        judge_usd=None if judge_cost.usd is None else judge_cost.usd / count,
    )


def price_usage(
    ctx: ProposalsContext,
    tx: Transaction,
    target: Target | None,
    usage: MeanUsage,
) -> MeanUsage:
    """Prices a target with the same tokens, time and judge cost.

    The result has 0 answers, which marks it as an estimate.
    """
    price = targets.find_list_price(ctx, tx, target)
    per_answer = price.cost_usd(usage.input_tokens, usage.output_tokens) if price else None
    return replace(usage, answers=0, cost_usd=per_answer)


def _price_unrecorded(
    ctx: ProposalsContext,
    tx: Transaction,
    target: Target | None,
    usage: MeanUsage | None,
) -> MeanUsage | None:
    """Prices measured tokens by today's price if the run recorded no cost.

    Such a run ended before its model had a price. Without this step, a page would call the cost
    unknown beside a ratio of known prices.
    """
    if usage is None or usage.cost_usd is not None:
        return usage
    return replace(usage, cost_usd=price_usage(ctx, tx, target, usage).cost_usd)


# Guessed times of an answer: to the first token, and for each output token.
GUESSED_START_S: Final = 0.5
GUESSED_TOKEN_S: Final = 0.02
# Guessed tokens of a judge: its verdict, and its input besides question and answer.
GUESSED_VERDICT_TOKENS: Final = 64
GUESSED_RUBRIC_TOKENS: Final = 300


def guess_usage(
    ctx: ProposalsContext,
    tx: Transaction,
    plan: SuitePlan,
    target: Target | None,
) -> MeanUsage | None:
    """Guesses the usage from the items' texts and list prices; None if Swapproof cannot read
    the texts.

    Times are GUESSED_START_S and GUESSED_TOKEN_S for each output token. The judge reads
    question, answer and GUESSED_RUBRIC_TOKENS, and writes GUESSED_VERDICT_TOKENS.
    """
    tokens = ctx.suites.guess_tokens(plan.suite)
    if tokens is None:
        return None
    judge = ctx.judges.get(plan.suite)
    judge_usd: float | None = 0.0
    if judge is not None:
        price = targets.find_list_price(ctx, tx, judge)
        judge_input_tokens = sum(tokens) + GUESSED_RUBRIC_TOKENS
        judge_usd = (
            price.cost_usd(judge_input_tokens, GUESSED_VERDICT_TOKENS) if price else None
        )
    duration_s = GUESSED_START_S + GUESSED_TOKEN_S * tokens[1]
    unpriced = MeanUsage(0, *tokens, None, duration_s, judge_usd)
    return price_usage(ctx, tx, target, unpriced)


def estimate_usages(
    ctx: ProposalsContext,
    tx: Transaction,
    plan: SuitePlan,
    arms: tuple[Target, Target | None],
) -> tuple[MeanUsage | None, MeanUsage | None]:
    """Estimates the usage of an answer of either model. For a candidate without answers, uses
    the incumbent's tokens; for an incumbent without answers, guesses from the items' texts.
    """
    incumbent_usage, candidate_usage = (
        _price_unrecorded(ctx, tx, arm, find_mean_usage(tx, plan, arm)) for arm in arms
    )
    if incumbent_usage is None:
        incumbent_usage = guess_usage(ctx, tx, plan, arms[0])
    if incumbent_usage is not None and candidate_usage is None:
        candidate_usage = price_usage(ctx, tx, arms[1], incumbent_usage)
    return incumbent_usage, candidate_usage


# Without any answers: three input tokens for each output token.
_ASSUMED_TOKENS: Final = (3.0, 1.0)


@dataclass(frozen=True, slots=True)
class CostRatio:
    """The cost of a candidate as a multiple of the incumbent's, for the same answers."""

    candidate: str  # a name, as `incumbent`
    incumbent: str
    ratio: float | None  # None if a price is unknown, or the incumbent costs nothing
    free: bool  # whether the incumbent costs nothing and the candidate does not
    unpriced: tuple[str, ...]  # names of the models without a known price
    tokens: str  # the source of the tokens, as text
    tolerated: float | None  # by the policy's guardrail `cost_per_success`; None if off
    tolerated_tokens: float | None  # by the guardrail on output tokens; None if off
    accepted: CostAcceptance | None = None

    @property
    def limit(self) -> float | None:
        """The ratio above which the canary ends; None without a limit."""
        accepted = self.accepted.ratio if self.accepted else 0.0
        return None if self.tolerated is None else max(self.tolerated, accepted)

    @property
    def ends_canary(self) -> bool:
        """Whether this cost is known to end the canary. False if a price is unknown."""
        limit = self.limit
        is_beyond = self.ratio is not None and limit is not None and self.ratio > limit
        return is_beyond or (self.free and limit is not None)

    def is_covered_by(self, accepted: float) -> bool:
        """Tells whether accepting this ratio keeps the canary from ending for its cost."""
        return self.ratio is not None and accepted >= self.ratio

    @property
    def text(self) -> str:
        """Writes cost, guardrail and acceptance as sentences for people."""
        description = f"{self._cost}. {self._guard}."
        return f"{description} {self.accepted.text}." if self.accepted else description

    @property
    def cost_text(self) -> str:
        """Writes the cost alone, for a comparison that has no canary."""
        return f"{self._cost}."

    @property
    def _cost(self) -> str:
        if self.unpriced:
            missing = describe_missing(*self.unpriced)
            return f"{missing[:1].upper()}{missing[1:]}"
        if self.ratio is None:
            return f"{self.incumbent} costs nothing, and {self.candidate} costs money"
        ratio_text = format_number(self.ratio)
        multiple = "as much as" if ratio_text == "1" else f"{ratio_text} times as much as"
        return (
            f"{self.candidate} costs {multiple} {self.incumbent}, by list prices and "
            f"{self.tokens}"
        )

    @property
    def _guard(self) -> str:
        if self.unpriced and self.tolerated is not None and self.tolerated_tokens is not None:
            return (
                "Instead of the cost, its canary guards output tokens: it ends above "
                f"{_format_times(self.tolerated_tokens)} as many"
            )
        if self.limit is None or self.unpriced:
            return "No guardrail of the policy watches the cost in its canary"
        limit_text = f"Its canary ends above {_format_times(self.limit)} as much"
        return f"{limit_text}, so this cost ends it" if self.ends_canary else limit_text

    def require_acceptance(self, advice: str) -> None:
        """Refuses a known cost that would end the canary.

        Args:
            advice: the way to accept the cost, with a place for the ratio.

        The message proposes a ratio at least a tenth above the cost.
        Raises InputError.
        """
        if not self.ends_canary:
            return
        if self.free:
            raise InputError(
                f"{self.text} You cannot accept a multiple of 0: give the route a policy "
                "with `cost_per_success: off`"
            )
        sufficient_ratio = math.ceil((self.ratio or 0.0) * 1.1 * 2) / 2
        raise InputError(f"{self.text} {advice.format(format_number(sufficient_ratio))}")


def _format_times(ratio: float) -> str:
    return f"{format_number(ratio)} times"


def find_ratio(
    ctx: ProposalsContext,
    tx: Transaction,
    plans: Sequence[SuitePlan],
    policy: CanaryPolicy,
    arms: tuple[Target, Target],
    accepted: CostAcceptance | None = None,
) -> CostRatio:
    """Compares incumbent and candidate on their suites. Stores nothing.

    Each suite counts with its planned answers. Without any known tokens, the ratio assumes
    three input tokens for each output token. It ignores prompt caches.

    Args:
        arms: incumbent, candidate.
        accepted: an approver's acceptance; None without one.
    """
    prices = [targets.find_list_price(ctx, tx, arm) for arm in arms]
    pairs = [(plan, estimate_usages(ctx, tx, plan, arms)) for plan in plans]
    usages = [
        (plan.planned_items * plan.epochs, incumbent_usage, candidate_usage)
        for plan, (incumbent_usage, candidate_usage) in pairs
        if incumbent_usage
        and candidate_usage
        and _has_tokens(incumbent_usage)
        and _has_tokens(candidate_usage)
    ]
    incumbent_usd = _cost_usd(
        prices[0], [(count, incumbent_usage) for count, incumbent_usage, _ in usages]
    )
    candidate_usd = _cost_usd(
        prices[1], [(count, candidate_usage) for count, _, candidate_usage in usages]
    )
    guardrails = policy.with_cost(None, priced=None not in prices).guardrails
    return CostRatio(
        candidate=arms[1].name,
        incumbent=arms[0].name,
        ratio=None
        if incumbent_usd is None or candidate_usd is None
        else _divide_costs(incumbent_usd, candidate_usd),
        free=incumbent_usd == 0.0 and bool(candidate_usd),
        unpriced=tuple(
            arm.name for arm, price in zip(arms, prices, strict=True) if price is None
        ),
        tokens=_describe_tokens(
            [
                (incumbent_usage, candidate_usage)
                for _, incumbent_usage, candidate_usage in usages
            ]
        ),
        tolerated=guardrails.cost_per_success or None,
        tolerated_tokens=guardrails.output_tokens or None,
        accepted=accepted,
    )


def load_ratio(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> CostRatio:
    """Compares the costs of a stored proposal, by today's prices and with its own
    acceptance.
    """
    names = Targets(tx).all()
    arms = (names[proposal.incumbent], names[proposal.candidate])
    canary = proposal.policy.canary
    return find_ratio(ctx, tx, proposal.plans, canary, arms, proposal.accepted_cost)


def _has_tokens(usage: MeanUsage) -> bool:
    return usage.input_tokens + usage.output_tokens > 0.0


def _cost_usd(price: Price | None, answers: Sequence[tuple[int, MeanUsage]]) -> float | None:
    """Sums the costs of all answers, without a prompt cache."""
    if price is None:
        return None
    if not answers:
        return price.cost_usd(*_ASSUMED_TOKENS)
    return math.fsum(
        count * price.cost_usd(usage.input_tokens, usage.output_tokens)
        for count, usage in answers
    )


def _divide_costs(incumbent_usd: float, candidate_usd: float) -> float | None:
    """Divides the candidate's cost by the incumbent's; None if only the incumbent costs
    nothing.
    """
    if incumbent_usd:
        return candidate_usd / incumbent_usd
    return None if candidate_usd else 1.0


def _describe_tokens(sides: Sequence[tuple[MeanUsage, MeanUsage]]) -> str:
    """Describes the source of the tokens. If suites have different sources, describes the least
    certain source.
    """
    if not sides:
        return "three input tokens for each output token"
    if all(
        incumbent_usage.answers and candidate_usage.answers
        for incumbent_usage, candidate_usage in sides
    ):
        return "the tokens of both on the suites"
    if all(incumbent_usage.answers for incumbent_usage, _ in sides):
        return "the incumbent's tokens on the suites"
    return "tokens guessed from the suites' texts"


MOST_ACCEPTED: Final = 1_000.0
ACCEPT_COST: Final = "proposal.accept_cost"  # an action of the audit log
ACCEPTED_FOR: Final = timedelta(days=30)
MAX_EVENTS_READ: Final = 200  # acceptances on a route


def accept_cost(
    actor: Actor,
    ratio: float,
    reason: str,
) -> CostAcceptance:
    """Builds an acceptance of an approver, without storing it.

    Args:
        ratio: 1 to MOST_ACCEPTED, in costs of the incumbent.

    Raises NotAllowed without the approver's role, and InputError for a ratio outside the range
    or without a reason.
    """
    actor.require(Role.APPROVER)
    if not 1.0 <= ratio <= MOST_ACCEPTED:
        max_ratio = format_number(MOST_ACCEPTED)
        raise InputError(
            f"an accepted cost must be 1 to {max_ratio} times the incumbent's, not {ratio}"
        )
    if not reason.strip():
        raise InputError("an accepted cost needs a reason, which everybody sees")
    return CostAcceptance(ratio, reason.strip(), actor.name)


def accept_cost_of(
    ctx: ProposalsContext,
    actor: Actor,
    route: str,
    candidate: str,
    *,
    ratio: float,
    because: str,
) -> CostAcceptance:
    """Accept up to `ratio` times the incumbent's cost for the next proposal of a candidate.

    The acceptance ends with that proposal, or after 30 days. Needs an approver.

    Raises NotFound for an unknown route or model, and InputError for a ratio that still would
    not keep the canary from ending.
    """
    accepted = accept_cost(actor, ratio, because)
    with ctx.store.read() as tx:
        settings = routes.require_route(tx, route).settings
    policy = ctx.policy(settings.policy)
    plans = [plan for _, plan in plan_suites(ctx, settings, policy.gate)]
    with ctx.store.write() as tx:
        target = named_models.register_model(ctx, tx, actor, candidate)
        arms = (
            Targets(tx).all()[routes.require_route(tx, route).incumbent],
            target,
        )
        cost = find_ratio(ctx, tx, plans, policy.canary, arms)
        if not cost.is_covered_by(ratio):
            cost.require_acceptance("Accept at least `--up-to {}`, or propose another model")
        details = {
            "candidate": target.id,
            "name": target.name,
            "accepted": asdict(accepted),
        }
        AuditLog(tx).append(actor, ACCEPT_COST, f"route {route}", details)
    return accepted


def find_accepted_cost(
    ctx: ProposalsContext,
    tx: Transaction,
    route: str,
    candidate: Target,
) -> CostAcceptance | None:
    """Finds an approver's acceptance for the next proposal of a candidate; None without one.

    An acceptance is an audit event of the route. It counts for ACCEPTED_FOR, or until the next
    proposal of this candidate.
    """
    since = ctx.clock.now() - ACCEPTED_FOR
    events = AuditLog(tx).for_subject(
        f"route {route}",
        since=since,
        limit=MAX_EVENTS_READ,
        actions=[ACCEPT_COST],
    )
    newest = next(
        (event for event in events if event.details["candidate"] == candidate.id),
        None,
    )
    if newest is None or any(
        event.candidate == candidate.id and event.created_at >= newest.at
        for event in Proposals(tx).list(route=route)
    ):
        return None
    accepted: Any = newest.details["accepted"]
    return CostAcceptance(**accepted)
