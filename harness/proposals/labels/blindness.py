"""Decides what is hidden until people have labelled: the evidence of a judge's suites, if the
policy asks for people's verdict.

A person who has seen a judge's scores or a model's answers labels differently. So one rule
hides them from everybody, on every page, command and API: from the first score until people's
verdict or the proposal's end. Scores, means, answers and previews of a verdict are hidden, and
so are the figures and the verdict of a shadow of the same model on the same route.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.evals.settings import whole_suite
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.records.transaction import Transaction
from harness.gate.policy import TrafficProof
from harness.gate.run import EvalRun, Sample
from harness.gate.suite_plan import (
    SAME_ITEMS_SHARE,
    SuitePin,
    SuitePlan,
    SuiteRole,
    overlap_share,
)
from harness.proposals.labels.label_progress import load_state
from harness.proposals.labels.records import Labellings
from harness.proposals.registration import look_counts
from harness.providers.records import Targets
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import Suites

HIDDEN: Final = "hidden"  # the value of `rule` in a hidden sample


def describe_label_command(proposal: Proposal) -> str:
    """Describes the command that labels the proposal's pairs, as code. A route may have several
    candidates to label; then the command names the proposal.
    """
    name = proposal.id if proposal.selection else proposal.route
    return f"`swapproof label {name}`"


def describe_hidden(proposal: Proposal) -> str:
    """Describes why evidence is hidden, and the command that ends this."""
    return f"hidden until people have labelled: {describe_label_command(proposal)}"


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
    """Finds the suites of an open proposal whose evidence is hidden: all about which people
    decide, until they have ended their labels of the last one, because the answers to one suite
    show how a model writes. A forged label ends nothing.
    """
    suites = list_labelled_suites(proposal)
    if not suites or not proposal.open:
        return frozenset()
    ended = tx.once(("labelled suites", proposal.id), lambda: _find_ended(tx, proposal.id))
    return frozenset() if suites <= ended else suites


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
class _BlindSuite:
    """A suite whose evidence is hidden, with its open proposal."""

    proposal: Proposal
    targets: frozenset[str]  # of both arms' models
    suite: str
    pin: SuitePin | None  # of the suite; None if it is unknown

    def hides(self, tx: Transaction, target: str, suite: str, suite_digest: str) -> bool:
        """Tells whether a target's run of a suite has the same answers: of the same model, to
        the suite itself, to its slice or whole suite, or to the same items in another suite.
        """
        if target not in self.targets:
            return False
        if suite != self.suite and whole_suite(suite) == whole_suite(self.suite):
            return True
        pin = _find_pin(tx, suite_digest)
        return pin is not None and self.pin is not None and _share_items(pin, self.pin)


def _find_pin(tx: Transaction, suite_digest: str) -> SuitePin | None:
    try:
        return Suites(tx).get(suite_digest)
    except NotFound:
        return None


def _share_items(one: SuitePin, other: SuitePin) -> bool:
    is_same = one.data_sha256 == other.data_sha256
    return is_same or overlap_share(one.texts, other.texts) >= SAME_ITEMS_SHARE


def _list_blind(tx: Transaction) -> Sequence[_BlindSuite]:
    return tx.once(
        ("blind suites",),
        lambda: [
            _describe_blind(tx, proposal, plan)
            for proposal in Proposals(tx).open()
            for blind in [find_blind_suites(tx, proposal)]
            for plan in proposal.plans
            if plan.suite in blind
        ],
    )


def _describe_blind(tx: Transaction, proposal: Proposal, plan: SuitePlan) -> _BlindSuite:
    targets = Targets(tx).all()
    models = {
        relative
        for arm in (proposal.incumbent, proposal.candidate)
        for relative in look_counts.find_lineage(tx, targets[arm], None)
    }
    return _BlindSuite(
        proposal,
        frozenset(models),
        plan.suite,
        _find_pin(tx, plan.suite_digest),
    )


def find_why_hidden(tx: Transaction, run: EvalRun) -> str:
    """Returns why a run's scores and answers are hidden; empty if they are shown. Earlier
    attempts and runs by hand are hidden too, because they have the same answers.
    """
    for blind in _list_blind(tx):
        if blind.hides(tx, run.target, run.suite, run.suite_digest):
            return describe_hidden(blind.proposal)
    return ""


def find_why_shadow_hidden(tx: Transaction, route: str, candidate: str) -> str:
    """Returns why the figures and the verdict of a shadow are hidden; empty if they are shown.

    A shadow has other requests, but it shows how the candidate writes, and which model the
    judge prefers.

    Args:
        candidate: its id.
    """
    for blind in _list_blind(tx):
        if blind.proposal.route == route and candidate in blind.targets:
            return describe_hidden(blind.proposal)
    return ""


def hide_evidence(tx: Transaction, proposal: Proposal) -> tuple[Proposal, str]:
    """Returns a proposal as pages may show it, and why a part is hidden (else empty): without
    the runs of hidden suites, and without a verdict on its own hidden suites.
    """
    why = ""
    runs = dict(proposal.runs)
    for plan in proposal.plans:
        for blind in _list_blind(tx):
            if any(
                blind.hides(tx, target, plan.suite, plan.suite_digest)
                for target in (proposal.incumbent, proposal.candidate)
            ):
                why = describe_hidden(blind.proposal)
                runs.pop(plan.suite, None)
    if not why:
        return proposal, ""
    if find_blind_suites(tx, proposal):
        return replace(proposal, runs=runs, verdict=None), describe_hidden(proposal)
    return replace(proposal, runs=runs), why


def hide_sample(sample: Sample, why: str) -> Sample:
    """Returns a sample without answer, score, tokens, cost and time: each of them could tell a
    labeller which model gave an answer.
    """
    return Sample(
        run=sample.run,
        item=sample.item,
        epoch=sample.epoch,
        position=sample.position,
        answer=why,
        strict=None,
        lenient=None,
        input_tokens=0,
        output_tokens=0,
        cost_usd=None,
        duration_s=0.0,
        rule=HIDDEN,
    )
