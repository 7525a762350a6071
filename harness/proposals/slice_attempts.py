"""Finds how the proposals of a whole route and of its slices stand to one another, while
`harness.proposals.driver` drives them (docs/explanation/statistics.md §1.24).

The whole route is tested first. Its slices begin only after a verdict that does not pass. A
slice's level rises by Holm's rule with each other slice that has passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from harness.evals.settings import whole_suite
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.gate.offline.verdicts import read_passed_slices
from harness.gate.run import Sample
from harness.gate.suite_plan import SliceTerms, SuitePlan
from harness.gate.verdict import Passed, Verdict
from harness.proposals.context import ProposalsContext
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import ChangeSettings
from harness.routing.route_settings import place_predicate

_IN_EVALS = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
_WENT_ON = (
    ProposalPhase.AWAITING_APPROVAL,
    ProposalPhase.CANARY,
    ProposalPhase.PROMOTED,
    ProposalPhase.ROLLED_BACK,
)


class WholeResult(StrEnum):
    """The result of the whole route, as far as it matters to its slices."""

    OPEN = "open"
    NOT_SHOWN = "not_shown"  # a verdict that does not pass: the slices are tested
    PASSED = "passed"
    NONE = "none"  # it ended without a verdict


def find_whole_result(tx: Transaction, terms: SliceTerms) -> WholeResult:
    """Finds the whole route's result. Raises NotFound, SignatureInvalid."""
    whole = Proposals(tx).get(terms.proposal)
    if whole.phase in _IN_EVALS:
        return WholeResult.OPEN
    verdict = Verdicts(tx).get(whole.verdict) if whole.verdict else None
    if isinstance(verdict, Passed):
        return WholeResult.PASSED
    measured = verdict is not None and verdict.outcome != "infra_error"
    return WholeResult.NOT_SHOWN if measured else WholeResult.NONE


def describe_end(result: WholeResult) -> str:
    """Describes why a slice's proposal ends before it is tested; empty if it is tested."""
    return {
        WholeResult.PASSED: "the whole route passed, so its slices are not tested alone",
        WholeResult.NONE: "the whole route's comparison ended without a measured verdict",
    }.get(result, "")


def _list_others(tx: Transaction, proposal: Proposal) -> list[Proposal]:
    terms = proposal.slice_terms
    if terms is None:
        return []
    slices = Proposals(tx).of_slices([proposal.candidate], [terms.proposal])
    return [other for other in slices if other.id != proposal.id]


def list_passed(tx: Transaction, proposal: Proposal) -> tuple[str, ...]:
    """Lists the other slices' proposals that passed and went on; empty for a whole route."""
    passed = (other.id for other in _list_others(tx, proposal) if other.phase in _WENT_ON)
    return tuple(sorted(passed))


def may_level_rise(
    tx: Transaction, proposal: Proposal, decide: Callable[[Proposal], Verdict | None]
) -> bool:
    """Tells whether another slice may still pass, so that this slice's level may rise.

    Args:
        decide: the gate's present verdict on another slice; None while it needs more answers.
    """
    return any(_may_pass(other, decide) for other in _list_others(tx, proposal))


def _may_pass(proposal: Proposal, decide: Callable[[Proposal], Verdict | None]) -> bool:
    if proposal.phase not in _IN_EVALS:
        return False
    if proposal.phase is ProposalPhase.PROPOSED or proposal.retry_at is not None:
        return True
    verdict = decide(proposal)
    return verdict is None or isinstance(verdict, Passed)


def find_whole_answers(
    ctx: ProposalsContext, tx: Transaction, plan: SuitePlan
) -> tuple[Sequence[Sample], Sequence[Sample]] | None:
    """Returns the answers of the whole route's runs to a slice's items, of incumbent and
    candidate, with their places in the slice's order.

    Both proposals were registered before these answers. Returns None for a suite that is not
    split, and if the incumbent's scores are means of several days.
    """
    terms = plan.slice_terms
    suite = whole_suite(plan.suite)
    if terms is None or suite == plan.suite:
        return None
    whole = Proposals(tx).get(terms.proposal).runs.get(suite)
    if whole is None or whole.days is not None:
        return None
    order = ctx.suites.groups(plan.suite).order(plan.order_seed)
    places = {item: place for place, item in enumerate(order[: plan.planned_items])}
    incumbent, candidate = (
        [
            replace(sample, position=places[sample.item])
            for sample in EvalRuns(tx).samples(run)
            if sample.item in places
        ]
        for run in (whole.incumbent, whole.candidate)
    )
    return incumbent, candidate


def find_level_faults(tx: Transaction, proposal: Proposal, verdict: Verdict) -> list[str]:
    """Describes the other slices on which a verdict's level rests, but which did not pass."""
    faults = []
    known = {other.id: other for other in _list_others(tx, proposal)}
    for name in read_passed_slices(verdict.inputs):
        other = known.get(name)
        try:
            proof = Verdicts(tx).get(other.verdict or "") if other else None
        except (NotFound, SignatureInvalid):
            proof = None
        if not isinstance(proof, Passed):
            faults.append(f"its level rests on slice {name}, which did not pass")
    return faults


def link_route(ctx: ProposalsContext, tx: Transaction, proposal: Proposal) -> str:
    """Sends a slice's requests to its own route, which still has the incumbent.

    Slices whose predicates come before are linked too: otherwise their requests could reach
    this slice's route, whose proof does not cover them. Returns why the route no longer fits
    the registered terms, and changes nothing; empty if it is linked.
    """
    terms = proposal.slice_terms
    assert terms is not None  # noqa: S101 - the caller asks for a slice alone
    route = routes.require_route(tx, terms.whole)
    others = {
        other.slice_terms.predicate: other.route
        for other in _list_others(tx, proposal)
        if other.slice_terms is not None
    }
    links = {name: others[name] for name in terms.after if name in others}
    links[terms.predicate] = proposal.route
    present = route.settings.overrides
    place = place_predicate(terms.predicate)
    new = [
        name for name in present if place_predicate(name) < place and name not in terms.after
    ]
    moved = [name for name, other in links.items() if present.get(name, other) != other]
    gone = [name for name in terms.after if name not in others and name not in present]
    if changed := sorted({*new, *moved, *gone}):
        return (
            f"the overrides of route {route.name} changed since the proposal "
            f"({', '.join(changed)}): propose again"
        )
    settings = replace(route.settings, overrides={**present, **links})
    if settings != route.settings:
        routes.commit(
            tx,
            SYSTEM,
            ChangeSettings(route.name, settings),
            route.version,
            f"slice {terms.name} passed alone ({proposal.id})",
            action="route.settings",
        )
        routes.check_overrides(ctx, tx, route.name)
    return ""
