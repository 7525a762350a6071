"""A proposal's canary: opened with a verdict, moved by evidence, ended by harm or people."""

from collections.abc import Sequence
from dataclasses import replace

from harness.control.canary import audit as canary_actions
from harness.control.canary import decision, holds
from harness.control.context import Context
from harness.control.evals import proof_validity, recomputation
from harness.control.operations import alerts
from harness.control.proposals import route_rules
from harness.control.routing import fallback_chain, routes
from harness.domain.canary.observation import UnitRule
from harness.domain.canary.rollout import ActionKind, Rollout, RolloutSignal, RolloutState
from harness.domain.canary.rollout import apply_signal as rollout_moved
from harness.domain.errors import NotFound, ProofRefused, SignatureInvalid, StaleWrite
from harness.domain.evals.run import Passed, Verdict
from harness.domain.formatting import without_scientific_notation
from harness.domain.operations.access import SYSTEM, Actor
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import Proposal, ProposalEvent, apply_event
from harness.domain.routing.route_changes import (
    AbortCanary,
    PromoteCanary,
    RaiseWeight,
    RestoreIncumbent,
    StartCanary,
    TableChange,
)
from harness.domain.routing.table import Route
from harness.gate.offline.recomputation import AgreementLevel
from harness.gate.online import policy as gate_policy
from harness.gate.online.assignment import ALARM_LOG_E
from harness.gate.online.decision import RolloutAction
from harness.ports import Transaction


def open_canary(
    ctx: Context, tx: Transaction, proposal: Proposal, proof: Passed, event: ProposalEvent
) -> Proposal:
    """Rollout, routing table and proposal in one unit of work: all of it, or none.

    Raises ProofRefused when the verdict holds no more, RevisionConflict when another writer
    was first.
    """
    now = ctx.clock.now()
    proof_validity.require_proof(ctx, tx, proof)
    recomputation.require_agreement(ctx, tx, proof, proposal)
    route_rules.require_current_rules(ctx, tx, proposal)
    route = routes.require_route(tx, proposal.route)
    policy = proposal.policy.canary
    rollout = Rollout(
        id=ctx.chance.token("r_"),
        proposal=proposal.id,
        route=proposal.route,
        incumbent=proposal.incumbent,
        candidate=proposal.candidate,
        verdict=proof.id,
        policy=policy,
        salt=ctx.chance.token("salt_"),
        step=0,
        state=RolloutState.WAITING,
        started_at=now,
        step_started_at=now,
        updated_at=now,
    )
    tx.rollouts.add(rollout)
    change = StartCanary(
        route=proposal.route,
        proof=proof,
        rollout=rollout.id,
        weight_bps=policy.steps[0].weight_bps,
        salt=rollout.salt,
        unit_rule=UnitRule.of(policy, now),
    )
    commit(ctx, tx, SYSTEM, route, change, f"{proof.words}: {proof.reason}")
    after = replace(apply_event(proposal, event, now), rollout=rollout.id)
    return tx.proposals.save(after)


def assess_rollout(ctx: Context, rollout: Rollout) -> RolloutAction:
    """What the evidence asks for now, and whether the proof allows it; changes nothing."""
    with ctx.store.read() as tx:
        decided = holds.apply_hold(ctx, tx, rollout, look_in(ctx, tx, rollout))
        action = _allowed(ctx, tx, rollout, decided)
        return decision.confirm_worker_abort(tx, rollout, action)


def look_in(ctx: Context, tx: Transaction, rollout: Rollout) -> RolloutAction:
    """What the evidence asks for, within a unit of work."""
    blocks = tx.observations.blocks(rollout.id)
    return gate_policy.decide_action(rollout, blocks, ctx.clock.now())


