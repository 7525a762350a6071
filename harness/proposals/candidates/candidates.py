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

from harness.frame.cron import check_cron
from harness.frame.errors import InputError, StoreUnavailable, SwapgateError
from harness.frame.formatting import format_quantity, format_usd
from harness.frame.records.transaction import Transaction
from harness.frame.suggestions import did_you_mean
from harness.gate.budget import false_pass_risk, total_risk
from harness.gate.suite_plan import Claim
from harness.gate.verdict import Failed, Inconclusive, Passed
from harness.proposals import registration
from harness.proposals.candidates import cost_ratio, estimate
from harness.proposals.candidates.cost_ratio import CostRatio
from harness.proposals.candidates.estimate import SuiteEstimate
from harness.proposals.candidates.setbacks import (
    describe_setbacks,
    find_setbacks,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.submission import MOST_CANDIDATES, ProposalRequest
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models
from harness.providers.target import Price, Target
from harness.routing.candidate_schedule import (
    CandidatePattern,
    CandidateSchedule,
    Preference,
    parse_patterns,
    round_alpha,
)
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.control.deprecations import ALERT_AHEAD
from harness.routing.records.proposals import Proposals
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Route

# Swapgate reads a provider's list daily. A warning names the time of an older list.
LIST_AGE: Final = timedelta(hours=36)
# Models that run on the team's own machines cost no money per token.
_FREE: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


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
    """A model of a round's plan, measured or waiting. Costs are in US dollars."""

    name: str
    cost_usd: float | None  # maximum cost of a round with this candidate only; None if unknown
    shared_usd: float = 0.0  # part of it for the incumbent's answers, which a round pays once
    remark: str = ""  # why the round does not measure it; empty if it does
    setbacks: str = ""  # its setbacks on any route, which its proposal names


def sum_costs(measured: Sequence[PlannedCandidate]) -> float:
    """Returns the cost of candidates that share the incumbent's answers, in US dollars.

    The incumbent answers once for all of them, at the cost of the largest share.
    """
    own = sum((one.cost_usd or 0.0) - one.shared_usd for one in measured)
    return own + max((one.shared_usd for one in measured), default=0.0)


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
    patterns without a model and of old lists. incumbent: `provider/model`.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        lists = named_models.read_lists(tx)
        providers = Providers(tx).all()
    listed = {f"{model.provider}/{model.model}" for model in lists}
    read_at = {model.provider: model.found_at for model in lists}
    last_day = (now + ALERT_AHEAD).date()
    found: dict[str, SelectedModel] = {}
    warnings = []
    patterns = parse_patterns(schedule.models)
    offers = named_models.list_configured_offers(ctx)
    for pattern in patterns:
        matched = set()
        for name, entry in offers:
            provider = name.partition("/")[0]
            is_known = name in listed if provider in read_at else pattern.is_exact
            ends = entry.end_date is not None and entry.end_date <= last_day
            usable = is_known and not ends and entry.capabilities.chat
            if not usable or not pattern.takes(name, entry.price):
                continue
            matched.add(name)
            if name != incumbent:
                found.setdefault(name, SelectedModel(name, pattern.text, entry.price))
        if not matched:
            why = _explain_none(pattern, providers, read_at, [name for name, _ in offers])
            warnings.append(f"{pattern.text} selects no model now{why}")
        elif matched == {incumbent}:
            warnings.append(f"{pattern.text} selects only {incumbent}, which serves already")
        warnings += [
            f"the list of {provider} is of {read_at[provider]:%Y-%m-%d %H:%M} UTC: Swapgate "
            "could not read it since"
            for provider in filter(pattern.takes_provider, sorted(read_at))
            if now - read_at[provider] > LIST_AGE
        ]
    return sorted(found.values(), key=lambda model: model.name), list(dict.fromkeys(warnings))


def _explain_none(
    pattern: CandidatePattern,
    providers: Collection[str],
    read_at: Collection[str],
    offered: Collection[str],
) -> str:
    """Explains why a pattern selects no model, as the end of a sentence; empty without a
    reason.

    providers: configured names. read_at: names of providers whose list was read.
    offered: names of all known models.
    """
    asked = sorted(filter(pattern.takes_provider, providers))
    if not asked:
        hint = did_you_mean(
            pattern.provider,
            providers,
            otherwise=" (`swapgate provider list`)",
        )
        return f": there is no provider {pattern.provider!r}{hint}"
    unread = [name for name in asked if name not in read_at]
    if unread:
        return f": the list of {' and '.join(unread)} was never read"
    named = [name for name in offered if fnmatchcase(name, pattern.name)]
    if named and pattern.ceiling_usd is not None:
        models = format_quantity(len(named), "model")
        return f": no price of its {models} is known and below the ceiling"
    return "" if named else did_you_mean(pattern.name, offered)


def plan_round(
    ctx: ProposalsContext,
    route: Route,
    schedule: CandidateSchedule,
) -> RoundPlan:
    """Plans the next round: the selected models that were never measured on the current suites,
    cheapest first, up to the budget.

    A model with a remark waits: its price is unknown, a rule refuses it, or the round is full.
    Waiting models get another chance in the next round.
    """
    with ctx.store.read() as tx:
        incumbent = Targets(tx).all()[route.incumbent].name
        spent = _spent_alpha(tx, route.name, ctx.clock.now())
    selected, warnings = select_candidates(
        ctx,
        incumbent,
        schedule,
    )
    with ctx.store.read() as tx:
        new = [
            model.name
            for model in selected
            if not was_measured(
                ctx,
                tx,
                route,
                Target.from_name(model.name).id,
                schedule.prefer.claim,
            )
        ]
        setbacks = find_setbacks(tx, new, ctx.clock.now())
    known = [
        replace(
            price_candidate(ctx, route, schedule, name),
            setbacks=describe_setbacks(setbacks.get(name, ())),
        )
        for name in new
    ]
    ready = [one for one in known if not one.remark]
    waiting = [one for one in known if one.remark]
    measured: list[PlannedCandidate] = []
    for candidate in sorted(ready, key=lambda one: (one.cost_usd or 0.0, one.name)):
        cost = sum_costs([*measured, candidate])
        if len(measured) == MOST_CANDIDATES:
            remark = f"a round has at most {MOST_CANDIDATES} candidates"
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
        round_alpha(spent, len(measured)),
        tuple(warnings),
    )


