"""`swapproof proposal create` prints plans, risk and costs, stores proposals, and can wait."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, make_dataclass
from itertools import zip_longest
from typing import Final

import click

from harness.app.processes import describe_missing_control
from harness.canary import duration_estimate
from harness.canary.duration_estimate import RampPlan
from harness.frame.formatting import (
    format_bps,
    format_estimate,
    format_percent,
    format_quantity,
    format_score,
    format_span,
    format_usd,
)
from harness.gate.claim_advice import ClaimAdvice, ClaimOption
from harness.gate.ramp import StepPlan
from harness.gate.sentences import share_text
from harness.gate.suite_plan import Claim, ClaimPopulation
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    FiniteRange,
    arg,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.proposals import comparison, verdict_wait
from harness.operations.context import Context
from harness.proposals import route_rules, submission, traffic_suites
from harness.proposals.candidates.estimate import SuiteEstimate
from harness.proposals.candidates.outlook import (
    CandidateOutlook,
    ProposalOutlook,
    describe_estimate,
    forecast_proposal,
)
from harness.proposals.labels.blindness import describe_label_command, list_labelled_suites
from harness.proposals.report.comparison import load_comparison
from harness.proposals.submission import ProposalRequest
from harness.routing.control import freezes
from harness.routing.proposal import PROPOSAL_TEXTS, Proposal, ProposalTexts
from harness.routing.reports import monthly_bill


@command(name="plan", example="swapproof canary plan support")
def plan_ramp(
    session: Session,
    route: str,
    *,
    policy: str | None = opt("Name of a policy. [default: the route's]"),
    callers_per_day: float | None = opt(
        "Callers that you expect a day. [default: the recorded ones]",
        type=FiniteRange(0, min_open=True),
        metavar="N",
    ),
    requests_per_day: float | None = opt(
        "With --callers-per-day: their requests a day. [default: one for each caller]",
        type=FiniteRange(0, min_open=True),
        metavar="N",
    ),
) -> None:
    """Estimate the duration of a canary on ROUTE at the last hour's pace.

    With --callers-per-day and --requests-per-day, the command needs no recorded traffic.
    """
    expected = duration_estimate.expect_traffic(callers_per_day, requests_per_day)
    plan = duration_estimate.estimate_for_route(session.context, route, policy, expected)
    facts = {"in_time": plan.in_time, "state": plan.state}
    if output.documented({**build_plan_json(plan), **facts}):
        return
    print_plan(plan)


def print_plan(plan: RampPlan) -> None:
    if plan.steps:
        output.table_of(plan.steps, _build_plan_cells)
    output.paragraph(plan.words)
    for option in plan.options:
        output.paragraph(f"option: {option}")


def _build_plan_cells(step: StepPlan) -> dict[str, object]:
    needs = f"{step.min_exposures:,} callers" + (", certified" if step.certify else "")
    return {
        "SHARE": format_bps(step.weight_bps),
        "NEEDS": needs,
        "TAKES ABOUT": _format_step_time(step.typical_s),
        "FOUR OF FIVE": _format_step_time(step.cautious_s),
        "ITS TIME": format_estimate(step.deadline_s),
        "": "✓" if step.in_time else "too slow",
    }


def _format_step_time(seconds: float | None) -> str:
    return "longer than allowed" if seconds is None else format_estimate(seconds)


BRIEF_SUITES: Final = 3  # the primary suites stand first
_OPTIONS = [
    (
        name,
        str,
        opt(
            text["help"],
            f"--{text['word']}",
            metavar=text["metavar"],
            default="",
        ),
    )
    for name, text in PROPOSAL_TEXTS.items()
]
TEXTS: Final = taken_from(make_dataclass("_Texts", _OPTIONS, kw_only=True))


def build_plan_json(plan: RampPlan) -> dict[str, object]:
    return output.pick(plan, "route", "pace", "steps", "options", "words")


@command(
    name="create",
    example="swapproof proposal create support openai/gpt-6-luna --reason cheaper --wait",
)
def create_proposal(
    session: Session,
    route: str,
    candidates: tuple[str, ...] = arg("CANDIDATE...", required=True),
    *,
    claim: Claim | None = opt("Claim of the candidate. [default: the policy's]"),
    margin: float | None = opt(
        "Allowed loss, from 0 to 1; 0.05 is 5 points. [default: the policy's]",
        metavar="SHARE",
    ),
    min_saving: float | None = opt(
        "With cheaper_and_not_worse: share of the cost to save. [default: the policy's]",
        metavar="SHARE",
    ),
    reason: str = opt("Reason; required for the claim non_inferior.", default=""),
    texts: ProposalTexts = TEXTS,
    accept_cost: float | None = opt(
        "Accepted cost, as a multiple of the incumbent's cost. [default: the policy's]",
        type=FiniteRange(min=1),
        metavar="TIMES",
    ),
    because: str = opt("Reason to accept this cost.", default=""),
    slices: tuple[str, ...] = opt(
        "Slice of the suite's `split`, such as 'team = billing', to test alone if the whole "
        "route does not pass. A slice that passes gets its own route. May be repeated.",
        "--slice",
        metavar="SLICE",
    ),
    descends_from: str | None = opt(
        "Target whose results were used to tune the candidate; that target's looks count, too.",
        metavar="TARGET",
    ),
    effect: float | None = opt(
        "Smallest difference that matters to you, for planning. [default: 0.05]",
        type=FiniteRange(
            0,
            1,
            min_open=True,
            max_open=True,
        ),
        metavar="SHARE",
    ),
    dry_run: bool = opt("Check and plan, but store nothing."),
    explains: bool = opt("Also print the plan's tables and estimates.", "--explain"),
    wait: bool = opt("Wait until the gate decides."),
    until: str = opt(
        "With --wait: return at the verdict, or after the canary.",
        type=click.Choice(["verdict", "end"]),
        default="verdict",
    ),
    timeout_s: float | None = opt(
        "With --wait: seconds for all candidates, then exit code 5. [default: none]",
        "--timeout",
        type=FiniteRange(min=0),
    ),
) -> int:
    """Propose CANDIDATE for ROUTE: evals on both models, the gate, then a 1 % canary.

    Exit code with --wait: 0 passed or promoted, 3 failed or rolled back, 4 not enough evidence,
    5 timeout, 7 refused, 1 not measured or cancelled. Without --wait: 6 if the route has an
    open proposal.
    """
    context = session.context_with_providers
    request = ProposalRequest(
        route,
        candidates[0],
        reason,
        claim,
        margin,
        descends_from,
        min_saving,
        rivals=tuple(candidates[1:]),
        accept_cost=accept_cost,
        because=because,
        slices=slices,
        **vars(texts),
    )
    outlook = forecast_proposal(context, session.actor, request, effect)
    ramp = duration_estimate.estimate_for_proposal(context, outlook.candidates[0].planned)
    risk = {"risk": outlook.risk}
    _note_before(context, route, candidates)
    if not session.json:
        print_plans = _print_outlook if explains else _print_brief_outlook
        print_plans(outlook, ramp)
    if dry_run:
        _print_dry_run(session, outlook.candidates, {"canary": build_plan_json(ramp), **risk})
        return 0
    proposals = submission.create_selection(context, session.deciding_actor, request)
    if advice := describe_missing_control(session.settings.control):
        output.note(advice)
    if not session.json:
        for proposal in proposals:
            terms = proposal.slice_terms
            slice_note = f" for slice {terms.name}, route {proposal.route}" if terms else ""
            click.echo(f"{proposal.id} proposed{slice_note}")
        is_labelled = bool(list_labelled_suites(outlook.candidates[0].planned))
        output.note(_describe_next_step(proposals[0], is_labelled=is_labelled))
    code = 0
    if wait:
        proposals, code = verdict_wait.follow_candidates(
            session,
            proposals,
            until,
            timeout_s,
        )
    if session.json:
        n_candidates = len(outlook.candidates)
        of_slices = proposals[n_candidates:]
        facts = {**risk, **({"slices": of_slices} if of_slices else {})}
        _print_documents(proposals[:n_candidates], outlook.candidates, facts)
    elif wait:
        _print_outcomes(context, proposals)
    return code


def _print_outcomes(ctx: Context, proposals: Sequence[Proposal]) -> None:
    """Prints each verdict with its next step."""
    for proposal in proposals:
        loaded = load_comparison(ctx, proposal.id)
        click.echo(comparison.describe_outcome(loaded))
        if loaded.next_step:
            output.note(f"next: {loaded.next_step}")


def _note_before(ctx: Context, route: str, candidates: Sequence[str]) -> None:
    """Names who gets users' contents, and a freeze that keeps the canary closed."""
    for receivers in traffic_suites.describe_receivers(ctx, route, candidates):
        output.note(receivers)
    for freeze in freezes.list_freeze_notices(ctx, route):
        output.note(
            f"the evals run, but {freeze.describe(route)}: no canary opens. `swapproof switch "
            "list` lists the freezes"
        )