def _allowed(
    ctx: Context, tx: Transaction, rollout: Rollout, action: RolloutAction
) -> RolloutAction:
    """Users leave a model that was never measured, or may not see their data, at once; with any
    other change of what the proof rests on, the canary goes no further and a person looks.
    """
    if not rollout.live or action.signal is RolloutSignal.HARM:
        return action
    try:
        proof = tx.verdicts.get(rollout.verdict)
    except (NotFound, SignatureInvalid) as error:
        why = f"its proof is gone: {error}"
        return replace(action, kind=ActionKind.ROLLBACK, signal=RolloutSignal.STALE, reason=why)
    unreadable = proof_validity.find_unreadable(proof)
    gone = not unreadable and proof_validity.find_replaced_candidate(tx, proof) is not None
    if unreadable or gone or proof_validity.list_clearance_faults(ctx, tx, proof):
        why = f"the proof is {proof_validity.assess_proof(ctx, tx, proof).words}"
        return replace(action, kind=ActionKind.ROLLBACK, signal=RolloutSignal.STALE, reason=why)
    if moved := proof_validity.list_moved_providers(ctx, tx, proof):
        return _held_by_move(rollout, action, moved_words(moved))
    onward = action.signal in (RolloutSignal.STEP_DONE, RolloutSignal.PROVEN)
    return _proven(ctx, tx, rollout, proof, action) if onward else action


def _proven(
    ctx: Context, tx: Transaction, rollout: Rollout, proof: Verdict, action: RolloutAction
) -> RolloutAction:
    """A step up, or a pause where the proof does not carry it."""
    found = proof_validity.assess_proof(ctx, tx, proof)
    if not found.holds:
        why = (
            f"the proof is {found.words}. It goes no further: put that back and resume, or "
            "abort and propose again"
        )
        return replace(action, kind=ActionKind.PAUSE, signal=RolloutSignal.PAUSE, reason=why)
    return _recomputed(ctx, tx, rollout, proof, action)


def moved_words(moved: Sequence[str]) -> str:
    """moved: as `standing.moved` has it."""
    if not moved:
        return ""
    return f"{'; '.join(moved)}. It goes no further: abort it and propose again."


def _held_by_move(rollout: Rollout, action: RolloutAction, why: str) -> RolloutAction:
    """Nobody measured what answers now, and an admin's act is no harm: the share stays."""
    if rollout.state is RolloutState.PAUSED:
        return replace(action, kind=ActionKind.HOLD, signal=None, reason=why)
    return replace(action, kind=ActionKind.PAUSE, signal=RolloutSignal.PAUSE, reason=why)


def _recomputed(
    ctx: Context, tx: Transaction, rollout: Rollout, proof: Verdict, action: RolloutAction
) -> RolloutAction:
    """Where the scores do not give the verdict any more, nothing shows that the candidate is
    good enough: users leave it. Where only a figure is another, the scores and what they
    decide are as they were: it goes no further, and a person looks.
    """
    proposal = tx.proposals.get(rollout.proposal)
    found = recomputation.recompute_stored(ctx, tx, proof, proposal)
    if found.agrees:
        return action
    figures = replace(action.figures, unproven=found.words)
    if found.agreement is AgreementLevel.DIFFERS:
        why = f"the stored scores do not give verdict {proof.id} any more: {found.words}"
        kind, signal = ActionKind.ROLLBACK, RolloutSignal.STALE
    else:
        why = (
            f"verdict {proof.id} is decided alike and with other figures: {found.words}. It "
            "goes no further: find out why and resume, or abort and propose again"
        )
        kind, signal = ActionKind.PAUSE, RolloutSignal.PAUSE
    return replace(action, kind=kind, signal=signal, reason=why, figures=figures)


def step(
    ctx: Context, tx: Transaction, proposal: Proposal, seen: Rollout, action: RolloutAction
) -> Rollout:
    """Apply the action to rollout, routing table and proposal in one unit of work.

    seen: the rollout that the action was decided for. Raises StaleWrite when it has moved.
    """
    rollout = tx.rollouts.get(seen.id)
    if rollout.version != seen.version:
        raise StaleWrite(f"rollout {seen.id} moved on since it was looked at: look again")
    route = routes.require_route(tx, rollout.route)
    if not _still_ours(route, rollout):
        return end(
            ctx,
            tx,
            SYSTEM,
            rollout,
            RolloutSignal.BASE_CHANGED,
            "the route was changed by another",
        )
    if words := action.figures.unproven:
        recomputation.raise_mismatch_alert(ctx, tx, proposal, rollout.verdict, words)
    match action.signal:
        case None:
            return rollout
        case RolloutSignal.HARM | RolloutSignal.STALE:
            return end(
                ctx,
                tx,
                SYSTEM,
                rollout,
                action.signal,
                without_scientific_notation(action.reason),
                action,
            )
        case RolloutSignal.PROVEN:
            return promote(ctx, tx, SYSTEM, rollout, proposal, action)
        case signal:
            return move(
                ctx,
                tx,
                SYSTEM,
                rollout,
                signal,
                without_scientific_notation(action.reason),
                action,
            )


