"""Moves canaries and bakes. The reconcile loop calls `drive`, which applies `decision`'s
action. `operate` applies a person's action: pause, resume, advance, abort, promote or finish.
`roll_back` restores a former incumbent of a route.

A person needs an approver's role and a reason. Moves onward need another person than the
proposer. Resume, advance and promote need a valid proof. Swapproof refuses advance and promote
if the data show harm, and warns if figures speak against them.

This module checks roles, reasons and four eyes. Evidence is judged in
`harness.canary.decision`, and moves are written by `harness.canary.machine`; only `roll_back`
changes a route here. Status for people is in `harness.canary.status`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from harness.canary import decision, first_callers, machine, way_back
from harness.canary.audit import RolloutTransaction, decision_inputs, record_end
from harness.canary.machine import CanaryMachine, CanaryMove, find_live
from harness.evals import proof_validity
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import (
    IllegalTransition,
    InputError,
    NotFound,
    ProofRefused,
    StaleWrite,
)
from harness.frame.formatting import format_bps
from harness.frame.people import four_eyes
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.plain_data import to_plain
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.canary_sentences import end_reason
from harness.gate.guardrail_rows import list_warnings
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.rollout import (
    MANUAL_ONWARD_SIGNALS,
    MANUAL_SIGNALS,
    ActionKind,
    CanaryEnding,
    Rollout,
    RolloutSignal,
    RolloutState,
    apply_signal,
    name_end,
)
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.verdict import Passed
from harness.proposals import approvals, recomputation
from harness.proposals.context import ProposalsContext
from harness.providers.registry.target_life import TargetLife, life_details
from harness.routing.control import data_class_checks
from harness.routing.control.routes import (
    commit,
    find_last_rollback,
    known_targets,
    require_route,
)
from harness.routing.proposal import ApprovalKind, Proposal, ProposalEvent, apply_event
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import RestoreIncumbent, find_rollback_target
from harness.routing.table import Route, RouteRecord


@dataclass(frozen=True, slots=True)
class CanaryOperation:
    """The rollout after a person's action, and warnings to show to that person."""

    rollout: Rollout
    warnings: tuple[str, ...] = ()  # figures that speak against the action


def operate(
    ctx: ProposalsContext,
    actor: Actor,
    route: str,
    signal: RolloutSignal,
    reason: str,
    *,
    expected_version: int | None = None,
) -> CanaryOperation:
    """Move the route's canary, or end its bake.

    Args:
        expected_version: the rollout's version that the person saw; None takes the stored
            version.

    Raises NotFound without a canary, IllegalTransition if its state does not allow the signal,
    StaleWrite for another version, InputError without a reason, NotAllowed for the proposer of
    a move onward (`four_eyes.check_four_eyes`), and ProofRefused if the verdict is no longer
    valid or the data show harm.
    """
    actor.require(Role.APPROVER)
    if signal not in MANUAL_SIGNALS:
        raise InputError(f"only the evidence can cause the signal {signal.value}, not a person")
    why = require_reason(reason, f"to {signal.value} by hand")
    life: TargetLife | None = None
    if signal is RolloutSignal.PROMOTE:
        with ctx.store.read() as tx:
            rollout = _find_movable(tx, actor, route, signal, expected_version)
        # The check calls a provider, so it must not run in the transaction.
        life = way_back.check_rollout(ctx, rollout)
    with recomputation.alert_on_mismatch(ctx), ctx.store.write() as tx:
        rollout = _find_movable(tx, actor, route, signal, expected_version)
        transaction = RolloutTransaction(ctx, tx, rollout)
        machine = CanaryMachine(transaction)
        reason_text = f"{signal.value} by {actor.name}: {why}"
        if signal is RolloutSignal.ABORT:
            reason_text = end_reason(
                _build_abort_ending(actor.name, why, baking=rollout.baking)
            )
        move = CanaryMove(actor, signal, reason_text, why=why, way_back=life)
        warnings = way_back.list_warnings(life) if life else ()
        match signal:
            case RolloutSignal.PROMOTE:
                move, doubts = _add_evidence(
                    transaction,
                    move,
                    ActionKind.PROMOTE,
                )
                warnings = (*doubts, *warnings)
                kind = ApprovalKind.PROMOTION
                approvals.record_approval(ctx, tx, actor, transaction.proposal, kind, reason)
            case RolloutSignal.FINISH if not rollout.baking:
                raise IllegalTransition(
                    f"the canary of {route} is {rollout.state.value}: only a bake, after "
                    "the promotion, can be finished by hand"
                )
            case RolloutSignal.ADVANCE:
                _require_proof(transaction)
                move, warnings = _add_evidence(
                    transaction,
                    move,
                    ActionKind.ADVANCE,
                )
            case RolloutSignal.RESUME:
                proof_validity.require_proof(ctx, tx, Verdicts(tx).get(rollout.verdict))
                rollout, acknowledged = _acknowledge(transaction, move)
                machine = CanaryMachine(replace(transaction, rollout=rollout))
                if acknowledged and rollout.state is not RolloutState.PAUSED:
                    return CanaryOperation(rollout)
            case _:
                pass
        return CanaryOperation(machine.apply(move), warnings)


