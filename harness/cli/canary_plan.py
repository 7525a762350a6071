"""`swapgate canary plan` says how long a canary takes at today's traffic, step by step.
`proposal create` prints the same plan before it registers anything.
"""

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.control.canary import duration_estimate
from harness.control.canary.duration_estimate import RampPlan
from harness.control.serialize import to_plain
from harness.domain.formatting import format_bps, format_estimate
from harness.gate.planning.ramp import StepPlan


@click.command("plan")
@click.argument("route")
@click.option("--policy", help="Name of a policy. [default: the route's]")
@pass_session
def plan_ramp(session: Session, route: str, policy: str | None) -> None:
    """Say how long a canary on ROUTE takes at today's traffic."""
    plan = duration_estimate.estimate_for_route(session.context, route, policy)
    if session.json:
        output.document({**plan_json(plan), "in_time": plan.in_time})
        return
    print_plan(plan)


def print_plan(plan: RampPlan) -> None:
    """Prints the ramp step by step, how long it takes in words, and what would shorten it."""
    if plan.steps:
        output.table(
            ["SHARE", "NEEDS", "TAKES ABOUT", "FOUR OF FIVE", "ITS TIME", ""],
            [_plan_row(step) for step in plan.steps],
            empty="",
        )
    output.note(plan.words)
    for option in plan.options:
        output.note(f"option: {option}")


def _plan_row(step: StepPlan) -> list[object]:
    needs = f"{step.min_exposures:,} callers" + (", certified" if step.certify else "")
    return [
        format_bps(step.weight_bps),
        needs,
        "not in its time" if step.typical_s is None else format_estimate(step.typical_s),
        "not in its time" if step.cautious_s is None else format_estimate(step.cautious_s),
        format_estimate(step.deadline_s),
        "✓" if step.in_time else "too slow",
    ]


def plan_json(plan: RampPlan) -> dict[str, object]:
    """Gives the plan as a document."""
    return {
        "route": plan.route,
        "pace": to_plain(plan.pace),
        "steps": to_plain(plan.steps),
        "options": to_plain(plan.options),
        "words": plan.words,
    }
