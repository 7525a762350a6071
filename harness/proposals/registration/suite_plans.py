"""Plans the suites of a route for a proposal. Loads suites, and stores nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Final

from harness.frame.errors import ConfigError
from harness.frame.formatting import format_percent
from harness.gate.order_seeds import OrderSeed, OrderSeeds, UndrawnSeeds
from harness.gate.policy import GatePolicy
from harness.gate.suite_plan import (
    SAME_ITEMS_SHARE,
    Claim,
    ClaimPopulation,
    ItemGroups,
    PrimaryCombination,
    SuitePin,
    SuitePlan,
    SuiteRole,
    overlap_share,
)
from harness.proposals.context import ProposalsContext
from harness.routing.route_settings import RouteSettings, RouteSuite

NO_ORDER: Final = UndrawnSeeds()
RegisteredSuites = Sequence[tuple[SuitePin, SuitePlan]]


def plan_suites(
    ctx: ProposalsContext,
    settings: RouteSettings,
    gate: GatePolicy,
    seeds: OrderSeeds = NO_ORDER,
) -> RegisteredSuites:
    """Plans a route's suites at the policy's alpha; stores nothing.

    Args:
        seeds: `ctx.order_seeds` for a registration; without it, the plans have no order of
            items.

    Loading a suite may take seconds, so do not call it first inside a write transaction.

    Raises ConfigError for a route without a primary suite, for a suite with two roles, and for
    several primary suites without a joint claim or with the same items. Raises NotFound for an
    unknown suite.
    """
    primary_suites = [suite for suite in settings.suites if suite.role is SuiteRole.PRIMARY]
    if not primary_suites:
        raise ConfigError(
            "the gate needs a primary suite, and this route has no primary suite: set "
            "`suites:` of the route"
        )
    names = [suite.suite for suite in settings.suites]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"a suite has one role on a route, but {names} contains a suite twice"
        )
    combine = gate.primaries if len(primary_suites) > 1 else None
    if combine is PrimaryCombination.ANY and gate.claim is not Claim.SUPERIOR:
        raise ConfigError(
            "`primaries: any` tests whether one of several suites is better, which does not "
            f"fit the claim {gate.claim.value}: use `primaries: weighted`"
        )
    pins = {suite.suite: ctx.suites.pin(suite.suite) for suite in settings.suites}
    _check_overlap([pins[suite.suite] for suite in primary_suites])
    groups = {suite.suite: ctx.suites.groups(suite.suite) for suite in settings.suites}
    seed_by_suite = {name: seeds.seed_of(pin.digest) for name, pin in pins.items()}
    return [
        (
            pins[suite.suite],
            _plan_suite(
                suite, pins, groups, gate, combine, primary_suites, seed_by_suite[suite.suite]
            ),
        )
        for suite in settings.suites
    ]


def _check_overlap(primary: Sequence[SuitePin]) -> None:
    """Raises ConfigError if two primary suites share SAME_ITEMS_SHARE of the smaller suite's
    items. The test of several suites assumes that their results are independent.
    """
    for first, second in combinations(primary, 2):
        share = overlap_share(first.texts, second.texts)
        if share >= SAME_ITEMS_SHARE:
            raise ConfigError(
                f"the primary suites {first.name!r} and {second.name!r} share "
                f"{format_percent(share)} of the smaller suite's items, so they would count "
                f"the same answers twice; below {format_percent(SAME_ITEMS_SHARE)} is allowed. "
                "Remove the shared items from one suite, join both in one suite, or give one "
                "of them the role `guard` or `required`"
            )


def plan_claims(
    ctx: ProposalsContext,
    settings: RouteSettings,
    gate: GatePolicy,
    registered: Sequence[SuitePlan],
) -> Sequence[Sequence[SuitePlan]]:
    """Plans every suite with each possible claim, the registered claim first.

    Returns a list of plans for each suite, all at the registered alpha, for `claim_advice`.
    Only a primary suite gets further claims. There are no further claims for `primaries: any`,
    which fits the claim `superior` alone.
    """
    plans_by_claim = {plan.suite: {_claim_key(plan): plan} for plan in registered}
    registered_by_suite = {plan.suite: plan for plan in registered}
    margins = dict.fromkeys((gate.margin, gate.largest_margin))
    for claim, margin, population in product(gate.allowed_claims, margins, ClaimPopulation):
        if any(plan.combine is PrimaryCombination.ANY for plan in registered):
            break
        epochs = max(gate.epochs, 2) if population is ClaimPopulation.THESE else gate.epochs
        other_gate = replace(
            gate,
            claim=claim,
            margin=margin,
            population=population,
            epochs=epochs,
        )
        for _, plan in plan_suites(ctx, settings, other_gate):
            if plan.role is SuiteRole.PRIMARY and plan.population is population:
                same_alpha = replace(plan, alpha=registered_by_suite[plan.suite].alpha)
                plans_by_claim[plan.suite].setdefault(_claim_key(plan), same_alpha)
    return [list(plans.values()) for plans in plans_by_claim.values()]


def _claim_key(plan: SuitePlan) -> tuple[object, ...]:
    """Returns the parts of a plan that identify its claim; `superior` has no margin."""
    margin = None if plan.claim is Claim.SUPERIOR else plan.margin
    return plan.claim, margin, plan.population


def _plan_suite(
    suite: RouteSuite,
    pins: Mapping[str, SuitePin],
    groups: Mapping[str, ItemGroups],
    gate: GatePolicy,
    combine: PrimaryCombination | None,
    primary: Sequence[RouteSuite],
    seed: OrderSeed,
) -> SuitePlan:
    """Plans one suite of a route.

    A suite that is not primary always gets the claim `non_inferior`.

    Args:
        groups: by suite.
        primary: the primary suites.
        combine: None for a single primary suite.
        seed: for the order of items.
    """
    pin = pins[suite.suite]
    is_primary = suite.role is SuiteRole.PRIMARY
    claim = gate.claim if is_primary else Claim.NON_INFERIOR
    # The weighted mean uses one item of each primary suite at a time, so the shortest suite
    # limits the number of items.
    primary_sizes = [groups[other.suite].units for other in primary]
    suite_groups = groups[suite.suite]
    n_available = (
        min(primary_sizes)
        if is_primary and combine is PrimaryCombination.WEIGHTED
        else suite_groups.units
    )
    n_max = min(gate.n_max or n_available, n_available)
    order_seed = seed.value
    # A claim about the suite's own items needs several answers to an item, to measure how much
    # answers vary. Clusters and weighted means support only claims about the population.
    is_about_population = (
        suite_groups.cluster_field or gate.epochs == 1 or (is_primary and combine)
    )
    population = ClaimPopulation.LIKE_THESE if is_about_population else gate.population
    is_about_suite_items = population is ClaimPopulation.THESE
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
        combine=combine if is_primary else None,
        weight=suite.weight if is_primary and combine else 1.0,
        cluster=suite_groups.cluster_field,
        cluster_sizes=suite_groups.cluster_sizes(order_seed)[:n_max],
        population=population,
        suite_items=pin.items if is_about_suite_items else 0,
        slices=suite_groups.guarded_slices(order_seed, n_max),
        seed_origin=seed.origin,
        judged_by=suite_groups.judged_by,
        unit_requests=suite_groups.unit_requests(order_seed)[:n_max],
    )