def _acknowledge(transaction: RolloutTransaction, move: CanaryMove) -> tuple[Rollout, bool]:
    """Acknowledges everything that a resumed canary must not stop for again.

    Returns the saved rollout, and whether there was anything.
    """
    machine = CanaryMachine(transaction)
    acknowledged = machine.acknowledge_faults(move)
    rollout = transaction.rollout
    if differences := decision.find_left_out_differences(transaction):
        rollout = machine.acknowledge_left_out(move, differences)
    first = first_callers.read_first_callers(transaction.tx, rollout)
    known = rollout.acknowledged or ()
    if first.is_harmed and first_callers.ACKNOWLEDGED not in known:
        machine = CanaryMachine(replace(transaction, rollout=rollout))
        rollout = machine.acknowledge({first_callers.ACKNOWLEDGED: first.text}, move)
    return rollout, acknowledged or rollout is not transaction.rollout


def _find_movable(
    tx: Transaction,
    actor: Actor,
    route: str,
    signal: RolloutSignal,
    expected_version: int | None,
) -> Rollout:
    """Finds the live rollout that the actor may move.

    Raises NotFound without one, StaleWrite for another version than the actor saw, NotAllowed
    for the proposer of a move onward.
    """
    rollout = find_live(tx, route)
    if expected_version not in (None, rollout.version):
        raise StaleWrite(
            f"the canary of {route} is at version {rollout.version}, not {expected_version}: "
            "check it again, then decide"
        )
    if signal in MANUAL_ONWARD_SIGNALS:
        four_eyes.check_four_eyes(tx, actor, Proposals(tx).get(rollout.proposal), signal.value)
    return rollout


def _require_proof(transaction: RolloutTransaction) -> None:
    """Requires a valid verdict that the stored scores still give. Raises ProofRefused."""
    ctx = transaction.ctx
    tx = transaction.tx
    rollout = transaction.rollout
    proof = Verdicts(tx).get(rollout.verdict)
    proposal = transaction.proposal
    proof_validity.require_proof(ctx, tx, proof)
    recomputation.require_agreement(ctx, tx, proof, proposal)


def _add_evidence(
    transaction: RolloutTransaction,
    move: CanaryMove,
    kind: ActionKind,
) -> tuple[CanaryMove, tuple[str, ...]]:
    """Adds the evidence to a person's move, so that the audit log has the figures that the
    person overrules.

    Args:
        kind: the action that the person asks for.

    Returns the move and the warnings against it.
    """
    action, warnings = _check_harmless(transaction)
    reason = move.reason
    if move.signal is RolloutSignal.PROMOTE:
        reason = f"{reason}. {action.reason}"
    person_action = replace(
        action,
        kind=kind,
        signal=move.signal,
        reason=reason,
    )
    return replace(move, reason=reason, action=person_action), warnings


def _check_harmless(transaction: RolloutTransaction) -> tuple[RolloutAction, tuple[str, ...]]:
    """Returns the evidence and its warnings. The audit log stores both.

    Raises ProofRefused if the evidence, or a router's own guard, asks for a rollback.
    """
    action = decision.confirm_worker_abort(transaction, decision.read_evidence(transaction))
    if action.signal is RolloutSignal.HARM:
        raise ProofRefused(
            f"the canary of {transaction.rollout.route} must be rolled back: {action.reason}"
        )
    warnings = list_warnings(action.figures)
    if not warnings:
        return action, ()
    return replace(action, figures=replace(action.figures, warnings=warnings)), warnings


class ProposalCanaries:
    """Implements `harness.proposals.driving.passed_verdicts.Canaries`."""

    def open(
        self,
        ctx: ProposalsContext,
        tx: Transaction,
        proposal: Proposal,
        proof: Passed,
        event: ProposalEvent,
    ) -> Proposal:
        return machine.open_canary(ctx, tx, proposal, proof, event)

    def drive(self, ctx: ProposalsContext, before: Rollout) -> list[str]:
        return drive(ctx, before)


