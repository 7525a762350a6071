"""Plans the suites of a route for a proposal, gives each look its alpha, and adds up a route's
risk (docs/explanation/statistics.md §1.8, §1.16).

The plans fix suites, claim, margin, items, order and alpha before the candidate's first answer.
This module never reads a score's value. It only checks whether a score exists, because a
proposal with a score counts as a look. `submission` stores the plans in a proposal;
`harness.gate.budget` has the formulas.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import combinations, product
from typing import Final

from harness.frame.errors import ConfigError, NotAllowed, NotFound
from harness.frame.formatting import format_percent
from harness.frame.records.transaction import Transaction
from harness.gate import budget
from harness.gate.budget import (
    FIRST_FULL,
    MIN_ALPHA,
    false_pass_risk,
    spend_alpha,
    total_risk,
)
from harness.gate.order_seeds import OrderSeed, OrderSeeds, UndrawnSeeds
from harness.gate.policy import GatePolicy
from harness.gate.run import EvalRun
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
from harness.proposals.traffic_suites import list_further_looks
from harness.providers.models import model_names
from harness.providers.records import Providers, Sightings, Targets
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.table import Route

WINDOW: Final = timedelta(days=90)
NO_ORDER: Final = UndrawnSeeds()


@dataclass(frozen=True, slots=True)
class FalsePassRisk:
    """The upper limit of the risk that any proposal of a route in 90 days is a false pass."""

    number: int  # the candidate's number on this route
    spent: float  # risk of the earlier candidates, a share of 1
    risk: float  # risk of all candidates
    budget: float | None = None  # the policy's; None without a budget

    @property
    def text(self) -> str:
        """Writes the risk for people, such as `2nd candidate on this route in 90 days: up to
        7.5 % …`.
        """
        which = "one of them" if self.number > 1 else "it"
        text = (
            f"{_ordinal(self.number)} candidate on this route in {WINDOW.days} days: up to "
            f"{format_percent(self.risk, significant=2)} that {which} passed by luck"
        )
        if self.budget is None:
            return text
        allowed = format_percent(self.budget, significant=2)
        return f"{text}; the policy allows {allowed} (alpha_budget)"


def _ordinal(number: int) -> str:
    ending = {
        1: "st",
        2: "nd",
        3: "rd",
    }.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def ration_alpha(
    tx: Transaction,
    route: str,
    plans: Sequence[SuitePlan],
    gate: GatePolicy,
    now: datetime,
    selection: str = "",
) -> tuple[SuitePlan, ...]:
    """Limits the plans' alpha to the rest of the policy's `alpha_budget`, which candidates that
    are proposed together share equally.

    Each selection gets at most half of the remaining budget, so that the budget lasts
    (`budget.ration_alpha`). Returns the plans unchanged for a policy without a budget.

    selection: id of a selection whose own members do not count as spent; empty for none.
    Raises NotAllowed if too little is left.
    """
    if gate.alpha_budget is None:
        return tuple(plans)
    spent = total_risk(
        false_pass_risk(proposal.plans)
        for proposal in _proposals_before(tx, route, now)
        if not selection or proposal.selection != selection
    )
    candidates = max((plan.candidates for plan in plans), default=1)
    candidates_risk = false_pass_risk(plans) * candidates
    max_alpha = budget.ration_alpha(candidates_risk, spent, gate.alpha_budget) / candidates
    if max_alpha < MIN_ALPHA:
        raise NotAllowed(
            f"route {route!r} has spent {format_percent(spent, significant=2)} of the "
            f"{format_percent(gate.alpha_budget, significant=2)} that its policy allows in "
            f"{WINDOW.days} days (alpha_budget): wait until its oldest proposals are older, or "
            "let an admin raise the budget"
        )
    return tuple(replace(plan, alpha=min(plan.alpha, max_alpha)) for plan in plans)


def risk_of_plans(
    tx: Transaction,
    route: str,
    plans: Sequence[SuitePlan],
    gate: GatePolicy,
    now: datetime,
) -> FalsePassRisk:
    """Computes the upper limit of a route's risk with these plans, before their proposal
    exists.

    Counts one further candidate for each member of the planned selection.
    """
    earlier = [proposal.plans for proposal in _proposals_before(tx, route, now)]
    n_candidates = max((plan.candidates for plan in plans), default=1)
    return _sum_risk([*earlier, *[plans] * n_candidates], gate, n_candidates)


def risk_of_proposal(tx: Transaction, proposal: Proposal) -> FalsePassRisk:
    """Computes the upper limit of the risk of a stored proposal and of the proposals in the 90
    days before it.
    """
    earlier = [
        other.plans
        for other in _proposals_before(tx, proposal.route, proposal.created_at)
        if other.id != proposal.id and other.created_at <= proposal.created_at
    ]
    return _sum_risk([*earlier, proposal.plans], proposal.policy.gate)


def _sum_risk(
    registered: Sequence[Sequence[SuitePlan]],
    gate: GatePolicy,
    n_newest: int = 1,
) -> FalsePassRisk:
    """Sums the risks of candidates (`budget.total_risk`).

    registered: the plans of each candidate, the newest last.
    n_newest: number of the newest candidates, whose risk is not `spent` yet.
    """
    risks = [false_pass_risk(plans) for plans in registered]
    return FalsePassRisk(
        number=len(risks),
        spent=total_risk(risks[:-n_newest]),
        risk=total_risk(risks),
        budget=gate.alpha_budget,
    )


def _proposals_before(
    tx: Transaction,
    route: str,
    now: datetime,
) -> list[Proposal]:
    """Lists the route's proposals of the 90 days before `now` that made a look, with the
    proposals of its slices.
    """
    own = Proposals(tx).since(route, now - WINDOW)
    candidates = {proposal.candidate for proposal in own}
    slices = Proposals(tx).of_slices(candidates, {proposal.id for proposal in own})
    return [proposal for proposal in (*own, *slices) if has_looked(tx, proposal)]


def find_lineage(
    tx: Transaction,
    candidate: Target | None,
    descends_from: str | None,
) -> frozenset[str]:
    """Returns the ids of all targets that are the same model as the candidate or its ancestor.

    Two targets are the same model if one host serves them under one name, requested or
    reported. The id alone would not suffice: a renamed model would then start without looks.

    candidate: None for a model without a target.
    descends_from: id or name of the target on whose results the candidate was tuned.
    Raises NotFound, InputError.
    """
    candidates = [candidate] if candidate else []
    ancestors = [targets.find_target(tx, descends_from)] if descends_from else []
    return frozenset(
        relative.id
        for target in (*candidates, *ancestors)
        for relative in (target, *_list_same_model(tx, target))
    )


def _list_same_model(tx: Transaction, target: Target) -> Iterator[Target]:
    """Yields targets at the same host whose requested or reported model name is the same."""
    providers = Providers(tx).all()
    own_names = model_names.known_model_names(target, Sightings(tx).for_target(target.id))
    own_host = model_names.provider_host(providers.get(target.provider))
    for other in Targets(tx).all().values():
        other_host = model_names.provider_host(providers.get(other.provider))
        if not model_names.same_host(own_host, other_host):
            continue
        if model_names.normalize_model_name(other.model) in own_names or (
            own_names & model_names.known_model_names(other, Sightings(tx).for_target(other.id))
        ):
            yield other


def spend_look_alpha(
    tx: Transaction,
    pin: SuitePin,
    plan: SuitePlan,
    gate: GatePolicy,
    candidate: str,
    lineage: Collection[str],
    route: str,
) -> SuitePlan:
    """Returns the plan with its look's number and the alpha that this look spends.

    A proposal on any route is a look once an answer of the candidate has a score, because a
    person may choose by seen scores. An open proposal is a look too, because it will have
    scores. So is a manual run of another target of the lineage. Only new items restart the
    number; a new name, version, prompt, scorer or spelling of the same items does not. Each
    draw from a route's traffic is a look at the same items, whatever it has drawn.

    pin: the plan's suite. candidate: its id. lineage: result of `find_lineage`.
    Source: `budget.spend_alpha` (docs/explanation/statistics.md §1.8).
    """
    look = 1 + count_looks(tx, pin, candidate, lineage, route)[0]
    return replace(
        plan,
        alpha=spend_alpha(gate.alpha, look),
        look=look,
        spend=FIRST_FULL,
    )


def describe_uncounted_looks(tx: Transaction, proposal: Proposal) -> str:
    """Describes the looks that a proposal's alpha does not count; empty if it counts all looks.

    A look is missing if only the proposal's own answers revealed the candidate's model. The
    driver calls this once a proposal has passed. With a missing look the alpha was too large,
    so the verdict proves nothing.
    """
    for plan in proposal.plans:
        looks, earlier = find_earlier_looks(tx, proposal, plan)
        if looks >= plan.look:
            ids = ", ".join(proposal_before.id for proposal_before in earlier[:3])
            id_list = f" ({ids})" if ids else ""
            return (
                f"its answers show a model name with {looks} earlier looks at "
                f"{plan.suite}{id_list}, but this proposal was charged as look {plan.look}: "
                "propose again, to count them"
            )
    return ""


def find_earlier_looks(
    tx: Transaction, proposal: Proposal, plan: SuitePlan
) -> tuple[int, list[Proposal]]:
    """Counts the looks at a plan's items before a proposal, and lists those by proposals."""
    lineage = find_lineage(tx, Targets(tx).all()[proposal.candidate], None)
    pin = Suites(tx).get(plan.suite_digest)
    return count_looks(tx, pin, proposal.candidate, lineage, proposal.route, until=proposal)


