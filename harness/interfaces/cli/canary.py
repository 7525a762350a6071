"""`swapgate canary`. At a terminal an operation that ends a canary, or overrules its evidence,
says what it does and asks.
"""

import sys
from collections.abc import Sequence
from typing import Final

import click

from harness.canary import operations
from harness.canary import status as canary_status
from harness.canary.canary_state import OPERATIONS, OVERRULES, describe_effect
from harness.canary.status import CanaryHistory, CanaryStatus, list_canaries
from harness.frame.formatting import format_estimate, format_percent
from harness.gate.online.rollout import Rollout, RolloutSignal
from harness.gate.text.explain import StepNeed
from harness.gate.text.guardrail_rows import GuardrailRow
from harness.interfaces.cli.canary_facts import (
    NO_CANARY,
    CanaryFollower,
    CanaryReading,
    as_json,
    rollout_facts,
)
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    REASON,
    WATCH,
    LazyCommand,
    LazyCommandGroup,
    command,
    opt,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import Watched, watch

# Before these a person at a terminal is asked.
ASKS: Final = frozenset({*OVERRULES, RolloutSignal.ABORT})
VERSION: Final = opt("Only if the rollout is still at this version.")


def _confirm(
    session: Session, route: str, signal: RolloutSignal, version: int | None
) -> int | None:
    """Says what the signal does and what speaks against it, and asks a person at a terminal.

    Returns the version to be moved: once somebody has decided about what was shown, that one.
    """
    shown = next(iter(list_canaries(session.context, route=route)), None)
    if shown is None or not (shown.rollout.live or shown.rollout.baking):
        return version
    against = shown.objections(signal)
    for objection in against:
        output.note(f"warning: {objection}")
    if not at_a_terminal() or not (against or signal is RolloutSignal.ABORT):
        return version
    output.note(
        describe_effect(shown.rollout, shown.candidate.name, shown.incumbent.name, signal)
    )
    what, who = "bake" if shown.rollout.baking else "canary", session.deciding_actor.name
    question = (
        f"Abort the {what} of {route}, as {who}?"
        if signal is RolloutSignal.ABORT
        else "Go on all the same?"
    )
    click.confirm(question, abort=True, err=True)
    return shown.rollout.version if version is None else version


def at_a_terminal() -> bool:
    return sys.stdin.isatty()


def operation_command(signal: RolloutSignal) -> click.Command:

    def operate(
        session: Session, route: str, *, reason: str = REASON, version: int | None = VERSION
    ) -> None:
        rollout = session.decide(
            operations.operate, route, signal, reason, expected_version=version
        ).rollout
        output.answer(rollout, f"the {_describe(rollout)}")

    def ask_and_operate(
        session: Session,
        route: str,
        *,
        yes: bool = opt("Do not ask.", "--yes", "-y"),
        reason: str = REASON,
        version: int | None = VERSION,
    ) -> None:
        if not yes:
            version = _confirm(session, route, signal, version)
        operate(session, route, reason=reason, version=version)

    asks = "\n\nAt a terminal it says what that does, and asks."
    text = OPERATIONS[signal] + (asks if signal is RolloutSignal.ABORT else "")
    register = command(name=signal.value, help=text, short_help=OPERATIONS[signal])
    return register(ask_and_operate if signal in ASKS else operate)


def _describe(rollout: Rollout) -> str:
    if rollout.end is not None:
        return rollout.end.describe(rollout.route)
    state = "promoted, and bakes" if rollout.baking else rollout.state.value
    return f"canary of {rollout.route} is {state}"


DECIDE = LazyCommand(
    "harness.interfaces.cli.evals.file_decision:canary_decide",
    "Decide about a canary from the counts in BLOCKS.csv.",
)


PLAN = LazyCommand(
    "harness.interfaces.cli.proposals.submission:plan_ramp",
    "Say how long a canary on ROUTE takes at today's traffic.",
)


SECTIONS = {
    "Look": ("status", "explain", "plan"),
    "Act": tuple(signal.value for signal in OPERATIONS),
    "The rule": ("decide",),
}


@click.command(cls=LazyCommandGroup, lazy={"plan": PLAN, "decide": DECIDE}, sections=SECTIONS)
def canary() -> None:
    """Canaries: a candidate on a small share of the traffic."""


for _signal in OPERATIONS:
    canary.add_command(operation_command(_signal))


@command(canary)
def status(session: Session, route: str | None, *, watched: bool = WATCH) -> int:
    """Show the live canaries; with ROUTE its newest, live or ended.

    With --watch it waits for a canary where a proposal is under way. Exit code: 0 promoted, 3
    rolled back or failed, 4 not enough evidence.
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
    if not output.documented([as_json(row) for row in canaries]):
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
    history = canary_status.explain_canary(session.context, route)
    if output.documented(
        {
            "rollout": history.status.rollout.id,
            "explanation": history.status.explanation,
            "moves": history.moves,
        }
    ):
        return
    _print_explained(history)


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
