"""Finds the models that a route's candidate schedule selects now (`select_candidates`), and
plans a round of models that were never measured, with its costs (`plan_round`).

The functions read lists, prices and earlier proposals, and store nothing; planning calls no
model. `candidate_rounds` proposes the planned models, and `estimate` predicts their costs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from harness.frame.cron import check_cron, next_time
from harness.frame.errors import InputError, StoreUnavailable, SwapproofError
from harness.frame.formatting import format_quantity, format_usd
from harness.frame.records.transaction import Transaction
from harness.frame.suggestions import did_you_mean
from harness.gate.budget import false_pass_risk, total_risk
from harness.gate.suite_plan import Claim
from harness.gate.verdict import Failed, Inconclusive, Passed
from harness.proposals.candidates import cost_ratio, estimate, spares
from harness.proposals.candidates.cost_ratio import CostRatio
from harness.proposals.candidates.estimate import SuiteEstimate
from harness.proposals.candidates.setbacks import (
    describe_setbacks,
    find_setbacks,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import look_counts, route_risk
from harness.proposals.submission import MAX_CANDIDATES, ProposalRequest
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.successors import ALERT_AHEAD
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models
from harness.providers.registry.end_facts import load_facts
from harness.providers.target import Price, Target
from harness.providers.target_price import describe_missing
from harness.routing.candidate_schedule import (
    CandidatePattern,
    CandidateSchedule,
    Preference,
    parse_patterns,
    round_alpha,
)
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.records.proposals import Proposals
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Route

# Swapproof reads a provider's list daily. A warning names the time of an older list.
LIST_AGE: Final = timedelta(hours=36)
# Models that run on the team's own machines cost no money per token.
_FREE_GROUPS: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """A model that a schedule's pattern selects.

    price: of the catalogue or configuration; None if unknown. pattern: its text in the
    schedule.
    """

    name: str  # provider/model
    pattern: str
    price: Price | None


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    """A model of a round's plan, which the round measures or which waits. Costs are in US
    dollars.
    """

    name: str
    cost_usd: float | None  # maximum cost of a round with this candidate only; None if unknown
    shared_usd: float = 0.0  # the incumbent's part of the cost, which a round pays once
    remark: str = ""  # why the round does not measure the model; empty if it does
    setbacks: str = ""  # its setbacks on any route, which its proposal names


def sum_costs(measured: Sequence[PlannedCandidate]) -> float:
    """Returns the cost of candidates that share the incumbent's answers, in US dollars.

    The incumbent answers once for all of them, at the cost of the largest share.
    """
    own_usd = sum((candidate.cost_usd or 0.0) - candidate.shared_usd for candidate in measured)
    return own_usd + max((candidate.shared_usd for candidate in measured), default=0.0)


@dataclass(frozen=True)
class RoundPlan:
    """The models that the next round measures, and the models that wait, each with its reason.

    most_alpha: 0.0 if the rounds of the last 90 days have used up their share.
    """

    measured: tuple[PlannedCandidate, ...] = ()  # the cheapest first
    waiting: tuple[PlannedCandidate, ...] = ()
    most_alpha: float = 0.0  # for each candidate
    warnings: tuple[str, ...] = ()

    @property
    def cost_usd(self) -> float:
        """The maximum cost of the round, in US dollars."""
        return sum_costs(self.measured)

    @property
    def setbacks(self) -> Mapping[str, str]:
        """Returns the setbacks of the candidates that the round measures, by candidate."""
        return {one.name: one.setbacks for one in self.measured if one.setbacks}


def select_candidates(
    ctx: ProposalsContext,
    incumbent: str,
    schedule: CandidateSchedule,
) -> tuple[list[SelectedModel], list[str]]:
    """Lists the models that the schedule selects and that do not end soon, and warns of
    patterns without a model and of old lists.

    Args:
        incumbent: `provider/model`.
    """
    now = ctx.clock.now()
    offers = named_models.list_configured_offers(ctx)
    offered_targets = named_models.list_offered_targets(offers)
    with ctx.store.read() as tx:
        lists = named_models.read_lists(tx)
        providers = Providers(tx).all()
        facts = load_facts(ctx, tx, offered_targets.values())
    listed_names = {f"{model.provider}/{model.model}" for model in lists}
    read_at = {model.provider: model.found_at for model in lists}
    last_day = (now + ALERT_AHEAD).date()
    selected: dict[str, SelectedModel] = {}
    warnings = []
    patterns = parse_patterns(schedule.models)
    ends = {name: facts.report(target, now).end for name, target in offered_targets.items()}
    for pattern in patterns:
        matching_names = set()
        for name, entry in offers:
            provider = name.partition("/")[0]
            is_known = name in listed_names if provider in read_at else pattern.is_exact
            end = ends[name]
            ends_soon = end is not None and end.day <= last_day
            is_usable = is_known and not ends_soon and entry.capabilities.chat
            usd_per_mtok = entry.price.higher_usd_per_mtok if entry.price else None
            if not is_usable or not pattern.takes(name, usd_per_mtok):
                continue
            matching_names.add(name)
            if name != incumbent:
                selected.setdefault(name, SelectedModel(name, pattern.text, entry.price))
        if not matching_names:
            reason = _explain_no_match(
                pattern, providers, read_at, [name for name, _ in offers]
            )
            warnings.append(f"{pattern.text} selects no model now{reason}")
        elif matching_names == {incumbent}:
            warnings.append(f"{pattern.text} selects only {incumbent}, which serves already")
        warnings += [
            f"the list of {provider} is of {read_at[provider]:%Y-%m-%d %H:%M} UTC: Swapproof "
            "could not read it since"
            for provider in filter(pattern.takes_provider, sorted(read_at))
            if now - read_at[provider] > LIST_AGE
        ]
    return sorted(selected.values(), key=lambda model: model.name), list(
        dict.fromkeys(warnings)
    )


def _explain_no_match(
    pattern: CandidatePattern,
    providers: Collection[str],
    read_at: Collection[str],
    offered: Collection[str],
) -> str:
    """Explains why a pattern selects no model, as the end of a sentence; empty without a
    reason.

    Args:
        providers: configured names.
        read_at: names of providers whose list was read.
        offered: names of all known models.
    """
    matching_providers = sorted(filter(pattern.takes_provider, providers))
    if not matching_providers:
        hint = did_you_mean(
            pattern.provider,
            providers,
            otherwise=" (`swapproof provider list`)",
        )
        return f": there is no provider {pattern.provider!r}{hint}"
    unread_providers = [name for name in matching_providers if name not in read_at]
    if unread_providers:
        return f": the list of {' and '.join(unread_providers)} was never read"
    matching_names = [name for name in offered if fnmatchcase(name, pattern.name)]
    if matching_names and pattern.ceiling_usd is not None:
        models = format_quantity(len(matching_names), "model")
        return f": no price of its {models} is known and below the ceiling"
    return "" if matching_names else did_you_mean(pattern.name, offered)


def plan_round(
    ctx: ProposalsContext,
    route: Route,
    schedule: CandidateSchedule,
) -> RoundPlan:
    """Plans the next round: the selected models that were never measured on the current suites,
    and the fallbacks whose proof ends before the next round, cheapest first, up to the budget.

    A model with a remark waits: its price is unknown, a rule refuses it, or the round is full.
    Waiting models get another chance in the next round.
    """
    with ctx.store.read() as tx:
        incumbent = Targets(tx).all()[route.incumbent].name
        spent_alpha = sum_spent_alpha(tx, route.name, ctx.clock.now())
    selected, warnings = select_candidates(
        ctx,
        incumbent,
        schedule,
    )
    with ctx.store.read() as tx:
        new_names = [
            model.name for model in selected if _is_due(ctx, tx, route, schedule, model.name)
        ]
        setbacks = find_setbacks(tx, new_names, ctx.clock.now())
    priced = [
        replace(
            price_candidate(ctx, route, schedule, name),
            setbacks=describe_setbacks(setbacks.get(name, ())),
        )
        for name in new_names
    ]
    ready = [item for item in priced if not item.remark]
    waiting = [item for item in priced if item.remark]
    measured: list[PlannedCandidate] = []
    for candidate in sorted(ready, key=lambda item: (item.cost_usd or 0.0, item.name)):
        cost = sum_costs([*measured, candidate])
        if len(measured) == MAX_CANDIDATES:
            remark = f"a round has at most {MAX_CANDIDATES} candidates"
        elif cost > schedule.budget_usd:
            remark = (
                f"with it, the round would cost {format_usd(cost)}; its budget is "
                f"{format_usd(schedule.budget_usd)}"
            )
        else:
            measured.append(candidate)
            continue
        waiting.append(replace(candidate, remark=remark))
    return RoundPlan(
        tuple(measured),
        tuple(waiting),
        round_alpha(spent_alpha, len(measured)),
        tuple(warnings),
    )


def _is_due(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    schedule: CandidateSchedule,
    name: str,
) -> bool:
    """Tells whether a round measures a model: it is new, or a fallback that must be proven
    again.
    """
    target = Target.from_name(name).id
    if not was_measured(ctx, tx, route, target, schedule.prefer.claim):
        return True
    if target not in route.fallbacks:
        return False
    proof = spares.judge_target(ctx, tx, route, target)
    return spares.is_renewal_due(proof, next_time(schedule.every, ctx.clock.now()))


def sum_spent_alpha(
    tx: Transaction,
    route: str,
    now: datetime,
) -> float:
    """Sums up the false-pass risk of the rounds of the last 90 days, for all candidates.

    Proposals of people do not count: rounds have a budget of their own (`round_alpha`).
    """
    return total_risk(
        false_pass_risk(proposal.plans)
        for proposal in Proposals(tx).since(route, now - route_risk.WINDOW)
        if proposal.on_better is not None and look_counts.has_looked(tx, proposal)
    )


def was_measured(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    candidate: str,
    claim: Claim,
) -> bool:
    """Tells whether the gate has compared a target with the route's incumbent on the current
    suites, or an open proposal will. The verdict `not measured` does not count.
    """
    digests = {
        suite.suite: ctx.suites.pin(suite.suite).digest for suite in route.settings.suites
    }
    claimed = replace(ctx.policy(route.settings.policy).gate, claim=claim).claimed
    return any(
        proposal.route == route.name
        and proposal.incumbent == route.incumbent
        and {plan.suite: plan.suite_digest for plan in proposal.plans} == digests
        and (
            proposal.open
            or (
                proposal.policy.gate.claimed == claimed
                and isinstance(
                    _load_verdict(tx, proposal.verdict),
                    Passed | Failed | Inconclusive,
                )
            )
        )
        for proposal in Proposals(tx).of_candidates([candidate])
    )


def _load_verdict(tx: Transaction, verdict: str | None) -> object:
    """Loads a verdict; None without one."""
    return Verdicts(tx).get(verdict) if verdict else None


def describe_faults(ctx: ProposalsContext, route: Route) -> Sequence[str]:
    """Describes faults of a route's schedule.

    A schedule with a fault is valid, but measures less than its author expects. Faults are a
    time that never comes, a pattern without a model, an old list, and a budget below the
    smallest round.
    """
    schedule = route.settings.candidates
    if schedule is None:
        return ()
    faults = []
    try:
        check_cron(schedule.every)
    except InputError as error:
        faults.append(f"every: {error}")
    plan = plan_round(ctx, route, schedule)
    faults += plan.warnings
    if plan.waiting and not plan.measured:
        costs = [
            candidate.cost_usd for candidate in plan.waiting if candidate.cost_usd is not None
        ]
        if costs:
            faults.append(
                f"budget_usd of {format_usd(schedule.budget_usd)} is below the smallest round, "
                f"which costs about {format_usd(min(costs))}"
            )
        else:
            example = plan.waiting[0]
            faults.append(f"no candidate can be measured; {example.name}: {example.remark}")
    return [f"route {route.name}: {fault}" for fault in faults]


def price_candidate(
    ctx: ProposalsContext,
    route: Route,
    schedule: CandidateSchedule,
    name: str,
) -> PlannedCandidate:
    """Estimates the cost of measuring a model, or explains why a round cannot measure it.

    Any SwapproofError becomes the candidate's remark, so that one model does not stop a round.
    Raises StoreUnavailable.
    """
    request = ProposalRequest(route.name, name, claim=schedule.prefer.claim)
    target = Target.from_name(name)
    try:
        data_class_checks.check_targets(ctx, route.settings, [target], route=route.name)
        with ctx.store.read() as tx:
            (incumbent,) = routes.known_targets(tx, [route.incumbent])
            vector_checks.check_vectors(
                ctx, tx, route.name, route.settings, incumbent, [target]
            )
        estimates = estimate.estimate_proposal(ctx, request)
        cost = _compare_costs(ctx, route, target, estimates)
        gate = ctx.policy(route.settings.policy).gate
        _check_prices(ctx, schedule, cost, capped=gate.max_cost_usd is not None)
        return _sum_candidate_cost(name, estimates, cost)
    except StoreUnavailable:
        raise
    except SwapproofError as error:
        return PlannedCandidate(name, None, remark=str(error))


def _compare_costs(
    ctx: ProposalsContext,
    route: Route,
    target: Target,
    estimates: Sequence[SuiteEstimate],
) -> CostRatio:
    """Compares a candidate's cost with the incumbent's. Raises InputError if it would end the
    canary.
    """
    plans = [suite.plan for suite in estimates]
    policy = ctx.policy(route.settings.policy).canary
    with ctx.store.read() as tx:
        arms = (Targets(tx).all()[route.incumbent], target)
        accepted = cost_ratio.find_accepted_cost(ctx, tx, route.name, target)
        cost = cost_ratio.find_ratio(ctx, tx, plans, policy, arms, accepted)
    command = f"swapproof proposal accept-cost {route.name} {target.name}"
    cost.require_acceptance(f"An approver may accept it: `{command} --up-to {{0}} --because …`")
    return cost


def _check_prices(
    ctx: ProposalsContext,
    schedule: CandidateSchedule,
    cost: CostRatio,
    *,
    capped: bool,
) -> None:
    """Raises InputError for an unknown price, except of models on the team's own machines.

    Args:
        capped: whether the policy limits the cost of a run.
    """
    if not cost.unpriced:
        return
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    owners = sorted({name.partition("/")[0] for name in cost.unpriced})
    kinds = [PROVIDER_KINDS.get(providers[owner].kind) for owner in owners]
    if schedule.prefer is Preference.CHEAPER:
        reason = "no saving can be shown"
    elif capped:
        reason = "the policy's `max_cost_usd` would end its run"
    elif all(kind is not None and kind.group in _FREE_GROUPS for kind in kinds):
        return
    else:
        reason = "`budget_usd` cannot limit the round"
    raise InputError(describe_missing(*cost.unpriced, effect=f", so {reason}"))


def _sum_candidate_cost(
    name: str,
    estimates: Sequence[SuiteEstimate],
    cost: CostRatio,
) -> PlannedCandidate:
    """Sums a candidate's maximum cost over its suites, and the incumbent's part of it.

    Raises InputError if the cost of one suite cannot be estimated.
    """
    own_usd = 0.0
    whole_usd = 0.0
    for suite in estimates:
        answer_usd = suite.candidate.cost_usd if suite.candidate else None
        suite_usd = 0.0 if cost.unpriced else suite.cost_usd
        if name in cost.unpriced:
            # It runs on the team's machine: only the incumbent and the judge cost money.
            suite_usd = _cost_without_candidate(
                suite, is_incumbent_priced=len(cost.unpriced) == 1
            )
            answer_usd = 0.0
        if answer_usd is None or suite_usd is None:
            raise InputError(
                f"its cost on {suite.plan.suite} cannot be estimated: the price of the "
                "suite's judge is unknown, or its texts cannot be read"
            )
        own_usd += answer_usd * suite.plan.planned_items * suite.plan.epochs
        whole_usd += suite_usd
    whole_usd = max(own_usd, whole_usd)
    return PlannedCandidate(name, whole_usd, shared_usd=whole_usd - own_usd)


def _cost_without_candidate(suite: SuiteEstimate, *, is_incumbent_priced: bool) -> float | None:
    """Returns a suite's cost without the free candidate's answers; None if unknown."""
    incumbent_usd = suite.incumbent.cost_usd if suite.incumbent else None
    answer_usd = incumbent_usd if is_incumbent_priced else 0.0
    if answer_usd is None or suite.judge_usd is None:
        return None
    return answer_usd * suite.plan.planned_items * suite.plan.epochs + suite.judge_usd
