"""Decides the next action of a canary or a bake; changes no rollout and no route. It considers,
in this order: the evidence; reasons to hold, such as a wrong clock; the proof; an abort by a
router's own guard. An unmeasured candidate is rolled back; any other change of the proof pauses
the canary.

A router's guard needs no database. The router writes its alert from a spool, perhaps much
later. Until then the router's shares differ from the database's.

`apply_hold` replaces a step to a higher share by a hold with its reason, also while the route
is frozen; `update_hold_alert` raises and ends the alert. A hold ends when its cause ends; a
person must acknowledge a router's fault (`canary resume`). A hold never delays a rollback for
harm.

The statistics are in `harness.gate.online.rollout_action`; `harness.canary.machine` writes the
move.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from harness.canary import first_callers
from harness.canary.audit import RolloutTransaction
from harness.evals import proof_validity
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.formatting import (
    add_seconds,
    format_bps,
    format_percent,
    format_span,
)
from harness.frame.records.transaction import Transaction
from harness.gate.offline.served_arms import MOST_FALLBACKS
from harness.gate.online.guardrails import NO_SPLIT, ArmSplit
from harness.gate.online.left_out import ExclusionCause, LeftOutDifference
from harness.gate.online.observation import ObservationBlock, TrafficMinute
from harness.gate.online.outcome import (
    OutcomeKind,
    OutcomeReason,
    outcome_key,
)
from harness.gate.online.rollout import (
    ActionKind,
    ReasonCode,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.online.rollout_action import (
    RolloutAction,
    decide_action,
)
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.online.step_holds import left_out_differences, unsupported_share
from harness.gate.online.uncounted import UncountedReason
from harness.gate.online.worker_guard import read_guard_count
from harness.gate.verdict import Verdict
from harness.proposals import recomputation
from harness.proposals.context import ProposalsContext
from harness.proposals.recomputation import AgreementLevel
from harness.routing.control import freezes
from harness.routing.records.observations import Observations
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Arm

# Signals that need trusted data. The end of a bake also ends the comparison.
ONWARD_SIGNALS: Final = frozenset(
    {RolloutSignal.STEP_DONE, RolloutSignal.PROVEN, RolloutSignal.BAKED}
)
TIMED_SIGNALS: Final = frozenset(
    {RolloutSignal.SILENT, RolloutSignal.UNDECIDED, RolloutSignal.BAKED}
)
TRAFFIC_WINDOW: Final = timedelta(hours=2)


def apply_hold(transaction: RolloutTransaction, action: RolloutAction) -> RolloutAction:
    """Returns the action, or a hold with its reason if the data are not trusted.

    Only moves onward and ends by time can become a hold. Returns a rollback for harm unchanged,
    because doubtful data must not keep callers on a harmful model. The call also reports the
    present time to the clock watch.
    """
    ctx = transaction.ctx
    ctx.clock_watch.observe(ctx.clock.now(), ctx.clock.monotonic())
    doubt = ""
    if action.signal in TIMED_SIGNALS:
        doubt = _explain_clock_expiry(transaction) or _explain_freeze_expiry(transaction)
    is_onward = action.signal in ONWARD_SIGNALS
    doubt = doubt or (_distrust_reason(transaction) if is_onward else "")
    reason = ""
    if doubt:
        reason = f"{doubt[:1].upper()}{doubt[1:]}. The canary continues by itself after that."
    if is_onward and not doubt:
        reason = describe_router_faults(transaction.tx, transaction.rollout)
    if not reason:
        return action
    return replace(
        action,
        kind=ActionKind.HOLD,
        signal=None,
        reason=reason,
        code=ReasonCode.HELD,
    )


def list_alert_keys(rollout: Rollout) -> Sequence[str]:
    """Lists the keys of the alerts that a canary's status reads. A list of canaries preloads
    them.
    """
    kinds = (
        AlertKind.CANARY_PAUSED,
        AlertKind.CANARY_HELD,
        AlertKind.INTERNAL_ERROR,
        AlertKind.WAY_BACK_GONE,
    )
    own = [f"{kind.value}:{rollout.id}" for kind in kinds]
    return [*own, f"{AlertKind.SHARED_KEY.value}:{rollout.route}"]


def find_pause_reason(tx: Transaction, rollout: Rollout) -> str:
    """Returns the text of the newest pause alert; empty if the rollout is not paused."""
    if rollout.state is not RolloutState.PAUSED:
        return ""
    paused = Alerts(tx).newest(f"{AlertKind.CANARY_PAUSED.value}:{rollout.id}")
    return paused.text if paused is not None else ""


def describe_shared_key(tx: Transaction, route: str) -> str:
    """Describes a client key that sends too many of the route's requests; empty without such a
    key.
    """
    alert = Alerts(tx).newest(f"{AlertKind.SHARED_KEY.value}:{route}")
    return alert.text if alert is not None and alert.open else ""


def list_hold_reasons(tx: Transaction, rollout: Rollout) -> Sequence[str]:
    """Lists the reasons that hold a canary or a bake; empty without a reason."""
    if not rollout.live and not rollout.baking:
        return ()
    alert = Alerts(tx).newest(f"{AlertKind.CANARY_HELD.value}:{rollout.id}")
    reasons = [alert.text] if alert is not None and alert.open else []
    return [*reasons, *filter(None, [describe_router_faults(tx, rollout)])]


def describe_router_faults(tx: Transaction, rollout: Rollout) -> str:
    """Describes faults of routers in this route's requests that no person has acknowledged.

    Empty without such faults. The text names the count, the last time (UTC) and the command
    that continues the canary.
    """
    alert = Alerts(tx).newest(f"{AlertKind.INTERNAL_ERROR.value}:{rollout.id}")
    if alert is None or not alert.open:
        return ""
    times = "once" if alert.count == 1 else f"{alert.count:,} times"
    return (
        f"Routers failed {times} in requests of this route (alert internal_error), so "
        "their records may be missing or wrong. The last failure was at "
        f"{alert.last_seen:%Y-%m-%d %H:%M} UTC: {alert.text.strip().rstrip('.')}. Check the "
        "routers, then run `swapproof canary resume` with a reason to continue."
    )


def update_hold_alert(ctx: ProposalsContext, rollout: Rollout) -> None:
    """Raises the alert of a held canary once for each cause, and ends it when the hold ends."""
    can_advance = rollout.state in (RolloutState.WAITING, RolloutState.MEASURING)
    if not can_advance and not rollout.baking:
        return
    with ctx.store.read() as tx:
        doubt = _distrust_reason(RolloutTransaction(ctx, tx, rollout))
    what = "bake" if rollout.baking else "canary"
    notice = alerts.AlertNotice(
        f"route {rollout.route}",
        f"the {what} of route {rollout.route} is on hold",
        f"{doubt[:1].upper()}{doubt[1:]}.",
    )
    alerts.update_alert(ctx, AlertKind.CANARY_HELD, rollout.id, notice if doubt else None)


def _distrust_reason(transaction: RolloutTransaction) -> str:
    """Explains why this route's recent data cannot justify a move onward; empty if they can.

    Checks a freeze first, then this machine's clock, then the data. Checks the step's share for
    live canaries only.
    """
    ctx = transaction.ctx
    rollout = transaction.rollout
    now = ctx.clock.now()
    if refusals := freezes.list_refusals_of_step(ctx, transaction.tx, rollout.route):
        return refusals[0]
    if ctx.clock_watch.unsettled(ctx.clock.monotonic()):
        return "this machine's clock was set a moment ago"
    if until := ctx.clock_watch.old_rows_pass_until(now):
        return (
            "this machine's clock was set back: old and new rows look alike until "
            f"{until:%H:%M:%S} UTC"
        )
    blocks = Observations(transaction.tx).blocks(rollout.id)
    traffic = _read_traffic(transaction, now)
    doubt = (
        describe_traffic_gap(traffic, now)
        or describe_future_traffic(traffic, now)
        or describe_clock_skew(blocks, now)
    )
    doubt = doubt or describe_fallback_answers(rollout, blocks)
    if doubt or rollout.baking:
        return doubt
    weight = rollout.current.weight_bps
    step = [block for block in blocks if block.weight_bps == weight]
    exposures = sum(block.canary_units for block in step)
    by_rule = count_by_audience(step)
    return (
        describe_stale_snapshot(rollout, blocks, now)
        or describe_missing_exposures(rollout, traffic, exposures, now, by_rule)
        or describe_oversized_share(rollout, traffic, by_rule)
    )


def _read_traffic(transaction: RolloutTransaction, now: datetime) -> Sequence[TrafficMinute]:
    """Returns the route's traffic of the last two hours. After a longer gap, returns the two
    hours before the gap, which may have begun before the rollout.
    """
    route = transaction.rollout.route
    observations = Observations(transaction.tx)
    last = observations.last_traffic(route)
    if last is None or now - last < TRAFFIC_WINDOW - BEFORE_GAP:
        last = now
    return observations.traffic(since=last - TRAFFIC_WINDOW, route=route)


def _explain_clock_expiry(transaction: RolloutTransaction) -> str:
    """Explains that the deadline passed only because somebody set the clock; else empty."""
    ctx = transaction.ctx
    rollout = transaction.rollout
    deadline = add_seconds(rollout.step_started_at, rollout.current.deadline_s)
    ends = rollout.bake_ends_at or deadline
    if ctx.clock_watch.steady(ctx.clock.now()) >= ends:
        return ""
    what = "bake" if rollout.baking else "step"
    return f"this machine's clock was set, and the {what} has not lasted long enough"


def _explain_freeze_expiry(transaction: RolloutTransaction) -> str:
    """Explains that a freeze used up the step's time; else empty. A bake ignores freezes."""
    ctx = transaction.ctx
    rollout = transaction.rollout
    if rollout.baking:
        return ""
    frozen = freezes.measure_frozen(ctx, transaction.tx, rollout.route, rollout.step_started_at)
    deadline = add_seconds(rollout.step_started_at, rollout.current.deadline_s)
    if ctx.clock.now() >= add_seconds(deadline, frozen.total_seconds()):
        return ""
    return (
        f"route {rollout.route} was frozen for {format_span(frozen.total_seconds())} of this "
        "step, and the step's deadline excludes this time"
    )


