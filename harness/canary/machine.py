"""Moves a canary: a state machine over one rollout, its proposal and the routing table.

`open_canary` starts a canary with a passed verdict. Then evidence or a person moves it by a
signal. `CanaryMachine.apply` writes the move with its audit event and alert: the canary stays
live, is promoted, is rolled back, or finishes its bake.

The machine does not judge evidence: `decision` derives the signal from it, and
`harness.gate.online.rollout` derives the next state. Roles and reasons of people are checked in
`operations`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.canary import way_back
from harness.canary.audit import PROMOTED, RolloutTransaction, decision_evidence, record_end
from harness.canary.incumbent_history import measure_history
from harness.evals import proof_validity
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import NotFound, ProofRefused
from harness.frame.people.access import SYSTEM, Actor
from harness.frame.plain_data import to_plain
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.left_out import LeftOutDifference
from harness.gate.online.rollout import (
    CanaryEnding,
    Rollout,
    RolloutSignal,
    RolloutState,
    apply_signal,
    build_exposure_rule,
    name_end,
    next_state,
    rollout_id,
)
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.policy import CanaryPolicy
from harness.gate.verdict import Passed
from harness.gate.verdict_sentences import describe_reason
from harness.proposals import (
    evaluation,
    fallback_chain,
    recomputation,
    route_rules,
)
from harness.proposals.context import ProposalsContext
from harness.providers.records import Targets
from harness.providers.registry import targets
from harness.providers.registry.target_life import (
    TargetLife,
    describe_no_way_back,
    life_details,
)
from harness.routing.control import freezes, routes
from harness.routing.proposal import Proposal, ProposalEvent, apply_event
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import (
    AbortCanary,
    EndBake,
    PromoteCanary,
    RaiseWeight,
    RestoreIncumbent,
    StartCanary,
    TableChange,
)
from harness.routing.table import Canary, Handover

# The proposal's event for each signal that ends its rollout; other signals cancel the proposal.
_PROPOSAL_ENDS = {
    RolloutSignal.HARM: ProposalEvent.HARM,
    RolloutSignal.BASE_CHANGED: ProposalEvent.BASE_CHANGED,
    RolloutSignal.STALE: ProposalEvent.STALE,
}


def open_canary(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    proof: Passed,
    event: ProposalEvent,
) -> Proposal:
    """Opens a proposal's canary: stores rollout, routing table and proposal in one transaction.

    Args:
        event: PASSED or APPROVED, which lets the proposal open the canary.

    Returns the saved proposal. Raises ProofRefused if the verdict is no longer valid or the
    route's rules have changed. Raises EvidenceMismatch if the stored scores do not give the
    verdict, RevisionConflict if another writer was first, and Conflict while the route is
    frozen.
    """
    freezes.require_step_allowed(ctx, tx, proposal.route)
    now = ctx.clock.now()
    proof_validity.require_proof(ctx, tx, proof)
    recomputation.require_agreement(ctx, tx, proof, proposal)
    route_rules.require_current_rules(ctx, tx, proposal)
    route = routes.require_route(tx, proposal.route)
    policy = _add_cost_guardrail(tx, proposal)
    rollout = Rollout(
        id=rollout_id(proposal.id),
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
    Rollouts(tx).add(rollout)
    change = StartCanary(
        route=proposal.route,
        proof=proof,
        rollout=rollout.id,
        weight_bps=policy.steps[0].weight_bps,
        salt=rollout.salt,
        unit_rule=build_exposure_rule(
            policy,
            now,
            ledger_salt=ctx.chance.token("ledger_"),
            counts_usage=evaluation.find_counting_targets(tx, proposal),
            usual_s=evaluation.find_usual_seconds(tx, proposal),
            total_timeout_s=route.settings.total_timeout_s,
            history=measure_history(tx, route, proposal.incumbent, policy, now),
        ),
        handover=_build_handover(rollout),
    )
    Routing(tx).commit(
        change,
        expected_version=route.version,
        actor=SYSTEM.name,
        reason=f"{proof.words}: {describe_reason(proof)}",
        now=ctx.clock.now(),
    )
    after = replace(apply_event(proposal, event, now), rollout=rollout.id)
    return Proposals(tx).save(after)


def _add_cost_guardrail(tx: Transaction, proposal: Proposal) -> CanaryPolicy:
    """Adds the guardrail for cost to the policy, with the ratio that an approver accepted.

    Without a price for both arms, the policy guards the number of output tokens instead.
    """
    names = Targets(tx).all()
    accepted = proposal.accepted_cost
    arms = (names[proposal.incumbent], names[proposal.candidate])
    return proposal.policy.canary.with_cost(
        accepted.ratio if accepted else None,
        priced=all(targets.find_price(tx, arm) for arm in arms),
    )


def _build_handover(rollout: Rollout, before: Canary | None = None) -> Handover | None:
    """Builds the handover: until its end, running conversations keep their model.

    Args:
        rollout: at its new step.
        before: the route's canary at the step before, if there was one.
    """
    lasts_s = rollout.policy.handover_s
    if not lasts_s:
        return None
    began_s = rollout.step_started_at.timestamp()
    settled_bps = before.find_settled_bps(began_s) if before else 0
    return Handover(began_s + lasts_s, settled_bps)


def find_live(tx: Transaction, route: str) -> Rollout:
    """Finds the rollout of the route's live canary or bake.

    Raises NotFound for an unknown route, and for a route without such a rollout.
    """
    routes.require_route(tx, route)
    for rollout in (*Rollouts(tx).live(), *Rollouts(tx).baking()):
        if rollout.route == route:
            return rollout
    raise NotFound(f"route {route!r} has no live canary; `swapproof canary status` lists them")


@dataclass(frozen=True, slots=True)
class CanaryMove:
    """One signal with its actor and reason, before it is applied."""

    actor: Actor
    signal: RolloutSignal
    reason: str
    # The action that the evidence asks for; None if a person or the route causes the move.
    action: RolloutAction | None = None
    # The person's own words, without the signal and the name; empty without a person.
    why: str = ""
    # For a promotion: whether the incumbent can still serve; None if no check was made.
    way_back: TargetLife | None = None


class CanaryMachine:
    """One rollout within one transaction, and all its moves.

    Each move saves the rollout by compare-and-swap, commits the routing table, and appends an
    audit event. All of it happens in the caller's transaction, so a move takes effect as a
    whole or not at all.
    """

    def __init__(self, transaction: RolloutTransaction) -> None:
        self._transaction = transaction
        self._ctx = transaction.ctx
        self._tx = transaction.tx
        self._rollout = transaction.rollout

    def apply(self, move: CanaryMove) -> Rollout:
        """Applies a move, and returns the rollout after it.

        Raises IllegalTransition, RevisionConflict, ProofRefused, and Conflict for a move onward
        while the route is frozen.
        """
        freezes.require_step_allowed(self._ctx, self._tx, self._rollout.route, move.signal)
        match move.signal:
            case RolloutSignal.HARM | RolloutSignal.STALE | RolloutSignal.ABORT:
                return self._go_back(move)
            case RolloutSignal.BASE_CHANGED:
                baking = self._rollout.baking
                return self._finish_bake(move) if baking else self._go_back(move)
            case RolloutSignal.PROVEN | RolloutSignal.PROMOTE:
                return self._promote(move)
            case RolloutSignal.BAKED | RolloutSignal.FINISH:
                return self._finish_bake(move)
            case _:
                return self._stay_live(move)

    def record(
        self,
        action: str,
        rollout: Rollout,
        move: CanaryMove,
    ) -> None:
        """Appends the audit event of a move, with the evidence and the inputs before the move.

        Args:
            rollout: after the move.

        The event's state and blocks come from the rollout before it, so that the decision can
        be replayed.
        """
        figures = decision_evidence(self._transaction, move.action)
        self._write_event(action, rollout, move, figures)

    def acknowledge_faults(self, move: CanaryMove) -> bool:
        """Records that a person checked the routers' faults; returns whether there were any."""
        about = self._rollout.id
        if not alerts.end_alert(self._tx, AlertKind.INTERNAL_ERROR, about):
            return False
        self._write_event("canary.acknowledge", self._rollout, move, {})
        return True

    def acknowledge_left_out(
        self, move: CanaryMove, differences: Sequence[LeftOutDifference]
    ) -> Rollout:
        """Records that an approver knows why the arms leave out unlike shares of requests.
        Returns the saved rollout.
        """
        return self.acknowledge({one.reason.value: one.text for one in differences}, move)

    def acknowledge(self, counts: Mapping[str, str], move: CanaryMove) -> Rollout:
        """Records that an approver knows of causes, which never hold this rollout again.

        Args:
            counts: a text by cause.

        Returns the saved rollout.
        """
        rollout = self._rollout
        known = (*(rollout.acknowledged or ()), *counts)
        saved = Rollouts(self._tx).save(replace(rollout, acknowledged=known))
        details = {
            **decision_evidence(self._transaction, None),
            "acknowledged": counts,
        }
        self._write_event("canary.acknowledge", rollout, move, details)
        return saved

    def _stay_live(self, move: CanaryMove) -> Rollout:
        """Applies a signal that keeps the canary live. A new step commits a new share."""
        after = self._apply_to_rollout(move)
        if after.step != self._rollout.step:
            before = routes.require_route(self._tx, after.route).canary
            raised = RaiseWeight(
                after.route,
                after.id,
                after.current.weight_bps,
                _build_handover(after, before),
            )
            self._commit(raised, move)
        saved = Rollouts(self._tx).save(after)
        self.record(f"canary.{move.signal.value}", after, move)
        if after.state is RolloutState.PAUSED:
            self._raise_alert(
                AlertKind.CANARY_PAUSED,
                f"the canary of route {after.route} is paused and waits for a person",
                move.reason,
            )
        return saved

    def _promote(self, move: CanaryMove) -> Rollout:
        """Makes the candidate the incumbent; with a bake, some callers keep the former
        incumbent.

        Checks the proof again in the same transaction, because it may have ended since the
        decision. Raises ProofRefused.
        """
        proof = Verdicts(self._tx).get(self._rollout.verdict)
        if not isinstance(proof, Passed):
            raise ProofRefused(f"verdict {proof.id} is {proof.outcome}, not passed")
        proposal = self._approve_promotion(move)
        proof_validity.require_proof(self._ctx, self._tx, proof)
        recomputation.require_agreement(self._ctx, self._tx, proof, proposal)
        policy = self._rollout.policy
        share = policy.bake_bps if policy.bake_s else 0
        self._commit(PromoteCanary(self._rollout.route, proof, share), move)
        after = Rollouts(self._tx).save(self._apply_to_rollout(move))
        self._end_proposal(proposal, ProposalEvent.HEALTHY, move)
        self.record(PROMOTED, after, move)
        obstacle = describe_no_way_back(life_details(move.way_back))
        remark = f" Swapproof found {obstacle}." if obstacle else ""
        if policy.never_measured:
            remark += f" The canary never got these callers: {policy.never_measured}."
        self._raise_alert(
            AlertKind.PROMOTED,
            f"{self._name_target(after.candidate)} is now the model of route {after.route}",
            f"It took the place of {self._name_target(after.incumbent)}.{remark} {move.reason}",
        )
        if move.way_back and (notice := way_back.build_notice(after, move.way_back)):
            self._raise_alert(AlertKind.WAY_BACK_GONE, notice.title, notice.text)
        return after

    def _go_back(self, move: CanaryMove) -> Rollout:
        """Restores the former incumbent. Needs no proof, and works after any other change."""
        rollout = self._rollout
        route = routes.require_route(self._tx, rollout.route)
        if route.canary is not None and route.canary.rollout == rollout.id:
            self._commit(AbortCanary(rollout.route, rollout.id), move)
        elif self._transaction.is_in_place:
            self._commit(RestoreIncumbent(rollout.route, rollout.incumbent), move)
        after = Rollouts(self._tx).save(self._apply_to_rollout(move))
        event = _PROPOSAL_ENDS.get(move.signal, ProposalEvent.CANCELLED)
        self._end_proposal(Proposals(self._tx).get(rollout.proposal), event, move)
        self.record(f"canary.{move.signal.value}", after, move)
        if move.signal in (RolloutSignal.HARM, RolloutSignal.STALE):
            what = "promotion" if rollout.baking else "canary"
            fallback = self._drop_harmful_fallback(move)
            self._raise_alert(
                AlertKind.ROLLED_BACK,
                f"the {what} of route {rollout.route} was rolled back",
                f"{self._name_target(rollout.incumbent)} serves all callers again, "
                f"{self._name_target(rollout.candidate)} serves no caller{fallback}. "
                f"{move.reason}",
            )
        return after

    def _finish_bake(self, move: CanaryMove) -> Rollout:
        """Ends the comparison after a promotion; the promotion stays.

        If another change has already removed the holdback, ends the rollout only.
        """
        after = self._apply_to_rollout(move)
        if self._transaction.is_in_place:
            self._commit(EndBake(after.route, after.id), move)
        self.record(f"canary.{move.signal.value}", after, move)
        return Rollouts(self._tx).save(after)

    def _drop_harmful_fallback(self, move: CanaryMove) -> str:
        """Drops a harmful candidate from the route's fallbacks. Returns a clause for the alert
        about the fallback.
        """
        route = routes.require_route(self._tx, self._rollout.route)
        candidate = self._rollout.candidate
        if candidate not in route.fallbacks:
            return ""
        refusal = ""
        if move.signal is RolloutSignal.HARM:
            try:
                fallback_chain.drop_fallback(
                    self._tx, move.actor, route, candidate, move.reason
                )
            except ProofRefused as error:
                refusal = f" ({error})"  # the rollback does not depend on the chain
            else:
                return ", also not as a fallback"
        return (
            f"; it is still a fallback{refusal}: `swapproof route fallback remove {route.name} "
            f"{self._name_target(candidate)} --reason …` removes it"
        )

    def _approve_promotion(self, move: CanaryMove) -> Proposal:
        """Returns the proposal, approved by a manual promotion; the database enforces four
        eyes.
        """
        proposal = Proposals(self._tx).get(self._rollout.proposal)
        if move.signal is not RolloutSignal.PROMOTE or proposal.approver is not None:
            return proposal
        return replace(
            proposal,
            approver=move.actor.name,
            approved_verdict=proposal.verdict,
        )

    def _apply_to_rollout(self, move: CanaryMove) -> Rollout:
        """Returns the rollout after the move, unsaved. Raises IllegalTransition."""
        rollout = self._rollout
        now = self._ctx.clock.now()
        decided = None
        if next_state(rollout.state, move.signal) is RolloutState.ROLLED_BACK:
            decided = record_end(self._transaction, move.action)
        return apply_signal(
            rollout, move.signal, now, move.reason, self._build_ending(move), decided
        )

    def _build_ending(self, move: CanaryMove) -> CanaryEnding:
        end = name_end(move.signal, baking=self._rollout.baking)
        return CanaryEnding(end, move.signal, move.actor.name if move.why else "", move.why)

    def _end_proposal(
        self,
        proposal: Proposal,
        event: ProposalEvent,
        move: CanaryMove,
    ) -> None:
        now = self._ctx.clock.now()
        ended = apply_event(proposal, event, now, move.reason, self._build_ending(move))
        Proposals(self._tx).save(ended)

    def _commit(self, change: TableChange, move: CanaryMove) -> None:
        route = routes.require_route(self._tx, self._rollout.route)
        Routing(self._tx).commit(
            change,
            expected_version=route.version,
            actor=move.actor.name,
            reason=move.reason,
            now=self._ctx.clock.now(),
        )

    def _write_event(
        self,
        action: str,
        rollout: Rollout,
        move: CanaryMove,
        figures: dict[str, object],
    ) -> None:
        AuditLog(self._tx).append(
            move.actor,
            action,
            f"route {rollout.route}",
            {
                "rollout": rollout.id,
                "reason": move.reason,
                **({"ending": to_plain(rollout.ending)} if rollout.ending else {}),
                **life_details(move.way_back),
                **figures,
            },
        )

    def _raise_alert(
        self,
        kind: AlertKind,
        title: str,
        text: str,
    ) -> None:
        alerts.raise_alert(
            self._tx,
            kind,
            self._rollout.id,
            subject=f"route {self._rollout.route}",
            title=title,
            text=text,
        )

    def _name_target(self, target: str) -> str:
        known = Targets(self._tx).all().get(target)
        return known.name if known else target
