"""Finds the models that a route's candidate schedule selects now (`select_candidates`), those
that were never measured, and the cost of their round (`plan_round`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.control.context import Context
from harness.control.proposals import accepted_costs, alpha_spending, cost_ratio, estimate
from harness.control.proposals.estimate import SuiteEstimate
from harness.control.proposals.submission import MOST_CANDIDATES, ProposalRequest
from harness.control.providers import model_lookup
from harness.control.providers.deprecations import ALERT_AHEAD
from harness.control.routing import data_class_checks
from harness.domain.errors import SwapgateError
from harness.domain.evals.verdict import Failed, Inconclusive, Passed
from harness.domain.formatting import format_usd
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.routing.candidate_schedule import (
    CandidatePattern,
    CandidateSchedule,
    parse_patterns,
    round_alpha,
)
from harness.domain.routing.table import Route
from harness.domain.routing.target import Price, Target
from harness.domain.suggestions import did_you_mean
from harness.gate.planning.multiplicity import false_pass_risk, total_risk
from harness.store.transaction import Transaction

# A provider's list is read daily; an older one is said with its age.
LIST_AGE: Final = timedelta(hours=36)
# Models that run on the team's own machines cost no money per token.
_FREE: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """A model that a schedule's pattern selects."""

    name: str  # provider/model
    pattern: str
    price: Price | None


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    """A candidate of the next round, or one that waits."""

    name: str
    cost_usd: float | None  # at most, where it is measured alone
    shared_usd: float = 0.0  # of that, the incumbent's answers, which a round pays once
    remark: str = ""  # why it is not measured; empty for one that is


@dataclass(frozen=True)
class RoundPlan:
    """What the next round of a route would measure."""

    measured: tuple[PlannedCandidate, ...] = ()  # the cheapest first
    waiting: tuple[PlannedCandidate, ...] = ()
    most_alpha: float = 0.0  # of each candidate
    warnings: tuple[str, ...] = ()

    @property
    def cost_usd(self) -> float:
        return _sum_costs(self.measured)


def select_candidates(
    ctx: Context, route: str, incumbent: str, schedule: CandidateSchedule
) -> tuple[list[SelectedModel], list[str]]:
    """Lists the models that the schedule selects, by name, and says in words which patterns
    select none and which lists are old. incumbent: `provider/model`.

    A model leaves when its provider's list has it no more, or when its end is announced.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        lists, providers = model_lookup.read_lists(tx), tx.providers.all()
    listed = {f"{model.provider}/{model.model}" for model in lists}
    read_at = {model.provider: model.found_at for model in lists}
    last_day = (now + ALERT_AHEAD).date()
    found: dict[str, SelectedModel] = {}
    warnings = []
    patterns = parse_patterns(schedule.models)
    offers = model_lookup.list_configured_offers(ctx)
    for pattern in patterns:
        matched = False
        for name, entry in offers:
            provider = name.partition("/")[0]
            is_known = name in listed if provider in read_at else pattern.is_exact
            ends = entry.end_date is not None and entry.end_date <= last_day
            usable = is_known and not ends and entry.capabilities.chat
            if not usable or not pattern.takes(name, entry.price):
                continue
            matched = True
            if name != incumbent:
                found.setdefault(name, SelectedModel(name, pattern.text, entry.price))
        if not matched:
            why = _explain_none(pattern, providers, read_at)
            warnings.append(f"{pattern.text} selects no model of route {route} now{why}")
        warnings += [
            f"the list of {provider} is of {read_at[provider]:%Y-%m-%d %H:%M} UTC: it could "
            "not be read since"
            for provider in filter(pattern.takes_provider, sorted(read_at))
            if now - read_at[provider] > LIST_AGE
        ]
    return sorted(found.values(), key=lambda model: model.name), list(dict.fromkeys(warnings))


def _explain_none(
    pattern: CandidatePattern, providers: Collection[str], read_at: Collection[str]
) -> str:
    """Says why a pattern may select no model: no such provider, or a list never read."""
    asked = sorted(filter(pattern.takes_provider, providers))
    if not asked:
        hint = did_you_mean(pattern.provider, providers)
        return f": there is no provider {pattern.provider!r}{hint}"
    unread = [name for name in asked if name not in read_at]
    return f": the list of {' and '.join(unread)} was never read" if unread else ""


def plan_round(ctx: Context, route: Route, schedule: CandidateSchedule) -> RoundPlan:
    """Plans the next round: every selected model that was never measured against the incumbent
    on the suites as they are, the cheapest first, as far as the budget goes.
    """
    with ctx.store.read() as tx:
        incumbent = tx.routing.targets()[route.incumbent].name
        spent = _spent_alpha(tx, route.name, ctx.clock.now())
    selected, warnings = select_candidates(ctx, route.name, incumbent, schedule)
    due = [_price(ctx, route, schedule, model) for model in selected]
    known = [one for one in due if one is not None]
    ready = [one for one in known if not one.remark]
    waiting = [one for one in known if one.remark]
    measured: list[PlannedCandidate] = []
    for candidate in sorted(ready, key=lambda one: (one.cost_usd or 0.0, one.name)):
        cost = _sum_costs([*measured, candidate])
        if len(measured) == MOST_CANDIDATES:
            remark = f"a round has at most {MOST_CANDIDATES} candidates"
        elif cost > schedule.budget_usd:
            remark = (
                f"the round would cost {format_usd(cost)} with it, and its budget is "
                f"{format_usd(schedule.budget_usd)}"
            )
        else:
            measured.append(candidate)
            continue
        waiting.append(replace(candidate, remark=remark))
    return RoundPlan(
        tuple(measured), tuple(waiting), round_alpha(spent, len(measured)), tuple(warnings)
    )


def _sum_costs(measured: Sequence[PlannedCandidate]) -> float:
    """What candidates cost that share the incumbent's answers."""
    own = sum((one.cost_usd or 0.0) - one.shared_usd for one in measured)
    return own + max((one.shared_usd for one in measured), default=0.0)