def count_looks(
    tx: Transaction,
    pin: SuitePin,
    candidate: str,
    lineage: Collection[str],
    route: str,
    until: Proposal | None = None,
) -> tuple[int, list[Proposal]]:
    """Counts the looks, also of shadows with a judge, and lists the proposals, newest first.

    route: of the comparison. until: a proposal; later looks do not count.
    """

    def is_look(earlier: SuitePlan, earlier_route: str) -> bool:
        is_fresh_draw = pin.is_traffic and bool(earlier.judged_by) and earlier_route == route
        return is_fresh_draw or has_same_items(tx, pin, earlier)

    proposals = [
        proposal
        for proposal in Proposals(tx).of_candidates(lineage)
        if (until is None or proposal.created_at < until.created_at)
        and any(is_look(plan, proposal.route) for plan in proposal.plans)
        and has_looked(tx, proposal)
        and not _showed_no_score(tx, proposal, candidate)
    ]
    # The slices of one proposal share their alpha, so they are one look.
    look_numbers = [
        max(plan.look for plan in proposal.plans if is_look(plan, proposal.route))
        for proposal in _list_attempts(proposals)
    ]
    if pin.is_traffic:
        tried = {candidate, *(proposal.candidate for proposal in proposals)}
        look_numbers += list_further_looks(tx, pin, route, lineage, tried, proposals, until)
    # The looks of proposed targets are counted above, so their manual runs add no look.
    counted_targets = {candidate, *(proposal.candidate for proposal in proposals)}
    counted_targets |= {route.incumbent for route in Routing(tx).table().routes.values()}
    manual_targets = {
        run.target
        for run in EvalRuns(tx).of_targets(set(lineage) - counted_targets)
        if (until is None or run.created_at < until.created_at)
        and run.is_manual
        and has_same_items(tx, pin, run)
        and EvalRuns(tx).scored(run.id)
    }
    return max(len(look_numbers) + len(manual_targets), *look_numbers, 0), proposals


