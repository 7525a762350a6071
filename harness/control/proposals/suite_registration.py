"""Plans the suites of a route for a proposal, and gives each plan its alpha."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from harness.control.context import Context
from harness.control.proposals import alpha_spending
from harness.domain.errors import ConfigError
from harness.domain.evals.item_groups import ItemGroups
from harness.domain.evals.suite_plan import (
    Claim,
    ClaimPopulation,
    PrimaryCombination,
    SuitePin,
    SuitePlan,
    SuiteRole,
)
from harness.domain.proposals.policy import GatePolicy
from harness.domain.routing.table import Route, RouteSettings, RouteSuite
from harness.gate.planning import multiplicity
from harness.store.transaction import Transaction

RegisteredSuites = Sequence[tuple[SuitePin, SuitePlan]]


@dataclass(frozen=True, slots=True)
class SelectionPlace:
    selection: str = ""
    place: int = 0
    candidates: int = 1
    most_alpha: float = 1.0  # that each may have


def charge_alpha(
    tx: Transaction,
    route: Route,
    gate: GatePolicy,
    registered: RegisteredSuites,
    candidate: str,
    lineage: Collection[str],
    place: SelectionPlace,
) -> tuple[SuitePlan, ...]:
    """Gives each plan the alpha that is left for it.

    Raises NotAllowed when the policy's `alpha_budget` is spent.
    """
    charged = [
        multiplicity.share_alpha(
            alpha_spending.with_alpha(tx, pin, plan, gate, candidate, lineage),
            place.candidates,
        )
        for pin, plan in registered
    ]
    charged = [replace(plan, alpha=min(plan.alpha, place.most_alpha)) for plan in charged]
    now = tx.now()
    return alpha_spending.ration_alpha(tx, route.name, charged, gate, now, place.selection)


def plan_suites(ctx: Context, settings: RouteSettings, gate: GatePolicy) -> RegisteredSuites:
    """Plans a route's suites at the policy's alpha; stores nothing. Raises ConfigError for a
    route without a primary suite, and for several that make no claim.
    """
    primary = [s for s in settings.suites if s.role is SuiteRole.PRIMARY]
    if not primary:
        raise ConfigError(
            "a route needs a primary suite to be gated, and this one has none: set `suites:` "
            "of the route"
        )
    names = [suite.suite for suite in settings.suites]
    if len(set(names)) != len(names):
        raise ConfigError(f"a suite has one role on a route, and {names} names one twice")
    combine = gate.primaries if len(primary) > 1 else None
    if combine is PrimaryCombination.ANY and gate.claim is not Claim.SUPERIOR:
        raise ConfigError(
            f"`primaries: any` asks whether one of several suites is better, which is no "
            f"question of the claim {gate.claim.value}: use `primaries: weighted`"
        )
    pins = {suite.suite: ctx.suites.pin(suite.suite) for suite in settings.suites}
    groups = {suite.suite: ctx.suites.groups(suite.suite) for suite in settings.suites}
    return [
        (pins[suite.suite], _plan(suite, pins, groups, gate, combine, primary))
        for suite in settings.suites
    ]


def plan_claims(
    ctx: Context, settings: RouteSettings, gate: GatePolicy, registered: Sequence[SuitePlan]
) -> Sequence[Sequence[SuitePlan]]:
    """Plans every suite with each claim that may be made there, the registered one first."""
    found = {plan.suite: {_claim_key(plan): plan} for plan in registered}
    own = {plan.suite: plan for plan in registered}
    margins = dict.fromkeys((gate.margin, gate.largest_margin))
    for claim, margin, population in product(gate.allowed_claims, margins, ClaimPopulation):
        if any(plan.combine is PrimaryCombination.ANY for plan in registered):
            break
        epochs = max(gate.epochs, 2) if population is ClaimPopulation.THESE else gate.epochs
        other = replace(gate, claim=claim, margin=margin, population=population, epochs=epochs)
        for _, plan in plan_suites(ctx, settings, other):
            if plan.role is SuiteRole.PRIMARY and plan.population is population:
                same_alpha = replace(plan, alpha=own[plan.suite].alpha)
                found[plan.suite].setdefault(_claim_key(plan), same_alpha)
    return [list(plans.values()) for plans in found.values()]


def _claim_key(plan: SuitePlan) -> tuple[object, ...]:
    margin = None if plan.claim is Claim.SUPERIOR else plan.margin
    return plan.claim, margin, plan.population


def _plan(
    suite: RouteSuite,
    pins: Mapping[str, SuitePin],
    groups: Mapping[str, ItemGroups],
    gate: GatePolicy,
    combine: PrimaryCombination | None,
    primary: Sequence[RouteSuite],
) -> SuitePlan:
    pin = pins[suite.suite]
    main = suite.role is SuiteRole.PRIMARY
    claim = gate.claim if main else Claim.NON_INFERIOR
    # A unit of the weighted mean takes one of each suite: the shortest one's end is the end.
    paired = [groups[other.suite].units for other in primary]
    ours = groups[suite.suite]
    units = min(paired) if main and combine is PrimaryCombination.WEIGHTED else ours.units
    n_max = min(gate.n_max or units, units)
    # One order per suite content: the incumbent's run can serve every proposal.
    order_seed = int(pin.digest[:8], 16)
    # Clusters and the units of a weighted mean are drawn, however often their items are asked;
    # one answer to an item does not say how much answers vary.
    drawn = ours.cluster_field or gate.epochs == 1 or (main and combine)
    population = ClaimPopulation.LIKE_THESE if drawn else gate.population
    these = population is ClaimPopulation.THESE
    return SuitePlan(
        suite=suite.suite,
        suite_digest=pin.digest,
        role=suite.role,
        claim=claim,
        margin=gate.margin,
        alpha=gate.alpha,
        n_max=n_max,
        epochs=gate.epochs,
        order_seed=order_seed,
        served_pin=gate.served_pin,
        min_saving=gate.min_saving if claim is Claim.CHEAPER else 0.0,
        cost_ceiling=gate.cost_ceiling if claim is Claim.CHEAPER else 0.0,
        combine=combine if main else None,
        weight=suite.weight if main and combine else 1.0,
        cluster=ours.cluster_field,
        cluster_sizes=ours.cluster_sizes(order_seed)[:n_max],
        population=population,
        suite_items=pin.items if these else 0,
        slices=ours.guarded_slices(order_seed, n_max),
    )
