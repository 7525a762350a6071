"""The invariants that hold after every turn of a simulated rollout (`Watcher`)."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

from harness.canary import audit
from harness.canary import status as canary_status
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import GENESIS, AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import TRANSITIONS, Rollout, RolloutState
from harness.gate.verdict import Passed
from harness.operations.context import Context
from harness.routing.evidence import EvidenceKind
from harness.routing.proposal import (
    PAST_GATE_PHASES,
    Proposal,
    ProposalPhase,
)
from harness.routing.records.evidence import Waivers
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import Route, RouteRecord

BAKED = "canary.baked"
UP = frozenset({"canary.step_done", audit.PROMOTED})
LATE = frozenset({"canary.silent", "canary.undecided"})
# Longer without any news than this: nothing goes up.
GAP_S = 180.0
# The simulation looks every two minutes or so.
SLACK_S = 400.0
NEGATIVE = re.compile(r"(?<![\w.])-\d")


@dataclass
class TurnConditions:
    """What a turn ran in, as the simulation knows it and the control plane cannot.

    dark_s: since when routers record nothing. ahead_s: of the control plane's clock before
    theirs. monotonic: of now. lead_s: of the wall clock before the monotonic one; began_lead_s:
    the same, when each process of the control plane began to look at its clock. relives:
    the clock was set back, and one of them began too late to know.
    """

    dark_s: float
    ahead_s: float
    monotonic: float
    lead_s: float
    began_lead_s: Collection[float]
    relives: bool


@dataclass
class Watcher:
    routes: Sequence[str]
    events: list[AuditEvent] = field(default_factory=list)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    closed: dict[str, Proposal] = field(default_factory=dict)
    revision: int = 0
    # Of each rollout's step, when it began: by the monotonic clock, and the lead.
    steps: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    bakes: dict[str, tuple[float, float]] = field(default_factory=dict)

    def check(self, ctx: Context, conditions: TurnConditions) -> None:
        with ctx.store.read() as tx:
            new = self._audit(tx)
            self._table(tx)
            rollouts = {rollout.id: rollout for rollout in Rollouts(tx).list()}
            proposals = Proposals(tx).list()
            self._rollouts(tx, rollouts, proposals)
            self._proposals(tx, proposals)
            for event in new:
                if event.action.startswith("canary.") and event.actor == SYSTEM.name:
                    check_move(tx, self.rollouts, event, conditions)
                    self._no_false_expiry(event, conditions)
            for event in new:
                check_proof(tx, event)
            self._each_move_has_an_event(rollouts)
            self._note_steps(rollouts, conditions)
            self.rollouts = rollouts

    def _audit(self, tx: Transaction) -> Sequence[AuditEvent]:
        every = list(AuditLog(tx).all())
        assert every[: len(self.events)] == self.events, "the audit log was changed"
        new = every[len(self.events) :]
        before = self.events[-1] if self.events else None
        for event in new:
            assert event.number == (before.number if before else 0) + 1
            assert event.previous == (before.mac if before else GENESIS)
            before = event
        self.events = every
        return new

    def _each_move_has_an_event(self, rollouts: Mapping[str, Rollout]) -> None:
        """Each version of a rollout but its first has its own event."""
        counter = Counter(
            str(event.details["rollout"])
            for event in self.events
            if event.action.startswith("canary.")
        )
        for id_, rollout in rollouts.items():
            assert counter[id_] == rollout.version - 1, f"{counter[id_]} events of {rollout}"

    def _table(self, tx: Transaction) -> None:
        revision = Routing(tx).table().revision
        assert revision >= self.revision, "the revision went back"
        if revision == self.revision:
            return
        self.revision = revision
        check_revisions(tx, self.routes)
        for name in self.routes:
            check_history(tx, name)
            check_weights(Routing(tx).history(name)[::-1])

    def _rollouts(
        self,
        tx: Transaction,
        now: Mapping[str, Rollout],
        proposals: Sequence[Proposal],
    ) -> None:
        assert now.keys() >= self.rollouts.keys()
        proofs = [rollout.verdict for rollout in now.values()]
        assert len(set(proofs)) == len(proofs), "one verdict, one rollout"
        for name in self.routes:
            route = Routing(tx).route(name)
            assert route is not None
            mine = [proposal for proposal in proposals if proposal.route == name]
            check_canary(tx, route, mine)
            under_way = [r for r in now.values() if r.route == name and (r.live or r.baking)]
            assert len(under_way) <= 1, "one rollout per route"
        for id_, after in now.items():
            check_rollout(tx, self.rollouts.get(id_), after)

    def _proposals(self, tx: Transaction, proposals: Sequence[Proposal]) -> None:
        check_selections(proposals)
        for proposal in proposals:
            check_verdicts(tx, proposal)
            before = self.closed.get(proposal.id)
            if before is not None and before != proposal:
                # Late harm takes a promotion back; nothing else moves what has ended.
                moved = (before.phase, proposal.phase)
                assert moved == (
                    ProposalPhase.PROMOTED,
                    ProposalPhase.ROLLED_BACK,
                ), (
                    before,
                    proposal,
                )
            if not proposal.open:
                self.closed[proposal.id] = proposal

    def _note_steps(self, rollouts: Mapping[str, Rollout], conditions: TurnConditions) -> None:
        for id_, rollout in rollouts.items():
            if rollout.baking:
                self.bakes.setdefault(id_, (conditions.monotonic, conditions.lead_s))
            known = self.steps.get(id_)
            resumed = rollout.step_started_at != (
                self.rollouts[id_].step_started_at if id_ in self.rollouts else None
            )
            if known is None or known[0] != rollout.step or resumed:
                self.steps[id_] = (
                    rollout.step,
                    conditions.monotonic,
                    conditions.lead_s,
                )

    def _no_false_expiry(self, event: AuditEvent, conditions: TurnConditions) -> None:
        """Time that was only set has not passed, unless the process is younger than that."""
        if event.action not in LATE | {BAKED}:
            return
        before = self.rollouts[str(event.details["rollout"])]
        _, began, lead_s = self.steps[before.id]
        deadline_s = before.current.deadline_s
        if event.action == BAKED:
            began, lead_s = self.bakes[before.id]
            deadline_s = before.policy.bake_s
        if all(abs(began_s - lead_s) < 1.0 for began_s in conditions.began_lead_s):
            assert conditions.monotonic - began >= deadline_s - SLACK_S, event

    def at_the_end(self, ctx: Context) -> None:
        with ctx.store.read() as tx:
            assert AuditLog(tx).first_break() is None
        for event in self.events:
            if "inputs" in event.details:
                again = audit.replay_action(ctx, event.number)
                assert again.agrees, (event, again.differences)
                assert again.again_sha256 == event.details["decided_sha256"]
            assert "inputs_unreadable" not in event.details


def check_selections(proposals: Sequence[Proposal]) -> None:
    """One of a selection goes on, and one proposal alone is past the gate on a route."""
    past = [proposal.route for proposal in proposals if proposal.phase in PAST_GATE_PHASES]
    assert len(past) == len(set(past))
    gone_on = [p.selection for p in proposals if p.selection and (p.rollout or p.approver)]
    assert len(gone_on) == len(set(gone_on))


def check_weights(history: Sequence[RouteRecord]) -> None:
    shares: dict[str, list[int]] = {}
    for record in history:
        if record.route.canary is not None:
            canary = record.route.canary
            shares.setdefault(canary.rollout, []).append(canary.weight_bps)
    for share in shares.values():
        assert all(a <= b for a, b in pairwise(share)), share


def check_rollout(
    tx: Transaction,
    before: Rollout | None,
    after: Rollout,
) -> None:
    proof = Verdicts(tx).get(after.verdict)
    assert isinstance(proof, Passed)
    told = (proof.route, proof.incumbent, proof.candidate)
    assert told == (after.route, after.incumbent, after.candidate)
    assert 0 <= after.step < len(after.policy.steps)
    if before is None or before == after:
        return
    assert before.live or before.baking, f"it moved after its end: {after}"
    assert after.version > before.version
    assert after.step >= before.step
    assert after.state in reachable(before.state), (
        before.state,
        after.state,
    )
    for name in (
        "policy",
        "salt",
        "verdict",
        "started_at",
        "incumbent",
        "candidate",
    ):
        assert getattr(after, name) == getattr(before, name)
    if after.state is RolloutState.PROMOTED and before.live:
        records = Routing(tx).history(after.route)
        assert [r.verdict for r in records if r.kind == "promotion"].count(after.verdict) == 1


def reachable(state: RolloutState) -> set[RolloutState]:
    """By any number of the table's transitions."""
    found = {state}
    left = [state]
    while left:
        here = left.pop()
        new = {to for (at, _), to in TRANSITIONS.items() if at is here} - found
        found |= new
        left += new
    return found