LONGEST_GAP: Final = timedelta(seconds=60)
BEFORE_GAP: Final = timedelta(hours=1)
# If so many requests or canary exposures are expected, the chance that none comes is 1/1000.
MIN_EXPECTED: Final = 7.0
# Maximum share of requests, as a multiple of the planned share.
MOST_SHARE_TIMES: Final = 3.0
LONGEST_AHEAD: Final = timedelta(seconds=60)
_FALLBACK: Final = outcome_key(OutcomeKind.NOT_MEASURED, OutcomeReason.GATEWAY_FALLBACK)
CATCH_UP: Final = timedelta(seconds=120)
RECENT: Final = timedelta(minutes=10)


def describe_traffic_gap(traffic: Sequence[TrafficMinute], now: datetime) -> str:
    """Describes that routers stopped recording this route, although it should have traffic.

    Args:
        traffic: rows of the last two hours, one per minute.
    """
    if not traffic:
        return ""
    last = max(row.minute for row in traffic) + timedelta(minutes=1)
    silent = now - last
    if silent <= LONGEST_GAP:
        return ""
    before = sum(row.requests for row in traffic if row.minute >= last - BEFORE_GAP)
    if before * (silent / BEFORE_GAP) < MIN_EXPECTED:
        return ""
    return (
        f"no router has recorded traffic of this route for "
        f"{format_span(silent.total_seconds())}, "
        f"after {before:,} requests in the hour before: check that routers run and reach the "
        "database"
    )


