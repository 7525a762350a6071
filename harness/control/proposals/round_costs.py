"""Estimates what a candidate costs that a schedule measures (`price_candidate`): in money, or
in tokens where its price is unknown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.control.context import Context
from harness.control.proposals import answer_usage, cost_ratio, estimate
from harness.control.proposals.cost_ratio import CostRatio
from harness.control.proposals.estimate import SuiteEstimate
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import data_class_checks
from harness.domain.errors import InputError, StoreUnavailable, SwapgateError
from harness.domain.formatting import format_usd
from harness.domain.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.domain.routing.candidate_schedule import CandidateSchedule, Preference
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target

# Models that run on the team's own machines cost no money per token.
_FREE: Final = (ProviderGroup.LOCAL, ProviderGroup.SIMULATED)


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    name: str
    cost_usd: float | None  # at most, where it is measured alone; None where it is unknown
    shared_usd: float = 0.0  # of that, the incumbent's answers, which a round pays once
    most_tokens: int = 0  # which bound it where its price is unknown; else 0
    remark: str = ""  # why it is not measured; empty for one that is

    @property
    def cost_text(self) -> str:
        if self.cost_usd is not None:
            return f"about {format_usd(self.cost_usd)}"
        return f"price unknown, at most {self.most_tokens:,} tokens"


def rank_cost(candidate: PlannedCandidate) -> tuple[float, str]:
    cost = candidate.cost_usd
    return math.inf if cost is None else cost, candidate.name


def sum_costs(measured: Sequence[PlannedCandidate]) -> float:
    """What candidates of known price cost that share the incumbent's answers."""
    own = sum((one.cost_usd or 0.0) - one.shared_usd for one in measured)
    return own + max((one.shared_usd for one in measured), default=0.0)


def price_candidate(
    ctx: Context, route: Route, schedule: CandidateSchedule, name: str
) -> PlannedCandidate:
    """Estimates what measuring a model costs, or says why it is not measured."""
    request = ProposalRequest(route.name, name, claim=schedule.prefer.claim)
    target = Target.from_name(name)
    try:
        data_class_checks.check_targets(ctx, route.settings, [target], route=route.name)
        estimates = estimate.estimate_proposal(ctx, request)
        cost = _compare_costs(ctx, route, target, estimates)
        _check_prices(ctx, schedule, cost)
        if name in cost.unpriced:
            return _bound(ctx, route, name, estimates)
        return _add_up(name, estimates, with_incumbent=not cost.unpriced)
    except StoreUnavailable:
        raise
    except SwapgateError as error:
        return PlannedCandidate(name, None, remark=str(error))


def _compare_costs(
    ctx: Context, route: Route, target: Target, estimates: Sequence[SuiteEstimate]
) -> CostRatio:
    plans = [suite.plan for suite in estimates]
    policy = ctx.policy(route.settings.policy).canary
    with ctx.store.read() as tx:
        arms = (tx.routing.targets()[route.incumbent], target)
        accepted = cost_ratio.find_accepted_cost(ctx, tx, route.name, target)
        cost = cost_ratio.find_ratio(ctx, tx, plans, policy, arms, accepted)
    command = f"swapgate proposal accept-cost {route.name} {target.name}"
    cost.require_acceptance(f"An approver may accept it: `{command} --up-to {{0}} --because …`")
    return cost


def _check_prices(ctx: Context, schedule: CandidateSchedule, cost: CostRatio) -> None:
    """Lets a model of unknown price be measured on one's own machine alone, which spends no
    money, and never to show that it is cheaper. Raises InputError.
    """
    if not cost.unpriced:
        return
    with ctx.store.read() as tx:
        providers = tx.providers.all()
    owners = sorted({name.partition("/")[0] for name in cost.unpriced})
    kinds = [PROVIDER_KINDS.get(providers[owner].kind) for owner in owners]
    if schedule.prefer is Preference.CHEAPER:
        why = "no saving can be shown"
    elif all(kind is not None and kind.group in _FREE for kind in kinds):
        return
    else:
        why = "`budget_usd` bounds nothing"
    settings = " and ".join(f"providers.{owner}.prices" for owner in owners)
    raise InputError(
        f"the price of {' and '.join(cost.unpriced)} is unknown, so {why}: set {settings}, "
        "then run `swapgate config apply`"
    )


def _bound(
    ctx: Context, route: Route, name: str, estimates: Sequence[SuiteEstimate]
) -> PlannedCandidate:
    """Bounds a candidate of unknown price by tokens. Raises InputError where nothing does."""
    gate = ctx.policy(route.settings.policy).gate
    bounds = [
        answer_usage.bound_tokens(suite.incumbent, suite.plan, gate.cost_ceiling)
        for suite in estimates
    ]
    if None in bounds or gate.max_cost_usd is not None:
        provider = name.partition("/")[0]
        raise InputError(
            f"the price of {name} is unknown, so its run cannot be bounded: set "
            f"providers.{provider}.prices, then run `swapgate config apply`"
        )
    return PlannedCandidate(name, None, most_tokens=sum(filter(None, bounds)))


def _add_up(
    name: str, estimates: Sequence[SuiteEstimate], *, with_incumbent: bool
) -> PlannedCandidate:
    own, whole = 0.0, 0.0
    for suite in estimates:
        usd = suite.candidate.cost_usd if suite.candidate else None
        total = suite.cost_usd if with_incumbent else 0.0
        if usd is None or total is None:
            raise InputError(
                f"its cost on {suite.plan.suite} cannot be estimated: the price of the "
                "suite's judge is unknown, or its texts are"
            )
        own += usd * suite.plan.planned_items * suite.plan.epochs
        whole += total
    whole = max(own, whole)
    return PlannedCandidate(name, whole, shared_usd=whole - own)
