"""`swapgate canary`: where a rollout stands, and a person's hand on it."""

import click

from harness.cli import output, wording
from harness.cli.lazy import Lazy, LazyGroup
from harness.cli.session import Session, pass_session
from harness.control import canary_hands, reports
from harness.control.present import plain
from harness.control.reports import CanaryStatus
from harness.domain.rollout import Signal

DECIDE = Lazy(
    "harness.cli.decide:canary_decide", "Decide about a canary from the counts in BLOCKS.csv."
)


@click.command(cls=LazyGroup, lazy={"decide": DECIDE})
def canary() -> None:
    """Canaries: a candidate on a small share."""


@canary.command()
@click.argument("route", required=False)
@pass_session
def status(session: Session, route: str | None) -> None:
    """Show the live canaries; with ROUTE its newest, live or ended."""
    found = reports.canaries(session.context, route=route)
    if session.json:
        output.document([as_json(each) for each in found])
        return
    if not found:
        output.note("no canary: a proposal that passes its evals opens one")
    for number, each in enumerate(found):
        if number:
            click.echo()
        output.facts(described(each))


def described(status: CanaryStatus) -> list[tuple[str, object]]:
    """Name and words of what people ask about a canary."""
    rollout, action = status.rollout, status.action
    step = rollout.current
    needs = f"{action.step_exposures:,} of {step.min_exposures:,} exposures at this share"
    ends = "promotion" if rollout.last_step else wording.share(_next_weight(status))
    return [
        ("route", rollout.route),
        ("rollout", f"{rollout.id}, of proposal {rollout.proposal}"),
        ("candidate", f"{status.candidate.name} against {status.incumbent.name}"),
        ("state", rollout.state.value.replace("_", " ")),
        ("share", wording.share(step.weight_bps) if rollout.live else "0 %"),
        ("step", f"{rollout.step + 1} of {len(rollout.policy.steps)}"),
        ("exposures", f"{action.exposures:,}"),
        ("harm", wording.harm(action.distance_to_trip)),
        (
            f"for {ends}",
            (needs + (", and the certificate of no harm" if step.certify else ""))
            if rollout.live
            else None,
        ),
        ("now", action.reason if rollout.live else None),
        ("ended", rollout.ended_because or None),
    ]


def as_json(status: CanaryStatus) -> object:
    rollout = status.rollout
    return {
        "rollout": plain(rollout),
        "weight_bps": rollout.current.weight_bps if rollout.live else 0,
        "incumbent": plain(status.incumbent),
        "candidate": plain(status.candidate),
        "action": plain(status.action),
        "blocks": len(status.blocks),
    }


def _next_weight(status: CanaryStatus) -> int:
    return status.rollout.policy.steps[status.rollout.step + 1].weight_bps


def _hand(signal: Signal, doc: str, *, needs: bool = False) -> click.Command:
    """One verb. needs: a reason; what overrules the plan says why."""

    @click.argument("route")
    @click.option(
        "--reason",
        required=needs,
        default=None if needs else "",
        help="Why; the audit log keeps it.",
    )
    @click.option("--version", type=int, help="Only if the rollout is still at this version.")
    @pass_session
    def command(session: Session, route: str, reason: str, version: int | None) -> None:
        rollout = canary_hands.by_hand(
            session.context, session.actor, route, signal, reason, seen=version
        )
        if session.json:
            output.document(rollout)
            return
        said = "promoted, and bakes" if rollout.baking else rollout.state.value
        click.echo(f"the canary of {route} is {said.replace('_', ' ')}")

    return canary.command(signal.value, help=doc)(command)


_hand(Signal.PAUSE, "Hold the canary at its share until somebody resumes or aborts it.")
_hand(Signal.RESUME, "Let a paused canary go on at the same share.")
_hand(Signal.ADVANCE, "Go one step on, whatever the evidence still lacks.", needs=True)
_hand(Signal.PROMOTE, "Promote now: needs the passed verdict, not the proposer.", needs=True)
_hand(Signal.ABORT, "End the canary, or the bake: the incumbent before it serves again.")
_hand(Signal.FINISH, "End the bake: the promotion stands.", needs=True)