def drive(ctx: ProposalsContext, before: Rollout) -> list[str]:
    """Drives a live canary or a bake by one turn. Returns log lines.

    Args:
        before: the rollout as read; the decision is applied only if it has not moved since.

    Raises StaleWrite otherwise, and the next turn decides again.
    """
    action = decision.decide(ctx, before)
    _update_ratio_alert(ctx, before, action)
    # An error while reading for this alert must not block a rollback. The rollback ends the
    # alert anyway.
    if action.signal is not RolloutSignal.HARM:
        decision.update_hold_alert(ctx, before)
    with ctx.store.read() as tx:
        in_place = RolloutTransaction(ctx, tx, before).is_in_place
    if action.signal is None and in_place:
        return []
    proven = action.signal is RolloutSignal.PROVEN and in_place
    back = way_back.check_rollout(ctx, before) if proven else None
    with ctx.store.write() as tx:
        after = apply_action(RolloutTransaction(ctx, tx, before), action, back)
    if after == before:
        return []
    return [f"{before.proposal}: {action.kind.value}, {after.state.value}: {action.reason}"]


def apply_action(
    transaction: RolloutTransaction,
    action: RolloutAction,
    back: TargetLife | None = None,
) -> Rollout:
    """Applies the action to rollout, routing table and proposal in one transaction.

    Args:
        transaction: contains the rollout of the decision.
        back: whether the incumbent can still serve; only recorded with a promotion.

    Raises StaleWrite if the rollout has moved. If another change has taken the canary off the
    route, the rollout ends with BASE_CHANGED, whatever the action is.
    """
    rollout = Rollouts(transaction.tx).get(transaction.rollout.id)
    if rollout.version != transaction.rollout.version:
        raise StaleWrite(f"rollout {rollout.id} has moved since the decision: decide again")
    machine = CanaryMachine(transaction)
    if not transaction.is_in_place:
        reason = "somebody changed the route"
        return machine.apply(CanaryMove(SYSTEM, RolloutSignal.BASE_CHANGED, reason))
    if words := action.figures.unproven:
        recomputation.raise_mismatch_alert(
            transaction.tx, transaction.proposal, rollout.verdict, words
        )
    if action.signal is None:
        return rollout
    move = CanaryMove(SYSTEM, action.signal, action.reason, action, way_back=back)
    return machine.apply(move)


def _update_ratio_alert(
    ctx: ProposalsContext,
    rollout: Rollout,
    action: RolloutAction,
) -> None:
    """Raises one alert if the canary's share is not the planned share (statistics.md §2.6).

    The alert ends with the next step, or when a person has resumed and the split is right
    again.
    """
    if not rollout.live:
        return
    notice: alerts.AlertNotice | None = None
    if action.figures.log_srm >= ALARM_LOG_E:
        planned = format_bps(rollout.current.weight_bps)
        notice = alerts.AlertNotice(
            f"route {rollout.route}",
            f"the canary of route {rollout.route} gets another share than planned",
            f"Planned: {planned}. {action.reason}",
        )
    alerts.update_alert(ctx, AlertKind.SAMPLE_RATIO, rollout.id, notice)


@dataclass(frozen=True, slots=True)
class RestoredRoute(Route):
    """A route after a rollback by hand. warnings: why its model may be unable to answer."""

    warnings: tuple[str, ...] = ()