def check_proof(tx: Transaction, event: AuditEvent) -> None:
    """Whoever gives a candidate more users, loop or person, has a proof that is not over."""
    if event.action in UP | {"canary.advance", "canary.resume"}:
        proof = Verdicts(tx).get(Rollouts(tx).get(str(event.details["rollout"])).verdict)
        assert event.at < proof.expires_at, f"{event.action} after {proof.expires_at}"


def check_move(
    tx: Transaction,
    before: Mapping[str, Rollout],
    event: AuditEvent,
    conditions: TurnConditions,
) -> None:
    """A step up that the control plane took by itself has this step's own, trusted data."""
    if event.action in UP | {BAKED} and conditions.ahead_s >= 0 and not conditions.relives:
        assert conditions.dark_s < GAP_S, (
            f"on after {conditions.dark_s} s without any news: {event}"
        )
    if event.action not in UP:
        return
    rollout = before.get(str(event.details["rollout"]))
    assert rollout is not None, "a canary never goes up in the turn that opens it"
    inputs = event.details["inputs"]
    assert isinstance(inputs, dict)
    blocks = [
        b for b in Observations(tx).blocks(rollout.id) if b.number <= inputs["last_block"]
    ]
    step = rollout.policy.steps[inputs["step"]]
    for block in blocks:
        ended = block.outcomes.values()
        assert sum(split.failures for split in ended) == block.units, event
        assert sum(split.canary for split in ended) == block.canary_units, event
    assert exposures(blocks, step.weight_bps) >= max(1, step.min_exposures), event
    assert worst_log_srm(blocks, rollout.step_started_at) < ALARM_LOG_E, event


