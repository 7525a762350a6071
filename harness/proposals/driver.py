"""Drives an open proposal by its phase (`drive_proposal`): runs, verdict, approval, canary.

Loads once, decides without I/O, applies by compare-and-swap, and records. After a conflict with
another writer, the next turn decides again. All state is in the store, so the driver may stop
at any point.

The driver calls no model: eval workers do. The verdict is decided in
`harness.proposals.evaluation`, and a canary's own turn is `Canaries.drive`.
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
)
from harness.proposals.candidates import cost_ratio, leaderboard
from harness.proposals.candidates.setbacks import (
    Setback,
    describe_setbacks,
    find_setbacks,
)
from harness.proposals.context import ProposalsContext
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

    If the stored scores no longer give the verdict, the proposal is rejected and an alert is
    raised; in a canary, the rollout reacts instead.
    """
    try:
        return _by_phase(ctx, canaries, proposal)
    except EvidenceMismatch as error:
        if proposal.phase is ProposalPhase.CANARY:
            raise  # the canary's own turn reacts to the mismatch
        with ctx.store.write() as tx:
            found = Proposals(tx).get(proposal.id)
            recomputation.raise_mismatch_alert(tx, found, error.verdict, error.differences)
            return _reject(ctx, tx, found, ProposalEvent.STALE, str(error))


