"""Finds proposals that depend on rows which somebody wrote around Swapgate, so that nothing is
decided by them (F1). `unrecorded_rows` lists such rows, from open alerts and from what
`state_audit` found; `reason_to_hold` says why a proposal must wait; `require_untampered` raises
ProofRefused.
"""

from typing import Final

from harness.control.context import Context
from harness.domain.errors import ProofRefused
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.ports import Transaction

# A canary is looked at all the same: harm must end it. It takes no step (`canary.holds`).
HELD: Final = frozenset(
    {
        ProposalPhase.PROPOSED,
        ProposalPhase.EVALUATING,
        ProposalPhase.AWAITING_APPROVAL,
        ProposalPhase.SHADOW,
    }
)
MAX_ALERTS: Final = 1_000


def alerted_rows(tx: Transaction) -> set[str]:
    """Lists the rows, as `TABLE:KEY`, that open alerts name."""
    kind = AlertKind.STATE_UNRECORDED
    found = tx.alerts.list(open_only=True, kind=kind, limit=MAX_ALERTS)
    return {record.key.partition(":")[2] for record in found}


def unrecorded_rows(ctx: Context, tx: Transaction) -> set[str]:
    """Lists the rows that open alerts name, and those that this process found: alerts are rows
    that nobody signs.
    """
    return alerted_rows(tx) | ctx.audit_walk.unrecorded


def reason_to_hold(ctx: Context, tx: Transaction, proposal: Proposal) -> str:
    """Why nothing may go on that `proposal` decides; empty where nothing is known.

    Of a canary, verdict and runs are not asked about: they are recomputed before each step,
    and one that does not hold any more goes back.
    """
    if ctx.audit_walk.trouble:
        return ctx.audit_walk.trouble
    own = {proposal.id, proposal.rollout} - {None}
    if proposal.phase in HELD:
        own |= {proposal.verdict} - {None}
        for pair in proposal.runs.values():
            own |= {pair.incumbent, pair.candidate}
    rows = unrecorded_rows(ctx, tx)
    row = next((row for row in sorted(rows) if any(str(id_) in row for id_ in own)), None)
    if row is None:
        return ""
    return (
        f"{row.replace(':', ' ', 1)} was written around Swapgate. `swapgate db check` names "
        "such rows; put back what they were, or end it and propose again"
    )


def require_untampered(ctx: Context, tx: Transaction, proposal: Proposal) -> None:
    """Requires that `reason_to_hold` finds nothing, unless the proposal is in its canary; else
    raises ProofRefused.
    """
    if proposal.phase in HELD and (why := reason_to_hold(ctx, tx, proposal)):
        raise ProofRefused(f"{proposal.id} is held: {why}")
