"""Loads and describes canaries for `swapproof canary` and `swapproof proposal`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.canary import status as canary_status
from harness.canary.status import CanaryStatus
from harness.frame.formatting import format_bps
from harness.gate.canary_sentences import failed_callers
from harness.gate.online.rollout import Rollout
from harness.gate.outcome_rows import describe_outcomes
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.output import describe_harm
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.proposals.verdict_wait import (
    find_exit_code,
    load_progress,
)
from harness.operations.context import Context
from harness.proposals import submission
from harness.routing.proposal import Proposal, ProposalPhase

# Attributes of a canary that the document copies.
DOCUMENT_ATTRIBUTES: Final = (
    "incumbent",
    "candidate",
    "action",
    "explanation",
    "state",
    "moved",
    "held",
    "faults",
    "accepted_cost",
    "callers",
    "shared_key",
    "no_way_back",
)


def list_brief_facts(status: CanaryStatus) -> list[tuple[str, object]]:
    state = status.state
    return [
        ("canary", state.words),
        ("why", state.reason),
        ("next", state.next_step),
        ("failed", failed_callers(status.action.figures)),
        ("outcomes", describe_outcomes(status.action.figures) or None),
        ("harm", describe_harm(status.action.distance_to_trip)),
        ("more", f"`swapproof canary status {status.rollout.route}`"),
    ]


def rollout_facts(status: CanaryStatus) -> list[tuple[str, object]]:
    rollout = status.rollout
    action = status.action
    step = rollout.current
    state = status.state
    needs = f"{action.step_exposures:,} of {step.min_exposures:,} callers at this share"
    goal = "promotion" if rollout.last_step else format_bps(_find_next_weight_bps(status))
    return [
        ("route", rollout.route),
        ("rollout", f"{rollout.id}, of proposal {rollout.proposal}"),
        (
            "candidate",
            f"{status.candidate.name} against {status.incumbent.name}",
        ),
        ("state", state.words),
        ("why", state.reason),
        ("next", state.next_step),
        (
            "share",
            _describe_share(rollout) if rollout.live or rollout.baking else None,
        ),
        ("step", f"{rollout.step + 1} of {len(rollout.policy.steps)}"),
        ("failed", failed_callers(action.figures)),
        ("outcomes", describe_outcomes(action.figures) or None),
        ("callers", status.callers or None),
        ("audience", status.audience or None),
        ("one key", status.shared_key or None),
        (
            "cost",
            status.accepted_cost.text if status.accepted_cost else None,
        ),
        ("harm", describe_harm(action.distance_to_trip)),
        (
            f"for {goal}",
            (needs + (", and the certificate of no harm" if step.certify else ""))
            if rollout.live
            else None,
        ),
    ]


def _describe_share(rollout: Rollout) -> str:
    if rollout.baking:
        return f"100 %, except {format_bps(rollout.policy.bake_bps)} held back as a control"
    return format_bps(rollout.current.weight_bps)


def as_json(status: CanaryStatus) -> object:
    rollout = status.rollout
    return {
        "rollout": rollout,
        "weight_bps": rollout.current.weight_bps if rollout.live else 0,
        **output.pick(status, *DOCUMENT_ATTRIBUTES),
        "blocks": len(status.blocks),
    }


def _find_next_weight_bps(status: CanaryStatus) -> int:
    return status.rollout.policy.steps[status.rollout.step + 1].weight_bps


NO_CANARY: Final = "no canary: a proposal that passes its evals opens one"


@dataclass(frozen=True, slots=True)
class AwaitedCanary:
    proposal: Proposal
    progress: str

    @property
    def text(self) -> str:
        proposal = self.proposal
        if not proposal.open:
            reason = f": {proposal.closed_because}" if proposal.closed_because else ""
            return f"{proposal.route}: no canary opened: {self.progress}{reason}"
        text = f"{proposal.route}: waits for a canary: {self.progress}"
        if proposal.phase is ProposalPhase.AWAITING_APPROVAL and proposal.approver is None:
            text += f"; `swapproof proposal approve {proposal.id}` lets it open"
        return text


@dataclass(frozen=True, slots=True)
class CanaryReading:
    canaries: Sequence[CanaryStatus]
    awaited: Sequence[AwaitedCanary]

    @property
    def ended(self) -> bool:
        live = any(row.rollout.live or row.rollout.baking for row in self.canaries)
        return not live and not any(awaited.proposal.open for awaited in self.awaited)

    def lines(self) -> Mapping[str, str]:
        lines = {awaited.proposal.id: awaited.text for awaited in self.awaited}
        lines |= {row.rollout.proposal: _describe_row(row) for row in self.canaries}
        return lines or {"": NO_CANARY}


class CanaryFollower:
    """Loads live canaries and open proposals, and follows each of them to its end."""

    def __init__(self, session: Session, route: str | None) -> None:
        self._session = session
        self._route = route
        self._followed: dict[str, None] = {}  # ids of proposals, an ordered set

    @property
    def _ctx(self) -> Context:
        return self._session.context

    def load(self) -> CanaryReading:
        ctx = self._ctx
        route = self._route
        newest = canary_status.list_canaries(ctx, route=route)
        live = {
            row.rollout.proposal: row
            for row in newest
            if row.rollout.live or row.rollout.baking
        }
        open_proposals = submission.list_proposals(ctx, route=route, open_only=True)
        self._followed.update(
            dict.fromkeys([*live, *(proposal.id for proposal in open_proposals)])
        )
        if not self._followed:
            return CanaryReading(newest, ())
        canaries = []
        awaited = []
        for proposal_id in self._followed:
            row = live.get(proposal_id) or self._find_ended_canary(proposal_id)
            if row is not None:
                canaries.append(row)
                continue
            proposal, progress = load_progress(ctx, proposal_id)
            # Skips a proposal whose canary has ended and is no longer the route's newest.
            if proposal.open or proposal.rollout is None:
                awaited.append(AwaitedCanary(proposal, progress.describe()))
        return CanaryReading(canaries, awaited)

    def _find_ended_canary(self, proposal_id: str) -> CanaryStatus | None:
        proposal = submission.get_proposal(self._ctx, proposal_id)
        rows = canary_status.list_canaries(self._ctx, route=proposal.route)
        return next((row for row in rows if row.rollout.proposal == proposal_id), None)

    def find_exit_code(self) -> int:
        """Returns the best exit code of the route's proposals; 0 without a route."""
        if self._route is None:
            return 0
        proposals = [
            submission.get_proposal(self._ctx, proposal_id) for proposal_id in self._followed
        ]
        codes = [find_exit_code(self._session, proposal) for proposal in proposals]
        return min(codes, default=0)


def _describe_row(row: CanaryStatus) -> str:
    needs = row.rollout.current.min_exposures
    harm = describe_harm(row.action.distance_to_trip)
    counts = f"{row.action.step_exposures:,} of {needs:,} callers; {harm}"
    hold_text = f": {row.state.reason}" if row.hold_reasons or not row.rollout.live else ""
    counts_text = f"; {counts}" if row.rollout.live else ""
    return f"{row.rollout.route}: {row.state.words}{hold_text}{counts_text}"
