"""Records the inputs of each action on a canary, and decides the action again.

`decision_inputs` and `decision_evidence` return the audit event's details: time, state,
figures, hashes of policy and blocks. `replay_action` decides an event's action again from the
stored blocks, and lists the differences. `RolloutUnit` is one rollout within one transaction.

This module reads rollouts and blocks, and changes neither. `harness.canary.machine` writes the
events; `harness.gate.online.rollout_action` is the decision that is repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from harness.frame.errors import InputError, NotFound, SwapgateError
from harness.frame.people.access import SYSTEM
from harness.frame.plain_data import (
    canonical_json,
    digest,
    hash_content,
    to_shown,
)
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.proposals.context import ProposalsContext
from harness.routing.proposal import Proposal
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing


@dataclass(frozen=True, slots=True)
class RolloutUnit:
    """One rollout with the transaction in which it is judged or moved.

    Invariant: `tx` is open. `rollout` may be older than the stored row; a writer compares the
    versions before it saves (`operations.apply_action`).
    """

    ctx: ProposalsContext
    tx: Transaction
    rollout: Rollout  # read in this transaction or an earlier one

    @property
    def proposal(self) -> Proposal:
        """Reads the rollout's proposal in this transaction. Raises NotFound."""
        return Proposals(self.tx).get(self.rollout.proposal)

    @property
    def is_in_place(self) -> bool:
        """Tells whether the route still has this rollout's canary or bake."""
        route = Routing(self.tx).route(self.rollout.route)
        rollout = self.rollout
        if route is None:
            return False
        if rollout.baking:
            return route.holdback is not None and route.holdback.rollout == rollout.id
        canary = route.canary
        is_ours = canary is not None and canary.rollout == rollout.id
        return is_ours and route.incumbent == rollout.incumbent


# Signals that only the evidence causes; people or the proof cause the other signals.
_OF_EVIDENCE: Final = frozenset(
    {
        RolloutSignal.ENOUGH,
        RolloutSignal.STEP_DONE,
        RolloutSignal.HARM,
        RolloutSignal.SILENT,
        RolloutSignal.UNDECIDED,
        RolloutSignal.BAKED,
    }
)

PROMOTED: Final = "canary.promote"


@dataclass(frozen=True, slots=True)
class ReplayedAction:
    """The result of deciding a recorded action a second time.

    `differences` is empty if the second decision equals the first and its inputs are unchanged.
    `again_sha256` is empty if the second decision raised an error.
    """

    event: AuditEvent
    rollout: str
    blocks: int  # number of blocks behind the decision
    differences: tuple[str, ...]  # one text for each difference
    again_sha256: str = ""  # hash of the whole decision, in canonical form
    # The decision; None if it cannot be repeated.
    decided: RolloutAction | None = None

    @property
    def stored_sha256(self) -> str:
        """The hash of the decision at the time of the event, hexadecimal."""
        return str(self.event.details["decided_sha256"])

    @property
    def agrees(self) -> bool:
        """Tells whether neither the inputs nor the decision differ."""
        return not self.differences

    def decide_again(self, what: str, decide: Callable[[], RolloutAction]) -> "ReplayedAction":
        """Calls `decide`, and compares the hash of its result with the stored hash.

        what: subject and verb of the difference's text, such as `the stored blocks give`. An
        error of `decide` becomes a difference, because an unreadable input must not look like
        agreement.
        """
        try:
            decided = decide()
            again = digest(to_shown(decided))
        except (SwapgateError, ValueError) as error:
            return replace(self, differences=(*self.differences, str(error)))
        same = again == self.stored_sha256
        changed = () if same else (f"{what} a decision that differs from the stored one",)
        differences = (*self.differences, *changed)
        return replace(
            self,
            differences=differences,
            again_sha256=again,
            decided=decided,
        )


def load_event(tx: Transaction, number: int) -> AuditEvent:
    """Loads an audit event by its number. Raises NotFound."""
    event = AuditLog(tx).find(number)
    if event is None:
        raise NotFound(
            f"the audit log has no event {number}; `swapgate audit tail` lists events"
        )
    return event


def list_breaks(tx: Transaction, number: int) -> list[str]:
    """Lists a break of the audit log at or before event `number`.

    A break after the event is left out, because it does not touch the event.
    """
    broken = AuditLog(tx).first_break()
    is_broken = broken is not None and broken <= number
    return [f"the audit log is broken at event {broken}"] if is_broken else []


