"""Drives an open proposal by its phase (`drive_proposal`): runs, verdict, approval, canary.

Loads once, decides without I/O, applies by compare-and-swap, and records. If another writer was
first, the next turn decides again. All state is in the store, so the driver may stop at any
point.

The driver calls no model: eval workers do. `harness.proposals.evaluation` decides the verdict,
and `Canaries.drive` moves a canary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from harness.evals import proof_validity
from harness.evals.users_turn import describe_users_turn, find_users_turn
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    EvidenceMismatch,
    StaleEvidence,
)
from harness.frame.formatting import (
    add_seconds,
    format_quantity,
    format_span,
)
from harness.frame.records.transaction import Transaction
from harness.gate.run import EvalRun, RunState, describe_waits
from harness.gate.sentences import polish_reason
from harness.gate.verdict import (
    Failed,
    HarnessMismatch,
    Inconclusive,
    InfraError,
    Passed,
    Verdict,
)
from harness.proposals import (
    eval_queue,
    evaluation,
    proposal_waits,
    recomputation,
    slice_attempts,
    traffic_suites,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.driving import label_waits, suite_runs
from harness.proposals.driving.passed_verdicts import (
    Canaries,
    choose_best,
    continue_passed,
    open_or_expire,
)
from harness.proposals.driving.proposal_ends import (
    describe_base_change,
    describe_invalid_proof,
    describe_rule_differences,
    record_step,
    reject,
    reject_in_transaction,
)
from harness.proposals.labels import label_verdicts
from harness.proposals.labels.blindness import list_labelled_suites
from harness.proposals.labels.label_verdicts import LabelWait
from harness.proposals.registration import look_counts
from harness.proposals.slice_attempts import WholeResult
from harness.providers.records import Targets
from harness.routing.proposal import (
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
)
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts


def drive_proposal(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Moves a proposal by its phase. Returns log lines. Raises SwapproofError.

    If the stored scores no longer give the verdict, the driver rejects the proposal and raises
    an alert. In a canary, the rollout reacts instead.
    """
    try:
        return _call_step(ctx, canaries, proposal)
    except EvidenceMismatch as error:
        if proposal.phase is ProposalPhase.CANARY:
            raise  # the canary's own turn reacts to the mismatch
        with ctx.store.write() as tx:
            current = Proposals(tx).get(proposal.id)
            recomputation.raise_mismatch_alert(tx, current, error.verdict, error.differences)
            return reject(ctx, tx, current, ProposalEvent.STALE, str(error))


