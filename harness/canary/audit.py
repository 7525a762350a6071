"""Records the inputs of each action on a canary, and decides the action again.

`decision_inputs` and `decision_evidence` return the audit event's details: time, state,
figures, hashes of policy and blocks. `replay_action` decides an event's action again from the
stored blocks, and lists the differences. `RolloutTransaction` is one rollout within one
transaction.

This module reads rollouts and blocks, and changes neither. `harness.canary.machine` writes the
events; `harness.gate.online.rollout_action` is the decision that is repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from harness.frame.errors import InputError, NotFound, SwapproofError
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
from harness.gate.online.rollout import (
    EndDecision,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.gate.policy import CanaryPolicy
from harness.proposals.context import ProposalsContext
from harness.routing.proposal import Proposal
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing


@dataclass(frozen=True, slots=True)
class RolloutTransaction:
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
_EVIDENCE_SIGNALS: Final = frozenset(
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

# Errors of blocks that cannot be read or judged.
_READING_ERRORS: Final = (SwapproofError, ValueError, TypeError, LookupError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class ReplayedAction:
    """The result of deciding a recorded action a second time.

    `differences` is empty if the second decision equals the first and its inputs are unchanged.
    `again_sha256` is empty if the second decision raised an error, and for an event of an older
    version, whose hash includes the sentence: then the stored figures are compared.
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
        """Tells whether the inputs and the decision are unchanged."""
        return not self.differences

    def decide_again(self, what: str, decide: Callable[[], RolloutAction]) -> "ReplayedAction":
        """Calls `decide`, and compares the hash of its result with the stored hash.

        Args:
            what: subject and verb of the difference's text, such as `the stored blocks give`.

        An error of `decide` is a difference, because an unreadable input must not look like
        agreement.
        """
        try:
            decided = decide()
        except (SwapproofError, ValueError) as error:
            return replace(self, differences=(*self.differences, str(error)))
        details = self.event.details
        repeated_sha256 = hash_decision(decided) if "decided" in details else ""
        is_equal = (
            repeated_sha256 == self.stored_sha256
            if repeated_sha256
            else _do_figures_agree(details, decided)
        )
        changed = () if is_equal else (f"{what} a decision that differs from the stored one",)
        differences = (*self.differences, *changed)
        return replace(
            self,
            differences=differences,
            again_sha256=repeated_sha256,
            decided=decided,
        )


def _do_figures_agree(details: Mapping[str, Any], decided: RolloutAction) -> bool:
    """Tells whether the figures in an older version's event are those of the decision.

    Such an event of a person's action has no figures, so it always agrees.
    """
    if "log_e" not in details or details.get("guard") is not None:
        return True
    figures = decided.figures.as_json()
    stored = {"log_e": decided.log_e, "exposures": decided.exposures}
    stored |= {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return all(details[name] == value for name, value in stored.items() if name in details)


def load_event(tx: Transaction, number: int) -> AuditEvent:
    """Loads an audit event by its number. Raises NotFound."""
    event = AuditLog(tx).find(number)
    if event is None:
        raise NotFound(
            f"the audit log has no event {number}; `swapproof audit tail` lists events"
        )
    return event


def list_breaks(tx: Transaction, number: int) -> list[str]:
    """Lists a break of the audit log at or before event `number`.

    Leaves out a later break, because it does not affect the event.
    """
    broken = AuditLog(tx).first_break()
    is_broken = broken is not None and broken <= number
    return [f"the audit log is broken at event {broken}"] if is_broken else []


def decision_inputs(
    transaction: RolloutTransaction, action: RolloutAction | None
) -> dict[str, object]:
    """Gathers the inputs that the audit log needs to repeat and check a decision.

    Args:
        transaction: contains the rollout before the action.
        action: the decision; None for a person's action, which records the evidence at this
            moment.

    Returns the error's text for unreadable inputs, because an error must not block the end of a
    canary.
    """
    rollout = transaction.rollout
    try:
        at = transaction.ctx.clock.now() if action is None else action.figures.at
        blocks = Observations(transaction.tx).blocks(rollout.id)
        last_number = max((block.number for block in blocks), default=0)
        used_blocks = _select_up_to(
            blocks, last_number if action is None else action.figures.last_block
        )
        repeated = decide_action(rollout, used_blocks, at)
    except _READING_ERRORS as error:
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
            "blocks": len(used_blocks),
            "last_block": max((block.number for block in used_blocks), default=0),
            "blocks_sha256": _blocks_sha256(used_blocks),
            "policy_sha256": hash_policy(rollout.policy),
        },
        "decided": list_decision_codes(repeated),
        "decided_sha256": hash_decision(repeated),
    }


