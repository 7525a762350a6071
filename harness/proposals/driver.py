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
from typing import Protocol, assert_never

from harness.evals import proof_validity
from harness.evals.proof_validity import ProofState, ProofValidity
from harness.evals.users_turn import describe_users_turn, find_users_turn
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertEvent, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    EvidenceMismatch,
    ProofRefused,
    StaleEvidence,
)
from harness.frame.formatting import (
    add_seconds,
    format_quantity,
    format_span,
)
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import Rollout, rollout_id
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
from harness.gate.verdict_sentences import describe_reason
from harness.proposals import (
    approvals,
    eval_queue,
    evaluation,
    recomputation,
    registration,
    route_rules,
    slice_attempts,
    traffic_suites,
)
from harness.proposals.candidates import cost_ratio, leaderboard
from harness.proposals.candidates.setbacks import (
    Setback,
    describe_setbacks,
    find_setbacks,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.slice_attempts import WholeResult
from harness.providers.records import Targets
from harness.routing.candidate_schedule import OnBetter
from harness.routing.control import freezes
from harness.routing.proposal import (
    POLICY_APPROVER,
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
)
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts


class Canaries(Protocol):
    """Opens and drives the canaries of proposals. `harness.canary` implements it."""

    def open(
        self,
        ctx: ProposalsContext,
        tx: Transaction,
        proposal: Proposal,
        proof: Passed,
        event: ProposalEvent,
    ) -> Proposal:
        """Opens a proposal's canary: stores rollout, routing table and proposal, all or
        none.
        """
        ...

    def drive(self, ctx: ProposalsContext, before: Rollout) -> list[str]:
        """Drives a live canary or a bake by one turn. Returns log lines."""
        ...


def drive_proposal(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Moves a proposal by its phase. Returns log lines. Raises SwapgateError.

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
            return _reject(ctx, tx, current, ProposalEvent.STALE, str(error))


def _call_step(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Calls the step of the proposal's phase; does nothing for a closed proposal."""
    match proposal.phase:
        case ProposalPhase.PROPOSED:
            return _start_evaluation(ctx, proposal)
        case ProposalPhase.EVALUATING:
            return (_choose_best if proposal.waits_for_rivals else _evaluate_answers)(
                ctx, canaries, proposal
            )
        case ProposalPhase.AWAITING_APPROVAL:
            return _open_or_expire(ctx, canaries, proposal)
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
            return _reject_in_transaction(ctx, proposal, ProposalEvent.CANCELLED, end)
    with ctx.store.write() as tx:
        if base_change := _describe_base_change(tx, proposal):
            return _reject(ctx, tx, proposal, ProposalEvent.BASE_CHANGED, base_change)
        ready = evaluation.attach_runs(ctx, tx, proposal)
        saved = Proposals(tx).save(apply_event(ready, ProposalEvent.START, ctx.clock.now()))
        _audit(
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
        base_change = _describe_base_change(tx, proposal)
        runs_by_id = evaluation.load_runs(tx, proposal)
        answers = evaluation.load_answers(tx, proposal)
        now = proof_validity.route_time(tx, proposal.route)
        rule_differences = "" if base_change else _describe_rule_differences(ctx, tx, proposal)
        targets_by_id = Targets(tx).all()
        passed_slices = slice_attempts.list_passed(tx, proposal)
        changes = [
            change
            for plan in proposal.plans
            if (change := proof_validity.describe_suite_change(ctx, tx, plan))
        ]
    if base_change:
        return _reject_in_transaction(ctx, proposal, ProposalEvent.BASE_CHANGED, base_change)
    if changes or rule_differences:
        change_text = f"{'; '.join(changes)} since the proposal"
        return _reject_in_transaction(
            ctx, proposal, ProposalEvent.STALE, change_text if changes else rule_differences
        )
    stuck_runs = evaluation.list_stuck_runs(proposal, runs_by_id, ctx.clock.now())
    readable_answers = evaluation.drop_unreadable(ctx, proposal, runs_by_id, answers)
    try:
        evaluation.check_arms(proposal, runs_by_id)
        models = (
            targets_by_id[proposal.incumbent].model,
            targets_by_id[proposal.candidate].model,
        )
        verdict = evaluation.decide_verdict(
            proposal, readable_answers, stuck_runs, now, models, passed_slices
        )
    except StaleEvidence as error:
        return _reject_in_transaction(ctx, proposal, ProposalEvent.STALE, str(error))
    if verdict is None or _may_level_rise(ctx, proposal, verdict):
        _update_wait_alert(ctx, proposal, runs_by_id)
        return _requeue_short_runs(ctx, proposal)
    with ctx.store.write() as tx:
        return _apply_verdict(ctx, canaries, tx, proposal, verdict)


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
    _audit(
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
                _reject(
                    ctx,
                    tx,
                    decided,
                    ProposalEvent.STALE,
                    _describe_invalid_proof(verdict, validity),
                )
                return [line]
            if uncounted_looks := registration.describe_uncounted_looks(tx, decided):
                _reject(ctx, tx, decided, ProposalEvent.STALE, uncounted_looks)
                return [f"{line}, and {uncounted_looks}"]
            if proposal.slice_terms and (why := slice_attempts.link_route(ctx, tx, decided)):
                _reject(ctx, tx, decided, ProposalEvent.STALE, why)
                return [f"{line}, and {why}"]
            if proposal.selection:
                waiting = Proposals(tx).save(replace(decided, updated_at=ctx.clock.now()))
                eval_queue.stop_unneeded_runs(ctx, tx, waiting)
            else:
                _continue_passed(ctx, canaries, tx, decided, verdict)
        case Failed():
            _reject(ctx, tx, decided, ProposalEvent.FAILED, verdict.reason)
        case HarnessMismatch():
            _reject(
                ctx,
                tx,
                decided,
                ProposalEvent.HARNESS_MISMATCH,
                verdict.reason,
            )
        case Inconclusive():
            _reject(ctx, tx, decided, ProposalEvent.INCONCLUSIVE, verdict.reason)
        case InfraError():
            _pause_or_end(ctx, tx, decided, verdict)
        case _:
            assert_never(verdict)
    return [line]


def _choose_best(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Lets the best member of a selection continue, and ends the other passed members, in one
    transaction, so that no other member can continue later. Changes nothing if this proposal is
    not the best.
    """
    proof, log_lines = _check_proof(ctx, proposal)
    if log_lines:
        return log_lines
    if not isinstance(proof, Passed):
        raise ProofRefused(f"{proposal.id}: verdict {proof.id} is {proof.outcome}, not passed")
    with ctx.store.write() as tx:
        if Proposals(tx).get(proposal.id).version != proposal.version:
            return []  # another process was faster
        members = Proposals(tx).of_selection(proposal.selection)
        if fault := leaderboard.find_fault(members):
            return _reject(
                ctx,
                tx,
                proposal,
                ProposalEvent.STALE,
                f"{fault}: propose again",
            )
        ranked = leaderboard.rank_passed(tx, members)
        if not ranked or ranked[0].proposal.id != proposal.id:
            return []
        best = ranked[0]
        name = Targets(tx).all()[proposal.candidate].name
        for other in ranked[1:]:
            reason = f"it passed with {other.text}, but {name} passed with {best.text}"
            log_lines += _reject(ctx, tx, other.proposal, ProposalEvent.NOT_CHOSEN, reason)
        _continue_passed(ctx, canaries, tx, proposal, proof)
    return [*log_lines, f"{proposal.id}: the best of its selection"]


def _continue_passed(
    ctx: ProposalsContext,
    canaries: Canaries,
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
) -> None:
    """Moves a passed proposal to its next step: a notice, an approval, the end of a freeze, or
    a canary.
    """
    if proposal.on_better is OnBetter.NOTIFY:
        _announce_better(ctx, tx, proposal, proof)
        return
    cost = cost_ratio.load_ratio(ctx, tx, proposal)
    setbacks = _find_setbacks(ctx, tx, proposal)
    # No canary opens without a person for a model that was withdrawn from callers before.
    was_withdrawn = any(setback.served for setback in setbacks)
    missing_labels = traffic_suites.find_missing_labels(tx, proposal)
    if proposal.needs_approval or cost.ends_canary or was_withdrawn or missing_labels:
        now = ctx.clock.now()
        waiting = Proposals(tx).save(
            apply_event(proposal, ProposalEvent.PASSED_NEEDS_APPROVAL, now)
        )
        widening = "; ".join(route_rules.describe_second_person_reasons(proposal.widened))
        details = f" It differs from the route's rules: {widening}." if widening else ""
        details += f" {cost.text}"
        details += f" {describe_setbacks(setbacks)}." if setbacks else ""
        details += f" Its canary waits: {missing_labels}." if missing_labels else ""
        alerts.raise_alert(
            tx,
            AlertKind.AWAITING_APPROVAL,
            proposal.id,
            subject=f"route {proposal.route}",
            title=f"a swap on route {proposal.route} waits for approval ({proposal.id})",
            text=f"{proposal.proposer} proposed it. {proof.words}: {describe_reason(proof)}"
            f"{details} "
            f"It expires at {waiting.approval_ends_at:%Y-%m-%d %H:%M} UTC.",
        )
    elif freeze_reasons := freezes.list_refusals_of_step(ctx, tx, proposal.route):
        _wait_for_freeze_end(tx, proposal, proof, freeze_reasons[0])
    else:
        canaries.open(ctx, tx, proposal, proof, ProposalEvent.PASSED)
    if not missing_labels:
        # People label the answers to all drawn records, so their run goes on.
        eval_queue.stop_unneeded_runs(ctx, tx, proposal)


def _find_setbacks(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> Sequence[Setback]:
    """Finds the setbacks of a schedule's candidate, including setbacks since the round
    began.
    """
    if proposal.on_better is None:
        return ()
    target = Targets(tx).all()[proposal.candidate]
    name = f"{target.provider}/{target.model}"
    return find_setbacks(tx, {name}, ctx.clock.now()).get(name, ())


def _announce_better(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
) -> None:
    """Announces the candidate, because the route's schedule leaves the proposal to a person.

    A pass of a fallback is no news: it renews the proof of a spare.
    """
    route = Routing(tx).route(proposal.route)
    if route is not None and proposal.candidate in route.fallbacks:
        _reject(ctx, tx, proposal, ProposalEvent.NOT_CHOSEN, "it passed, as a spare")
        return
    name = Targets(tx).all()[proposal.candidate].name
    setbacks = describe_setbacks(_find_setbacks(ctx, tx, proposal))
    setback_text = f" {setbacks}." if setbacks else ""
    alerts.raise_alert(
        tx,
        AlertKind.BETTER_CANDIDATE,
        proposal.id,
        subject=f"route {proposal.route}",
        title=f"{name} passed on route {proposal.route}",
        text=f"{proof.words}: {describe_reason(proof)} "
        f"`swapgate proposal create {proposal.route} {name}` proposes it.{setback_text}",
    )
    reason = f"it passed on schedule; propose {name} to swap"
    _reject(ctx, tx, proposal, ProposalEvent.NOT_CHOSEN, reason)


def _wait_for_freeze_end(
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
    freeze_reason: str,
) -> None:
    """Stores the policy's approval. The canary opens after the freeze."""
    event_applied = apply_event(proposal, ProposalEvent.PASSED_NEEDS_APPROVAL, tx.now())
    saved = Proposals(tx).save(
        replace(event_applied, approver=POLICY_APPROVER, approved_verdict=proof.id)
    )
    _audit(tx, saved, "proposal.frozen", {"verdict": proof.id, "reason": freeze_reason})


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
        _reject(ctx, tx, proposal, ProposalEvent.STALE, _describe_second_look(replacement))
        return
    runs = evaluation.load_runs(tx, proposal)
    refused = evaluation.find_refused(tx, runs.values())
    attempts = proposal.infra_errors + 1
    pause_s = gate.infra_pause_s(attempts)
    # Another attempt would fail in the same way, because the same model answers. Another check
    # of a stale record could pass by luck.
    is_useless = (
        evaluation.has_silent_cut(tx, proposal)
        or traffic_suites.has_stale_record(runs.values())
        or (refused is not None and not gate.unreadable_is_wrong)
    )
    overdue_runs = evaluation.list_overdue_runs(proposal, runs, now)
    if not pause_s or is_useless or overdue_runs:
        cause = polish_reason(verdict.reason)
        effort = format_quantity(attempts, "attempt")
        if overdue_runs:
            effort = format_span(gate.infra_patience_s)
        reason = f"not measured after {effort}: {cause}"
        _reject(ctx, tx, proposal, ProposalEvent.INFRA_LIMIT, reason)
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
        return _reject_in_transaction(ctx, proposal, ProposalEvent.INFRA_LIMIT, reason)
    with ctx.store.write() as tx:
        # An answer may have arrived after the verdict.
        if replacement := evaluation.find_replacement(ctx, tx, proposal):
            return _reject(
                ctx,
                tx,
                proposal,
                ProposalEvent.STALE,
                _describe_second_look(replacement),
            )
        # In a selection, a proposal with a verdict and no retry_at waits for its rivals.
        verdict = None if proposal.selection else proposal.verdict
        without_verdict = replace(proposal, retry_at=None, verdict=verdict)
        with_runs = evaluation.attach_runs(ctx, tx, without_verdict)
        saved = Proposals(tx).save(replace(with_runs, updated_at=ctx.clock.now()))
        _audit(
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
        verdict = evaluation.find_unconfirmed(tx, proposal)
    if verdict is None:
        return None
    return add_seconds(verdict.decided_at, proposal.policy.gate.infra_patience_s)


def _open_or_expire(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Opens an approved canary unless a freeze stops it. Expires a proposal without an approval
    in time.
    """
    proof, log_lines = _check_proof(ctx, proposal)
    if log_lines:
        return log_lines
    if proposal.approver is not None:
        with ctx.store.read() as tx:
            if freezes.list_refusals_of_step(ctx, tx, proposal.route):
                return []
        return _open_approved(ctx, canaries, proposal, proof)
    if proposal.approval_ends_at <= ctx.clock.now():
        return _reject_in_transaction(
            ctx,
            proposal,
            ProposalEvent.EXPIRED,
            "no person approved it in time",
        )
    return []


def _check_proof(ctx: ProposalsContext, proposal: Proposal) -> tuple[Verdict, list[str]]:
    """Returns the proposal's verdict, and log lines if the verdict is no longer valid."""
    with ctx.store.read() as tx:
        base_change = _describe_base_change(tx, proposal)
        proof = Verdicts(tx).get(proposal.verdict or "")
        validity = proof_validity.assess_proof(ctx, tx, proof)
        rule_change = "" if base_change else _describe_rule_differences(ctx, tx, proposal)
        rule_change = rule_change or approvals.find_revocation(tx, proposal)
    if base_change:
        return proof, _reject_in_transaction(
            ctx, proposal, ProposalEvent.BASE_CHANGED, base_change
        )
    if not validity.holds:
        event = (
            ProposalEvent.STALE if validity.proof is ProofState.STALE else ProposalEvent.EXPIRED
        )
        return proof, _reject_in_transaction(
            ctx, proposal, event, _describe_invalid_proof(proof, validity)
        )
    if rule_change:
        return proof, _reject_in_transaction(ctx, proposal, ProposalEvent.STALE, rule_change)
    return proof, []


def _open_approved(
    ctx: ProposalsContext,
    canaries: Canaries,
    proposal: Proposal,
    proof: Verdict,
) -> list[str]:
    """Opens the canary. Raises ProofRefused if the approval belongs to another verdict."""
    if not isinstance(proof, Passed) or proposal.approved_verdict != proof.id:
        raise ProofRefused(f"{proposal.id}: the approval is for another verdict")
    with ctx.store.write() as tx:
        if Proposals(tx).get(proposal.id).version != proposal.version:
            return []  # another process was faster
        traffic_suites.require_people(tx, proposal)
        canaries.open(ctx, tx, proposal, proof, ProposalEvent.APPROVED)
    return [f"{proposal.id}: canary opened"]


def _describe_rule_differences(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> str:
    """Describes the differences between the proposal's rules and the route's present rules;
    else empty.
    """
    rule_differences = route_rules.list_rule_differences(ctx, tx, proposal)
    return (
        f"{route_rules.OTHER_RULES} ({'; '.join(rule_differences)}): propose again"
        if rule_differences
        else ""
    )


def _describe_second_look(replacement: str) -> str:
    """Explains why this proposal does not repeat a question that has a score."""
    return (
        f"{replacement}. Asking a scored question again needs a new proposal, because every "
        "repeated comparison is tested at a smaller alpha: propose again"
    )


def _describe_invalid_proof(verdict: Verdict, validity: ProofValidity) -> str:
    return f"verdict {verdict.id} is {validity.proof.value}: {validity.why}; propose again"


_INCUMBENT_CHANGED = (
    "somebody changed the route's incumbent: this proof compares with the former one"
)
_CANARY_IN_HISTORY = (
    "the route's signed history already has this proposal's canary: the stored proposal is an "
    "older copy"
)


def _describe_base_change(tx: Transaction, proposal: Proposal) -> str:
    """Returns the reason why the verdict's comparison no longer fits the route; empty if it
    fits.

    The second reason protects against a restored backup: a canary in the signed history must
    not start again.
    """
    route = Routing(tx).route(proposal.route)
    if route is None or route.incumbent != proposal.incumbent:
        return _INCUMBENT_CHANGED
    had_canary = Routing(tx).has_had_rollout(proposal.route, rollout_id(proposal.id))
    return _CANARY_IN_HISTORY if had_canary else ""


def _reject_in_transaction(
    ctx: ProposalsContext,
    proposal: Proposal,
    event: ProposalEvent,
    reason: str,
) -> list[str]:
    with ctx.store.write() as tx:
        return _reject(ctx, tx, proposal, event, reason)


def _reject(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    event: ProposalEvent,
    reason: str,
) -> list[str]:
    """Ends the proposal, stops the runs that no other proposal needs, and writes the audit
    event.
    """
    saved = Proposals(tx).save(apply_event(proposal, event, ctx.clock.now(), reason))
    eval_queue.stop_unneeded_runs(ctx, tx, saved)
    _audit(tx, saved, f"proposal.{event.value}", {"reason": reason})
    return [f"{proposal.id}: {saved.phase.value}: {reason}"]


def _audit(
    tx: Transaction,
    proposal: Proposal,
    action: str,
    details: dict[str, object],
) -> None:
    AuditLog(tx).append(
        SYSTEM,
        action,
        f"proposal {proposal.id}",
        {"route": proposal.route, **details},
    )
