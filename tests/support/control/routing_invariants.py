"""Asserts the invariants of stored routing tables and proposals."""

from collections.abc import Sequence
from itertools import count, pairwise

from harness.frame.records.transaction import Transaction
from harness.gate.verdict import Passed
from harness.routing.evidence import EvidenceKind
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.evidence import Waivers
from harness.routing.records.rollouts import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Route, RouteRecord

PROVEN = (
    ProposalPhase.AWAITING_APPROVAL,
    ProposalPhase.CANARY,
    ProposalPhase.PROMOTED,
    ProposalPhase.ROLLED_BACK,
)
LEGAL = {
    "baseline": (),
    "canary": ("baseline", "promotion", "abort", "restore"),
    "weight": ("canary", "weight"),
    "promotion": ("canary", "weight"),
    "abort": ("canary", "weight"),
    "restore": ("baseline", "promotion", "abort", "restore", "canary", "weight"),
}


def check_revisions(tx: Transaction, names: Sequence[str]) -> None:
    every = [record.revision for name in names for record in Routing(tx).history(name)]
    assert sorted(every) == list(range(1, len(every) + 1))
    assert Routing(tx).table().revision == len(every)


def check_history(tx: Transaction, name: str) -> None:
    """Each version follows from the one before; nothing is promoted without its proof."""
    history = Routing(tx).history(name)[::-1]
    assert [record.route.version for record in history] == list(range(1, len(history) + 1))
    assert [record.revision for record in history] == sorted({r.revision for r in history})
    for before, after in pairwise(history):
        check_change(tx, before, after)
    # A chain may change at any time, and changes nothing else.
    for before, after in pairwise([record for record in history if record.kind != "settings"]):
        assert before.kind in LEGAL[after.kind], (before.kind, after.kind)
    check_evidence(tx, history[-1].route)


def check_evidence(tx: Transaction, route: Route) -> None:
    """Every target in every role has evidence of its own, of a kind that the role takes."""
    found = Routing(tx).evidence(route.name)
    assert found is not None
    canary_ = route.canary.target if route.canary else None
    assert found.incumbent.target == route.incumbent
    assert (found.canary.target if found.canary else None) == canary_
    assert tuple(fallback.target for fallback in found.fallbacks) == route.fallbacks
    assert found.canary is None or found.canary.kind is EvidenceKind.VERDICT
    assert found.incumbent.kind is not EvidenceKind.WAIVER
    stored = {waiver.id: waiver.target for waiver in Waivers(tx).list(route=route.name)}
    for fallback in found.fallbacks:
        if fallback.kind is EvidenceKind.WAIVER:
            assert stored[fallback.proof] == fallback.target


def check_change(tx: Transaction, before: RouteRecord, after: RouteRecord) -> None:
    old, new = before.route.canary, after.route.canary
    if after.kind in ("canary", "promotion"):
        proof = Verdicts(tx).get(after.verdict or "")
        assert isinstance(proof, Passed)
        assert (proof.route, proof.incumbent) == (after.route.name, before.route.incumbent)
        arrived = new.target if new else after.route.incumbent
        assert arrived == proof.candidate
    else:
        assert after.verdict is None
    if after.kind == "weight":
        assert old is not None
        assert new is not None
        assert (new.rollout, new.salt, new.target) == (old.rollout, old.salt, old.target)
        assert new.weight_bps > old.weight_bps
    if after.kind not in ("promotion", "restore"):
        assert after.route.incumbent == before.route.incumbent
    if after.kind == "settings":
        assert new == old
    else:
        assert after.route.fallbacks == before.route.fallbacks
    if after.kind not in ("canary", "weight", "settings"):
        assert new is None


def check_canary(tx: Transaction, route: Route, proposals: Sequence[Proposal]) -> None:
    """One rollout, one open proposal or selection; the table shows the rollout's step and
    nothing else.
    """
    opened = [proposal for proposal in proposals if proposal.open]
    assert len({proposal.selection or proposal.id for proposal in opened}) <= 1
    live = [rollout for rollout in Rollouts(tx).live() if rollout.route == route.name]
    in_canary = [
        proposal.rollout for proposal in opened if proposal.phase is ProposalPhase.CANARY
    ]
    assert [proposal.id for proposal in live] == in_canary
    if route.canary is not None:
        assert [proposal.id for proposal in live] == [route.canary.rollout]
        assert route.canary.weight_bps == live[0].current.weight_bps
        assert route.canary.target == live[0].candidate
    elif live:
        # Taken away by hand: the loop's next turn ends the rollout.
        kinds = (record.kind for record in Routing(tx).history(route.name))
        assert next(kind for kind in kinds if kind != "settings") == "restore"


def check_verdicts(tx: Transaction, proposal: Proposal) -> None:
    outcomes = [verdict.outcome for verdict in Verdicts(tx).for_proposal(proposal.id)]
    decided = [outcome for outcome in outcomes if outcome != "infra_error"]
    assert len(decided) <= 1
    gate = proposal.policy.gate
    attempts = next(n for n in count(1) if not gate.infra_pause_s(n))
    assert len(outcomes) - len(decided) <= attempts
    if proposal.phase in PROVEN:
        assert decided == ["passed"]
    if proposal.approver is not None:
        assert proposal.approver != proposal.proposer