def describe_future_traffic(traffic: Sequence[TrafficMinute], now: datetime) -> str:
    """Describes traffic rows dated in the future; else empty. Routers wrote them before
    somebody set the clock back, so they will look new. Finds them also after a restart of this
    process.
    """
    newest = max((row.minute for row in traffic), default=now)
    if newest - now <= LONGEST_AHEAD:
        return ""
    return (
        "the clock of this machine was set back, or a router's clock is wrong: this route's "
        f"traffic has rows up to {newest:%Y-%m-%d %H:%M} UTC, "
        f"{format_span((newest - now).total_seconds())} in the future; until then old and new "
        "rows look alike"
    )


def count_by_audience(blocks: Sequence[ObservationBlock]) -> ArmSplit:
    """Counts the requests whose arm a rule of the audience chose; both arms, canary."""
    counts = [block.uncounted.get(UncountedReason.AUDIENCE, NO_SPLIT) for block in blocks]
    return ArmSplit(
        sum(split.failures for split in counts), sum(split.canary for split in counts)
    )


def describe_missing_exposures(
    rollout: Rollout,
    traffic: Sequence[TrafficMinute],
    step_exposures: int,
    now: datetime,
    by_rule: ArmSplit = NO_SPLIT,
) -> str:
    """Describes that the route has traffic, but this step's canary has none; else empty.

    Args:
        step_exposures: canary exposures in blocks with the step's share. Requests of the step's
            first minute do not count.
        by_rule: of `count_by_audience`; the share draws none of them.
    """
    if step_exposures or now - rollout.step_started_at < RECENT:
        return ""
    since = rollout.step_started_at + timedelta(minutes=1)
    requests = sum(row.requests for row in traffic if row.minute >= since) - by_rule.failures
    share = rollout.current.weight_bps / 10_000
    if requests * share < MIN_EXPECTED:
        return ""
    return (
        f"{requests:,} requests since the step began, but no caller of the canary at "
        f"{format_bps(rollout.current.weight_bps)}: check that routers serve the newest "
        "revision, and that callers have separate sticky keys"
    )


