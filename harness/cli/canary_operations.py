"""`swapgate canary pause`, `resume`, `advance`, `promote`, `abort` and `finish` operate a
canary. At a terminal those that end it, or overrule its evidence, say what they do and ask.
"""

import sys
from typing import Final

import click

from harness.cli.frame import output
from harness.cli.frame.command import REASON, command, opt
from harness.cli.frame.session import Session
from harness.control.canary import operations
from harness.control.canary.status import list_canaries
from harness.domain.canary.rollout import Rollout, RolloutSignal
from harness.gate.text.canary_state import describe_effect

HELP: Final = {
    RolloutSignal.PAUSE: "Hold the canary at its share until somebody resumes or aborts it.",
    RolloutSignal.RESUME: "Let a canary that is paused, or held after a fault of a router, go "
    "on.",
    RolloutSignal.ADVANCE: "Advance one step, whatever evidence is still missing.",
    RolloutSignal.PROMOTE: "Promote now. Requires a passed verdict; the proposer may not.",
    RolloutSignal.ABORT: "End the canary, or the bake: the incumbent before it serves again."
    "\n\nAt a terminal it says what that does, and asks.",
    RolloutSignal.FINISH: "End the bake: the promotion stands.",
}
# Before these a person is told what the data say against it.
OVERRULES: Final = frozenset({RolloutSignal.ADVANCE, RolloutSignal.PROMOTE})
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
    against = shown.explanation.against if signal in OVERRULES else ()
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
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def operation_command(signal: RolloutSignal) -> click.Command:
    """Makes the command of one signal."""

    def operate(
        session: Session, route: str, *, reason: str = REASON, version: int | None = VERSION
    ) -> None:
        rollout = session.decide(
            operations.operate, route, signal, reason, expected_version=version
        )
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

    short = HELP[signal].partition("\n")[0]
    register = command(name=signal.value, help=HELP[signal], short_help=short)
    return register(ask_and_operate if signal in ASKS else operate)


def _describe(rollout: Rollout) -> str:
    """Says where the canary is after the operation."""
    if rollout.end is not None:
        return rollout.end.describe(rollout.route)
    state = "promoted, and bakes" if rollout.baking else rollout.state.value
    return f"canary of {rollout.route} is {state}"
