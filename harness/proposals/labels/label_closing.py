"""Closes a labelling that cannot end, because a person has left or the texts were deleted.

Missing labels count against the candidate, so a closed labelling passes no proposal: it ends
its proposal.
"""

from typing import Final

from harness.frame.errors import Conflict
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.proposals import decisions
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.blindness import list_labelled_suites
from harness.proposals.labels.label_progress import LabelProgress, build_progress, load_state
from harness.proposals.labels.records import Labellings
from harness.routing.proposal import ProposalEvent
from harness.routing.records.proposals import Proposals

CLOSED: Final = "labelling.close"  # the audit event


def close_labelling(
    ctx: ProposalsContext,
    actor: Actor,
    labelling: str,
    reason: str,
) -> LabelProgress:
    """Closes a labelling before its labels suffice, and ends its proposal. Needs an approver.

    Raises NotFound, and Conflict for a labelling that has ended, or whose labels decide
    nothing.
    """
    actor.require(Role.APPROVER)
    with ctx.store.write() as tx:
        tx.serialize()
        state = load_state(tx, Labellings(tx).get(labelling))
        proposal = Proposals(tx).get(state.labelling.proposal)
        progress = build_progress(tx, state)
        if progress.ended or progress.closed:
            raise Conflict(f"{labelling} has ended: {progress.verdict or progress.closed}")
        if state.labelling.suite not in list_labelled_suites(proposal):
            raise Conflict(f"the labels of {labelling} decide nothing: {proposal.id} goes on")
        AuditLog(tx).append(
            actor,
            CLOSED,
            labelling,
            {
                "proposal": proposal.id,
                "suite": progress.suite,
                "given": progress.given,
                "missing": progress.missing,
                "reason": reason,
            },
        )
        why = (
            f"{actor.name} closed its labelling after {progress.labels} labels, and missing "
            f"labels count against the candidate: {reason}"
        )
        decisions.end_in_transaction(ctx, tx, actor, proposal, ProposalEvent.CANCELLED, why)
        return build_progress(tx, state)
