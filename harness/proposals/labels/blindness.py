"""Decides what is hidden until people have labelled: the evidence of a judge's suites, if the
policy asks for people's verdict.

A person who has seen a judge's scores or a model's answers labels differently. So one rule
hides them from everybody, on every page, command and API: from the first score until people's
verdict or the proposal's end. Scores, means, answers and previews of a verdict are hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.evals.settings import whole_suite
from harness.frame.errors import SignatureInvalid
from harness.frame.records.transaction import Transaction
from harness.gate.policy import TrafficProof
from harness.gate.run import EvalRun
from harness.gate.suite_plan import SuiteRole
from harness.proposals.labels.label_progress import load_state
from harness.proposals.labels.records import Labellings
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals

HIDDEN: Final = "hidden"


def describe_hidden(route: str) -> str:
    """Describes why evidence is hidden, and the command that ends this."""
    return f"hidden until people have labelled: `swapgate label {route}`"


def list_labelled_suites(proposal: Proposal) -> frozenset[str]:
    """Lists the suites about which people decide: those that a judge scores, except guards."""
    if proposal.policy.proof is not TrafficProof.PEOPLE:
        return frozenset()
    return frozenset(
        plan.suite
        for plan in proposal.plans
        if plan.judged_by and plan.role is not SuiteRole.GUARD
    )


def find_blind_suites(tx: Transaction, proposal: Proposal) -> frozenset[str]:
    """Finds the suites of an open proposal whose evidence is hidden: people decide about them,
    and have not ended their labels. A forged label ends nothing.
    """
    suites = list_labelled_suites(proposal)
    if not suites or not proposal.open:
        return frozenset()
    return suites - tx.once(
        ("labelled suites", proposal.id), lambda: _find_ended(tx, proposal.id)
    )


def _find_ended(tx: Transaction, proposal: str) -> frozenset[str]:
    try:
        return frozenset(
            labelling.suite
            for labelling in Labellings(tx).of_proposal(proposal)
            if load_state(tx, labelling).evidence.is_decided
        )
    except SignatureInvalid:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Blindness:
    """The hidden runs: routes by target and suite. It covers both arms, earlier attempts and
    runs by hand, because they have the same answers.
    """

    routes: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def why(self, target: str, suite: str) -> str:
        """Returns why a target's scores and answers of a suite are hidden; empty if they are
        shown.
        """
        route = self.routes.get((target, whole_suite(suite)))
        return "" if route is None else describe_hidden(route)

    def why_run(self, run: EvalRun) -> str:
        return self.why(run.target, run.suite)


def load_blindness(tx: Transaction) -> Blindness:
    """Loads which runs are hidden now, because of all open proposals."""
    return tx.once(("blindness",), lambda: _load_blindness(tx))


def _load_blindness(tx: Transaction) -> Blindness:
    return Blindness(
        {
            (target, whole_suite(suite)): proposal.route
            for proposal in Proposals(tx).open()
            for suite in find_blind_suites(tx, proposal)
            for target in (proposal.incumbent, proposal.candidate)
        }
    )
