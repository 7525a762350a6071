"""Rows that somebody wrote around Swapgate, and what must not be decided by them (A4)."""

from collections.abc import Collection
from typing import Final

from harness.control.context import Context
from harness.domain.alerts import AlertKind
from harness.domain.errors import ProofRefused
from harness.domain.proposal import Phase, Proposal
from harness.ports import Transaction

# A canary goes on: its evidence is recomputed at each step, and harm must end it.
HELD: Final = frozenset(
    {Phase.PROPOSED, Phase.EVALUATING, Phase.AWAITING_APPROVAL, Phase.SHADOW}
)
MOST: Final = 1_000


def told(tx: Transaction) -> set[str]:
    """`TABLE:KEY` of each row that an open alert names."""
    kind = AlertKind.STATE_UNRECORDED
    found = tx.alerts.list(open_only=True, kind=kind, limit=MOST)
    return {each.key.partition(":")[2] for each in found}


def unrecorded(ctx: Context, tx: Transaction) -> set[str]:
    """As well those that this process found itself: alerts are rows that nobody signs."""
    return told(tx) | ctx.audit_walk.unrecorded


def check(proposal: Proposal, rows: Collection[str] | None, broken: int | None = None) -> None:
    """Raises ProofRefused where one of them is what `proposal` is decided by.

    rows: None where nobody knows. broken: the event from which on the audit log says nothing.
    """
    if proposal.phase not in HELD:
        return
    if broken is not None:
        raise ProofRefused(
            f"{proposal.id} is held: the audit log does not fit its chain from event {broken} "
            "on, so that nobody knows who wrote what since. `swapgate audit verify` names the "
            "event: bring the log back from a backup, then `swapgate db accept-restore`"
        )
    if rows is None:
        raise ProofRefused(f"{proposal.id} is held: the alerts in the database cannot be read")
    own = {proposal.id, proposal.verdict, proposal.rollout} - {None}
    for pair in proposal.runs.values():
        own |= {pair.incumbent, pair.candidate}
    found = next((row for row in rows if any(str(id_) in row for id_ in own)), None)
    if found is not None:
        raise ProofRefused(
            f"{proposal.id} is held: {found.replace(':', ' ', 1)} was written around Swapgate. "
            "`swapgate db check` names such rows; put back what they were, or cancel the "
            "proposal and propose again"
        )
