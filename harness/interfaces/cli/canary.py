"""`swapproof canary`. On a terminal, an operation that ends a canary or overrules its evidence
explains its effect, and asks for confirmation.
"""

import sys
from collections.abc import Sequence
from typing import Final

import click

from harness.canary import operations
from harness.canary import status as canary_status
from harness.canary.caller_operations import CANARY_CALLERS
from harness.canary.canary_state import (
    OPERATIONS,
    OVERRULES,
    describe_effect,
)
from harness.canary.status import CanaryHistory, CanaryStatus, list_canaries
from harness.frame.formatting import format_estimate, format_percent
from harness.gate.canary_sentences import end_sentence
from harness.gate.explain import StepNeed
from harness.gate.guardrail_rows import GuardrailRow
from harness.gate.online.rollout import Rollout, RolloutSignal
from harness.gate.outcome_rows import OutcomeRow
from harness.interfaces.cli.canary_facts import (
    NO_CANARY,
    CanaryFollower,
    CanaryReading,
    as_json,
    rollout_facts,
)
from harness.interfaces.cli.evals.file_decision import DECIDE_CANARY
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    REASON,
    WATCH,
    LazyCommand,
    LazyCommandGroup,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import add_commands
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import Watched, watch

# On a terminal, these operations ask for confirmation.
ASKING_OPERATIONS: Final = frozenset({*OVERRULES, RolloutSignal.ABORT})
VERSION: Final = opt("Act only if the rollout is still at this version.")


def _confirm(
    session: Session,
    route: str,
    signal: RolloutSignal,
    version: int | None,
) -> int | None:
    """Prints the signal's effect and the objections to it, and asks on a terminal.

    Returns the version that the signal applies to: after a confirmation, the version shown.
    """
    live_canary = next(iter(list_canaries(session.context, route=route)), None)
    if live_canary is None or not (live_canary.rollout.live or live_canary.rollout.baking):
        return version
    objections = live_canary.objections(signal)
    for objection in objections:
        output.note(f"warning: {objection}")
    if not at_a_terminal() or not (objections or signal is RolloutSignal.ABORT):
        return version
    output.note(
        describe_effect(
            live_canary.rollout, live_canary.candidate.name, live_canary.incumbent.name, signal
        )
    )
    stage = "bake" if live_canary.rollout.baking else "canary"
    question = (
        f"Abort the {stage} of {route}, as {session.deciding_actor.name}?"
        if signal is RolloutSignal.ABORT
        else "Continue anyway?"
    )
    click.confirm(question, abort=True, err=True)
    return live_canary.rollout.version if version is None else version


def at_a_terminal() -> bool:
    return sys.stdin.isatty()


def operation_command(signal: RolloutSignal) -> click.Command:

    def operate(
        session: Session,
        route: str,
        *,
        reason: str = REASON,
        version: int | None = VERSION,
    ) -> None:
        rollout = session.decide(
            operations.operate,
            route,
            signal,
            reason,
            expected_version=version,
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
        operate(
            session,
            route,
            reason=reason,
            version=version,
        )

    asks_text = "\n\nOn a terminal, the command explains the effect, and asks."
    text = OPERATIONS[signal] + (asks_text if signal is RolloutSignal.ABORT else "")
    register = command(
        name=signal.value,
        help=text,
        short_help=OPERATIONS[signal],
        example=f'swapproof canary {signal.value} support --reason "ticket 12"',
    )
    return register(ask_and_operate if signal in ASKING_OPERATIONS else operate)


def _describe(rollout: Rollout) -> str:
    if rollout.end is not None:
        return end_sentence(rollout.end, rollout.route)
    state = "promoted, and bakes" if rollout.baking else rollout.state.value
    return f"canary of {rollout.route} is {state}"


PLAN = LazyCommand(
    "harness.interfaces.cli.proposals.submission:plan_ramp",
    "Estimate the duration of a canary on ROUTE at the last hour's pace.",
)


SECTIONS = {
    "Look": ("status", "explain", "who", "callers", "plan"),
    "Act": tuple(signal.value for signal in OPERATIONS),
    "The rule": ("decide",),
}


@click.command(
    cls=LazyCommandGroup,
    lazy={"plan": PLAN, "decide": DECIDE_CANARY},
    sections=SECTIONS,
)
def canary() -> None:
    """Canaries: a candidate on a small share of the traffic."""


for _signal in OPERATIONS:
    canary.add_command(operation_command(_signal))
add_commands(canary, CANARY_CALLERS)


@command(canary, example="swapproof canary status support")
def status(
    session: Session,
    route: str | None,
    *,
    is_watching: bool = WATCH,
) -> int:
    """Show the live canaries; with ROUTE its newest canary, live or ended.

    With --watch, the command also follows open proposals until their canaries. Exit code with
    ROUTE: 0 promoted, 3 rolled back or failed, 4 not enough evidence.
    """
    if is_watching:
        follower = CanaryFollower(session, route)
        watch(
            session,
            Watched(
                load=follower.load,
                draw=_print_reading,
                lines=CanaryReading.lines,
                document=_document_reading,
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


def _document_reading(reading: CanaryReading) -> object:
    awaited_rows = [
        {
            "rollout": None,
            "proposal": row.proposal.id,
            "awaited": row.text,
        }
        for row in reading.awaited
    ]
    return [*(as_json(row) for row in reading.canaries), *awaited_rows]


def _print_canaries(canaries: Sequence[CanaryStatus]) -> None:
    if not canaries:
        output.note(NO_CANARY)
    for number, row in enumerate(canaries):
        if number:
            click.echo()
        output.facts(rollout_facts(row))


@command(canary, example="swapproof canary explain support")
def explain(session: Session, route: str) -> None:
    """Explain why ROUTE's canary is at its step, and what the next step needs."""
    history = canary_status.explain_canary(session.context, route)
    if output.documented(
        {
            "rollout": history.status.rollout.id,
            "explanation": history.status.explanation,
            "moves": history.moves,
        }
    ):
        return
    _print_explanation(history)


def _print_explanation(history: CanaryHistory) -> None:
    status = history.status
    explanation = history.status.explanation
    rollout = status.rollout
    state = status.state
    output.facts(
        [
            (
                "route",
                f"{rollout.route}: {status.candidate.name} for {status.incumbent.name}",
            ),
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
                "WHEN": _describe_time(need),
            },
        )
    output.table_of(explanation.guardrails, guardrail_cells, empty="no guardrails")
    for row in explanation.guardrails:
        for line in row.classes:
            click.echo(f"{row.name}: {line}")
    if rows := (
        *explanation.outcomes,
        *explanation.uncounted,
        *explanation.served,
    ):
        output.table_of(rows, outcome_cells)
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
        output.note("`swapproof gate replay EVENT` decides an event again from its blocks")


def outcome_cells(row: OutcomeRow) -> dict[str, object]:
    """Returns the cells of a row of outcomes."""
    return {
        "OUTCOME": row.name,
        "CANDIDATE": row.candidate_text,
        "INCUMBENT": row.incumbent_text,
    }


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


def _describe_time(need: StepNeed) -> str:
    if need.done:
        return "done"
    return "unknown" if need.eta_s is None else f"about {format_estimate(need.eta_s)}"