def move(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    rollout: Rollout,
    signal: RolloutSignal,
    because: str,
    action: RolloutAction | None = None,
) -> Rollout:
    """A rollout that stays live: another state, perhaps another share. action: what asked.

    Raises IllegalTransition, RevisionConflict.
    """
    after = rollout_moved(rollout, signal, ctx.clock.now(), because)
    if after.step != rollout.step:
        route = routes.require_route(tx, rollout.route)
        change = RaiseWeight(rollout.route, rollout.id, after.current.weight_bps)
        commit(ctx, tx, actor, route, change, because)
    figures = evidence_of(ctx, tx, rollout, action)
    saved = tx.rollouts.save(after)
    audit(ctx, tx, actor, f"canary.{signal.value}", after, because, figures)
    _tell_if_paused(ctx, tx, after, because)
    return saved


def _tell_if_paused(ctx: Context, tx: Transaction, after: Rollout, because: str) -> None:
    if after.state is not RolloutState.PAUSED:
        return
    alerts.raise_alert(
        ctx,
        tx,
        AlertKind.CANARY_PAUSED,
        after.id,
        subject=f"route {after.route}",
        title=f"the canary of route {after.route} is paused and waits for a person",
        text=because,
    )


def watch_ratio(ctx: Context, rollout: Rollout, action: RolloutAction) -> None:
    """Tell once when the canary's share of traffic is not the planned one (statistics.md §2.6).

    It is over with the next step, or once a person resumed and the split is right since.
    """
    if not rollout.live:
        return
    wrong = action.figures.log_srm >= ALARM_LOG_E
    told = alerts.is_open(ctx, AlertKind.SAMPLE_RATIO, rollout.id)
    if wrong is told:
        return
    with ctx.store.write() as tx:
        if told:
            alerts.resolve_alert(ctx, tx, AlertKind.SAMPLE_RATIO, rollout.id)
            return
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.SAMPLE_RATIO,
            rollout.id,
            subject=f"route {rollout.route}",
            title=f"the canary of route {rollout.route} gets another share than planned",
            text=(
                f"Planned: {rollout.current.weight_bps / 100:g} %. "
                f"{without_scientific_notation(action.reason)}"
            ),
        )


def promote(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    rollout: Rollout,
    proposal: Proposal,
    action: RolloutAction,
) -> Rollout:
    """The candidate becomes the incumbent; the old one keeps a share while the bake lasts.

    action: who asks for it, the data or a person, and the evidence at this moment. Raises
    ProofRefused.
    """
    because, signal = (
        without_scientific_notation(action.reason),
        action.signal or RolloutSignal.PROVEN,
    )
    proof = tx.verdicts.get(rollout.verdict)
    if not isinstance(proof, Passed):
        raise ProofRefused(f"verdict {rollout.verdict} is {proof.outcome}, not passed")
    proof_validity.require_proof(ctx, tx, proof)
    recomputation.require_agreement(ctx, tx, proof, proposal)
    now = ctx.clock.now()
    policy = rollout.policy
    change = PromoteCanary(rollout.route, proof, policy.bake_bps if policy.bake_s else 0)
    commit(ctx, tx, actor, routes.require_route(tx, rollout.route), change, because)
    after = tx.rollouts.save(rollout_moved(rollout, signal, now, because))
    tx.proposals.save(apply_event(proposal, ProposalEvent.HEALTHY, now, because))
    figures = evidence_of(ctx, tx, rollout, action)
    audit(ctx, tx, actor, canary_actions.PROMOTED, after, because, figures)
    name = _name(tx, rollout.candidate)
    alerts.raise_alert(
        ctx,
        tx,
        AlertKind.PROMOTED,
        rollout.id,
        subject=f"route {rollout.route}",
        title=f"{name} is now the model of route {rollout.route}",
        text=f"It took the place of {_name(tx, rollout.incumbent)}. {because}",
    )
    return after


