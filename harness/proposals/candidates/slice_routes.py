"""Registers slices of a route as routes of their own, together with the proposal for the whole
route (docs/how-to/clusters-and-slices.md).

A slice's route has the whole route's incumbent and settings, and the slice's items as its
suite. It gets no requests before the slice passes (`slice_attempts.link_route`). Nothing is
asked before the items' tags agree with the router's choice of requests, and before each slice
has enough items.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.evals.settings import name_slice_suite
from harness.frame.errors import Conflict, InputError
from harness.frame.formatting import format_percent, format_score
from harness.frame.people.access import Actor
from harness.frame.records.transaction import Transaction
from harness.gate.budget import DifferenceSpread, planned_test
from harness.gate.policy import GatePolicy
from harness.gate.suite_plan import SliceTerms, SuitePlan, SuiteRole
from harness.proposals.candidates.expected_spread import (
    MOST_EARLIER,
    find_recorded_spread,
    guess_variance,
    planned_effect,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import alpha_charges, look_counts
from harness.routing.control import routes
from harness.routing.evidence import EvidenceKind
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.route_changes import CreateRoute
from harness.routing.route_settings import RouteSettings, RouteSuite, place_predicate
from harness.routing.table import Route

LEAST_AGREEMENT: Final = 0.99
LEAST_SLICE_POWER: Final = 0.2
MAX_NAMED: Final = 5  # items named in an error


@dataclass(frozen=True, slots=True)
class DeclaredSlice:
    """A slice that a suite's `split` declares, with its place among all predicates."""

    name: str  # such as `team = billing`
    suite: str  # the whole suite
    predicate: str
    after: tuple[str, ...]  # predicates that come before its own

    @property
    def items(self) -> str:
        """The name of the suite with the slice's items."""
        return name_slice_suite(self.suite, self.name)

    @property
    def value(self) -> str:
        return self.name.partition(" = ")[2]


def declare_slices(
    ctx: ProposalsContext, settings: RouteSettings, names: Sequence[str]
) -> tuple[DeclaredSlice, ...]:
    """Returns the named slices of the route's primary suite, in the order of their predicates.

    Raises InputError for a slice that the suite does not declare, for a repeated name or
    predicate, and for a route with several primary suites. Raises NotFound.
    """
    primary = [suite for suite in settings.suites if suite.role is SuiteRole.PRIMARY]
    if len(primary) != 1:
        raise InputError(
            f"slices need one primary suite, and this route has {len(primary)}: keep one, and "
            "give the others the role `required` or `guard`"
        )
    suite = primary[0].suite
    split = ctx.suites.split(suite)
    unknown = [name for name in names if name not in split]
    if unknown:
        declared = ", ".join(repr(name) for name in split) or "no slice"
        raise InputError(
            f"suite {suite!r} declares no slice {unknown[0]!r}; its `split` has {declared}"
        )
    predicates = {name: split[name] for name in names}
    if len(set(predicates.values())) < len(names):
        raise InputError("name each slice once, and give each slice its own requests")
    overrides = settings.overrides
    taken = [predicate for predicate in predicates.values() if predicate in overrides]
    if taken:
        raise InputError(
            f"route {overrides[taken[0]]!r} answers the requests {taken[0]!r} already: propose "
            "the candidate for that route"
        )
    order = sorted([*overrides, *predicates.values()], key=place_predicate)
    slices = [
        DeclaredSlice(name, suite, predicate, tuple(order[: order.index(predicate)]))
        for name, predicate in predicates.items()
    ]
    return tuple(sorted(slices, key=lambda slice_: len(slice_.after)))


def check_agreement(
    ctx: ProposalsContext, settings: RouteSettings, slices: Sequence[DeclaredSlice]
) -> None:
    """Requires that the router would choose each slice's tagged items, and no others.

    The agreement of a slice is the share of items with both the tag and the choice among the
    items with either. Raises InputError with the disagreeing items below LEAST_AGREEMENT.
    """
    suite = slices[0].suite
    requests = ctx.suites.requests(suite)
    tags = ctx.suites.groups(suite).slices
    predicates = {slice_.predicate: slice_.name for slice_ in slices}
    overrides = {**settings.overrides, **predicates}
    choices = {
        item: ctx.choose_override(overrides, request) for item, request in requests.items()
    }
    faults = [
        text for slice_ in slices if (text := _describe_disagreement(slice_, tags, choices))
    ]
    if faults:
        raise InputError("; ".join(faults))