def roll_back(  # noqa: PLR0913 - by name, and most have a default
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    *,
    to_version: int | None = None,
    reason: str,
    force: bool = False,
    expected: Route | None = None,
    expected_version: int | None = None,
) -> RestoredRoute:
    """Restores a former incumbent, by default the incumbent before the last promotion in force.
    Ends a live canary, and rolls a baking promotion back.

    First checks in at most 5 seconds whether the former incumbent can serve
    (`way_back.check_rollback`). A lasting obstacle refuses the rollback, unless `force` is set;
    any other doubt becomes a warning.

    Needs an approver, and no proof.

    Args:
        expected: the route as the actor saw it.

    Raises NotFound without a former incumbent, ProofRefused for a model that a rollback took
    off the route, or that cannot serve. Raises StaleWrite if incumbent, canary or
    `expected_version` has changed, so that only the first of two simultaneous rollbacks takes
    effect.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a rollback")
    with ctx.store.read() as tx:
        seen_route = require_route(tx, name)
        expected = expected or seen_route
        _check_seen(seen_route, expected, expected_version)
        checked_incumbent = _require_former_incumbent(ctx, tx, seen_route, to_version)
    life = way_back.check_rollback(ctx, name, checked_incumbent, force=force)
    with ctx.store.write() as tx:
        route = require_route(tx, name)
        _check_seen(route, expected, expected_version)
        incumbent = _require_former_incumbent(ctx, tx, route, to_version)
        if incumbent != checked_incumbent:
            raise StaleWrite(f"route {name!r} has changed during the rollback: check it again")
        commit(
            tx,
            actor,
            RestoreIncumbent(name, incumbent),
            route.version,
            reason,
            action="route.rollback",
            **life_details(life),
            **({"force": True} if force else {}),
        )
        if incumbent != route.incumbent:
            ending = _build_abort_ending(actor.name, reason, baking=True)
            _roll_back_baking(ctx, tx, actor, name, ending)
        after = require_route(tx, name)
    own = {field.name: getattr(after, field.name) for field in fields(Route)}
    return RestoredRoute(**own, warnings=way_back.list_warnings(life))


def _check_seen(
    route: Route,
    expected: Route,
    expected_version: int | None,
) -> None:
    """Raises StaleWrite if the route has changed since the actor saw it."""
    if expected_version not in (None, route.version):
        raise StaleWrite(
            f"route {route.name!r} is at version {route.version} by now, not "
            f"{expected_version}: check it again"
        )
    if _list_served_ids(expected) != _list_served_ids(route):
        raise StaleWrite(
            f"route {route.name!r} has another model or canary by now: check it again"
        )


def _require_former_incumbent(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    to_version: int | None,
) -> str:
    """Returns the id of the incumbent to restore.

    Raises NotFound without one, ProofRefused for a model that a rollback took off the route,
    NotAllowed for a provider that may not see the route's data.
    """
    history = Routing(tx).history(route.name)
    incumbent = _find_former_incumbent(history, route, to_version)
    (known,) = known_targets(tx, [incumbent])
    # A verdict proves no model that was rolled back since. A person may take back a person's
    # own rollback after the bake.
    last = find_last_rollback(tx, route.name, incumbent, history)
    if last is not None and not last.after_bake:
        raise ProofRefused(
            f"on route {route.name!r}, {known.name} {last.words}: propose it again, because "
            "it needs a new verdict"
        )
    data_class_checks.check_targets(ctx, route.settings, [known], route=route.name)
    return incumbent


def _list_served_ids(route: Route) -> tuple[str, str | None]:
    """Returns the ids of incumbent and canary; a change of either makes a rollback stale."""
    return (
        route.incumbent,
        route.canary.target if route.canary is not None else None,
    )


def _build_abort_ending(name: str, why: str, *, baking: bool) -> CanaryEnding:
    """Returns the end that a person causes."""
    end = name_end(RolloutSignal.ABORT, baking=baking)
    return CanaryEnding(end, RolloutSignal.ABORT, name, why)


def _roll_back_baking(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    name: str,
    ending: CanaryEnding,
) -> None:
    """Ends the route's bake as an abort does, so that the rolled back model cannot return."""
    now = ctx.clock.now()
    because = end_reason(ending)
    for rollout in Rollouts(tx).baking():
        if rollout.route != name:
            continue
        transaction = RolloutTransaction(ctx, tx, rollout)
        decided = record_end(transaction, None)
        Rollouts(tx).save(apply_signal(rollout, ending.signal, now, because, ending, decided))
        proposal = Proposals(tx).get(rollout.proposal)
        cancelled = ProposalEvent.CANCELLED
        Proposals(tx).save(apply_event(proposal, cancelled, now, because, ending))
        details = {
            "rollout": rollout.id,
            "reason": because,
            "ending": to_plain(ending),
            **decision_inputs(transaction, None),
        }
        action = "canary.abort"
        AuditLog(tx).append(actor, action, f"route {name}", details)


def _find_former_incumbent(
    history: Sequence[RouteRecord],
    route: Route,
    version: int | None,
) -> str:
    """Returns the id of the incumbent to restore.

    Args:
        version: None for the incumbent before the last promotion in force.

    Raises NotFound without an earlier incumbent or without that version.
    """
    if version is None:
        incumbent = find_rollback_target(history)
        missing_name = "earlier incumbent"
    else:
        named = (r.route.incumbent for r in history if r.route.version == version)
        incumbent = next(named, None)
        missing_name = f"version {version}"
    if incumbent is None:
        raise NotFound(
            f"route {route.name!r} has no {missing_name}; `swapproof route history` shows all"
        )
    return incumbent
