"""A proposal's canary: opened with a verdict, moved by evidence, ended by harm or people."""

from dataclasses import replace

from harness.control import alerts, routes, standing
from harness.control.context import Context
from harness.domain.access import SYSTEM, Actor, Role
from harness.domain.alerts import AlertKind
from harness.domain.changes import Abort, Change, Promote, RaiseWeight, StartCanary
from harness.domain.errors import InputError, NotFound, ProofRefused, StaleWrite
from harness.domain.evaluation import Passed
from harness.domain.observation import UnitRule
from harness.domain.proposal import Event, Proposal, moved
from harness.domain.rollout import Action, ActionKind, Rollout, RolloutState, Signal
from harness.domain.rollout import moved as rollout_moved
from harness.domain.routing import Route
from harness.gate import policy as gate_policy
from harness.gate.assignment import ALARM_AT
from harness.ports import Transaction


def open_canary(
    ctx: Context, tx: Transaction, proposal: Proposal, proof: Passed, event: Event
) -> Proposal:
    """Rollout, routing table and proposal in one unit of work: all of it, or none.

    Raises ProofRefused when the verdict holds no more, RevisionConflict when another writer
    was first.
    """
    now = ctx.clock.now()
    standing.demand(ctx, tx, proof)
    route = routes.existing(tx, proposal.route)
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
    _commit(ctx, tx, SYSTEM, route, change, f"{proof.words}: {proof.reason}")
    after = replace(moved(proposal, event, now), rollout=rollout.id)
    return tx.proposals.save(after)


def look(ctx: Context, rollout: Rollout) -> Action:
    """What the evidence asks for now, and whether the proof allows it; changes nothing."""
    with ctx.store.read() as tx:
        blocks = tx.observations.blocks(rollout.id)
        action = gate_policy.decide(rollout, blocks, ctx.clock.now())
        return _allowed(ctx, tx, rollout, action)


def _allowed(ctx: Context, tx: Transaction, rollout: Rollout, action: Action) -> Action:
    """Users leave a model that was never measured at once; with any other change of what the
    proof rests on, the canary goes no further and a person looks.
    """
    if not rollout.live or action.signal is Signal.HARM:
        return action
    proof = tx.verdicts.get(rollout.verdict)
    if standing.replaced_candidate(tx, proof) is not None:
        why = f"the proof is {standing.of(ctx, tx, proof).words}"
        return replace(action, kind=ActionKind.ROLLBACK, signal=Signal.STALE, reason=why)
    if action.signal not in (Signal.STEP_DONE, Signal.PROVEN):
        return action
    found = standing.of(ctx, tx, proof)
    if found.holds:
        return action
    why = (
        f"the proof is {found.words}. It goes no further: put that back and resume, or abort "
        "and propose again"
    )
    return replace(action, kind=ActionKind.PAUSE, signal=Signal.PAUSE, reason=why)


def step(
    ctx: Context, tx: Transaction, proposal: Proposal, seen: Rollout, action: Action
) -> Rollout:
    """Apply the action to rollout, routing table and proposal in one unit of work.

    seen: the rollout that the action was decided for. Raises StaleWrite when it has moved.
    """
    rollout = tx.rollouts.get(seen.id)
    if rollout.version != seen.version:
        raise StaleWrite(f"rollout {seen.id} moved on since it was looked at: look again")
    route = routes.existing(tx, rollout.route)
    if not _still_ours(route, rollout):
        return end(
            ctx, tx, SYSTEM, rollout, Signal.BASE_CHANGED, "the route was changed by another"
        )
    match action.signal:
        case None:
            return rollout
        case Signal.HARM | Signal.STALE:
            return end(ctx, tx, SYSTEM, rollout, action.signal, action.reason)
        case Signal.PROVEN:
            return _promote(ctx, tx, rollout, route, proposal, action)
        case signal:
            return _move(ctx, tx, rollout, route, signal, action.reason)


def _move(
    ctx: Context,
    tx: Transaction,
    rollout: Rollout,
    route: Route,
    signal: Signal,
    because: str,
) -> Rollout:
    after = rollout_moved(rollout, signal, ctx.clock.now(), because)
    if after.step != rollout.step:
        change = RaiseWeight(rollout.route, rollout.id, after.current.weight_bps)
        _commit(ctx, tx, SYSTEM, route, change, because)
    _audit(ctx, tx, SYSTEM, f"canary.{signal.value}", after, because)
    _tell_if_paused(ctx, tx, after, because)
    return tx.rollouts.save(after)


def _tell_if_paused(ctx: Context, tx: Transaction, after: Rollout, because: str) -> None:
    if after.state is not RolloutState.PAUSED:
        return
    alerts.tell(
        ctx,
        tx,
        AlertKind.CANARY_PAUSED,
        after.id,
        subject=f"route {after.route}",
        title=f"the canary of route {after.route} is paused and waits for a person",
        text=because,
    )


def watch_ratio(ctx: Context, rollout: Rollout, action: Action) -> None:
    """Tell once when the canary's share of traffic is not the planned one (statistics.md)."""
    if not rollout.live or _log_srm(action) < ALARM_AT:
        return
    if alerts.is_open(ctx, AlertKind.SAMPLE_RATIO, rollout.id):
        return
    with ctx.store.write() as tx:
        alerts.tell(
            ctx,
            tx,
            AlertKind.SAMPLE_RATIO,
            rollout.id,
            subject=f"route {rollout.route}",
            title=f"the canary of route {rollout.route} gets another share than planned",
            text=f"Planned: {rollout.current.weight_bps / 100:g} %. {action.reason}",
        )