def describe_oversized_share(
    rollout: Rollout, traffic: Sequence[TrafficMinute], by_rule: ArmSplit = NO_SPLIT
) -> str:
    """Describes that few callers make most requests, so that the canary's share is too high;
    else empty.

    A share counts as too high above MOST_SHARE_TIMES its planned value. The canary splits
    callers, not requests, so one busy caller can move the share of requests.

    Args:
        by_rule: of `count_by_audience`; the share draws none of them.
    """
    planned = rollout.current.weight_bps / 10_000
    since = rollout.step_started_at
    rows = [row for row in traffic if row.minute >= since.replace(second=0, microsecond=0)]
    requests = sum(row.requests for row in rows) - by_rule.failures
    canary = sum(row.requests for row in rows if row.arm == Arm.CANARY.value) - by_rule.canary
    if requests * planned < MIN_EXPECTED or canary <= MOST_SHARE_TIMES * planned * requests:
        return ""
    return (
        f"the canary has {format_percent(canary / requests, significant=2)} of the route's "
        f"requests ({canary:,} of {requests:,}), but {format_bps(rollout.current.weight_bps)} "
        "are planned: few callers make most of the requests, so give each person or "
        "conversation a separate key"
    )


def describe_fallback_answers(rollout: Rollout, blocks: Sequence[ObservationBlock]) -> str:
    """Describes that a gateway marks too many answers of an arm as its fallback's; else empty.

    Such answers are not measured, so a step must not pass with the remaining answers. Reads the
    blocks at this step's share; in a bake, those at the highest share.
    """
    weight = max((block.weight_bps for block in blocks), default=0)
    if not rollout.baking:
        weight = rollout.current.weight_bps
    step = [block for block in blocks if block.weight_bps == weight]
    marked = [block.assigned_outcomes.get(_FALLBACK, NO_SPLIT) for block in step]
    for arm, number, assigned in (
        (
            "candidate",
            sum(split.canary for split in marked),
            sum(block.assigned.canary for block in step),
        ),
        (
            "incumbent",
            sum(split.failures - split.canary for split in marked),
            sum(block.assigned.failures - block.assigned.canary for block in step),
        ),
    ):
        if number > MOST_FALLBACKS * assigned:
            return (
                f"a gateway marks {number:,} of the {arm}'s {assigned:,} answers in this step "
                f"({format_percent(number / assigned)}) as its fallback's, so they are not "
                f"measured: check the {arm}'s model behind the gateway"
            )
    return ""


def describe_clock_skew(blocks: Sequence[ObservationBlock], now: datetime) -> str:
    """Describes that the newest block is dated in the future, because a clock is wrong; else
    empty.
    """
    # A block of late outcomes has the dates of an earlier block.
    own = (block for block in blocks if not block.late_of)
    newest = max(own, key=lambda block: block.number, default=None)
    if newest is None or newest.closed_at - now <= LONGEST_AHEAD:
        return ""
    ahead = (newest.closed_at - now).total_seconds()
    return (
        f"the newest block of {newest.worker} is dated {format_span(ahead)} in the future: "
        "check the clocks of routers and control plane"
    )