def _by_phase(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Calls the step of the proposal's phase; does nothing for a closed proposal."""
    match proposal.phase:
        case ProposalPhase.PROPOSED:
            return _start(ctx, proposal)
        case ProposalPhase.EVALUATING:
            return (_choose if proposal.waits_for_rivals else _evaluate)(
                ctx, canaries, proposal
            )
        case ProposalPhase.AWAITING_APPROVAL:
            return _await(ctx, canaries, proposal)
        case ProposalPhase.CANARY:
            with ctx.store.read() as tx:
                rollout = Rollouts(tx).get(proposal.rollout or "")
            return canaries.drive(ctx, rollout)
        case _:
            return []


def _start(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    """Attaches eval runs to a new proposal, and starts its evaluation.

    A proposal whose incumbent has changed is rejected before it costs a call.
    """
    with ctx.store.write() as tx:
        if base_change := _describe_base_change(tx, proposal):
            return _reject(ctx, tx, proposal, ProposalEvent.BASE_CHANGED, base_change)
        ready = evaluation.attach_runs(ctx, tx, proposal)
        saved = Proposals(tx).save(apply_event(ready, ProposalEvent.START, ctx.clock.now()))
        _audit(
            tx,
            saved,
            "proposal.start",
            {"runs": sorted(evaluation.run_ids(saved))},
        )
    return [f"{proposal.id}: evaluating"]


def _evaluate(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Decides the verdict from the answers so far; waits if they cannot decide yet.

    Changes of the route, its rules or its suites end the proposal as stale, because its answers
    belong to other conditions.
    """
    if proposal.retry_at is not None:
        return _retry(ctx, proposal) if proposal.retry_due(ctx.clock.now()) else []
    with ctx.store.read() as tx:
        base_change = _describe_base_change(tx, proposal)
        by_id = evaluation.load_runs(tx, proposal)
        answers = evaluation.load_answers(tx, proposal)
        now = proof_validity.route_time(tx, proposal.route)
        rules = "" if base_change else _other_rules(ctx, tx, proposal)
        names = Targets(tx).all()
        changes = [
            change
            for plan in proposal.plans
            if (change := proof_validity.describe_suite_change(ctx, tx, plan))
        ]
    if base_change:
        return _in_write(ctx, proposal, ProposalEvent.BASE_CHANGED, base_change)
    if changes or rules:
        since = f"{'; '.join(changes)} since the proposal"
        return _in_write(ctx, proposal, ProposalEvent.STALE, since if changes else rules)
    stuck = evaluation.list_stuck_runs(proposal, by_id, ctx.clock.now())
    judged = evaluation.drop_unreadable(ctx, proposal, by_id, answers)
    try:
        evaluation.check_arms(proposal, by_id)
        models = (
            names[proposal.incumbent].model,
            names[proposal.candidate].model,
        )
        verdict = evaluation.decide_verdict(proposal, judged, stuck, now, models)
    except StaleEvidence as error:
        return _in_write(ctx, proposal, ProposalEvent.STALE, str(error))
    if verdict is None:
        _tell_of_wait(ctx, proposal, by_id)
        return _wake(ctx, proposal)
    with ctx.store.write() as tx:
        return _apply(ctx, canaries, tx, proposal, verdict)


def _tell_of_wait(
    ctx: ProposalsContext,
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
) -> None:
    """Raises or updates the alert on a provider for which the proposal waits: it is away, or
    its users come first.
    """
    now = ctx.clock.now()
    waits = describe_waits(runs.values(), now)
    patience = format_span(proposal.policy.gate.infra_patience_s)
    text = f"The comparison keeps its answers; it ends as not measured after {patience}."
    with ctx.store.read() as tx:
        users: Mapping[str, str] = {}
        if not waits:
            users = find_users_turn(tx, runs.values(), now)
    if users:
        # Without the changing figures, which would change the alert every second.
        waits = f"gives way to callers of {', '.join(users)}"
        why = describe_users_turn(users)
        text = f"It {why}. It goes on in the room that callers leave, and keeps its answers."
    title = f"the comparison {proposal.id} {waits}"
    with ctx.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.EVAL_WAITS.value}:{proposal.id}")
    is_open = record is not None and record.open
    if not waits or (record is not None and is_open and record.title == title):
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


def _wake(ctx: ProposalsContext, proposal: Proposal) -> list[str]:
    """Queues shared runs again that another proposal's decision stopped too early."""
    with ctx.store.read() as tx:
        asleep = evaluation.find_short_runs(tx, proposal)
    if asleep:
        with ctx.store.write() as tx:
            for run, items in evaluation.find_short_runs(tx, proposal).items():
                EvalRuns(tx).want(run, items)
                EvalRuns(tx).set_state(run, RunState.QUEUED)
    return [f"{proposal.id}: {run} continues" for run in asleep]


def _apply(
    ctx: ProposalsContext,
    canaries: Canaries,
    tx: Transaction,
    proposal: Proposal,
    verdict: Verdict,
) -> list[str]:
    """Stores a verdict, and moves the proposal by the verdict's kind, in one transaction.

    A passed verdict is checked again: a suite or provider may have changed during the run.
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
                    _no_proof(verdict, validity),
                )
                return [line]
            if uncharged := registration.find_uncharged(tx, decided):
                _reject(ctx, tx, decided, ProposalEvent.STALE, uncharged)
                return [f"{line}, and {uncharged}"]
            if proposal.selection:
                held = Proposals(tx).save(replace(decided, updated_at=ctx.clock.now()))
                eval_queue.stop_unneeded_runs(ctx, tx, held)
            else:
                _passed(ctx, canaries, tx, decided, verdict)
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
            _not_measured(ctx, tx, decided, verdict)
        case _:
            assert_never(verdict)
    return [line]


def _choose(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Lets the best of a selection continue, and ends the other passed members, in one
    transaction, so that no other member can continue later. Changes nothing if the given
    proposal is not the best.
    """
    proof, said = _proof_now(ctx, proposal)
    if said:
        return said
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
            because = f"it passed with {other.text}, but {name} passed with {best.text}"
            said += _reject(ctx, tx, other.proposal, ProposalEvent.NOT_CHOSEN, because)
        _passed(ctx, canaries, tx, proposal, proof)
    return [*said, f"{proposal.id}: the best of its selection"]


def _passed(
    ctx: ProposalsContext,
    canaries: Canaries,
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
) -> None:
    """Lets a passed proposal continue: by notice, approval, a wait, or a canary."""
    if proposal.on_better is OnBetter.NOTIFY:
        _announce_better(ctx, tx, proposal, proof)
        return
    cost = cost_ratio.load_ratio(ctx, tx, proposal)
    setbacks = _find_setbacks(ctx, tx, proposal)
    # No canary opens by itself for a model that was withdrawn from users.
    withdrawn = any(setback.served for setback in setbacks)
    if proposal.needs_approval or cost.ends_canary or withdrawn:
        now = ctx.clock.now()
        waits = Proposals(tx).save(
            apply_event(proposal, ProposalEvent.PASSED_NEEDS_APPROVAL, now)
        )
        wider = "; ".join(route_rules.describe_second_person_reasons(proposal.widened))
        asks = f" It differs from the route's rules: {wider}." if wider else ""
        asks += f" {cost.text}"
        asks += f" {describe_setbacks(setbacks)}." if setbacks else ""
        alerts.raise_alert(
            tx,
            AlertKind.AWAITING_APPROVAL,
            proposal.id,
            subject=f"route {proposal.route}",
            title=f"a swap on route {proposal.route} waits for approval ({proposal.id})",
            text=f"{proposal.proposer} proposed it. {proof.words}: {describe_reason(proof)}"
            f"{asks} "
            f"It expires at {waits.approval_ends_at:%Y-%m-%d %H:%M} UTC.",
        )
    elif frozen := freezes.list_refusals_of_step(ctx, tx, proposal.route):
        _wait_for_thaw(tx, proposal, proof, frozen[0])
    else:
        canaries.open(ctx, tx, proposal, proof, ProposalEvent.PASSED)
    eval_queue.stop_unneeded_runs(ctx, tx, proposal)


def _find_setbacks(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> Sequence[Setback]:
    """Finds the setbacks of a schedule's candidate, also those since the round began."""
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
    """Announces the candidate, because the route's schedule leaves the proposal to a person."""
    name = Targets(tx).all()[proposal.candidate].name
    setbacks = describe_setbacks(_find_setbacks(ctx, tx, proposal))
    named = f" {setbacks}." if setbacks else ""
    alerts.raise_alert(
        tx,
        AlertKind.BETTER_CANDIDATE,
        proposal.id,
        subject=f"route {proposal.route}",
        title=f"{name} passed on route {proposal.route}",
        text=f"{proof.words}: {describe_reason(proof)} "
        f"`swapgate proposal create {proposal.route} {name}` proposes it.{named}",
    )
    because = f"it passed on schedule; propose {name} to swap"
    _reject(ctx, tx, proposal, ProposalEvent.NOT_CHOSEN, because)


def _wait_for_thaw(
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
    frozen: str,
) -> None:
    """Stores the policy's approval. The canary opens after the freeze."""
    waits = apply_event(proposal, ProposalEvent.PASSED_NEEDS_APPROVAL, tx.now())
    saved = Proposals(tx).save(
        replace(waits, approver=POLICY_APPROVER, approved_verdict=proof.id)
    )
    _audit(tx, saved, "proposal.frozen", {"verdict": proof.id, "reason": frozen})


def _not_measured(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    verdict: InfraError,
) -> None:
    """Pauses a proposal after an infrastructure error, or ends it if another attempt is
    useless.

    The policy's `infra_pause_s` gives the pause. If the answers were unreadable and the policy
    counts these as wrong, the next attempt has no pause.
    """
    now = ctx.clock.now()
    gate = proposal.policy.gate
    if replaced := evaluation.find_replacement(ctx, tx, proposal):
        _reject(ctx, tx, proposal, ProposalEvent.STALE, _another_look(replaced))
        return
    runs = evaluation.load_runs(tx, proposal)
    refused = evaluation.find_refused(tx, runs.values())
    attempts = proposal.infra_errors + 1
    pause_s = gate.infra_pause_s(attempts)
    # Another attempt would fail in the same way, because the same model answers.
    in_vain = evaluation.has_silent_cut(tx, proposal) or (
        refused is not None and not gate.unreadable_is_wrong
    )
    waited = evaluation.list_overdue_runs(proposal, runs, now)
    if not pause_s or in_vain or waited:
        why = polish_reason(verdict.reason)
        after = format_quantity(attempts, "attempt")
        if waited:
            after = format_span(gate.infra_patience_s)
        because = f"not measured after {after}: {why}"
        _reject(ctx, tx, proposal, ProposalEvent.INFRA_LIMIT, because)
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

    A proposal that waits for `confirm_same_model` waits for the policy's patience: another
    attempt would be served by the same model.
    """
    if (waits_until := _find_unconfirmed(ctx, proposal)) is not None:
        if waits_until > ctx.clock.now():
            return []
        because = "both models were served by the same, and no approver confirmed it in time"
        return _in_write(ctx, proposal, ProposalEvent.INFRA_LIMIT, because)
    with ctx.store.write() as tx:
        # An answer may have arrived after the verdict.
        if replaced := evaluation.find_replacement(ctx, tx, proposal):
            return _reject(
                ctx,
                tx,
                proposal,
                ProposalEvent.STALE,
                _another_look(replaced),
            )
        # In a selection, a proposal with a verdict and no retry_at waits for its rivals.
        verdict = None if proposal.selection else proposal.verdict
        due = replace(proposal, retry_at=None, verdict=verdict)
        again = evaluation.attach_runs(ctx, tx, due)
        saved = Proposals(tx).save(replace(again, updated_at=ctx.clock.now()))
        _audit(
            tx,
            saved,
            "proposal.retry",
            {"attempt": proposal.infra_errors + 1},
        )
    return [f"{proposal.id}: measured again"]


def _find_unconfirmed(ctx: ProposalsContext, proposal: Proposal) -> datetime | None:
    """Returns until when a proposal waits for `confirm_same_model`; None if it does not."""
    with ctx.store.read() as tx:
        verdict = evaluation.find_unconfirmed(tx, proposal)
    if verdict is None:
        return None
    return add_seconds(verdict.decided_at, proposal.policy.gate.infra_patience_s)


def _await(ctx: ProposalsContext, canaries: Canaries, proposal: Proposal) -> list[str]:
    """Opens an approved canary unless a freeze holds it; expires a proposal in time."""
    proof, said = _proof_now(ctx, proposal)
    if said:
        return said
    if proposal.approver is not None:
        with ctx.store.read() as tx:
            if freezes.list_refusals_of_step(ctx, tx, proposal.route):
                return []
        return _open_approved(ctx, canaries, proposal, proof)
    if proposal.approval_ends_at <= ctx.clock.now():
        return _in_write(
            ctx,
            proposal,
            ProposalEvent.EXPIRED,
            "no person approved it in time",
        )
    return []


def _proof_now(ctx: ProposalsContext, proposal: Proposal) -> tuple[Verdict, list[str]]:
    """Returns the proposal's verdict, and log lines if the verdict is no longer valid."""
    with ctx.store.read() as tx:
        base_change = _describe_base_change(tx, proposal)
        proof = Verdicts(tx).get(proposal.verdict or "")
        validity = proof_validity.assess_proof(ctx, tx, proof)
        rules = "" if base_change else _other_rules(ctx, tx, proposal)
        rules = rules or approvals.find_revocation(tx, proposal)
    if base_change:
        return proof, _in_write(ctx, proposal, ProposalEvent.BASE_CHANGED, base_change)
    if not validity.holds:
        event = (
            ProposalEvent.STALE if validity.proof is ProofState.STALE else ProposalEvent.EXPIRED
        )
        return proof, _in_write(ctx, proposal, event, _no_proof(proof, validity))
    if rules:
        return proof, _in_write(ctx, proposal, ProposalEvent.STALE, rules)
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
        canaries.open(ctx, tx, proposal, proof, ProposalEvent.APPROVED)
    return [f"{proposal.id}: canary opened"]


def _other_rules(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> str:
    """Describes how the proposal's rules differ from the route's present rules; else empty."""
    rule_differences = route_rules.list_rule_differences(ctx, tx, proposal)
    return (
        f"{route_rules.OTHER_RULES} ({'; '.join(rule_differences)}): propose again"
        if rule_differences
        else ""
    )


def _another_look(replaced: str) -> str:
    """Explains why an item that already has a score is not asked again by this proposal."""
    return (
        f"{replaced}. Asking a scored question again needs a new proposal, because every "
        "repeated comparison is tested at a smaller alpha: propose again"
    )


def _no_proof(verdict: Verdict, validity: ProofValidity) -> str:
    return f"verdict {verdict.id} is {validity.proof.value}: {validity.why}; propose again"


_OTHER_BASE = "somebody changed the route's incumbent: this proof compares with the former one"
_HAD_ITS_CANARY = (
    "the route's signed history already has this proposal's canary: the stored proposal is an "
    "older copy"
)


def _describe_base_change(tx: Transaction, proposal: Proposal) -> str:
    """Explains why the verdict's comparison no longer fits the route; empty if it fits.

    The second reason protects against a restored backup: a canary that the signed history has
    already seen must not start again.
    """
    route = Routing(tx).route(proposal.route)
    if route is None or route.incumbent != proposal.incumbent:
        return _OTHER_BASE
    had = Routing(tx).has_had_rollout(proposal.route, rollout_id(proposal.id))
    return _HAD_ITS_CANARY if had else ""


def _in_write(
    ctx: ProposalsContext,
    proposal: Proposal,
    event: ProposalEvent,
    because: str,
) -> list[str]:
    with ctx.store.write() as tx:
        return _reject(ctx, tx, proposal, event, because)


def _reject(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    event: ProposalEvent,
    because: str,
) -> list[str]:
    """Ends the proposal, stops runs that no other proposal needs, and records why."""
    saved = Proposals(tx).save(apply_event(proposal, event, ctx.clock.now(), because))
    eval_queue.stop_unneeded_runs(ctx, tx, saved)
    _audit(tx, saved, f"proposal.{event.value}", {"reason": because})
    return [f"{proposal.id}: {saved.phase.value}: {because}"]


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