def _spent_alpha(
    tx: Transaction,
    route: str,
    now: datetime,
) -> float:
    """Sums the false-pass risk of the rounds of the last 90 days, for all candidates.

    Proposals of people do not count: rounds have a budget of their own (`round_alpha`).
    """
    return total_risk(
        false_pass_risk(proposal.plans)
        for proposal in Proposals(tx).since(route, now - registration.WINDOW)
        if proposal.on_better is not None and registration.has_looked(tx, proposal)
    )


def was_measured(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    candidate: str,
    claim: Claim,
) -> bool:
    """Tells whether the gate has judged a target against the route's incumbent, on the current
    suites, or is about to. The verdict `not measured` does not count.
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
                    _verdict_of(tx, proposal.verdict),
                    Passed | Failed | Inconclusive,
                )
            )
        )
        for proposal in Proposals(tx).of_candidates([candidate])
    )


def _verdict_of(tx: Transaction, verdict: str | None) -> object:
    """Loads a verdict; None without one."""
    return Verdicts(tx).get(verdict) if verdict else None


def describe_faults(ctx: ProposalsContext, route: Route) -> Sequence[str]:
    """Describes faults of a route's schedule.

    A fault leaves the schedule valid, but it measures less than its author expects: a time that
    never comes, a pattern without a model, an old list, a budget below the smallest round.
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


def price_candidate(
    ctx: ProposalsContext,
    route: Route,
    schedule: CandidateSchedule,
    name: str,
) -> PlannedCandidate:
    """Estimates the cost of measuring a model, or explains why it is not measured.

    Any SwapgateError becomes the candidate's remark, so that one model does not stop a round.
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
        return _add_up(name, estimates, cost)
    except StoreUnavailable:
        raise
    except SwapgateError as error:
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
    command = f"swapgate proposal accept-cost {route.name} {target.name}"
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
    capped: whether the policy limits the cost of a run.
    """
    if not cost.unpriced:
        return
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    owners = sorted({name.partition("/")[0] for name in cost.unpriced})
    kinds = [PROVIDER_KINDS.get(providers[owner].kind) for owner in owners]
    if schedule.prefer is Preference.CHEAPER:
        why = "no saving can be shown"
    elif capped:
        why = "the policy's `max_cost_usd` would end its run"
    elif all(kind is not None and kind.group in _FREE for kind in kinds):
        return
    else:
        why = "`budget_usd` cannot limit the round"
    settings = " and ".join(f"providers.{owner}.prices" for owner in owners)
    raise InputError(
        f"the price of {' and '.join(cost.unpriced)} is unknown, so {why}: set {settings}, "
        "then run `swapgate config apply`"
    )


def _add_up(
    name: str,
    estimates: Sequence[SuiteEstimate],
    cost: CostRatio,
) -> PlannedCandidate:
    """Sums a candidate's maximum cost over its suites, and the incumbent's part of it.

    Raises InputError if the cost of one suite cannot be estimated.
    """
    own = 0.0
    whole = 0.0
    for suite in estimates:
        usd = suite.candidate.cost_usd if suite.candidate else None
        total = 0.0 if cost.unpriced else suite.cost_usd
        if name in cost.unpriced:
            # It runs on the team's machine: only the incumbent and the judge cost money.
            total = _paid_without(suite, is_incumbent_priced=len(cost.unpriced) == 1)
            usd = 0.0
        if usd is None or total is None:
            raise InputError(
                f"its cost on {suite.plan.suite} cannot be estimated: the price of the "
                "suite's judge is unknown, or its texts cannot be read"
            )
        own += usd * suite.plan.planned_items * suite.plan.epochs
        whole += total
    whole = max(own, whole)
    return PlannedCandidate(name, whole, shared_usd=whole - own)


def _paid_without(suite: SuiteEstimate, *, is_incumbent_priced: bool) -> float | None:
    """Returns a suite's cost without the free candidate's answers; None if unknown."""
    known = suite.incumbent.cost_usd if suite.incumbent else None
    answer_usd = known if is_incumbent_priced else 0.0
    if answer_usd is None or suite.judge_usd is None:
        return None
    return answer_usd * suite.plan.planned_items * suite.plan.epochs + suite.judge_usd
