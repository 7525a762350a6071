"""`swapgate canary` shows canaries (`status`, `explain`); `status --watch` follows them, and
before that the proposals that open one. Its operations are in `canary_operations`, `plan` in
`proposals`, `decide` in `evals`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from harness.cli import shadow
from harness.cli.canary_facts import as_json, rollout_facts
from harness.cli.canary_operations import HELP, operation_command
from harness.cli.frame import output
from harness.cli.frame.command import WATCH, command
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.output import harm_text, timestamp
from harness.cli.frame.session import Session
from harness.cli.frame.watching import Watched, watch
from harness.cli.proposals.verdict_wait import find_exit_code, load_progress
from harness.control.canary import status as canary_status
from harness.control.canary.status import CanaryHistory, CanaryStatus
from harness.control.context import Context
from harness.control.proposals import submission
from harness.control.serialize import to_plain
from harness.control.shadow.stage import ShadowStage, find_stage_of_route
from harness.domain.formatting import format_estimate, format_percent
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.gate.text.explain import GuardrailRow, StepNeed

DECIDE = LazyCommand(
    "harness.cli.evals.file_decision:canary_decide",
    "Decide about a canary from the counts in BLOCKS.csv.",
)


PLAN = LazyCommand(
    "harness.cli.proposals.submission:plan_ramp",
    "Say how long a canary on ROUTE takes at today's traffic.",
)
NO_CANARY: Final = "no canary: a proposal that passes its evals opens one"


@dataclass(frozen=True, slots=True)
class AwaitedCanary:
    """Describes a canary that is not open: its proposal, and how far that is."""

    proposal: Proposal
    progress: str

    @property
    def text(self) -> str:
        """Says what is waited for, or why there will be no canary."""
        proposal = self.proposal
        if not proposal.open:
            why = f": {proposal.closed_because}" if proposal.closed_because else ""
            return f"{proposal.route}: no canary opened: {self.progress}{why}"
        said = f"{proposal.route}: waits for a canary: {self.progress}"
        if proposal.phase is ProposalPhase.AWAITING_APPROVAL and proposal.approver is None:
            said += f"; `swapgate proposal approve {proposal.id}` lets it open"
        return said


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """Holds what `--watch` shows at one moment."""

    canaries: Sequence[CanaryStatus]
    awaited: Sequence[AwaitedCanary]

    @property
    def ended(self) -> bool:
        """Tells whether nothing is under way any more."""
        live = any(row.rollout.live or row.rollout.baking for row in self.canaries)
        return not live and not any(awaited.proposal.open for awaited in self.awaited)

    def lines(self) -> Mapping[str, str]:
        """Writes by proposal a line for a log."""
        said = {awaited.proposal.id: awaited.text for awaited in self.awaited}
        said |= {row.rollout.proposal: _line(row) for row in self.canaries}
        return said or {"": NO_CANARY}


class CanaryFollower:
    """Loads the canaries of a route, or of all, and the proposals that may open one; what was
    under way is shown at its end, too.
    """

    def __init__(self, session: Session, route: str | None) -> None:
        self._session, self._route = session, route
        self._followed: dict[str, None] = {}  # proposals, in the order in which they were seen

    @property
    def _ctx(self) -> Context:
        return self._session.context

    def load(self) -> CanaryReading:
        ctx, route = self._ctx, self._route
        newest = canary_status.list_canaries(ctx, route=route)
        live = {
            row.rollout.proposal: row
            for row in newest
            if row.rollout.live or row.rollout.baking
        }
        opened = submission.list_proposals(ctx, route=route, open_only=True)
        self._followed.update(dict.fromkeys([*live, *(proposal.id for proposal in opened)]))
        if not self._followed:
            return CanaryReading(newest, ())
        canaries, awaited = [], []
        for id_ in self._followed:
            row = live.get(id_) or self._find_ended(id_)
            if row is not None:
                canaries.append(row)
                continue
            proposal, progress = load_progress(ctx, id_)
            # Of a canary that has ended, a later one of its route has taken the place.
            if proposal.open or proposal.rollout is None:
                awaited.append(AwaitedCanary(proposal, progress.describe()))
        return CanaryReading(canaries, awaited)

    def _find_ended(self, id_: str) -> CanaryStatus | None:
        """Finds the ended canary of a proposal; None where none has opened."""
        proposal = submission.get_proposal(self._ctx, id_)
        rows = canary_status.list_canaries(self._ctx, route=proposal.route)
        return next((row for row in rows if row.rollout.proposal == id_), None)

    def find_exit_code(self) -> int:
        """Returns the code of what was followed on the route: of several proposals, of the one
        that came furthest. Of all routes, and where nothing was under way, it is 0.
        """
        if self._route is None:
            return 0
        proposals = [submission.get_proposal(self._ctx, id_) for id_ in self._followed]
        codes = [find_exit_code(self._session, proposal) for proposal in proposals]
        return min(codes, default=0)


def _line(row: CanaryStatus) -> str:
    needs, harm = (
        row.rollout.current.min_exposures,
        harm_text(row.action.distance_to_trip),
    )
    counts = f"{row.action.step_exposures:,} of {needs:,} exposures; {harm}"
    held = f": {row.state.reason}" if row.hold_reasons or not row.rollout.live else ""
    more = f"; {counts}" if row.rollout.live else ""
    return f"{row.rollout.route}: {row.state.words}{held}{more}"


SECTIONS = {
    "Look": ("status", "explain", "plan"),
    "Act": tuple(signal.value for signal in HELP),
    "The rule": ("decide",),
}


@click.command(cls=LazyCommandGroup, lazy={"plan": PLAN, "decide": DECIDE}, sections=SECTIONS)
def canary() -> None:
    """Canaries: a candidate on a small share of the traffic."""


for _signal in HELP:
    canary.add_command(operation_command(_signal))


@command(canary)
def status(session: Session, route: str | None, *, watched: bool = WATCH) -> int:
    """Show the live canaries; with ROUTE its newest, live or ended.

    `canary explain ROUTE` shows the evidence behind it, guardrail by guardrail.

    With --watch it waits for a canary where a proposal is under way. What it followed on ROUTE
    sets the exit code: 0 promoted, 3 rolled back or failed, 4 not enough evidence.
    """
    if watched:
        follower = CanaryFollower(session, route)
        watch(
            session,
            Watched(
                load=follower.load,
                draw=_print_reading,
                lines=CanaryReading.lines,
                document=_reading_json,
                ended=lambda reading: reading.ended,
            ),
        )
        return follower.find_exit_code()
    canaries = canary_status.list_canaries(session.context, route=route)
    if session.json:
        output.document([as_json(row) for row in canaries])
    else:
        _print_canaries(canaries)
    return 0


def _print_reading(reading: CanaryReading) -> None:
    for awaited in reading.awaited:
        click.echo(awaited.text)
    if reading.canaries or not reading.awaited:
        _print_canaries(reading.canaries)


def _reading_json(reading: CanaryReading) -> object:
    awaited = [
        {"rollout": None, "proposal": row.proposal.id, "awaited": row.text}
        for row in reading.awaited
    ]
    return [*(as_json(row) for row in reading.canaries), *awaited]


def _print_canaries(canaries: Sequence[CanaryStatus]) -> None:
    if not canaries:
        output.note(NO_CANARY)
    for number, row in enumerate(canaries):
        if number:
            click.echo()
        output.facts(rollout_facts(row))


@command(canary)
def explain(session: Session, route: str) -> None:
    """Explain why ROUTE's canary is at its step, and what would change that."""
    stage = find_stage_of_route(session.context, route)
    if stage is not None:
        _explain_shadow(session, stage)
        return
    history = canary_status.explain_canary(session.context, route)
    if session.json:
        output.document(
            {
                "shadow": None,
                "rollout": history.status.rollout.id,
                "explanation": to_plain(history.status.explanation),
                "moves": to_plain(history.moves),
            }
        )
        return
    _print_explained(history)


