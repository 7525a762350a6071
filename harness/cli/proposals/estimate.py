"""Prints what a proposal would show, cost and take, suite by suite, before it is made; or gives
it as JSON (`planning_json`). For `proposal create`.
"""

from collections.abc import Sequence
from dataclasses import fields

from harness.cli.frame import output
from harness.control.proposals.estimate import SuiteEstimate
from harness.domain.evals.suite_plan import Claim, ClaimPopulation, SuiteRole
from harness.domain.formatting import format_percent, format_score, format_span, format_usd
from harness.gate.planning.claim_advice import ClaimAdvice, ClaimOption
from harness.gate.text.sentences import spending_text


def print_planning(planning: Sequence[SuiteEstimate]) -> None:
    output.table_of(planning, _planning_cells, empty="no suites")
    _print_advice(planning)
    for suite_estimate in planning:
        suite, plan = suite_estimate.plan.suite, suite_estimate.plan
        advice = suite_estimate.advice
        if plan.role is SuiteRole.PRIMARY:
            output.paragraph(
                f"{suite}: {advice.recommended.claim.value} is recommended: {advice.why}"
            )
        if suite_estimate.judge_usd is None:
            output.paragraph(
                f"{suite}: what its judge costs is unknown: it has judged nothing yet, or has "
                "no price"
            )
        elif suite_estimate.judge_usd:
            judging = format_usd(suite_estimate.judge_usd)
            output.paragraph(f"{suite}: of that, the judge costs {judging} at most")
        if suite_estimate.warning:
            output.paragraph(f"{suite}: {suite_estimate.warning}")
        for text in suite_estimate.texts:
            output.paragraph(f"{suite}: {text}")
        if suite_estimate.plan.claim is Claim.CHEAPER:
            output.paragraph(f"{suite}: {_saving(suite_estimate)}")
        if plan.look > 1:
            output.paragraph(f"{suite}: {spending_text(plan.look, plan.alpha, plan.spend)}")
        if suite_estimate.estimated:
            output.paragraph(
                f"{suite}: the candidate has no answers yet; its cost is the incumbent's "
                "tokens at the candidate's price"
            )


def _print_advice(planning: Sequence[SuiteEstimate]) -> None:
    """Prints how often each claim would be shown; an arrow marks the recommended one."""
    better = {format_score(suite_estimate.advice.effect, None) for suite_estimate in planning}
    output.table(
        [
            *("SUITE", "MAY BE CLAIMED", "WITHIN", "ITEMS", "COSTS", "IF EQUAL"),
            *(f"IF {points} BETTER" for points in better),
            "80 % TAKES",
        ],
        [
            [suite_estimate.plan.suite, *_option_cells(option, suite_estimate.advice)]
            for suite_estimate in planning
            for option in suite_estimate.advice.options
        ],
        empty="",
    )


def _option_cells(option: ClaimOption, advice: ClaimAdvice) -> list[object]:
    mark = "→" if option is advice.recommended else " "
    enough = option.enough
    loss = f"{format_score(option.margin, None)} points"
    these = ", these" if option.population is ClaimPopulation.THESE else ""
    return [
        f"{mark} {option.claim.value.replace('_', '-')}",
        None if option.claim is Claim.SUPERIOR else loss,
        _times(option.items, option.epochs) + these,
        format_usd(option.cost_usd),
        format_percent(option.if_equal, 0),
        format_percent(option.if_better, 0),
        _times(enough.items, enough.epochs) if enough else f"over {advice.suite_items:,}",
    ]


def _times(items: int, epochs: int) -> str:
    return f"{items:,} x {epochs}" if epochs > 1 else f"{items:,}"


def _saving(suite_estimate: SuiteEstimate) -> str:
    plan = suite_estimate.plan
    if suite_estimate.saving is None:
        return f"whether it costs {format_percent(plan.min_saving)} less is open: no price"
    basis = "recorded answers" if suite_estimate.incumbent else "by list prices answers"
    found = f"{basis} cost {format_percent(suite_estimate.saving)} less; claimed are "
    if suite_estimate.saving_items is None or suite_estimate.saving_items > plan.n_max:
        more = (
            f", and that takes about {suite_estimate.saving_items:,}"
            if suite_estimate.saving_items
            else ""
        )
        return (
            f"{found}{format_percent(plan.min_saving)}: {plan.n_max} {plan.unit}s will not "
            f"show it{more}"
        )
    return (
        f"{found}{format_percent(plan.min_saving)}: about {suite_estimate.saving_items} "
        f"{plan.unit}s show it"
    )


def _planning_cells(suite_estimate: SuiteEstimate) -> dict[str, object]:
    plan, duration_s = suite_estimate.plan, suite_estimate.duration_s
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


def planning_json(planning: Sequence[SuiteEstimate]) -> object:
    figures = [field.name for field in fields(SuiteEstimate) if field.name != "plan"]
    return [
        {"suite": suite.plan.suite, "figures": output.pick(suite, *figures)}
        for suite in planning
    ]