def exposures(blocks: Sequence[ObservationBlock], weight_bps: int) -> int:
    telling = [b for b in blocks if b.weight_bps == weight_bps and b.failures < b.units]
    return sum(block.canary_units for block in telling)


def check_words(ctx: Context, route: str) -> None:
    status = canary_status.explain_canary(ctx, route).status
    explanation = status.explanation
    figures = [
        explanation.eta_s,
        *(need.eta_s for need in explanation.needs),
    ]
    assert all(figure is None or figure >= 0 for figure in figures), figures
    for words in (
        explanation.why,
        explanation.eta,
        *(need.words for need in explanation.needs),
    ):
        assert not NEGATIVE.search(words), words


PROVEN = (
    ProposalPhase.AWAITING_APPROVAL,
    ProposalPhase.CANARY,
    ProposalPhase.PROMOTED,
    ProposalPhase.ROLLED_BACK,
)
LEGAL = {
    "baseline": (),
    "canary": ("baseline", "promotion", "abort", "restore"),
    "weight": ("canary", "weight"),
    "promotion": ("canary", "weight"),
    "abort": ("canary", "weight"),
    "restore": (
        "baseline",
        "promotion",
        "abort",
        "restore",
        "canary",
        "weight",
    ),
}


def check_revisions(tx: Transaction, names: Sequence[str]) -> None:
    every = [record.revision for name in names for record in Routing(tx).history(name)]
    assert sorted(every) == list(range(1, len(every) + 1))
    assert Routing(tx).table().revision == len(every)


