"""Finds how the proposals of a whole route and of its slices stand to one another, while
`harness.proposals.driver` drives them (docs/explanation/statistics.md §1.22).

The whole route is tested first. Its slices begin only after a verdict that does not pass. A
slice's level rises by Holm's rule with each other slice that has passed.
"""

from dataclasses import replace
from enum import StrEnum

from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.gate.offline.verdicts import read_passed_slices
from harness.gate.suite_plan import SliceTerms
from harness.gate.verdict import Passed, Verdict
from harness.proposals import evaluation
from harness.proposals.context import ProposalsContext
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
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


def may_level_rise(ctx: ProposalsContext, proposal: Proposal) -> bool:
    """Tells whether another slice may still pass, so that this slice's level may rise."""
    with ctx.store.read() as tx:
        return any(_may_pass(ctx, tx, other) for other in _list_others(tx, proposal))


def _may_pass(ctx: ProposalsContext, tx: Transaction, proposal: Proposal) -> bool:
    if proposal.phase not in _IN_EVALS:
        return False
    if proposal.phase is ProposalPhase.PROPOSED or proposal.retry_at is not None:
        return True
    now = ctx.clock.now()
    runs = evaluation.load_runs(tx, proposal)
    answers = evaluation.load_answers(tx, proposal)
    verdict = evaluation.decide_verdict(
        proposal,
        evaluation.drop_unreadable(ctx, proposal, runs, answers),
        evaluation.list_stuck_runs(proposal, runs, now),
        now,
        passed_slices=list_passed(tx, proposal),
    )
    return verdict is None or isinstance(verdict, Passed)


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
