"""The next step after a verdict, in words."""

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
    format_span,
    format_usd,
)
from harness.gate.online.rollout import Rollout
from harness.gate.run import AnswerColumns, count_cut, is_nothing_readable
from harness.gate.verdict import BaseVerdict
from harness.routing.proposal import PAST_GATE_PHASES, Proposal, ProposalPhase

# By a verdict's outcome; of a verdict that decides about no proposal, as of `gate run`.
NEXT_STEPS: Final[Mapping[str, str]] = {
    "passed": "nothing in the evals speaks against a canary.",
    "failed": "keep the incumbent. The samples show where the candidate is worse; propose "
    "another candidate, or this one with a changed request patch.",
    "harness_mismatch": "give the candidate a request patch that fixes the format, then "
    "propose the patched target.",
    "inconclusive": "no tendency showed, so more items may not settle it. The current model "
    "stays.",
    "infra_error": "run `swapgate doctor`, fix what it names, then propose again. This says "
    "nothing about the candidate.",
}

MISSING_SCORES: Final = (
    "run `swapgate doctor`, mend what lost the scores (a provider, a judge or a scorer, as the "
    "reason names it), then propose again. This says nothing about the candidate."
)

# Where nothing can be read in a run's first answers, by whose they are.
UNREADABLE_STEPS: Final = (
    (
        "propose again: the incumbent's run goes on, and what cannot be read counts as wrong. "
        "`gate run` does so with --unreadable-as-wrong."
    ),
    "give the candidate a chat template, or a prompt for the form, and propose it again.",
)

# To ask for more than this many times the items used would be no practical advice.
HOPELESS: Final = 10

_LEAST_SPAN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class DecidedProposal:
    proposal: Proposal
    verdict: BaseVerdict
    rollout: Rollout | None  # None before its canary
    # By suite, the incumbent's answers and the candidate's.
    answers: Mapping[str, tuple[AnswerColumns, AnswerColumns]]
    connections: int  # eval requests that run at once
    frozen: str = ""  # the freeze that holds its canary back; empty for none
    gone: str = ""  # why its candidate, once promoted, does not serve now; empty where it does
    observe_only: bool = False  # whether this installation opens no canaries


def describe_next_step(decided: DecidedProposal) -> str:
    proposal, outcome = decided.proposal, decided.verdict.outcome
    if outcome == "passed":
        if decided.observe_only and proposal.phase in PAST_GATE_PHASES:
            return _observed(proposal)
        return _after_passing(decided)
    if outcome == "inconclusive":
        return _more_items(decided)
    if outcome == "infra_error":
        return _measure_again(decided)
    return NEXT_STEPS[outcome]


def _measure_again(decided: DecidedProposal) -> str:
    proposal = decided.proposal
    if proposal.retry_at is not None and proposal.open:
        return f"it is measured again at {_time(proposal.retry_at)}."
    if step := _unreadable_step(decided):
        return step
    cut = filter(None, map(count_cut, chain.from_iterable(decided.answers.values())))
    if longest := max(
        (one for one in cut if one.silent), key=attrgetter("limit"), default=None
    ):
        return f"{longest.advice}, then propose again. This says nothing about the candidate."
    lost = any(report.figures.measured is not None for report in decided.verdict.suites)
    return MISSING_SCORES if lost else NEXT_STEPS["infra_error"]


def _unreadable_step(decided: DecidedProposal) -> str:
    """Of the candidate first: as long as it is so, another incumbent's answers do not help."""
    unread = [
        step
        for arms in decided.answers.values()
        for arm, step in zip(arms, UNREADABLE_STEPS, strict=True)
        if is_nothing_readable(zip(arm.error, arm.rule, strict=True))
    ]
    return next((step for step in reversed(UNREADABLE_STEPS) if step in unread), "")


def _observed(proposal: Proposal) -> str:
    only = "this installation only observes (`control.observe_only`)"
    match proposal.phase:
        case ProposalPhase.AWAITING_APPROVAL:
            return f"nothing; {only}, so nobody can approve the canary. It can be rejected."
        case _:
            return f"watch the canary, or abort it: it does not go on, since {only}."


def _after_passing(decided: DecidedProposal) -> str:
    proposal, rollout, frozen = decided.proposal, decided.rollout, decided.frozen
    match proposal.phase:
        case ProposalPhase.AWAITING_APPROVAL if proposal.approver is None:
            decides = f"somebody other than {proposal.proposer} approves or rejects the canary."
            return f"{decides} Once approved it waits: {frozen}." if frozen else decides
        case ProposalPhase.AWAITING_APPROVAL:
            waits = f"it waits: {frozen}" if frozen else "the canary opens within seconds"
            return f"{proposal.approver} approved it; {waits}."
        case ProposalPhase.CANARY if rollout is not None:
            share = format_bps(rollout.current.weight_bps)
            return f"watch the canary; it is at {share} of the traffic."
        case ProposalPhase.PROMOTED:
            since = f"serves the whole route since {_time(proposal.updated_at)}"
            gone = f"does not serve now: {decided.gone}".rstrip(".")
            return f"nothing; the candidate {gone if decided.gone else since}."
        case _:
            rivals = "the best goes on once the gate has decided on its rivals."
            return f"nothing; {rivals if proposal.open else 'the proposal is closed.'}"


def _more_items(decided: DecidedProposal) -> str:
    undecided = [r for r in decided.verdict.suites if r.outcome == "inconclusive"]
    wanted = {report.suite: report.figures.more_items for report in undecided}
    known = {suite: items for suite, items in wanted.items() if items is not None}
    if not known or len(known) < len(wanted):
        return NEXT_STEPS["inconclusive"]
    suite, items = max(known.items(), key=lambda pair: pair[1])
    used = max(report.n_used for report in decided.verdict.suites if report.suite == suite)
    if items > HOPELESS * used:
        return (
            f"nothing: a difference this small would need about {format_count(items)} more "
            f"items of the suite {suite}. If a small loss is worth it, claim “equal or better”."
        )
    price = _price_of(decided.answers.get(suite, ()), items, decided.connections)
    return (
        f"{format_quantity(items, 'more item')} of the suite {suite} should settle it "
        f"(80 % power){price}. Then propose again."
    )


def _price_of(arms: Sequence[AnswerColumns], items: int, connections: int) -> str:
    costs = [_mean(arm.cost_usd) for arm in arms]
    times = [_mean(arm.answered.duration_s) for arm in arms]
    known_costs = [cost for cost in costs if cost is not None]
    known_times = [time for time in times if time is not None]
    parts = []
    if known_costs and len(known_costs) == len(costs):
        parts.append(f"about {format_usd(sum(known_costs) * items)}")
    if known_times:
        span = max(_LEAST_SPAN_S, max(known_times) * items / connections)
        parts.append(f"about {format_span(span)}")
    return f", {' and '.join(parts)}" if parts else ""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
