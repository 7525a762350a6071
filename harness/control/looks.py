"""Which look at a suite a candidate gets, and what it may cost (statistics.md 1.8)."""

from collections.abc import Collection
from dataclasses import replace

from harness.control import targets
from harness.domain.evaluation import SuitePin, SuitePlan
from harness.domain.policy import GatePolicy
from harness.domain.proposal import Proposal
from harness.gate.multiplicity import alpha_of_look
from harness.ports import Transaction


def lineage(tx: Transaction, candidate: str, descends_from: str | None) -> frozenset[str]:
    """The target ids whose looks count as the candidate's. Raises NotFound, InputError."""
    ancestor = {targets.find(tx, descends_from).id} if descends_from else set()
    return frozenset({candidate, *ancestor})


def charged(
    tx: Transaction,
    pin: SuitePin,
    plan: SuitePlan,
    gate: GatePolicy,
    family: Collection[str],
) -> SuitePlan:
    """The plan with its look and that look's alpha.

    A look counts on any route, once one answer of the candidate is scored: whoever has seen
    scores may have chosen by them. Looks begin again with items that are new or changed;
    another version, prompt or scorer does not make the same items fresh. pin: the plan's suite.
    """
    before = [
        earlier.look
        for proposal in tx.proposals.list()
        if proposal.candidate in family
        for earlier in proposal.plans
        if earlier.suite == pin.name
        and tx.suites.get(earlier.suite_digest).data_sha256 == pin.data_sha256
        and _seen(tx, proposal, earlier.suite)
    ]
    look = 1 + max(len(before), *before, 0)
    alpha = alpha_of_look(gate.alpha, look, gate.spend)
    return replace(plan, alpha=alpha, look=look, spend=gate.spend.value)


def _seen(tx: Transaction, proposal: Proposal, suite: str) -> bool:
    runs = proposal.runs.get(suite)
    return runs is not None and tx.runs.progress(runs.candidate)[0] > 0
