"""Describes the next step after a verdict.

The functions are pure: they read a verdict, the proposal's phase and the answers' figures, and
start nothing. `comparison` loads these facts; the words of the verdict itself are in
`harness.gate.sentences`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from typing import Final

from harness.frame.formatting import (
    format_bps,
    format_count,
    format_quantity,
    format_score,
    format_span,
    format_usd,
)
from harness.gate.budget import DifferenceSpread, planned_test
from harness.gate.online.rollout import Rollout
from harness.gate.run import AnswerColumns, count_cut, is_nothing_readable
from harness.gate.verdict import BaseVerdict, SuiteReport
from harness.routing.proposal import Proposal, ProposalPhase

# By a verdict's outcome, for a verdict without a proposal, such as a `gate run`'s.
NEXT_STEPS: Final[Mapping[str, str]] = {
    "passed": "no eval result contradicts a canary: `swapproof proposal create` proposes the "
    "swap.",
    "failed": "keep the incumbent. The samples show where the candidate is worse; propose "
    "another candidate, or this one with a changed request patch.",
    "harness_mismatch": "give the candidate a request patch that fixes the format, then "
    "propose the patched target.",
    "inconclusive": "the data favour neither model, so more items may not decide. The current "
    "model stays.",
    "infra_error": "run `swapproof doctor`, fix the problems that it lists, then propose "
    "again. This is not evidence about the candidate.",
}

# By a verdict's outcome, for `try --suite`, which has a file of questions and no route.
TRIAL_STEPS: Final[Mapping[str, str]] = {
    "passed": "make a suite of {file}: Swapproof then gives the candidate 1 % of your callers "
    "first.",
    "failed": "keep the incumbent, or try another candidate or prompt on the same questions.",
    "harness_mismatch": "ask for the form that the scorer reads, with --system or --template, "
    "and repeat the command.",
    "inconclusive": "keep the incumbent, or add questions to {file} and repeat the command: it "
    "then asks both models all of them.",
    "infra_error": "fix the cause that the reason names, delete {folder}, and repeat the "
    "command. This is not evidence about the candidate.",
}

MISSING_SCORES: Final = (
    "run `swapproof doctor`, fix the cause of the missing scores (the reason names a provider, "
    "a judge or a scorer), then propose again. This is not evidence about the candidate."
)

# Steps after a run with unreadable first answers: the incumbent's, the candidate's.
UNREADABLE_STEPS: Final = (
    (
        "propose again: the incumbent's run continues, and unreadable answers count as wrong. "
        "`gate run` does so with --unreadable-as-wrong."
    ),
    (
        "give the candidate a chat template, or a prompt that requests the format, and propose "
        "it again."
    ),
)

# Advice to measure more than this multiple of the used items would not be practical.
MAX_MULTIPLE_OF_ITEMS: Final = 10

# A larger allowed loss is not "equal" for any feature, so no text advises it.
MAX_ADVISED_MARGIN: Final = 0.2

_LEAST_SPAN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class DecidedProposal:
    """A proposal with its verdict, and the facts on which the next step depends."""

    proposal: Proposal
    verdict: BaseVerdict
    rollout: Rollout | None  # None before its canary
    # By suite, the incumbent's answers and the candidate's.
    answers: Mapping[str, tuple[AnswerColumns, AnswerColumns]]
    connections: int  # eval requests that run at once
    frozen: str = ""  # the freeze that blocks its canary; empty without a freeze
    gone: str = ""  # why the promoted candidate does not serve now; empty if it serves
    no_way_back: str = ""  # why the former incumbent could not serve at the promotion


def describe_next_step(decided: DecidedProposal) -> str:
    """Describes the next step as sentences for people, by outcome and phase."""
    outcome = decided.verdict.outcome
    if outcome == "passed":
        return _describe_step_after_pass(decided)
    if outcome == "inconclusive":
        return _describe_more_items(decided)
    if outcome == "infra_error":
        return _describe_remeasurement(decided)
    return NEXT_STEPS[outcome]


def _describe_remeasurement(decided: DecidedProposal) -> str:
    """Describes the step after NOT MEASURED: the next attempt, or the cause to fix first."""
    proposal = decided.proposal
    if proposal.retry_at is not None and proposal.open:
        return f"Swapproof measures it again at {_format_time(proposal.retry_at)}."
    if step := _find_unreadable_step(decided):
        return step
    cut_answers = filter(None, map(count_cut, chain.from_iterable(decided.answers.values())))
    if longest_cut := max(
        (cut_count for cut_count in cut_answers if cut_count.silent),
        key=attrgetter("limit"),
        default=None,
    ):
        return (
            f"answers of suite runs were {longest_cut.text}: {longest_cut.advice}, then "
            "propose again. This is not evidence about the candidate."
        )
    has_missing_scores = any(
        report.figures.measured is not None for report in decided.verdict.suites
    )
    return MISSING_SCORES if has_missing_scores else NEXT_STEPS["infra_error"]


def _find_unreadable_step(decided: DecidedProposal) -> str:
    """Describes the step if the first answers of a model were unreadable; else empty.

    Prefers the candidate's step, because the incumbent's answers alone do not help.
    """
    steps = [
        step
        for arms in decided.answers.values()
        for arm, step in zip(arms, UNREADABLE_STEPS, strict=True)
        if is_nothing_readable(zip(arm.error, arm.rule, strict=True))
    ]
    return next((step for step in reversed(UNREADABLE_STEPS) if step in steps), "")


def _describe_step_after_pass(decided: DecidedProposal) -> str:
    """Describes the step after a pass, by the proposal's phase."""
    proposal = decided.proposal
    rollout = decided.rollout
    freeze = decided.frozen
    match proposal.phase:
        case ProposalPhase.AWAITING_APPROVAL if proposal.approver is None:
            decision = (
                f"another person than {proposal.proposer} must approve or reject the canary."
            )
            return f"{decision} Once approved it waits: {freeze}." if freeze else decision
        case ProposalPhase.AWAITING_APPROVAL:
            state = f"it waits: {freeze}" if freeze else "the canary opens within seconds"
            return f"{proposal.approver} approved it; {state}."
        case ProposalPhase.CANARY if rollout is not None:
            share = format_bps(rollout.current.weight_bps)
            return f"watch the canary; it is at {share} of the traffic."
        case ProposalPhase.PROMOTED:
            serving_text = f"serves the whole route since {_format_time(proposal.updated_at)}"
            absence_text = f"does not serve now: {decided.gone}".rstrip(".")
            rollback_text = f" At the promotion there was {decided.no_way_back.rstrip('.')}."
            step = f"none; the candidate {absence_text if decided.gone else serving_text}."
            return f"{step}{rollback_text if decided.no_way_back else ''}"
        case ProposalPhase.ROLLED_BACK:
            return (
                "find the cause of the rollback before you propose this model again; the "
                "former model serves all callers."
            )
        case _:
            rivals_text = "the best candidate continues once the gate has judged all rivals."
            return f"none; {rivals_text if proposal.open else 'the proposal is closed.'}"