def _print_brief_outlook(outlook: ProposalOutlook, ramp: RampPlan) -> None:
    for candidate in outlook.candidates:
        click.echo(f"candidate: {candidate.candidate}")
        for suite_estimate in candidate.planning[:BRIEF_SUITES]:
            click.echo(_summarise_estimate(suite_estimate))
        if len(candidate.planning) > BRIEF_SUITES:
            output.note(f"--explain shows all {len(candidate.planning)} suites")
        _note_conditions(candidate)
        output.paragraph(candidate.cost.text)
    if len(outlook.candidates) > 1:
        output.note(share_text(len(outlook.candidates)))
    output.paragraph(outlook.risk.text)
    output.paragraph(ramp.words)
    output.note("--explain shows the plan's tables, the monthly cost and other claims")


def _summarise_estimate(suite_estimate: SuiteEstimate) -> str:
    cells = _build_planning_cells(suite_estimate)
    plan = suite_estimate.plan
    size = format_quantity(plan.n_max, plan.unit)
    return (
        f"{cells['SUITE']} ({cells['ROLE']}): {cells['CLAIM']}, {size}, shows differences "
        f"from {cells['SEES FROM']}; costs at most {cells['COSTS AT MOST']}; takes about "
        f"{cells['TAKES ABOUT']}"
    )


