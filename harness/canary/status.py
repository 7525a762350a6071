"""Builds a canary's status for people: the rollout's state, its reasons, its history and its
timeline. The timeline has the share, the evidence of harm and both arms' failures after each
block.

It makes no decision and writes nothing: `harness.canary.decision` decides. The words of a state
are in `harness.canary.canary_state`, and explanations of evidence in `harness.gate.explain`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import NormalDist
from typing import Final

from harness.canary import decision, duration_estimate, way_back
from harness.canary.audit import RolloutTransaction, repeat_end
from harness.canary.canary_state import (
    OVERRULES,
    CanaryState,
    describe_canary_state,
)
from harness.canary.first_callers import (
    NO_FIRST_CALLERS,
    FirstCallers,
    read_first_callers,
)
from harness.evals import proof_validity
from harness.frame.errors import NotFound
from harness.frame.people.audience import find_audience
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditEvent
from harness.frame.signing.audit_log import AuditLog
from harness.gate.explain import (
    NO_BASIS,
    RolloutExplanation,
    explain_rollout,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import (
    Rollout,
    RolloutSignal,
    RolloutState,
    name_first_callers,
)
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.gate.online.rollout_evidence import distance_path
from harness.gate.online.segment_harm import describe_sources
from harness.gate.policy import CostAcceptance
from harness.proposals.context import ProposalsContext
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.control.routes import find_later_rollback, is_bake_over, read_later_end
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.verdicts import Verdicts
from harness.routing.table import RouteRecord

MAX_AUDIT_EVENTS: Final = 2_000


# The most points of a chart. `_thin_out` drops points of a longer timeline evenly.
MOST_POINTS: Final = 160

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class FailureShare:
    """Counts one arm's exposures and failures so far."""

    failures: int
    units: int

    @property
    def share(self) -> float | None:
        return self.failures / self.units if self.units else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of the share, None without exposures.

        The interval is valid for one look only; the evidence of harm is valid for repeated
        looks. Source: Wilson 1927 (score interval).
        """
        if not self.units:
            return None
        z = NormalDist().inv_cdf((1.0 + _CONFIDENCE) / 2.0)
        n = self.units
        p = self.failures / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Describes a canary at the moment when a block closed."""

    at: datetime
    weight_bps: int
    distance: float  # evidence as a share of the rollback level; 1 trips
    candidate: FailureShare
    incumbent: FailureShare


def build_timeline(
    rollout: Rollout, blocks: Sequence[ObservationBlock]
) -> tuple[TimelinePoint, ...]:
    """Returns a point for each block in order of number, up to the block that tripped; at most
    about MOST_POINTS.
    """
    ordered = sorted(blocks, key=lambda block: block.number)
    distances = distance_path(ordered, rollout.policy)
    points = []
    at = rollout.started_at
    candidate = incumbent = FailureShare(0, 0)
    for block, distance in zip(ordered, distances, strict=False):
        # Clocks of routers may differ, but a chart's time must not go back.
        at = max(at, block.closed_at)
        candidate = _add_counts(candidate, block.canary_failures, block.canary_units)
        incumbent = _add_counts(
            incumbent,
            block.failures - block.canary_failures,
            block.units - block.canary_units,
        )
        points.append(TimelinePoint(at, block.weight_bps, distance, candidate, incumbent))
    return _thin_out(points)


def _add_counts(
    share: FailureShare,
    failures: int,
    exposures: int,
) -> FailureShare:
    return FailureShare(share.failures + failures, share.units + exposures)


def _thin_out(points: Sequence[TimelinePoint]) -> tuple[TimelinePoint, ...]:
    """Drops points evenly, down to about MOST_POINTS. Keeps the last point and the first point
    of each step.
    """
    if len(points) <= MOST_POINTS:
        return tuple(points)
    every = math.ceil(len(points) / MOST_POINTS)
    last = len(points) - 1
    return tuple(
        point
        for place, point in enumerate(points)
        if (last - place) % every == 0
        or (place and points[place - 1].weight_bps != point.weight_bps)
    )