def hash_policy(policy: CanaryPolicy) -> str:
    """Hashes a canary's policy. Leaves an audience out that is not set, because events that are
    older than the setting have the hash of a policy without it.
    """
    return digest(_without_unset_audience(to_shown(policy)))


def _without_unset_audience(shown: object) -> object:
    match shown:
        case Mapping():
            kept = {k: v for k, v in shown.items() if k != "audience" or v is not None}
            return {key: _without_unset_audience(value) for key, value in kept.items()}
        case list():
            return [_without_unset_audience(value) for value in shown]
        case _:
            return shown


def list_decision_codes(action: RolloutAction) -> dict[str, object]:
    """Returns a decision's codes, as JSON values for the audit event."""
    return {
        "kind": action.kind.value,
        "signal": action.signal.value if action.signal else None,
        "code": action.code.value,
        "condition": action.condition.value if action.condition else None,
    }


def hash_decision(action: RolloutAction) -> str:
    """Hashes a decision's codes and figures, without its sentences, whose words may change."""
    return digest(write_decision_figures(action))


def write_decision_figures(action: RolloutAction) -> object:
    """Returns a decision's codes and figures as JSON values, without its sentences."""
    return _strip_sentences(to_shown(replace(action, reason="")))


# The keys of sentences in the evidence of a guardrail.
_SENTENCES: Final = frozenset(["cache_words", "words"])


def _strip_sentences(shown: object) -> object:
    match shown:
        case Mapping():
            kept = {key: value for key, value in shown.items() if key not in _SENTENCES}
            return {key: _strip_sentences(value) for key, value in kept.items()}
        case list():
            return [_strip_sentences(value) for value in shown]
        case _:
            return shown


def decision_evidence(
    transaction: RolloutTransaction, action: RolloutAction | None
) -> dict[str, object]:
    """Adds the decision's figures to its inputs, as JSON values for the audit event.

    Args:
        action: None for a person's action; then only the inputs are returned.

    `log_e` and `log_certificate` are natural logarithms of e-values.
    """
    inputs = decision_inputs(transaction, action)
    if action is None:
        return inputs
    return {
        "code": action.code.value,
        "log_e": action.log_e,
        "exposures": action.exposures,
        "log_certificate": action.log_certificate,
        **action.figures.as_json(),
        **inputs,
    }


def replay_action(ctx: ProposalsContext, number: int) -> ReplayedAction:
    """Decides an action on a canary again, from the stored blocks.

    Args:
        number: of its audit event.

    Raises NotFound, InputError for an event without inputs.
    """
    with ctx.store.read() as tx:
        event = load_event(tx, number)
        inputs = event.details.get("inputs")
        if not event.action.startswith("canary.") or not isinstance(inputs, Mapping):
            raise InputError(
                f"event {number} ({event.action}) has no inputs of a canary's decision; "
                "`swapproof canary explain ROUTE` lists events with inputs"
            )
        differences = list_breaks(tx, number)
        rollout = Rollouts(tx).get(str(event.details["rollout"]))
        stored_blocks = Observations(tx).blocks(rollout.id)
    blocks = _select_up_to(stored_blocks, int(inputs["last_block"]))
    differences += _input_differences(inputs, rollout, blocks)
    replayed = ReplayedAction(event, rollout.id, len(blocks), tuple(differences)).decide_again(
        "the stored blocks give",
        lambda: decide_action(
            _rollout_before(rollout, inputs), blocks, _parse_time(inputs["at"])
        ),
    )
    if not isinstance(replayed.decided, RolloutAction):
        return replayed
    unasked = _describe_unrequested_move(event, replayed.decided)
    return replace(replayed, differences=(*replayed.differences, *unasked))