def _spent_alpha(tx: Transaction, route: str, now: datetime) -> float:
    """What the rounds of the last 90 days could pass by luck, all candidates together."""
    return total_risk(
        false_pass_risk(proposal.plans)
        for proposal in tx.proposals.since(route, now - alpha_spending.WINDOW)
        if proposal.on_better is not None and alpha_spending.has_looked(tx, proposal)
    )


def _price(
    ctx: Context, route: Route, schedule: CandidateSchedule, model: SelectedModel
) -> PlannedCandidate | None:
    """What measuring a model costs, or why it is not measured; None where it was already."""
    request = ProposalRequest(route.name, model.name, claim=schedule.prefer.claim)
    target = Target.from_name(model.name)
    with ctx.store.read() as tx:
        if was_measured(ctx, tx, route, target.id):
            return None
        provider = tx.providers.all()[target.provider]
    try:
        data_class_checks.check_targets(ctx, route.settings, [target], route=route.name)
        estimates = estimate.estimate_proposal(ctx, request)
    except SwapgateError as error:
        return PlannedCandidate(model.name, None, remark=str(error))
    if remark := _describe_cost(ctx, route, target, estimates):
        return PlannedCandidate(model.name, None, remark=remark)
    costs = [suite.cost_usd for suite in estimates]
    if None not in costs:
        cost, own = sum(cost or 0.0 for cost in costs), sum(map(_candidates_own, estimates))
        return PlannedCandidate(model.name, cost, shared_usd=max(0.0, cost - own))
    kind = PROVIDER_KINDS.get(provider.kind)
    if model.price is None and kind is not None and kind.group in _FREE:
        return PlannedCandidate(model.name, 0.0)
    return PlannedCandidate(
        model.name,
        None,
        remark=f"its cost is unknown: set providers.{provider.name}.prices",
    )


def _describe_cost(
    ctx: Context, route: Route, target: Target, estimates: Sequence[SuiteEstimate]
) -> str:
    """Says that the candidate's canary would end for its cost; empty where it would not."""
    plans = [suite.plan for suite in estimates]
    policy = ctx.policy(route.settings.policy).canary
    with ctx.store.read() as tx:
        arms = (tx.routing.targets()[route.incumbent], target)
        accepted = accepted_costs.find_accepted_cost(ctx, tx, route.name, target)
        cost = cost_ratio.find_ratio(ctx, tx, plans, policy, arms, accepted)
    command = f"swapgate proposal accept-cost {route.name} {target.name}"
    return f"{cost.text} An approver may accept it: `{command}`" if cost.ends_canary else ""


def _candidates_own(suite: SuiteEstimate) -> float:
    """The cost of the candidate's own answers on one suite."""
    usd = suite.candidate.cost_usd if suite.candidate else None
    return (usd or 0.0) * suite.plan.planned_items * suite.plan.epochs


def was_measured(ctx: Context, tx: Transaction, route: Route, candidate: str) -> bool:
    """Tells whether the gate decided on a target against the route's incumbent, on the suites
    as they are now, or is about to. Where it could not measure, it did not decide.
    """
    digests = {
        suite.suite: ctx.suites.pin(suite.suite).digest for suite in route.settings.suites
    }
    return any(
        proposal.route == route.name
        and proposal.incumbent == route.incumbent
        and {plan.suite: plan.suite_digest for plan in proposal.plans} == digests
        and (
            proposal.open
            or isinstance(_verdict_of(tx, proposal.verdict), Passed | Failed | Inconclusive)
        )
        for proposal in tx.proposals.of_candidates([candidate])
    )


def _verdict_of(tx: Transaction, verdict: str | None) -> object:
    return tx.verdicts.get(verdict) if verdict else None


def describe_faults(ctx: Context, route: Route) -> Sequence[str]:
    """Says in words what of a route's schedule will not work as it is: a time that never comes,
    patterns that select nothing, a budget below the cheapest candidate. Raises InputError for
    no cron expression.
    """
    schedule = route.settings.candidates
    if schedule is None:
        return ()
    faults = []
    if (
        ctx.calendar is not None
        and ctx.calendar.next_time(schedule.every, ctx.clock.now()) is None
    ):
        faults.append(f"every: {schedule.every!r} names a time that never comes")
    plan = plan_round(ctx, route, schedule)
    faults += plan.warnings
    if plan.waiting and not plan.measured:
        costs = [one.cost_usd for one in plan.waiting if one.cost_usd is not None]
        if costs:
            faults.append(
                f"budget_usd of {format_usd(schedule.budget_usd)} is below the smallest round, "
                f"which costs about {format_usd(min(costs))}"
            )
        else:
            first = plan.waiting[0]
            faults.append(f"no candidate can be measured; {first.name}: {first.remark}")
    return [f"route {route.name}: {fault}" for fault in faults]