@dataclass(frozen=True)
class CanaryStatus:
    """One rollout with the evidence, reasons and names that people need to judge it.

    The evidence is computed when the status is built, so it can be newer than the last move.
    """

    rollout: Rollout
    incumbent: Target
    candidate: Target
    action: RolloutAction  # the action that the evidence asks for now
    blocks: Sequence[ObservationBlock]
    explanation: RolloutExplanation  # the action and its reasons, for people
    # moved, held, faults: why the canary is blocked regardless of its evidence; else empty.
    # `held` ends with its cause; a person must act to end the others.
    moved: str = ""
    held: str = ""
    faults: str = ""
    pause_reason: str = ""  # the reason of its pause; empty if it is not paused
    rollback: RouteRecord | None = (
        None  # the change that rolled its promotion back after the bake
    )
    # A cost beyond the policy's guardrail that an approver accepted.
    accepted_cost: CostAcceptance | None = None
    shared_key: str = ""  # names a key that carries too many of the route's requests
    no_way_back: str = ""  # why a rollback of its bake would restore no working model
    first_callers: FirstCallers = NO_FIRST_CALLERS  # that the audience put into the canary

    @property
    def changed_at(self) -> datetime:
        """The time when the rollout changed last, or was rolled back by hand after the bake."""
        return self.rollback.at if self.rollback else self.rollout.updated_at

    @property
    def hold_reasons(self) -> Sequence[str]:
        """Lists the obstacles of the canary: a moved provider, holds, faults of routers."""
        return [*filter(None, (self.moved, self.held, self.faults))]

    @property
    def state(self) -> CanaryState:
        return describe_canary_state(
            self.rollout,
            self.hold_reasons,
            self.action,
            self.explanation,
            pause_reason=self.pause_reason,
            incumbent=self.incumbent.name,
            later_end=read_later_end(self.rollback),
            no_way_back=self.no_way_back,
        )

    def objections(self, signal: RolloutSignal) -> Sequence[str]:
        """Lists arguments against an action that ignores missing evidence, or against the end
        of a bake whose former incumbent cannot serve; else empty.
        """
        if signal is RolloutSignal.ABORT and self.no_way_back:
            return (self.no_way_back,)
        return self.explanation.against if signal in OVERRULES else ()

    @property
    def audience(self) -> str:
        """Describes the callers that the share does not draw, and how many were first; empty
        without an audience.
        """
        step = self.rollout.current.weight_bps
        found = find_audience(self.rollout.policy.audiences, step)
        if found is None:
            return ""
        words = f" Any client can claim: {found.claimed}." if found.claimed else ""
        first = f" {self.first_callers.text}." if self.first_callers.text else ""
        return f"{found.text or 'no callers'}.{words}{first}"

    @property
    def callers(self) -> str:
        """Describes how the requests named the counted callers."""
        return describe_sources(self.blocks)

    @property
    def timeline(self) -> Sequence[TimelinePoint]:
        """Returns the points of the blocks, and of the guard that rolled the canary back."""
        points = build_timeline(self.rollout, self.blocks)
        figures = self.action.figures
        decided = self.rollout.decided
        if decided is None or decided.guard is None:
            return points
        candidate = FailureShare(figures.canary_failures, figures.canary_units)
        incumbent = FailureShare(figures.control_failures, figures.control_units)
        weight_bps = self.rollout.current.weight_bps
        last = TimelinePoint(decided.at, weight_bps, 1.0, candidate, incumbent)
        return (*points, last)


def list_canaries(ctx: ProposalsContext, *, route: str | None = None) -> Sequence[CanaryStatus]:
    """Lists live canaries and bakes; with `route`, that route's newest rollout, live or not.

    Raises NotFound for an unknown route.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        if route is not None:
            routes.require_route(tx, route)
        rollouts = (
            [*Rollouts(tx).live(), *Rollouts(tx).baking()]
            if route is None
            else Rollouts(tx).list(route=route, limit=1)
        )
        targets = Targets(tx).all()
        _check_proofs(tx, rollouts)
        preload_canaries(tx, rollouts, now)
        accepted = {proposal.id: proposal.accepted_cost for proposal in Proposals(tx).open()}
        return [
            replace(
                build_canary_status(RolloutTransaction(ctx, tx, rollout), targets, now),
                accepted_cost=accepted.get(rollout.proposal),  # ends with its proposal
            )
            for rollout in rollouts
        ]


def _check_proofs(tx: Transaction, rollouts: Sequence[Rollout]) -> None:
    """Verifies the verdicts of live rollouts. Raises SignatureInvalid."""
    ids = [rollout.verdict for rollout in rollouts if rollout.live]
    Preload(tx).verdicts(ids)
    for id_ in ids:
        Verdicts(tx).get(id_)


def list_rollouts(ctx: ProposalsContext) -> Sequence[Rollout]:
    """Lists the rollouts of live canaries and bakes, without their evidence."""
    with ctx.store.read() as tx:
        return [*Rollouts(tx).live(), *Rollouts(tx).baking()]


@dataclass(frozen=True)
class CanaryHistory:
    """A canary's status with the moves that led to it."""

    status: CanaryStatus
    # Audit events of the rollout, newest first (the last MAX_AUDIT_EVENTS).
    moves: Sequence[AuditEvent]