def _list_attempts(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Keeps one proposal of each attempt: all slices of one proposal are one attempt."""
    attempts: dict[str, Proposal] = {}
    for proposal in proposals:
        terms = proposal.slice_terms
        attempts[f"slices of {terms.proposal}" if terms else proposal.id] = proposal
    return list(attempts.values())


def _showed_no_score(
    tx: Transaction,
    proposal: Proposal,
    candidate: str,
) -> bool:
    """Tells whether a proposal showed people no score: its verdict used none, and it has either
    the same candidate or no scored answer.
    """
    if proposal.open or proposal.verdict is None:
        return False
    if any(report.n_used for report in Verdicts(tx).get(proposal.verdict).suites):
        return False
    runs = [pair.candidate for pair in proposal.runs.values()]
    return proposal.candidate == candidate or all(
        EvalRuns(tx).count(run) and not EvalRuns(tx).scored(run) for run in runs
    )


def has_same_items(
    tx: Transaction,
    pin: SuitePin,
    earlier: SuitePlan | EvalRun,
) -> bool:
    """Tells whether an earlier plan or run used the items of `pin`.

    Suites have the same items if their data are equal, or if they share SAME_ITEMS_SHARE of the
    smaller suite's texts. Without the earlier pin or its texts, the suite's name decides.
    """
    try:
        earlier_pin = Suites(tx).get(earlier.suite_digest)
    except NotFound:
        return earlier.suite == pin.name
    if earlier_pin.data_sha256 == pin.data_sha256:
        return True
    if isinstance(earlier, EvalRun) and earlier_pin.is_traffic and pin.is_traffic:
        # A manual run has no route, so any draw may be of this route.
        return True
    if not (earlier_pin.texts and pin.texts):
        return earlier.suite == pin.name  # older pins have no texts
    return overlap_share(earlier_pin.texts, pin.texts) >= SAME_ITEMS_SHARE


def has_looked(tx: Transaction, proposal: Proposal) -> bool:
    """Tells whether a proposal has shown, or will show, a score of its candidate."""
    # A verdict is a look even if its samples were deleted.
    pairs = proposal.runs.values()
    decided = proposal.open or proposal.verdict is not None
    return decided or any(EvalRuns(tx).scored(pair.candidate) for pair in pairs)


RegisteredSuites = Sequence[tuple[SuitePin, SuitePlan]]


@dataclass(frozen=True, slots=True)
class SelectionPlace:
    """A candidate's place among candidates that are proposed together.

    selection: the selection's id; empty for a candidate alone.
    place: from 0. candidates: number of candidates, among which alpha is divided.
    """

    selection: str = ""
    place: int = 0
    candidates: int = 1
    most_alpha: float = 1.0  # maximum for each candidate


def charge_alpha(
    tx: Transaction,
    route: Route,
    gate: GatePolicy,
    registered: RegisteredSuites,
    candidate: str,
    lineage: Collection[str],
    place: SelectionPlace,
) -> tuple[SuitePlan, ...]:
    """Gives each plan the alpha of its look, divided among the selection and within the budget.

    registered: pins and plans from `plan_suites`. candidate: its id.
    lineage: result of `find_lineage`.
    Raises NotAllowed if the policy's `alpha_budget` is spent.
    """
    charged = [
        budget.share_alpha(
            spend_look_alpha(tx, pin, plan, gate, candidate, lineage, route.name),
            place.candidates,
        )
        for pin, plan in registered
    ]
    charged = [replace(plan, alpha=min(plan.alpha, place.most_alpha)) for plan in charged]
    now = tx.now()
    return ration_alpha(tx, route.name, charged, gate, now, place.selection)


def plan_suites(
    ctx: ProposalsContext,
    settings: RouteSettings,
    gate: GatePolicy,
    seeds: OrderSeeds = NO_ORDER,
) -> RegisteredSuites:
    """Plans a route's suites at the policy's alpha; stores nothing.

    seeds: `ctx.order_seeds` for a registration; without it, the plans have no order of items.

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

    A suite that is not primary always gets the claim `non_inferior`. groups: by suite.
    primary: the primary suites. combine: None for a single primary suite. seed: for the
    order of items.
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