def _note_conditions(candidate: CandidateOutlook) -> None:
    """Prints what a proposal of the candidate would meet before its verdict and after it."""
    if candidate.unlisted:
        output.note(candidate.unlisted)
    for line in route_rules.describe_second_person_reasons(candidate.planned.widened):
        output.note(f"waits for another person's approval: {line}")
    for line in candidate.untaken:
        output.paragraph(line)


def _print_outlook(outlook: ProposalOutlook, ramp: RampPlan) -> None:
    for candidate in outlook.candidates:
        click.echo(f"candidate: {candidate.candidate}")
        print_planning(candidate.planning)
        _note_conditions(candidate)
        output.paragraph(candidate.cost.text)
        forecast = monthly_bill.describe_forecast(candidate.bill)
        basis = monthly_bill.describe_basis(candidate.bill)
        output.paragraph("\n".join(filter(None, (forecast, basis))))
    if len(outlook.candidates) > 1:
        output.note(share_text(len(outlook.candidates)))
    output.paragraph(outlook.risk.text)
    output.paragraph(ramp.words)
    for option in ramp.options:
        output.paragraph(f"option: {option}")


def _print_documents(
    proposals: Sequence[Proposal],
    outlooks: Sequence[CandidateOutlook],
    shared_facts: Mapping[str, object],
) -> None:
    """Prints the proposals, or the plans after a dry run, which stores no proposal.

    Args:
        shared_facts: facts that all candidates share.
    """
    documents = [
        {
            "proposal": proposal,
            "candidate": outlook.candidate,
            "unlisted": outlook.unlisted,
            "planning": build_planning_json(outlook.planning),
            "forecast": outlook.bill,
            "cost": outlook.cost,
            "untaken": list(outlook.untaken),
            **({} if proposal else output.pick(outlook.planned, "plans", "widened")),
        }
        for proposal, outlook in zip_longest(proposals, outlooks)
    ]
    if len(documents) == 1:
        output.document({**documents[0], **shared_facts})
    else:
        selection = proposals[0].selection if proposals else None
        output.document(
            {
                "selection": selection,
                "candidates": documents,
                **shared_facts,
            }
        )


