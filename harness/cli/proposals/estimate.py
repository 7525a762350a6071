"""Prints what a proposal would show, cost and take, suite by suite, before it is made; or gives
it as JSON (`planning_json`). For `proposal create`.
"""

from collections.abc import Sequence
from dataclasses import fields

from harness.cli.frame import output
from harness.control.proposals.estimate import SuiteEstimate
from harness.control.serialize import to_plain
from harness.domain.evals.suite_plan import Claim, ClaimPopulation, SuiteRole
from harness.domain.formatting import format_percent, format_score, format_span, format_usd
from harness.gate.planning.claim_advice import ClaimAdvice, ClaimOption
from harness.gate.text.sentences import spending_text


def print_planning(planning: Sequence[SuiteEstimate]) -> None:
    output.table(
        [
            *("SUITE", "ROLE", "CLAIM", "ALLOWED LOSS", "ITEMS", "SEES FROM"),
            *("COSTS AT MOST", "TAKES ABOUT"),
        ],
        [_planning_row(suite_estimate) for suite_estimate in planning],
        empty="no suites",
    )
    _print_advice(planning)
    for suite_estimate in planning:
        suite, plan = suite_estimate.plan.suite, suite_estimate.plan
        advice = suite_estimate.advice
        if plan.role is SuiteRole.PRIMARY:
            output.paragraph(
                f"{suite}: {advice.recommended.claim.value} is recommended: {advice.why}"
            )
        if suite_estimate.judge_usd != 0:
            output.paragraph(
                (
                    f"{suite}: of that, the judge costs "
                    f"{format_usd(suite_estimate.judge_usd)} at most"
                )
                if suite_estimate.judge_usd is not None
                else f"{suite}: what its judge costs is unknown: it has judged nothing yet, or "
                "has no price"
            )
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


def _planning_row(suite_estimate: SuiteEstimate) -> list[object]:
    plan = suite_estimate.plan
    return [
        plan.suite,
        plan.role.value,
        plan.claim.value.replace("_", "-"),
        f"{format_score(plan.margin, None)} points",
        plan.n_max_text,
        f"{format_score(suite_estimate.mde)} points",
        format_usd(suite_estimate.cost_usd),
        "unknown"
        if suite_estimate.duration_s is None
        else format_span(suite_estimate.duration_s),
    ]


def planning_json(planning: Sequence[SuiteEstimate]) -> object:
    return [
        {
            "suite": suite_estimate.plan.suite,
            "figures": _figures(suite_estimate),
        }
        for suite_estimate in planning
    ]


def _figures(suite_estimate: SuiteEstimate) -> dict[str, object]:
    return {
        field.name: to_plain(getattr(suite_estimate, field.name))
        for field in fields(suite_estimate)[1:]
    }