def describe_stale_snapshot(
    rollout: Rollout,
    blocks: Sequence[ObservationBlock],
    now: datetime,
) -> str:
    """Describes a router that still assigns by an old share, because its snapshot is old; else
    empty.

    Ignores blocks that opened within CATCH_UP of the step's start, and blocks older than
    RECENT.
    """
    since = max(rollout.step_started_at + CATCH_UP, now - RECENT)
    weight = rollout.current.weight_bps
    for block in blocks:
        if block.opened_at >= since and block.weight_bps != weight:
            return (
                f"router {block.worker} still assigns {format_bps(block.weight_bps)}, but the "
                f"step has {format_bps(weight)}: its snapshot is old; check `/readyz` and "
                "`swapproof_snapshot_age_seconds`"
            )
    return ""


def decide(ctx: ProposalsContext, rollout: Rollout) -> RolloutAction:
    """Decides the next action from everything that is stored now, in one read transaction.

    The result is valid for `rollout.version` only: the writer must decide again if the rollout
    has moved.
    """
    with ctx.store.read() as tx:
        transaction = RolloutTransaction(ctx, tx, rollout)
        action = apply_hold(transaction, read_evidence(transaction))
        action = _check_proof(transaction, _check_first_callers(transaction, action))
        return confirm_worker_abort(transaction, action)


def _check_first_callers(
    transaction: RolloutTransaction, action: RolloutAction
) -> RolloutAction:
    """Pauses the canary if the callers that the audience puts first fail too often."""
    rollout = transaction.rollout
    can_pause = rollout.state in (RolloutState.WAITING, RolloutState.MEASURING)
    is_known = first_callers.ACKNOWLEDGED in (rollout.acknowledged or ())
    if not can_pause or is_known or action.signal is RolloutSignal.HARM:
        return action
    found = first_callers.read_first_callers(transaction.tx, rollout)
    if not found.is_harmed:
        return action
    return replace(
        action,
        kind=ActionKind.PAUSE,
        signal=RolloutSignal.PAUSE,
        reason=found.pause_text,
        code=ReasonCode.FIRST_CALLERS,
    )


def read_evidence(transaction: RolloutTransaction) -> RolloutAction:
    """Decides by the stored blocks alone; ignores holds, the proof and a router's guard."""
    blocks = Observations(transaction.tx).blocks(transaction.rollout.id)
    return decide_action(transaction.rollout, blocks, transaction.ctx.clock.now())


def find_left_out_differences(transaction: RolloutTransaction) -> Sequence[LeftOutDifference]:
    """Returns the reasons for which the arms leave out unlike shares, if they hold the step or
    would hold it after a pause.
    """
    blocks = Observations(transaction.tx).blocks(transaction.rollout.id)
    ordered = sorted(blocks, key=lambda block: block.number)
    evidence = collect_evidence(ordered, transaction.rollout.policy)
    differences = left_out_differences(transaction.rollout, ordered, evidence)
    unsupported = unsupported_share(transaction.rollout, evidence)
    if unsupported is None or any(
        one.reason is ExclusionCause.UNSUPPORTED for one in differences
    ):
        return differences
    left_out = ArmSplit(unsupported.requests, unsupported.requests)
    whole = ArmSplit(unsupported.of, unsupported.of)
    return (*differences, LeftOutDifference(ExclusionCause.UNSUPPORTED, left_out, whole))


def _check_proof(transaction: RolloutTransaction, action: RolloutAction) -> RolloutAction:
    """Rolls back an unmeasured model; pauses the canary after any other change of the proof."""
    ctx = transaction.ctx
    tx = transaction.tx
    rollout = transaction.rollout
    if not rollout.live or action.signal is RolloutSignal.HARM:
        return action
    try:
        proof = Verdicts(tx).get(rollout.verdict)
    except (NotFound, SignatureInvalid) as error:
        why = f"its proof is gone: {error}"
        return replace(
            action,
            kind=ActionKind.ROLLBACK,
            signal=RolloutSignal.STALE,
            reason=why,
            code=ReasonCode.PROOF,
        )
    unreadable = proof_validity.find_unreadable(proof)
    is_replaced = (
        not unreadable and proof_validity.find_replaced_candidate(tx, proof) is not None
    )
    if unreadable or is_replaced or proof_validity.list_clearance_faults(ctx, tx, proof):
        why = f"the proof is {proof_validity.assess_proof(ctx, tx, proof).text}"
        return replace(
            action,
            kind=ActionKind.ROLLBACK,
            signal=RolloutSignal.STALE,
            reason=why,
            code=ReasonCode.PROOF,
        )
    if moved := proof_validity.list_moved_providers(ctx, tx, proof):
        return _stop_for_moved_provider(rollout, action, describe_moved(moved))
    is_onward = action.signal in (RolloutSignal.STEP_DONE, RolloutSignal.PROVEN)
    return _check_onward_proof(transaction, proof, action) if is_onward else action