def _call_step(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Calls the step of the proposal's phase; does nothing for a closed proposal."""
    match proposal.phase:
        case ProposalPhase.PROPOSED:
            return _start_evaluation(ctx, proposal)
        case ProposalPhase.EVALUATING:
            return (choose_best if proposal.waits_for_rivals else _evaluate_answers)(
                ctx, canaries, proposal
            )
        case ProposalPhase.AWAITING_APPROVAL:
            return open_or_expire(ctx, canaries, proposal)
        case ProposalPhase.CANARY:
            with ctx.store.read() as tx:
                rollout = Rollouts(tx).get(proposal.rollout or "")
            return canaries.drive(ctx, rollout)
        case _:
            return []


def _start_evaluation(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    """Attaches eval runs to a new proposal, and starts its evaluation.

    Rejects a proposal with another incumbent than the route's, before it costs a call.
    """
    if proposal.slice_terms is not None:
        with ctx.store.read() as tx:
            result = slice_attempts.find_whole_result(tx, proposal.slice_terms)
        if result is WholeResult.OPEN:
            return []
        if end := slice_attempts.describe_end(result):
            return reject_in_transaction(ctx, proposal, ProposalEvent.CANCELLED, end)
    with ctx.store.write() as tx:
        if base_change := describe_base_change(tx, proposal):
            return reject(ctx, tx, proposal, ProposalEvent.BASE_CHANGED, base_change)
        ready = suite_runs.attach_runs(ctx, tx, proposal)
        saved = Proposals(tx).save(apply_event(ready, ProposalEvent.START, ctx.clock.now()))
        record_step(
            tx,
            saved,
            "proposal.start",
            {"runs": sorted(evaluation.list_run_ids(saved))},
        )
    return [f"{proposal.id}: evaluating"]


def _evaluate_answers(
    ctx: ProposalsContext, canaries: Canaries, proposal: Proposal
) -> list[str]:
    """Decides the verdict from the answers so far; waits if they cannot decide yet.

    Changes of the route, its rules or its suites end the proposal as stale, because its answers
    belong to other conditions.
    """
    if proposal.retry_at is not None:
        return _retry(ctx, proposal) if proposal.retry_due(ctx.clock.now()) else []
    with ctx.store.read() as tx:
        wait = label_verdicts.find_wait(tx, proposal)
        changes = [
            change
            for plan in proposal.plans
            if (change := proof_validity.find_suite_change(ctx, tx, plan))
        ]
    unloadable = [change for change in changes if wait and not change.is_loaded]
    if lines := _end_if_changed(
        ctx, proposal, [change.text for change in changes if change not in unloadable]
    ):
        return lines
    if wait is not None and (unloadable or not wait.news):
        return label_waits.continue_wait(ctx, proposal, wait, unloadable)
    return _decide(ctx, canaries, proposal, wait)


def _decide(
    ctx: ProposalsContext, canaries: Canaries, proposal: Proposal, wait: LabelWait | None
) -> list[str]:
    """Decides the verdict and applies it, or waits for answers or labels.

    Args:
        wait: for labels.
    """
    with ctx.store.read() as tx:
        runs_by_id = evaluation.load_runs(tx, proposal)
        answers = evaluation.load_answers(tx, proposal)
        now = proof_validity.route_time(tx, proposal.route)
        targets_by_id = Targets(tx).all()
        passed_slices = slice_attempts.list_passed(tx, proposal)
        labels = label_verdicts.load_suite_labels(tx, proposal)
    stuck_runs = evaluation.list_stuck_runs(proposal, runs_by_id, ctx.clock.now())
    readable_answers = evaluation.drop_unreadable(ctx, proposal, runs_by_id, answers)
    try:
        evaluation.check_arms(proposal, runs_by_id)
        models = (
            targets_by_id[proposal.incumbent].model,
            targets_by_id[proposal.candidate].model,
        )
        verdict = evaluation.decide_verdict(
            proposal, readable_answers, stuck_runs, now, models, passed_slices, labels
        )
    except StaleEvidence as error:
        return reject_in_transaction(ctx, proposal, ProposalEvent.STALE, str(error))
    if verdict is None and wait is not None:
        return label_waits.continue_wait(ctx, proposal, wait, ())
    if verdict is None or _may_level_rise(ctx, proposal, verdict):
        _update_wait_alert(ctx, proposal, runs_by_id)
        lines = _requeue_short_runs(ctx, proposal)
        waits_for_answers = lines or verdict is not None
        if waits_for_answers or not label_waits.may_begin(proposal, runs_by_id.values()):
            return lines
        return label_waits.begin_wait(ctx, proposal)
    with ctx.store.write() as tx:
        return _apply_verdict(ctx, canaries, tx, proposal, verdict)


def _end_if_changed(
    ctx: ProposalsContext, proposal: Proposal, suite_changes: Sequence[str]
) -> list[str]:
    """Ends a proposal whose route, rules or suites have changed. Returns log lines."""
    with ctx.store.read() as tx:
        base_change = describe_base_change(tx, proposal)
        rule_differences = "" if base_change else describe_rule_differences(ctx, tx, proposal)
    if base_change:
        return reject_in_transaction(ctx, proposal, ProposalEvent.BASE_CHANGED, base_change)
    if not suite_changes and not rule_differences:
        return []
    change_text = f"{'; '.join(suite_changes)} since the proposal"
    return reject_in_transaction(
        ctx, proposal, ProposalEvent.STALE, change_text if suite_changes else rule_differences
    )


def _may_level_rise(ctx: ProposalsContext, proposal: Proposal, verdict: Verdict) -> bool:
    """Tells whether a slice waits for the other slices, because Holm's rule may raise its
    level.
    """
    if proposal.slice_terms is None or not isinstance(verdict, Inconclusive):
        return False
    now = ctx.clock.now()
    with ctx.store.read() as tx:

        def decide(other: Proposal) -> Verdict | None:
            runs = evaluation.load_runs(tx, other)
            answers = evaluation.load_answers(tx, other)
            return evaluation.decide_verdict(
                other,
                evaluation.drop_unreadable(ctx, other, runs, answers),
                evaluation.list_stuck_runs(other, runs, now),
                now,
                passed_slices=slice_attempts.list_passed(tx, other),
                labels=label_verdicts.load_suite_labels(tx, other),
            )

        return slice_attempts.may_level_rise(tx, proposal, decide)


def _update_wait_alert(
    ctx: ProposalsContext,
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
) -> None:
    """Raises or updates the alert that the proposal waits for a provider: the provider is away,
    or callers' requests come first.
    """
    now = ctx.clock.now()
    wait_text = describe_waits(runs.values(), now)
    patience = format_span(proposal.policy.gate.infra_patience_s)
    text = f"The comparison keeps its answers; it ends as not measured after {patience}."
    with ctx.store.read() as tx:
        providers_of_users: Mapping[str, str] = {}
        if not wait_text:
            providers_of_users = find_users_turn(tx, runs.values(), now)
    if providers_of_users:
        # Without the changing figures, which would change the alert every second.
        wait_text = f"gives way to callers of {', '.join(providers_of_users)}"
        reason = describe_users_turn(providers_of_users)
        text = f"It {reason}. It goes on in the room that callers leave, and keeps its answers."
    title = f"the comparison {proposal.id} {wait_text}"
    with ctx.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.EVAL_WAITS.value}:{proposal.id}")
    is_open = record is not None and record.open
    if not wait_text or (record is not None and is_open and record.title == title):
        return
    with ctx.store.write() as tx:
        alerts.raise_alert(
            tx,
            AlertKind.EVAL_WAITS,
            proposal.id,
            subject=f"route {proposal.route}",
            title=title,
            text=text,
            news=AlertEvent.STILL if is_open else AlertEvent.RAISED,
        )


def _requeue_short_runs(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    """Queues shared runs again that another proposal stopped before this proposal had enough
    answers.
    """
    with ctx.store.read() as tx:
        short_runs = evaluation.find_short_runs(tx, proposal)
    if short_runs:
        with ctx.store.write() as tx:
            for run, items in evaluation.find_short_runs(tx, proposal).items():
                EvalRuns(tx).want(run, items)
                EvalRuns(tx).set_state(run, RunState.QUEUED)
    return [f"{proposal.id}: {run} continues" for run in short_runs]


def _apply_verdict(
    ctx: ProposalsContext,
    canaries: Canaries,
    tx: Transaction,
    proposal: Proposal,
    verdict: Verdict,
) -> list[str]:
    """Stores a verdict, and moves the proposal by the verdict's kind, in one transaction.

    Checks a passed verdict again, because a suite or provider may have changed during the run.
    """
    Verdicts(tx).store(verdict, proposal.id)
    decided = replace(proposal, verdict=verdict.id)
    record_step(
        tx,
        decided,
        "verdict",
        {"verdict": verdict.id, "outcome": verdict.outcome},
    )
    line = f"{proposal.id}: {verdict.words}"
    match verdict:
        case Passed():
            validity = proof_validity.assess_proof(ctx, tx, verdict)
            if not validity.holds:
                line = f"{line}, and {validity.text}"
                reject(
                    ctx,
                    tx,
                    decided,
                    ProposalEvent.STALE,
                    describe_invalid_proof(verdict, validity),
                )
                return [line]
            if uncounted_looks := look_counts.describe_uncounted_looks(tx, decided):
                reject(ctx, tx, decided, ProposalEvent.STALE, uncounted_looks)
                return [f"{line}, and {uncounted_looks}"]
            if proposal.slice_terms and (why := slice_attempts.link_route(ctx, tx, decided)):
                reject(ctx, tx, decided, ProposalEvent.STALE, why)
                return [f"{line}, and {why}"]
            if proposal.selection:
                waiting = Proposals(tx).save(replace(decided, updated_at=ctx.clock.now()))
                eval_queue.stop_unneeded_runs(ctx, tx, waiting)
            else:
                continue_passed(ctx, canaries, tx, decided, verdict)
        case Failed():
            reject(ctx, tx, decided, ProposalEvent.FAILED, verdict.reason)
        case HarnessMismatch():
            reject(
                ctx,
                tx,
                decided,
                ProposalEvent.HARNESS_MISMATCH,
                verdict.reason,
            )
        case Inconclusive():
            reject(ctx, tx, decided, ProposalEvent.INCONCLUSIVE, verdict.reason)
        case InfraError():
            _pause_or_end(ctx, tx, decided, verdict)
        case _:
            assert_never(verdict)
    return [line]


def _pause_or_end(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    verdict: InfraError,
) -> None:
    """Pauses a proposal after an infrastructure error, or ends it if another attempt would be
    useless.

    The policy's `infra_pause_s` gives the pause. If the answers were unreadable and the policy
    counts these as wrong, the next attempt has no pause.
    """
    now = ctx.clock.now()
    gate = proposal.policy.gate
    if replacement := evaluation.find_replacement(ctx, tx, proposal):
        reject(ctx, tx, proposal, ProposalEvent.STALE, _describe_second_look(replacement))
        return
    runs = evaluation.load_runs(tx, proposal)
    refused = suite_runs.find_refused(tx, runs.values())
    attempts = proposal.infra_errors + 1
    pause_s = gate.infra_pause_s(attempts)
    # Another attempt would fail in the same way, because the same model answers. Another check
    # of a stale record could pass by luck.
    is_useless = (
        evaluation.has_silent_cut(tx, proposal)
        or traffic_suites.has_stale_record(runs.values())
        # People have labelled answers of these runs.
        or label_verdicts.has_labelling(tx, proposal)
        or (refused is not None and not gate.unreadable_is_wrong)
    )
    overdue_runs = evaluation.list_overdue_runs(proposal, runs, now)
    if not pause_s or is_useless or overdue_runs:
        cause = polish_reason(verdict.reason)
        effort = format_quantity(attempts, "attempt")
        if overdue_runs:
            effort = format_span(gate.infra_patience_s)
        reason = f"not measured after {effort}: {cause}"
        reject(ctx, tx, proposal, ProposalEvent.INFRA_LIMIT, reason)
        return
    paused = replace(
        apply_event(proposal, ProposalEvent.INFRA_ERROR, now),
        infra_errors=attempts,
        retry_at=now + timedelta(seconds=0.0 if refused else pause_s),
    )
    Proposals(tx).save(paused)
    eval_queue.stop_unneeded_runs(ctx, tx, proposal)


def _retry(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    """Creates new runs after InfraError, because a sample that ended in an error stays.

    A proposal that waits for `confirm_same_model` waits for the policy's patience instead,
    because the same model would serve another attempt.
    """
    if (waits_until := _find_unconfirmed(ctx, proposal)) is not None:
        if waits_until > ctx.clock.now():
            return []
        reason = "both models were served by the same, and no approver confirmed it in time"
        return reject_in_transaction(ctx, proposal, ProposalEvent.INFRA_LIMIT, reason)
    with ctx.store.write() as tx:
        # An answer may have arrived after the verdict.
        if replacement := evaluation.find_replacement(ctx, tx, proposal):
            return reject(
                ctx,
                tx,
                proposal,
                ProposalEvent.STALE,
                _describe_second_look(replacement),
            )
        # In a selection, a proposal with a verdict and no retry_at waits for its rivals. And a
        # proposal with a verdict takes no labels.
        is_cleared = bool(proposal.selection) or bool(list_labelled_suites(proposal))
        verdict = None if is_cleared else proposal.verdict
        without_verdict = replace(proposal, retry_at=None, verdict=verdict)
        with_runs = suite_runs.attach_runs(ctx, tx, without_verdict)
        saved = Proposals(tx).save(replace(with_runs, updated_at=ctx.clock.now()))
        record_step(
            tx,
            saved,
            "proposal.retry",
            {"attempt": proposal.infra_errors + 1},
        )
    return [f"{proposal.id}: measured again"]


def _find_unconfirmed(ctx: ProposalsContext, proposal: Proposal) -> datetime | None:
    """Returns the end of a proposal's wait for `confirm_same_model`; None if it does not
    wait.
    """
    with ctx.store.read() as tx:
        verdict = proposal_waits.find_unconfirmed(tx, proposal)
    if verdict is None:
        return None
    return add_seconds(verdict.decided_at, proposal.policy.gate.infra_patience_s)


def _describe_second_look(replacement: str) -> str:
    """Explains why this proposal does not repeat a question that has a score."""
    return (
        f"{replacement}. Asking a scored question again needs a new proposal, because every "
        "repeated comparison is tested at a smaller alpha: propose again"
    )