def check_history(tx: Transaction, name: str) -> None:
    """Each version follows from the one before; nothing is promoted without its proof."""
    history = Routing(tx).history(name)[::-1]
    assert [record.route.version for record in history] == list(range(1, len(history) + 1))
    assert [record.revision for record in history] == sorted({r.revision for r in history})
    for before, after in pairwise(history):
        check_change(tx, before, after)
    # A chain may change at any time, and changes nothing else.
    for before, after in pairwise([record for record in history if record.kind != "settings"]):
        assert before.kind in LEGAL[after.kind], (before.kind, after.kind)
    check_evidence(tx, history[-1].route)


def check_evidence(tx: Transaction, route: Route) -> None:
    """Every target in every role has evidence of its own, of a kind that the role takes."""
    found = Routing(tx).evidence(route.name)
    assert found is not None
    canary_ = route.canary.target if route.canary else None
    assert found.incumbent.target == route.incumbent
    assert (found.canary.target if found.canary else None) == canary_
    assert tuple(fallback.target for fallback in found.fallbacks) == route.fallbacks
    assert found.canary is None or found.canary.kind is EvidenceKind.VERDICT
    assert found.incumbent.kind is not EvidenceKind.WAIVER
    stored = {waiver.id: waiver.target for waiver in Waivers(tx).list(route=route.name)}
    for fallback in found.fallbacks:
        if fallback.kind is EvidenceKind.WAIVER:
            assert stored[fallback.proof] == fallback.target


def check_change(
    tx: Transaction,
    before: RouteRecord,
    after: RouteRecord,
) -> None:
    old = before.route.canary
    new = after.route.canary
    if after.kind in ("canary", "promotion"):
        proof = Verdicts(tx).get(after.verdict or "")
        assert isinstance(proof, Passed)
        assert (proof.route, proof.incumbent) == (
            after.route.name,
            before.route.incumbent,
        )
        arrived = new.target if new else after.route.incumbent
        assert arrived == proof.candidate
    else:
        assert after.verdict is None
    if after.kind == "weight":
        assert old is not None
        assert new is not None
        assert (new.rollout, new.salt, new.target) == (
            old.rollout,
            old.salt,
            old.target,
        )
        assert new.weight_bps > old.weight_bps
    if after.kind not in ("promotion", "restore"):
        assert after.route.incumbent == before.route.incumbent
    if after.kind == "settings":
        assert new == old
    else:
        assert after.route.fallbacks == before.route.fallbacks
    if after.kind not in ("canary", "weight", "settings"):
        assert new is None


def check_canary(
    tx: Transaction,
    route: Route,
    proposals: Sequence[Proposal],
) -> None:
    """One rollout, one open proposal or selection; the table shows the rollout's step and
    nothing else.
    """
    opened = [proposal for proposal in proposals if proposal.open]
    assert len({proposal.selection or proposal.id for proposal in opened}) <= 1
    live = [rollout for rollout in Rollouts(tx).live() if rollout.route == route.name]
    in_canary = [
        proposal.rollout for proposal in opened if proposal.phase is ProposalPhase.CANARY
    ]
    assert [proposal.id for proposal in live] == in_canary
    if route.canary is not None:
        assert [proposal.id for proposal in live] == [route.canary.rollout]
        assert route.canary.weight_bps == live[0].current.weight_bps
        assert route.canary.target == live[0].candidate
    elif live:
        # Taken away by hand: the loop's next turn ends the rollout.
        kinds = (record.kind for record in Routing(tx).history(route.name))
        assert next(kind for kind in kinds if kind != "settings") == "restore"


def check_verdicts(tx: Transaction, proposal: Proposal) -> None:
    outcomes = [verdict.outcome for verdict in Verdicts(tx).for_proposal(proposal.id)]
    decided = [outcome for outcome in outcomes if outcome != "infra_error"]
    assert len(decided) <= 1
    gate = proposal.policy.gate
    attempts = next(n for n in count(1) if not gate.infra_pause_s(n))
    assert len(outcomes) - len(decided) <= attempts
    if proposal.phase in PROVEN:
        assert decided == ["passed"]
    if proposal.approver is not None:
        assert proposal.approver != proposal.proposer