def decision_inputs(unit: RolloutUnit, action: RolloutAction | None) -> dict[str, object]:
    """Gathers the inputs that the audit log needs to repeat and check a decision.

    unit: contains the rollout before the action. action: the decision; None for a person's
    action, which records the evidence at this moment. Never raises, because an error must not
    block the end of a canary.
    """
    rollout = unit.rollout
    try:
        at = unit.ctx.clock.now() if action is None else action.figures.at
        blocks = Observations(unit.tx).blocks(rollout.id)
        last = max((block.number for block in blocks), default=0)
        used = _until(blocks, last if action is None else action.figures.last_block)
        again = decide_action(rollout, used, at)
    except (
        SwapgateError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
    ) as error:
        return {"inputs_unreadable": str(error)}
    return {
        "inputs": {
            "at": at.isoformat(),
            "state": rollout.state.value,
            "step": rollout.step,
            "step_started_at": rollout.step_started_at.isoformat(),
            "bake_ends_at": rollout.bake_ends_at.isoformat() if rollout.bake_ends_at else None,
            "version": rollout.version,
            **({"acknowledged": rollout.acknowledged} if rollout.acknowledged else {}),
            "blocks": len(used),
            "last_block": max((block.number for block in used), default=0),
            "blocks_sha256": _blocks_sha256(used),
            "policy_sha256": digest(to_shown(rollout.policy)),
        },
        "decided_sha256": digest(to_shown(again)),
    }


def decision_evidence(unit: RolloutUnit, action: RolloutAction | None) -> dict[str, object]:
    """Adds the decision's figures to its inputs, as JSON values for the audit event.

    action: None for a person's action; then only the inputs are returned. `log_e` and
    `log_certificate` are natural logarithms of e-values.
    """
    inputs = decision_inputs(unit, action)
    if action is None:
        return inputs
    return {
        "log_e": action.log_e,
        "exposures": action.exposures,
        "log_certificate": action.log_certificate,
        **action.figures.as_json(),
        **inputs,
    }


def replay_action(ctx: ProposalsContext, number: int) -> ReplayedAction:
    """Decides an action on a canary again, from the stored blocks.

    number: of its audit event. Raises NotFound, InputError for an event without inputs.
    """
    with ctx.store.read() as tx:
        event = load_event(tx, number)
        inputs = event.details.get("inputs")
        if not event.action.startswith("canary.") or not isinstance(inputs, Mapping):
            raise InputError(
                f"event {number} ({event.action}) has no inputs of a canary's decision; "
                "`swapgate canary explain ROUTE` lists events with inputs"
            )
        differences = list_breaks(tx, number)
        rollout = Rollouts(tx).get(str(event.details["rollout"]))
        stored = Observations(tx).blocks(rollout.id)
    blocks = _until(stored, int(inputs["last_block"]))
    differences += _input_differences(inputs, rollout, blocks)
    again = ReplayedAction(event, rollout.id, len(blocks), tuple(differences)).decide_again(
        "the stored blocks give",
        lambda: decide_action(_rollout_before(rollout, inputs), blocks, _time(inputs["at"])),
    )
    if not isinstance(again.decided, RolloutAction):
        return again
    unasked = _unasked_move(event, again.decided)
    return replace(again, differences=(*again.differences, *unasked))


def _input_differences(
    inputs: Mapping[str, Any],
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
) -> list[str]:
    """Compares the stored blocks and policy with the counts and hashes in the event."""
    found = []
    if len(blocks) != inputs["blocks"]:
        found.append(f"{inputs['blocks']} blocks were used, but {len(blocks)} are stored")
    elif _blocks_sha256(blocks) != inputs["blocks_sha256"]:
        found.append("the stored blocks differ from the blocks used")
    if digest(to_shown(rollout.policy)) != inputs["policy_sha256"]:
        found.append("the rollout's stored policy differs from the policy used")
    return found


def _unasked_move(event: AuditEvent, decided: RolloutAction) -> list[str]:
    """Reports an action of the system that its evidence did not ask for."""
    if "local_abort" in event.details:
        # A router's own guard acted on requests before these blocks were complete.
        return []
    actual = event.action.removeprefix("canary.")
    signal = RolloutSignal.PROVEN.value if event.action == PROMOTED else actual
    evident = {signal.value for signal in _OF_EVIDENCE} | {RolloutSignal.PROVEN.value}
    required = decided.signal.value if decided.signal else "none"
    if event.actor != SYSTEM.name or signal not in evident or signal == required:
        return []
    return [f"the action was {actual}, but the evidence asks for {required}"]


def _rollout_before(rollout: Rollout, inputs: Mapping[str, Any]) -> Rollout:
    """Restores the fields that a move changes, as the decision saw them."""
    ends = inputs["bake_ends_at"]
    return replace(
        rollout,
        state=RolloutState(inputs["state"]),
        step=int(inputs["step"]),
        step_started_at=_time(inputs["step_started_at"]),
        bake_ends_at=_time(ends) if ends else None,
        version=int(inputs["version"]),
        acknowledged=tuple(inputs.get("acknowledged", ())) or None,
    )


def _until(blocks: Sequence[ObservationBlock], last: int) -> Sequence[ObservationBlock]:
    """Leaves out blocks that arrived after the decision."""
    return [block for block in blocks if block.number <= last]


def _blocks_sha256(blocks: Sequence[ObservationBlock]) -> str:
    """Hashes blocks in order of number, because the database returns them in any order."""
    ordered = sorted(blocks, key=lambda block: block.number)
    return hash_content("".join(canonical_json(to_shown(block)) for block in ordered))


def _time(text: object) -> datetime:
    return datetime.fromisoformat(str(text))