def _log_srm(action: Action) -> float:
    found = action.figures.get("log_srm")
    return found if isinstance(found, float) else 0.0


def _promote(
    ctx: Context,
    tx: Transaction,
    rollout: Rollout,
    route: Route,
    proposal: Proposal,
    action: Action,
) -> Rollout:
    proof = tx.verdicts.get(rollout.verdict)
    if not isinstance(proof, Passed):
        raise ProofRefused(f"verdict {rollout.verdict} is {proof.outcome}, not passed")
    standing.demand(ctx, tx, proof)
    now = ctx.clock.now()
    _commit(ctx, tx, SYSTEM, route, Promote(rollout.route, proof), action.reason)
    after = tx.rollouts.save(rollout_moved(rollout, Signal.PROVEN, now, action.reason))
    tx.proposals.save(moved(proposal, Event.HEALTHY, now, action.reason))
    _audit(ctx, tx, SYSTEM, "canary.promote", after, action.reason, _figures(action))
    name = _name(tx, rollout.candidate)
    alerts.tell(
        ctx,
        tx,
        AlertKind.PROMOTED,
        rollout.id,
        subject=f"route {rollout.route}",
        title=f"{name} is now the model of route {rollout.route}",
        text=f"It took the place of {_name(tx, rollout.incumbent)}. {action.reason}",
    )
    return after


def end(
    ctx: Context, tx: Transaction, actor: Actor, rollout: Rollout, signal: Signal, because: str
) -> Rollout:
    """Back to the incumbent. Needs no proof, and works whatever else changed."""
    now = ctx.clock.now()
    route = routes.existing(tx, rollout.route)
    if route.canary is not None and route.canary.rollout == rollout.id:
        _commit(ctx, tx, actor, route, Abort(rollout.route, rollout.id), because)
    after = tx.rollouts.save(rollout_moved(rollout, signal, now, because))
    proposal = tx.proposals.get(rollout.proposal)
    event = {
        Signal.HARM: Event.HARM,
        Signal.BASE_CHANGED: Event.BASE_CHANGED,
        Signal.STALE: Event.STALE,
    }
    tx.proposals.save(moved(proposal, event.get(signal, Event.CANCELLED), now, because))
    _audit(ctx, tx, actor, f"canary.{signal.value}", after, because)
    if signal in (Signal.HARM, Signal.STALE):
        alerts.tell(
            ctx,
            tx,
            AlertKind.ROLLED_BACK,
            rollout.id,
            subject=f"route {rollout.route}",
            title=f"the canary of route {rollout.route} was rolled back",
            text=f"{_name(tx, rollout.incumbent)} serves all users again, "
            f"{_name(tx, rollout.candidate)} none. {because}",
        )
    return after


def _name(tx: Transaction, target: str) -> str:
    known = tx.routing.targets().get(target)
    return known.name if known else target


def by_hand(ctx: Context, actor: Actor, route: str, signal: Signal, reason: str) -> Rollout:
    """Pause, resume or abort the route's live canary.

    Raises NotFound when there is none, IllegalTransition when the state does not allow it,
    ProofRefused for a resume with a verdict that holds no more.
    """
    actor.require(Role.APPROVER)
    if signal not in (Signal.PAUSE, Signal.RESUME, Signal.ABORT):
        raise InputError(f"a person can pause, resume or abort, not {signal.value}")
    with ctx.store.write() as tx:
        rollout = live(tx, route)
        because = f"{signal.value} by {actor.name}" + (f": {reason}" if reason else "")
        if signal is Signal.ABORT:
            return end(ctx, tx, actor, rollout, signal, because)
        after = rollout_moved(rollout, signal, ctx.clock.now(), because)
        if signal is Signal.RESUME:
            standing.demand(ctx, tx, tx.verdicts.get(rollout.verdict))
        _audit(ctx, tx, actor, f"canary.{signal.value}", after, because)
        _tell_if_paused(ctx, tx, after, because)
        return tx.rollouts.save(after)


def live(tx: Transaction, route: str) -> Rollout:
    """The route's live rollout. Raises NotFound."""
    routes.existing(tx, route)
    for rollout in tx.rollouts.live():
        if rollout.route == route:
            return rollout
    raise NotFound(f"route {route!r} has no live canary; `swapgate canary status` lists them")


def _still_ours(route: Route, rollout: Rollout) -> bool:
    ours = route.canary is not None and route.canary.rollout == rollout.id
    return ours and route.incumbent == rollout.incumbent


def _commit(
    ctx: Context, tx: Transaction, actor: Actor, route: Route, change: Change, reason: str
) -> None:
    tx.routing.commit(
        change,
        expected_version=route.version,
        actor=actor.name,
        reason=reason,
        now=ctx.clock.now(),
    )


def _figures(action: Action) -> dict[str, object]:
    return {
        "log_e": action.log_e,
        "exposures": action.exposures,
        "log_certificate": action.log_certificate,
        **action.figures,
    }


def _audit(
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
        actor=actor.name,
        action=action,
        subject=f"route {rollout.route}",
        details={"rollout": rollout.id, "reason": because, **(figures or {})},
    )
