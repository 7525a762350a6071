"""`swapgate canary`: where a rollout stands, and a person's hand on it."""

import click

from harness.cli import output, wording
from harness.cli.lazy import Lazy, LazyGroup
from harness.cli.session import Session, pass_session
from harness.control import canary as canaries
from harness.control import reports
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


@canary.command()
@click.argument("route")
@click.option("--reason", default="", help="Why; the audit log keeps it.")
@pass_session
def pause(session: Session, route: str, reason: str) -> None:
    """Hold the canary at its share until somebody resumes or aborts it."""
    _by_hand(session, route, Signal.PAUSE, reason)


@canary.command()
@click.argument("route")
@click.option("--reason", default="", help="Why; the audit log keeps it.")
@pass_session
def resume(session: Session, route: str, reason: str) -> None:
    """Let a paused canary go on at the same share."""
    _by_hand(session, route, Signal.RESUME, reason)


@canary.command()
@click.argument("route")
@click.option("--reason", default="", help="Why; the audit log keeps it.")
@pass_session
def abort(session: Session, route: str, reason: str) -> None:
    """End the canary: the incumbent serves everybody again."""
    _by_hand(session, route, Signal.ABORT, reason)


def _by_hand(session: Session, route: str, signal: Signal, reason: str) -> None:
    rollout = canaries.by_hand(session.context, session.actor, route, signal, reason)
    if session.json:
        output.document(rollout)
    else:
        click.echo(f"the canary of {route} is {rollout.state.value.replace('_', ' ')}")