def _print_dry_run(
    session: Session,
    outlooks: Sequence[CandidateOutlook],
    shared_facts: Mapping[str, object],
) -> None:
    if session.json:
        _print_documents((), outlooks, shared_facts)
    else:
        output.note("nothing was stored; to propose, run the command without --dry-run")


def _describe_next_step(proposal: Proposal, *, is_labelled: bool) -> str:
    by_people = f", then people label pairs: {describe_label_command(proposal)}"
    return (
        f"next: the suites run on both models{by_people if is_labelled else ''}; a candidate "
        "that passes gets its canary, or waits for approval. `swapproof proposal show "
        f"{proposal.id} --watch` follows it"
    )


def print_planning(planning: Sequence[SuiteEstimate]) -> None:
    output.table_of(planning, _build_planning_cells, empty="no suites")
    _print_advice(planning)
    for suite_estimate in planning:
        for text in describe_estimate(suite_estimate):
            output.paragraph(f"{suite_estimate.plan.suite}: {text}")


def _print_advice(planning: Sequence[SuiteEstimate]) -> None:
    effects = {format_score(suite_estimate.advice.effect, None) for suite_estimate in planning}
    output.table(
        [
            "SUITE",
            "MAY BE CLAIMED",
            "WITHIN",
            "ITEMS",
            "COSTS",
            "IF EQUAL",
            *(f"IF {points} BETTER" for points in effects),
            "80 % TAKES",
        ],
        [
            [
                suite_estimate.plan.suite,
                *_build_option_cells(option, suite_estimate.advice),
            ]
            for suite_estimate in planning
            for option in suite_estimate.advice.options
        ],
        empty="",
    )


def _build_option_cells(option: ClaimOption, advice: ClaimAdvice) -> list[object]:
    mark = "→" if option is advice.recommended else " "
    enough = option.enough
    loss = f"{format_score(option.margin, None)} points"
    population_note = ", these" if option.population is ClaimPopulation.THESE else ""
    return [
        f"{mark} {option.claim.value.replace('_', '-')}",
        None if option.claim is Claim.SUPERIOR else loss,
        _format_items(option.items, option.epochs) + population_note,
        format_usd(option.cost_usd),
        format_percent(option.if_equal, 0),
        format_percent(option.if_better, 0),
        _format_items(enough.items, enough.epochs)
        if enough
        else f"over {advice.suite_items:,}",
    ]


def _format_items(items: int, epochs: int) -> str:
    return f"{items:,} x {epochs}" if epochs > 1 else f"{items:,}"


def _build_planning_cells(suite_estimate: SuiteEstimate) -> dict[str, object]:
    plan = suite_estimate.plan
    duration_s = suite_estimate.duration_s
    return {
        "SUITE": plan.suite,
        "ROLE": plan.role.value,
        "CLAIM": plan.claim.value.replace("_", "-"),
        "ALLOWED LOSS": f"{format_score(plan.margin, None)} points",
        "ITEMS": plan.n_max_text,
        "SEES FROM": f"{format_score(suite_estimate.mde)} points",
        "COSTS AT MOST": format_usd(suite_estimate.cost_usd),
        "TAKES ABOUT": "unknown" if duration_s is None else format_span(duration_s),
    }


def build_planning_json(planning: Sequence[SuiteEstimate]) -> object:
    figures = [field.name for field in fields(SuiteEstimate) if field.name != "plan"]
    return [
        {"suite": suite.plan.suite, "figures": output.pick(suite, *figures)}
        for suite in planning
    ]
