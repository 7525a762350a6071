"""Records in its audit event what a move of the shadow before a canary was decided from, and
decides it again (`replay_stage`). Routers go on adding to the stored figures: less than in the
event shows tampering.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from harness.control.canary.audit import ReplayedAction, list_breaks, load_event
from harness.control.context import Context
from harness.control.serialize import to_plain
from harness.control.shadow import shadows
from harness.domain.content_hash import digest
from harness.domain.errors import InputError
from harness.domain.operations.access import SYSTEM
from harness.domain.plain_data import from_plain
from harness.domain.proposals.policy import ShadowStagePolicy
from harness.domain.proposals.proposal import Proposal, ProposalEvent
from harness.gate.shadow_stage import (
    ShadowMove,
    ShadowStageDecision,
    ShadowStageState,
    decide_shadow_stage,
)
from harness.store.transaction import Transaction

KEY: Final = "shadow_inputs"
# What each event says was decided.
_DONE: Final = {
    "shadow.start": ShadowMove.START,
    "shadow.stop": ShadowMove.HOLD,
    f"proposal.{ProposalEvent.SHADOWED.value}": ShadowMove.OPEN,
    f"proposal.{ProposalEvent.HARM.value}": ShadowMove.REJECT,
}


def decision_inputs(
    policy: ShadowStagePolicy,
    state: ShadowStageState,
    decided: ShadowStageDecision,
    at: datetime,
) -> dict[str, object]:
    """Gathers what the audit log needs to decide again to the same bytes."""
    return {
        KEY: {
            "at": at.isoformat(),
            "seen": to_plain(state),
            "policy_sha256": digest(to_plain(policy)),
        },
        "decided_sha256": digest(to_plain(decided)),
    }


def has_inputs(ctx: Context, number: int) -> bool:
    """Whether the audit event is a decision on a shadow before a canary. Raises NotFound."""
    with ctx.store.read() as tx:
        return KEY in load_event(tx, number).details


def replay_stage(ctx: Context, number: int) -> ReplayedAction:
    """Decides again, from what an audit event keeps. Raises NotFound, InputError for one
    without inputs.
    """
    with ctx.store.read() as tx:
        event = load_event(tx, number)
        inputs = event.details.get(KEY)
        if not isinstance(inputs, Mapping):
            raise InputError(f"event {number} ({event.action}) keeps no inputs of a shadow")
        named = event.details.get("proposal") or event.subject.removeprefix("proposal ")
        proposal = tx.proposals.get(str(named))
        state = from_plain(ShadowStageState, inputs["seen"])
        differences = [*list_breaks(tx, number), *_fewer(ctx, tx, proposal, state)]
    policy = proposal.policy.canary.shadow
    if policy is None or digest(to_plain(policy)) != inputs["policy_sha256"]:
        differences.append("the proposal's stored policy is not the one that it was decided by")
    again = ReplayedAction(event, proposal.id, state.pairs, tuple(differences))
    if policy is None:
        return again
    again = again.decide_again(
        "what was seen gives", lambda: decide_shadow_stage(policy, state)
    )
    wanted, decided = _DONE.get(event.action), again.decided
    is_ours = event.actor == SYSTEM.name
    if is_ours and isinstance(decided, ShadowStageDecision) and decided.move is not wanted:
        did = wanted.value if wanted else event.action
        asked = f"what was done is {did}, and what was seen asks for {decided.move.value}"
        again = replace(again, differences=(*again.differences, asked))
    return again


def _fewer(
    ctx: Context, tx: Transaction, proposal: Proposal, used: ShadowStageState
) -> list[str]:
    """Where less is stored than was seen: routers only ever add."""
    records = shadows.list_of_proposal(tx, proposal)
    if not records:
        return (
            [f"{used.pairs:,} pairs were seen, and no shadow is stored"] if used.pairs else []
        )
    rows = tx.shadows.tallies([record.shadow.id for record in records])
    status = shadows.build_status(records[0], rows, ctx.clock.now())
    found = []
    if status.pairs < used.pairs:
        found.append(f"{used.pairs:,} pairs were seen, and {status.pairs:,} are stored")
    checks = {check.check: check for check in status.checks}
    for name, (lost, won) in (used.lost_won or {}).items():
        pair = checks.get(name)
        if pair is None or pair.lost < lost or pair.won < won:
            found.append(f"of the check {name} fewer pairs are stored than were seen")
    return found
