"""`swapgate canary` shows canaries (`status`, `explain`), plans how long one takes (`plan`),
and operates them (`pause`, `resume`, `advance`, `promote`, `abort`, `finish`); `decide` is in
`evals/file_decision`. `proposal` prints its plan and facts from here, too.
"""

import sys

import click

from harness.cli import shadow
from harness.cli.frame import formatting, output
from harness.cli.frame.lazy_commands import LazyCommand, LazyCommandGroup
from harness.cli.frame.session import Session, pass_session
from harness.control.canary import duration_estimate, operations
from harness.control.canary import status as canary_status
from harness.control.canary.duration_estimate import RampPlan
from harness.control.canary.status import CanaryHistory, CanaryStatus
from harness.control.serialize import to_plain
from harness.control.shadow.stage import ShadowStage, find_stage_of_route
from harness.domain.canary.rollout import Rollout, RolloutSignal
from harness.domain.formatting import format_bps, format_estimate, format_percent
from harness.gate.planning.ramp import StepPlan
from harness.gate.text.explain import GuardrailRow, StepNeed

# Before these a person is told what the data say against it.
OVERRULES = frozenset({RolloutSignal.ADVANCE, RolloutSignal.PROMOTE})
DECIDE = LazyCommand(
    "harness.cli.evals.file_decision:canary_decide",
    "Decide about a canary from the counts in BLOCKS.csv.",
)


@click.command(cls=LazyCommandGroup, lazy={"decide": DECIDE})
def canary() -> None:
    """Canaries: a candidate on a small share of the traffic."""