def _describe_disagreement(
    slice_: DeclaredSlice,
    tags: Mapping[str, Mapping[str, str]],
    choices: Mapping[str, str | None],
) -> str:
    """Describes the items on which tag and router disagree; empty if they agree enough."""
    values = tags.get(slice_.name.partition(" = ")[0], {})
    tagged = {item for item in choices if values.get(item) == slice_.value}
    chosen = {item for item, choice in choices.items() if choice == slice_.predicate}
    either = tagged | chosen
    agreement = len(tagged & chosen) / len(either) if either else 0.0
    if agreement >= LEAST_AGREEMENT:
        return ""
    wrong = sorted(tagged ^ chosen)
    named = ", ".join(_name_choice(item, choices[item]) for item in wrong[:MAX_NAMED])
    more = f" and {len(wrong) - MAX_NAMED:,} more" if len(wrong) > MAX_NAMED else ""
    return (
        f"slice {slice_.name!r}: its tags and the requests {slice_.predicate!r} agree on "
        f"{format_percent(agreement)} of {len(either):,} items, and "
        f"{format_percent(LEAST_AGREEMENT)} are needed; they disagree on {named}{more}. "
        "Correct the tags, or write the requests' `tools`, `endpoint` and `headers` into the "
        "items' metadata"
    )


def _name_choice(item: str, choice: str | None) -> str:
    return f"{item} (the router chooses {choice or 'the whole route'})"


def add_slices(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    whole: Proposal,
    slices: Sequence[DeclaredSlice],
    register: Callable[[str], Proposal],
) -> tuple[Proposal, ...]:
    """Creates a route and a proposal for each slice, beside the stored proposal for the whole
    route. Stores no proposal.

    Args:
        register: checks and builds the candidate's proposal for a route.

    Raises InputError for a slice whose power is below LEAST_SLICE_POWER, Conflict for slices
    that were not declared before the candidate's first score, and the errors of `register`.
    """
    _check_declared_first(tx, whole, slices)
    route = routes.require_route(tx, whole.route)
    proposals = []
    for slice_ in slices:
        name = _create_route(ctx, tx, actor, route, slice_)
        terms = SliceTerms(
            slice_.name, route.name, whole.id, slice_.predicate, slice_.after, len(slices)
        )
        proposal = register(name)
        plans = _share_level(tx, route.name, proposal, terms)
        # A new route has no history of changed rules, so the whole route's reasons count too.
        widened = {**whole.widened, **proposal.widened}
        proposals.append(replace(proposal, plans=plans, widened=widened))
    _check_power(ctx, tx, whole, proposals)
    return tuple(proposals)


def _check_declared_first(
    tx: Transaction, whole: Proposal, slices: Sequence[DeclaredSlice]
) -> None:
    """Requires that each earlier look at the candidate declared the same slices.

    A person may choose a slice by the scores of an earlier look, and no level of a later look
    counts the slices that were not chosen. Raises Conflict, which names the looks.
    """
    [plan] = [plan for plan in whole.plans if plan.role is SuiteRole.PRIMARY]
    looks, earlier = look_counts.find_earlier_looks(tx, whole, plan)
    declared: dict[str, set[str]] = {
        proposal.slice_terms.proposal if proposal.slice_terms else proposal.id: set()
        for proposal in earlier
    }
    candidates = {proposal.candidate for proposal in earlier}
    for proposal in Proposals(tx).of_slices(candidates, declared.keys()):
        if proposal.slice_terms is not None:
            declared[proposal.slice_terms.proposal].add(proposal.slice_terms.name)
    wanted = {slice_.name for slice_ in slices}
    late = sorted(id_ for id_, names in declared.items() if names != wanted)
    if late or (looks and not earlier):
        seen = ", ".join(late[:MAX_NAMED]) or "a run by hand"
        raise Conflict(
            f"the candidate has scores on suite {plan.suite!r} already ({seen}), without these "
            "slices. Slices count only if they are declared before the first score: propose "
            "another candidate with its slices, or give the suite new items"
        )


def _share_level(
    tx: Transaction, whole: str, proposal: Proposal, terms: SliceTerms
) -> tuple[SuitePlan, ...]:
    """Gives each slice the first level of Holm's rule, within the whole route's budget."""
    gate: GatePolicy = proposal.policy.gate
    rationed = alpha_charges.ration_alpha(tx, whole, proposal.plans, gate, tx.now())
    return tuple(
        replace(plan, alpha=plan.alpha / terms.slices, slice_terms=terms) for plan in rationed
    )