def explain_canary(ctx: ProposalsContext, route: str) -> CanaryHistory:
    """Explains the route's newest rollout. Raises NotFound if the route has had no canary."""
    status = next(iter(list_canaries(ctx, route=route)), None)
    if status is None:
        raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")
    return CanaryHistory(status, list_canary_moves(ctx, status.rollout))


def list_canary_moves(ctx: ProposalsContext, rollout: Rollout) -> Sequence[AuditEvent]:
    """Lists the rollout's audit events, newest first, at most MAX_AUDIT_EVENTS of its route."""
    with ctx.store.read() as tx:
        events = AuditLog(tx).for_subject(
            f"route {rollout.route}",
            since=rollout.started_at,
            limit=MAX_AUDIT_EVENTS,
        )
    return [event for event in events if event.details.get("rollout") == rollout.id]


def preload_canaries(tx: Transaction, rollouts: Sequence[Rollout], now: datetime) -> None:
    """Loads the rows that `build_canary_status` reads, for all rollouts together."""
    live_routes = {rollout.route for rollout in rollouts if rollout.live}
    duration_estimate.preload_traffic(tx, live_routes, now)
    first = [name_first_callers(one.id) for one in rollouts if one.policy.audiences]
    Preload(tx).blocks([*(rollout.id for rollout in rollouts), *first])
    if proof_validity.has_moved_providers(tx):
        Preload(tx).verdicts([rollout.verdict for rollout in rollouts if rollout.live])
    Preload(tx).newest_alerts([key for r in rollouts for key in decision.list_alert_keys(r)])
    Preload(tx).first_after([r.id for r in rollouts if is_bake_over(r)])


def build_canary_status(
    transaction: RolloutTransaction,
    targets: Mapping[str, Target],
    now: datetime,
) -> CanaryStatus:
    """Builds the status of one rollout from its blocks and alerts.

    Args:
        targets: by id.
        now: the moment at which the evidence is judged.

    Reads row by row; for a list, call `preload_canaries` first.
    """
    rollout = transaction.rollout
    action, blocks = _read_decision(transaction, now)
    current = rollout.live or rollout.baking
    faults = decision.describe_router_faults(transaction.tx, rollout) if current else ""
    moved = _moved_provider_reason(transaction) if rollout.live else ""
    held = " ".join(
        why for why in decision.list_hold_reasons(transaction.tx, rollout) if why != faults
    )
    traffic = NO_BASIS
    if rollout.live:
        is_held = bool(moved or held or faults)
        traffic = duration_estimate.read_traffic(transaction.tx, rollout, now, held=is_held)
    return CanaryStatus(
        rollout=rollout,
        incumbent=targets[rollout.incumbent],
        candidate=targets[rollout.candidate],
        action=action,
        blocks=blocks,
        explanation=explain_rollout(rollout, action, blocks, now, traffic),
        moved=moved,
        held=held,
        faults=faults,
        pause_reason=decision.find_pause_reason(transaction.tx, rollout),
        rollback=find_later_rollback(transaction.tx, rollout),
        shared_key=decision.describe_shared_key(transaction.tx, rollout.route),
        no_way_back=way_back.find_gone(transaction.tx, rollout) if rollout.baking else "",
        first_callers=read_first_callers(transaction.tx, rollout),
    )


def _read_decision(
    transaction: RolloutTransaction, now: datetime
) -> tuple[RolloutAction, Sequence[ObservationBlock]]:
    """Returns a live canary's action and blocks as of now; for an ended canary, those of its
    end.

    A canary that an older version ended has no stored decision. Then all its blocks count, and
    the alert of a worker's guard.
    """
    rollout = transaction.rollout
    blocks = Observations(transaction.tx).blocks(rollout.id)
    if rollout.decided is not None:
        return repeat_end(rollout, rollout.decided, blocks)
    action = decide_action(rollout, blocks, now)
    if rollout.state is RolloutState.ROLLED_BACK:
        abort = decision.find_worker_abort(transaction)
        action = action if abort is None else decision.add_worker_abort(action, abort)
    return action, blocks


def _moved_provider_reason(transaction: RolloutTransaction) -> str:
    """Explains that a provider moved since the measurement; else empty."""
    # Reading verdicts and plans for every canary of a list takes long.
    if not proof_validity.has_moved_providers(transaction.tx):
        return ""
    verdict = Verdicts(transaction.tx).get(transaction.rollout.verdict)
    if proof_validity.find_unreadable(verdict):
        return ""
    moved = proof_validity.list_moved_providers(transaction.ctx, transaction.tx, verdict)
    return decision.describe_moved(moved)