def end(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    rollout: Rollout,
    signal: RolloutSignal,
    because: str,
    action: RolloutAction | None = None,
) -> Rollout:
    """Back to the incumbent before it. Needs no proof, and works whatever else changed.

    action: what asked, None for a person or for the route itself.
    """
    now = ctx.clock.now()
    route = routes.require_route(tx, rollout.route)
    back: TableChange | None = None
    if route.canary is not None and route.canary.rollout == rollout.id:
        back = AbortCanary(rollout.route, rollout.id)
    elif route.holdback is not None and route.holdback.rollout == rollout.id:
        back = RestoreIncumbent(rollout.route, rollout.incumbent)
    if back is not None:
        commit(ctx, tx, actor, route, back, because)
    after = tx.rollouts.save(rollout_moved(rollout, signal, now, because))
    proposal = tx.proposals.get(rollout.proposal)
    event = {
        RolloutSignal.HARM: ProposalEvent.HARM,
        RolloutSignal.BASE_CHANGED: ProposalEvent.BASE_CHANGED,
        RolloutSignal.STALE: ProposalEvent.STALE,
    }
    tx.proposals.save(
        apply_event(proposal, event.get(signal, ProposalEvent.CANCELLED), now, because)
    )
    figures = evidence_of(ctx, tx, rollout, action)
    audit(ctx, tx, actor, f"canary.{signal.value}", after, because, figures)
    if signal in (RolloutSignal.HARM, RolloutSignal.STALE):
        stays = _left_chain(ctx, tx, actor, rollout, signal, because)
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.ROLLED_BACK,
            rollout.id,
            subject=f"route {rollout.route}",
            title=_rolled_back(rollout),
            text=f"{_name(tx, rollout.incumbent)} serves all users again, "
            f"{_name(tx, rollout.candidate)} none{stays}. {because}",
        )
    return after


def _left_chain(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    rollout: Rollout,
    signal: RolloutSignal,
    because: str,
) -> str:
    """What did harm to users is no fallback either. In words: what stays one all the same."""
    route = routes.require_route(tx, rollout.route)
    if rollout.candidate not in route.fallbacks:
        return ""
    why = ""
    if signal is RolloutSignal.HARM:
        try:
            fallback_chain.drop_fallback(ctx, tx, actor, route, rollout.candidate, because)
        except ProofRefused as error:
            why = f" ({error})"  # users go back to the incumbent whatever the chain holds
        else:
            return ", also not as a fallback"
    name = _name(tx, rollout.candidate)
    return (
        f"; as a fallback it stays{why}: `swapgate route fallback remove {route.name} {name} "
        "--reason …` takes it out"
    )


def _rolled_back(rollout: Rollout) -> str:
    what = "promotion" if rollout.baking else "canary"
    return f"the {what} of route {rollout.route} was rolled back"


def _name(tx: Transaction, target: str) -> str:
    known = tx.routing.targets().get(target)
    return known.name if known else target


def live(tx: Transaction, route: str) -> Rollout:
    """The route's rollout, live or in its bake. Raises NotFound."""
    routes.require_route(tx, route)
    for rollout in (*tx.rollouts.live(), *tx.rollouts.baking()):
        if rollout.route == route:
            return rollout
    raise NotFound(f"route {route!r} has no live canary; `swapgate canary status` lists them")


def _still_ours(route: Route, rollout: Rollout) -> bool:
    ours = route.canary is not None and route.canary.rollout == rollout.id
    return ours and route.incumbent == rollout.incumbent


def commit(
    ctx: Context, tx: Transaction, actor: Actor, route: Route, change: TableChange, reason: str
) -> None:
    tx.routing.commit(
        change,
        expected_version=route.version,
        actor=actor.name,
        reason=reason,
        now=ctx.clock.now(),
    )


def evidence_of(
    ctx: Context, tx: Transaction, seen: Rollout, action: RolloutAction | None
) -> dict[str, object]:
    """An action's figures and inputs, for the audit log. seen: the rollout before it."""
    inputs = canary_actions.decision_inputs(ctx, tx, seen, action)
    if action is None:
        return inputs
    return {
        "log_e": action.log_e,
        "exposures": action.exposures,
        "log_certificate": action.log_certificate,
        **action.figures.as_json(),
        **inputs,
    }


def audit(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    action: str,
    rollout: Rollout,
    because: str,
    figures: dict[str, object] | None = None,
) -> None:
    tx.audit.append(
        at=ctx.clock.now(),
        actor=actor,
        action=action,
        subject=f"route {rollout.route}",
        details={"rollout": rollout.id, "reason": because, **(figures or {})},
    )
