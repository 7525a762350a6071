"""Counts the looks that a model has had at a suite's items.

docs/explanation/statistics.md §1.8 has the rule. This module never reads a score's value. It
only checks whether a score exists, because a proposal with a score counts as a look.
"""

from collections.abc import Collection, Iterator, Sequence

from harness.frame.errors import NotFound
from harness.frame.records.transaction import Transaction
from harness.gate.run import EvalRun
from harness.gate.suite_plan import (
    SAME_ITEMS_SHARE,
    SuitePin,
    SuitePlan,
    overlap_share,
)
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


def find_lineage(
    tx: Transaction,
    candidate: Target | None,
    descends_from: str | None,
) -> frozenset[str]:
    """Returns the ids of all targets that are the same model as the candidate or its ancestor.

    Two targets are the same model if one host serves them under one name, requested or
    reported. The id alone would not suffice: a renamed model would then start without looks.

    Args:
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

    Args:
        route: of the comparison.
        until: a proposal; later looks do not count.
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