@canary.command()
@click.argument("route", required=False)
@pass_session
def status(session: Session, route: str | None) -> None:
    """Show the live canaries; with ROUTE its newest, live or ended."""
    canaries = canary_status.list_canaries(session.context, route=route)
    if session.json:
        output.document([as_json(row) for row in canaries])
        return
    if not canaries:
        output.note("no canary: a proposal that passes its evals opens one")
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
    rollout = status.rollout
    output.facts(
        [
            ("route", f"{rollout.route}: {status.candidate.name} for {status.incumbent.name}"),
            ("state", formatting.rollout_state(rollout)),
            ("why", explanation.why),
            ("judged by", explanation.judged_by or None),
            ("held", " ".join(status.hold_reasons) or None),
            ("goes to", f"{explanation.goes_to} {explanation.eta}".strip() or None),
            ("goes back", explanation.goes_back or None),
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
        output.table(
            ["", "STILL NEEDED", "WHEN"],
            [["✓" if n.done else "◷", n.words, _when(n)] for n in explanation.needs],
            empty="",
        )
    heads = [
        "GUARDRAIL",
        "CANDIDATE",
        "INCUMBENT",
        "ALLOWED",
        "EVIDENCE",
        "TO ROLLBACK",
        "MOST",
    ]
    output.table(
        heads,
        [guardrail_row(guardrail) for guardrail in explanation.guardrails],
        empty="no guardrails",
    )
    for row in explanation.guardrails:
        for line in row.classes:
            click.echo(f"{row.name}: {line}")
    if history.moves:
        output.table(
            ["EVENT", "AT (UTC)", "WHO", "DID", "BECAUSE"],
            [
                [
                    e.number,
                    formatting.timestamp(e.at),
                    e.actor,
                    e.action,
                    e.details.get("reason"),
                ]
                for e in history.moves
            ],
            empty="",
        )
        output.note("`swapgate replay EVENT` decides one of them again, from stored blocks")


def guardrail_row(row: GuardrailRow) -> list[object]:
    return [
        row.name,
        row.candidate or None,
        row.incumbent or None,
        row.allowed,
        row.says,
        format_percent(row.distance, 0),
        format_percent(row.furthest, 0),
    ]


def _when(need: StepNeed) -> str:
    if need.done:
        return "done"
    return "unknown" if need.eta_s is None else f"about {format_estimate(need.eta_s)}"


@canary.command("plan")
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
    """Print the ramp step by step, how long it takes in words, and what would shorten it."""
    if plan.steps:
        output.table(
            ["SHARE", "NEEDS", "TAKES ABOUT", "FOUR OF FIVE", "ITS TIME", ""],
            [_plan_row(plan, step) for step in plan.steps],
            empty="",
        )
    output.note(plan.words)
    for option in plan.options:
        output.note(f"option: {option}")


def _plan_row(plan: RampPlan, step: StepPlan) -> list[object]:
    unit = plan.policy.unit.plural
    needs = f"{step.min_exposures:,} {unit}" + (", certified" if step.certify else "")
    return [
        format_bps(step.weight_bps),
        needs,
        "not in its time" if step.typical_s is None else format_estimate(step.typical_s),
        "not in its time" if step.cautious_s is None else format_estimate(step.cautious_s),
        format_estimate(step.deadline_s),
        "✓" if step.in_time else "too slow",
    ]


def plan_json(plan: RampPlan) -> dict[str, object]:
    return {
        "route": plan.route,
        "pace": to_plain(plan.pace),
        "steps": to_plain(plan.steps),
        "options": to_plain(plan.options),
        "words": plan.words,
    }


def rollout_facts(status: CanaryStatus) -> list[tuple[str, object]]:
    """Returns pairs of name and value that describe a canary."""
    rollout, action = status.rollout, status.action
    step, explanation = rollout.current, status.explanation
    needs = f"{action.step_exposures:,} of {step.min_exposures:,} exposures at this share"
    ends = "promotion" if rollout.last_step else format_bps(_next_weight(status))
    return [
        ("route", rollout.route),
        ("rollout", f"{rollout.id}, of proposal {rollout.proposal}"),
        ("candidate", f"{status.candidate.name} against {status.incumbent.name}"),
        ("state", "promoted, and bakes" if rollout.baking else _state(rollout)),
        ("share", _share(rollout)),
        ("step", f"{rollout.step + 1} of {len(rollout.policy.steps)}"),
        ("exposures", f"{action.exposures:,}"),
        ("harm", formatting.harm(action.distance_to_trip)),
        (
            f"for {ends}",
            (needs + (", and the certificate of no harm" if step.certify else ""))
            if rollout.live
            else None,
        ),
        ("now", action.reason if rollout.live or rollout.baking else None),
        ("held", " ".join(status.hold_reasons) or None),
        ("next", f"{explanation.goes_to} {explanation.eta}" if explanation.goes_to else None),
        ("ended", rollout.ended_because or None),
    ]


def _state(rollout: Rollout) -> str:
    return rollout.state.value.replace("_", " ")


def _share(rollout: Rollout) -> str:
    if rollout.baking:
        return f"100 %, and {format_bps(rollout.policy.bake_bps)} kept back as a control"
    return format_bps(rollout.current.weight_bps) if rollout.live else "0 %"


def as_json(status: CanaryStatus) -> object:
    rollout = status.rollout
    return {
        "rollout": to_plain(rollout),
        "weight_bps": rollout.current.weight_bps if rollout.live else 0,
        "incumbent": to_plain(status.incumbent),
        "candidate": to_plain(status.candidate),
        "action": to_plain(status.action),
        "explanation": to_plain(status.explanation),
        "moved": status.moved,
        "faults": status.faults,
        "blocks": len(status.blocks),
    }


def _next_weight(status: CanaryStatus) -> int:
    return status.rollout.policy.steps[status.rollout.step + 1].weight_bps


def _confirm_overrule(session: Session, route: str, version: int | None) -> int | None:
    """Say what speaks against it, and ask a person at a terminal.

    The version to be moved: once somebody has decided about what was shown, that one.
    """
    shown = next(iter(canary_status.list_canaries(session.context, route=route)), None)
    if shown is None:
        return version
    for objection in shown.explanation.against:
        output.note(f"warning: {objection}")
    if not (shown.explanation.against and at_a_terminal()):
        return version
    click.confirm("Go on all the same?", abort=True, err=True)
    return shown.rollout.version if version is None else version


def at_a_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _operation_command(signal: RolloutSignal, doc: str) -> click.Command:
    """One verb."""

    @click.argument("route")
    @click.option("--reason", required=True, help="Reason, recorded in the audit log.")
    @click.option("--version", type=int, help="Only if the rollout is still at this version.")
    @pass_session
    def command(session: Session, route: str, reason: str, version: int | None) -> None:
        if signal in OVERRULES:
            version = _confirm_overrule(session, route, version)
        rollout = operations.operate(
            session.context, session.actor, route, signal, reason, expected_version=version
        )
        if session.json:
            output.document(rollout)
            return
        said = "promoted, and bakes" if rollout.baking else rollout.state.value
        click.echo(f"the canary of {route} is {said.replace('_', ' ')}")

    return canary.command(signal.value, help=doc)(command)


_operation_command(
    RolloutSignal.PAUSE, "Hold the canary at its share until somebody resumes or aborts it."
)
_operation_command(
    RolloutSignal.RESUME,
    "Let a canary that is paused, or held after a fault of a router, go on.",
)
_operation_command(
    RolloutSignal.ADVANCE, "Advance one step, whatever evidence is still missing."
)
_operation_command(
    RolloutSignal.PROMOTE, "Promote now. Requires a passed verdict; the proposer may not."
)
_operation_command(
    RolloutSignal.ABORT, "End the canary, or the bake: the incumbent before it serves again."
)
_operation_command(RolloutSignal.FINISH, "End the bake: the promotion stands.")