def _create_route(
    ctx: ProposalsContext, tx: Transaction, actor: Actor, whole: Route, slice_: DeclaredSlice
) -> str:
    """Creates the slice's route; returns its name.

    Fallbacks that the whole route has by a waiver stay out, because a waiver is for one route.
    Keeps a route of an earlier attempt that still has the same incumbent and suites.
    """
    evidence = Routing(tx).evidence(whole.name)
    waived = {
        link.target
        for link in (evidence.fallbacks if evidence else ())
        if link.kind is EvidenceKind.WAIVER
    }
    fallbacks = tuple(target for target in whole.fallbacks if target not in waived)
    settings = routes.check_settings(
        ctx,
        replace(
            whole.settings,
            description=f"Slice {slice_.name} of route {whole.name}",
            overrides={},
            task="",
            candidates=None,
            capable=tuple(t for t in whole.settings.capable if t in fallbacks),
            suites=tuple(_list_suites(whole.settings, slice_)),
        ),
    )
    for name in _iter_names(whole.name, slice_.value):
        known = Routing(tx).route(name)
        if known is None:
            break
        if (known.incumbent, known.settings.suites) == (whole.incumbent, settings.suites):
            return name
    else:
        raise Conflict(f"route {whole.name!r} has no free name for slice {slice_.name!r}")
    routes.store_pins(ctx, tx, settings)
    change = CreateRoute(name, whole.incumbent, fallbacks, settings)
    reason = f"slice {slice_.name} of route {whole.name}"
    routes.commit(tx, actor, change, 0, reason, action="route.create")
    return name


def _list_suites(settings: RouteSettings, slice_: DeclaredSlice) -> Iterator[RouteSuite]:
    for suite in settings.suites:
        is_split = suite.suite == slice_.suite
        yield RouteSuite(slice_.items, suite.role, suite.weight) if is_split else suite


MOST_NAMES: Final = 100


def _iter_names(whole: str, value: str) -> Iterator[str]:
    """Yields `support-billing`, `support-billing-2` and so on."""
    name = f"{whole}-{re.sub(r'[^a-z0-9]+', '-', value.lower()).strip('-') or 'slice'}"
    yield name
    yield from (f"{name}-{number}" for number in range(2, MOST_NAMES))


def _check_power(
    ctx: ProposalsContext, tx: Transaction, whole: Proposal, proposals: Sequence[Proposal]
) -> None:
    """Raises InputError for slices that would hardly pass even if their claim were true."""
    earlier = Proposals(tx).list(limit=MOST_EARLIER)
    [whole_plan] = [plan for plan in whole.plans if plan.role is SuiteRole.PRIMARY]
    recorded = find_recorded_spread(tx, whole_plan, whole.incumbent, earlier)
    weak = []
    for proposal in proposals:
        [plan] = [plan for plan in proposal.plans if plan.role is SuiteRole.PRIMARY]
        if text := _describe_weak_slice(ctx, plan, recorded):
            weak.append(text)
    if weak:
        raise InputError(f"{'; '.join(weak)}. Add items, or name fewer slices")


def _describe_weak_slice(
    ctx: ProposalsContext, plan: SuitePlan, recorded: DifferenceSpread | None
) -> str:
    """Describes a slice with a power below LEAST_SLICE_POWER; empty for any other slice."""
    effect = planned_effect(plan, None)
    guessed = DifferenceSpread(guess_variance(plan, effect), 0.0, 0, bool(plan.cluster))
    spread = recorded or guessed
    sd = spread.sd(plan.epochs)
    test = planned_test(plan, ctx.suites.groups(plan.suite).units, spread)
    power = test.power(sd, effect, plan.n_max)
    if power >= LEAST_SLICE_POWER:
        return ""
    name = plan.slice_terms.name if plan.slice_terms else plan.suite
    enough = test.items_needed(sd, effect)
    return (
        f"slice {name!r}: {plan.n_max:,} {plan.unit}s show a "
        f"true difference of {format_score(effect, None)} points in "
        f"{format_percent(power, significant=2)} of comparisons, and "
        f"{format_percent(LEAST_SLICE_POWER)} is the least; about {enough:,} would show it in "
        "80 %"
    )