def _check_onward_proof(
    transaction: RolloutTransaction,
    proof: Verdict,
    action: RolloutAction,
) -> RolloutAction:
    """Pauses a move onward if the proof no longer holds; else checks the stored scores."""
    validity = proof_validity.assess_proof(transaction.ctx, transaction.tx, proof)
    if not validity.holds:
        why = (
            f"the proof is {validity.text}. The canary does not continue: undo the change and "
            "resume, or abort and propose again"
        )
        return replace(
            action,
            kind=ActionKind.PAUSE,
            signal=RolloutSignal.PAUSE,
            reason=why,
            code=ReasonCode.PROOF,
        )
    return _check_stored_scores(transaction, proof, action)


def describe_moved(moved: Sequence[str]) -> str:
    """Explains why a canary stops.

    Args:
        moved: result of `proof_validity.list_moved_providers`.
    """
    if not moved:
        return ""
    return f"{'; '.join(moved)}. The canary does not continue: abort it and propose again."


def _stop_for_moved_provider(
    rollout: Rollout,
    action: RolloutAction,
    why: str,
) -> RolloutAction:
    """Stops the canary after an admin moved its provider. The new address is unmeasured, so the
    canary pauses; the move is no harm, so it is not rolled back.
    """
    if rollout.state is RolloutState.PAUSED:
        return replace(
            action,
            kind=ActionKind.HOLD,
            signal=None,
            reason=why,
            code=ReasonCode.PROOF,
        )
    return replace(
        action,
        kind=ActionKind.PAUSE,
        signal=RolloutSignal.PAUSE,
        reason=why,
        code=ReasonCode.PROOF,
    )


def _check_stored_scores(
    transaction: RolloutTransaction,
    proof: Verdict,
    action: RolloutAction,
) -> RolloutAction:
    """Recomputes the verdict from the stored scores. Rolls an unproven candidate back; pauses
    for a person if only a figure differs, because the outcome is unchanged.
    """
    recomputed = recomputation.recompute_stored(
        transaction.ctx, transaction.tx, proof, transaction.proposal
    )
    if recomputed.agrees:
        return action
    figures = replace(action.figures, unproven=recomputed.text)
    if recomputed.agreement is AgreementLevel.DIFFERS:
        why = f"the stored scores do not give verdict {proof.id} any more: {recomputed.text}"
        kind = ActionKind.ROLLBACK
        signal = RolloutSignal.STALE
    else:
        why = (
            f"verdict {proof.id} has the same outcome but other figures: {recomputed.text}. "
            "The canary does not continue: find out why and resume, or abort and propose again"
        )
        kind = ActionKind.PAUSE
        signal = RolloutSignal.PAUSE
    return replace(
        action,
        kind=kind,
        signal=signal,
        reason=why,
        code=ReasonCode.PROOF,
        figures=figures,
    )


def confirm_worker_abort(
    transaction: RolloutTransaction, action: RolloutAction
) -> RolloutAction:
    """Returns a rollback if a router's guard stopped the canary, else the action."""
    rollout = transaction.rollout
    if not (rollout.live or rollout.baking) or action.signal is RolloutSignal.HARM:
        return action
    abort = find_worker_abort(transaction)
    return action if abort is None else add_worker_abort(action, abort)


def add_worker_abort(action: RolloutAction, abort: AlertRecord) -> RolloutAction:
    """Returns the rollback that a worker's guard decided, with the guard's counts.

    The alert of an older router may lack the counts; then its text is the reason.
    """
    count = read_guard_count(abort.details)
    action = action.with_guard(count, abort.id)
    return action if count is not None else replace(action, reason=abort.text)


def find_worker_abort(transaction: RolloutTransaction) -> AlertRecord | None:
    """Returns the newest alert of a router that stopped this rollout itself; else None."""
    return Alerts(transaction.tx).newest(
        f"{AlertKind.LOCAL_ABORT.value}:{transaction.rollout.id}"
    )
