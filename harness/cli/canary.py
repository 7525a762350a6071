"""`swapgate canary` shows canaries (`status`, `explain`). Its operations are in
`canary_operations`, `plan` in `canary_plan`, `decide` in `evals`.
"""

from collections.abc import Sequence

import click

from harness.cli import shadow
from harness.cli.canary_facts import as_json, rollout_facts
from harness.cli.canary_operations import HELP, operation_command
from harness.cli.canary_watch import NO_CANARY, CanaryFollower, CanaryReading
from harness.cli.frame import output
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session, pass_session
from harness.cli.frame.watching import Watched, watch, watch_option
from harness.control.canary import status as canary_status
from harness.control.canary.status import CanaryHistory, CanaryStatus
from harness.control.serialize import to_plain
from harness.control.shadow.stage import ShadowStage, find_stage_of_route
from harness.domain.formatting import format_estimate, format_percent
from harness.gate.text.explain import GuardrailRow, StepNeed

DECIDE = LazyCommand(
    "harness.cli.evals.file_decision:canary_decide",
    "Decide about a canary from the counts in BLOCKS.csv.",
)


PLAN = LazyCommand(
    "harness.cli.proposals.submission:plan_ramp",
    "Say how long a canary on ROUTE takes at today's traffic.",
)


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


@canary.command()
@click.argument("route", required=False)
@watch_option
@pass_session
@click.pass_context
def status(
    click_context: click.Context, session: Session, route: str | None, *, watched: bool
) -> None:
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
        click_context.exit(follower.find_exit_code())
    canaries = canary_status.list_canaries(session.context, route=route)
    if session.json:
        output.document([as_json(row) for row in canaries])
    else:
        _print_canaries(canaries)


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


@canary.command()
@click.argument("route")
@pass_session
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