def _input_differences(
    inputs: Mapping[str, Any],
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
) -> list[str]:
    """Compares the stored blocks and policy with the counts and hashes in the event."""
    differences = []
    if len(blocks) != inputs["blocks"]:
        differences.append(f"{inputs['blocks']} blocks were used, but {len(blocks)} are stored")
    elif _blocks_sha256(blocks) != inputs["blocks_sha256"]:
        differences.append("the stored blocks differ from the blocks used")
    if hash_policy(rollout.policy) != inputs["policy_sha256"]:
        differences.append("the rollout's stored policy differs from the policy used")
    return differences


def _describe_unrequested_move(event: AuditEvent, decided: RolloutAction) -> list[str]:
    """Describes an action of the control plane that the evidence did not ask for."""
    if "local_abort" in event.details:
        # A router's own guard acted on requests before these blocks were complete.
        return []
    actual = event.action.removeprefix("canary.")
    signal = RolloutSignal.PROVEN.value if event.action == PROMOTED else actual
    evident = {signal.value for signal in _EVIDENCE_SIGNALS} | {RolloutSignal.PROVEN.value}
    required = decided.signal.value if decided.signal else "none"
    if event.actor != SYSTEM.name or signal not in evident or signal == required:
        return []
    return [f"the action was {actual}, but the evidence asks for {required}"]


def repeat_end(
    rollout: Rollout, decided: EndDecision, blocks: Sequence[ObservationBlock]
) -> tuple[RolloutAction, Sequence[ObservationBlock]]:
    """Returns the decision that ended a canary, and the blocks that it read.

    Args:
        blocks: all stored blocks of the rollout. Blocks that came after the decision are left
            out, so that the counts stay those of the decision.
    """
    used_blocks = _select_up_to(blocks, decided.last_block)
    rollout_before = replace(rollout, state=decided.state, bake_ends_at=decided.bake_ends_at)
    action = decide_action(rollout_before, used_blocks, decided.at)
    if decided.guard is not None:
        action = action.with_guard(decided.guard, decided.alert)
    return action, used_blocks


def record_end(
    transaction: RolloutTransaction, action: RolloutAction | None
) -> EndDecision | None:
    """Builds the record of the decision that ends a canary. The canary's status shows it later.

    Args:
        transaction: contains the rollout before its end.
        action: None if a person or a change of the route ends it; then all stored blocks count.

    Returns None if the blocks cannot be read, because an error must not block the end.
    """
    rollout = transaction.rollout
    if action is not None:
        at = action.figures.at
        last = action.figures.last_block
    else:
        at = transaction.ctx.clock.now()
        try:
            blocks = Observations(transaction.tx).blocks(rollout.id)
        except _READING_ERRORS:
            return None
        last = max((block.number for block in blocks), default=0)
    guard = action.figures.guard if action else None
    alert = action.figures.local_abort if action else ""
    return EndDecision(at, rollout.state, last, rollout.bake_ends_at, guard, alert)


def _rollout_before(rollout: Rollout, inputs: Mapping[str, Any]) -> Rollout:
    """Restores the fields that a move changes, as the decision saw them."""
    ends = inputs["bake_ends_at"]
    return replace(
        rollout,
        state=RolloutState(inputs["state"]),
        step=int(inputs["step"]),
        step_started_at=_parse_time(inputs["step_started_at"]),
        bake_ends_at=_parse_time(ends) if ends else None,
        version=int(inputs["version"]),
        acknowledged=tuple(inputs.get("acknowledged", ())) or None,
    )


def _select_up_to(blocks: Sequence[ObservationBlock], last: int) -> Sequence[ObservationBlock]:
    """Leaves out blocks that arrived after the decision."""
    return [block for block in blocks if block.number <= last]


def _blocks_sha256(blocks: Sequence[ObservationBlock]) -> str:
    """Hashes blocks in order of number, because the database returns them in any order."""
    ordered = sorted(blocks, key=lambda block: block.number)
    return hash_content("".join(canonical_json(to_shown(block)) for block in ordered))


def _parse_time(text: object) -> datetime:
    return datetime.fromisoformat(str(text))