def _describe_more_items(decided: DecidedProposal) -> str:
    """Describes how many more items would decide, with their cost and time.

    Advises against more than MAX_MULTIPLE_OF_ITEMS times the used items.
    """
    undecided = [r for r in decided.verdict.suites if r.outcome == "inconclusive"]
    needed_items = {report.suite: report.figures.more_items for report in undecided}
    known_items = {suite: items for suite, items in needed_items.items() if items is not None}
    if not known_items or len(known_items) < len(needed_items):
        return NEXT_STEPS["inconclusive"]
    suite, items = max(known_items.items(), key=lambda pair: pair[1])
    report = max(
        (report for report in decided.verdict.suites if report.suite == suite),
        key=attrgetter("n_used"),
    )
    if items > MAX_MULTIPLE_OF_ITEMS * report.n_used:
        return (
            f"none: a difference this small would need about {format_count(items)} more items "
            f"of the suite {suite}.{_describe_sufficient_margin(decided.proposal, report)}"
        )
    price = _describe_price(decided.answers.get(suite, ()), items, decided.connections)
    return (
        f"{format_quantity(items, 'more item')} of the suite {suite} should decide "
        f"(80 % power){price}. Then propose again."
    )


def _describe_sufficient_margin(proposal: Proposal, report: SuiteReport) -> str:
    """Says from which allowed loss the used items show an equal candidate with 80 % power.

    Begins with a blank; empty if no loss below MAX_ADVISED_MARGIN suffices. So the advice never
    proposes a claim that would probably fail again.
    """
    plan = next((plan for plan in proposal.plans if plan.suite == report.suite), None)
    sd = report.figures.sd
    if plan is None or not sd:
        return ""
    spread = DifferenceSpread(sd * sd, 0.0, report.n_used)
    test = planned_test(plan, max(plan.n_max, report.n_used), spread)
    # Rounded up, because the shown margin must suffice.
    margin = math.ceil(test.smallest_effect(sd, report.n_used) * 1000) / 1000
    if margin > MAX_ADVISED_MARGIN:
        return ""
    return (
        f" If you can accept a loss of {format_score(margin)} points, claim “equal or "
        "better” with that margin: as many items show it in 80 % of comparisons."
    )


def _describe_price(
    arms: Sequence[AnswerColumns],
    items: int,
    connections: int,
) -> str:
    """Writes cost and time of more items, as the end of a sentence; empty if unknown.

    Args:
        arms: the answers so far of both models.
        connections: requests that run at once.
    """
    costs = [_mean_or_none(arm.cost_usd) for arm in arms]
    times = [_mean_or_none(arm.answered.duration_s) for arm in arms]
    known_costs = [cost for cost in costs if cost is not None]
    known_times = [time for time in times if time is not None]
    parts = []
    if known_costs and len(known_costs) == len(costs):
        parts.append(f"about {format_usd(sum(known_costs) * items)}")
    if known_times:
        span = max(_LEAST_SPAN_S, max(known_times) * items / connections)
        parts.append(f"about {format_span(span)}")
    return f", {' and '.join(parts)}" if parts else ""


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    """Returns the mean; None if a value is missing, or without values."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None


def _format_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