def _explain_shadow(session: Session, stage: ShadowStage) -> None:
    """The canary is not open yet: what comes before it."""
    if session.json:
        none: dict[str, object] = {"rollout": None, "explanation": None, "moves": []}
        output.document({"shadow": to_plain(stage), **none})
        return
    output.facts(shadow.stage_text(stage))
    output.note(f"`swapgate proposal show {stage.proposal}` has the verdict")


def _print_explained(history: CanaryHistory) -> None:
    status, explanation = history.status, history.status.explanation
    rollout, state = status.rollout, status.state
    output.facts(
        [
            ("route", f"{rollout.route}: {status.candidate.name} for {status.incumbent.name}"),
            ("state", state.words),
            ("why", state.reason),
            ("next", state.next_step),
            ("judged by", explanation.judged_by or None),
            (
                "pace",
                f"{explanation.units_per_hour:,.0f} an hour"
                if explanation.units_per_hour
                else None,
            ),
        ]
    )
    for objection in explanation.against:
        click.echo(f"▲ against a step by hand: {objection}")
    if explanation.needs:
        output.table_of(
            explanation.needs,
            lambda need: {
                "": "✓" if need.done else "◷",
                "STILL NEEDED": need.words,
                "WHEN": _when(need),
            },
        )
    output.table_of(explanation.guardrails, guardrail_cells, empty="no guardrails")
    for row in explanation.guardrails:
        for line in row.classes:
            click.echo(f"{row.name}: {line}")
    if history.moves:
        output.table_of(
            history.moves,
            lambda event: {
                "EVENT": event.number,
                "AT (UTC)": timestamp(event.at),
                "WHO": event.actor,
                "DID": event.action,
                "BECAUSE": event.details.get("reason"),
            },
        )
        output.note("`swapgate gate replay EVENT` decides one of them again, from its blocks")


def guardrail_cells(row: GuardrailRow) -> dict[str, object]:
    return {
        "GUARDRAIL": row.name,
        "CANDIDATE": row.candidate or None,
        "INCUMBENT": row.incumbent or None,
        "ALLOWED": row.allowed,
        "EVIDENCE": row.says,
        "TO ROLLBACK": format_percent(row.distance, 0),
        "MOST": format_percent(row.furthest, 0),
    }


def _when(need: StepNeed) -> str:
    if need.done:
        return "done"
    return "unknown" if need.eta_s is None else f"about {format_estimate(need.eta_s)}"
