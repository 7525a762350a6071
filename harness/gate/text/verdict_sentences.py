"""Says in one sentence what a verdict decided (`describe_claim`), and what to do next, once for
command line, reports and dashboard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from typing import Final

from harness.domain.canary.rollout import Rollout
from harness.domain.evals.run import AnswerColumns, count_cut, is_nothing_readable
from harness.domain.evals.suite_plan import Claim, SuiteRole
from harness.domain.evals.verdict import BaseVerdict, CostOutcome, SuiteReport, VerdictBasis
from harness.domain.formatting import (
    format_bps,
    format_count,
    format_percent,
    format_quantity,
    format_score,
    format_span,
    format_usd,
)
from harness.domain.proposals.proposal import PAST_GATE_PHASES, Proposal, ProposalPhase

PROBLEMS: Final = {
    "failed": "Worse than the allowed loss",
    "harness_mismatch": "Lost by format alone",
    "infra_error": "Could not be measured",
    "inconclusive": "Still open",
}

WORSE_IN_SLICE: Final = "Worse in a slice"


def describe_claim(basis: VerdictBasis, titles: Mapping[str, str] | None = None) -> str:
    """Says what a verdict decided: `Better on the weighted mean of 2 suites; both suites point
    the same way.` titles: of the suites, by name.
    """
    names = titles or {}
    if basis.outcome == "passed":
        return "; ".join(_passed_parts(basis, names)) + "."
    deciding = [report for report in basis.claims if report.outcome == basis.outcome]
    deciding = deciding or list(basis.claims)
    where = _join([_name(basis, report, names) for report in deciding])
    what = PROBLEMS.get(basis.outcome, PROBLEMS["inconclusive"])
    if basis.outcome == "failed":
        what = _loss(deciding)
    if what == WORSE_IN_SLICE:
        where = _join(
            [
                f"{names.get(report.suite, report.suite)}, {slice_.name}"
                for report in deciding
                for slice_ in report.figures.worse_slices
            ]
        )
    tally, claims = "", len(basis.claims)
    if claims > 1:
        tally = f" {len(basis.passed_claims)} of {format_quantity(claims, 'claim')} shown."
    return f"{what}: {where}.{tally}"


def describe_members(basis: VerdictBasis) -> str:
    """Says whether the suites of a weighted mean point its way; empty without a mean."""
    members = basis.members
    if basis.mean is None or not members:
        return ""
    agreeing = sum(
        report.delta > (0.0 if report.claim is Claim.SUPERIOR else -report.margin)
        for report in members
    )
    which = f"{agreeing} of {len(members)}"
    if agreeing == len(members):
        which = "both" if len(members) == 2 else f"all {len(members)}"
    return f"{which} suites point the same way"


def _passed_parts(basis: VerdictBasis, names: Mapping[str, str]) -> Sequence[str]:
    """The claim first, then what else had to hold, then what agrees."""
    guards = basis.silent_guards
    shown = [report for report in basis.passed_claims if report not in basis.members]
    primary = [report for report in shown if report.role is SuiteRole.PRIMARY]
    kept = [report for report in shown if report.role is not SuiteRole.PRIMARY]
    where = _join([_name(basis, report, names) for report in primary])
    head = _promise(primary[0]) if primary else "Shown"
    parts = [f"{head} on {where}" if where else head]
    if basis.alternatives:
        parts.append(f"one of {len(basis.alternatives)} suites was enough")
    if agreement := describe_members(basis):
        parts.append(agreement)
    by_loss: dict[str, list[str]] = {}
    for report in kept:
        name = names.get(report.suite, report.suite)
        by_loss.setdefault(format_score(report.margin, None), []).append(name)
    parts += [
        f"at most {loss} points worse on {_join(group)}" for loss, group in by_loss.items()
    ]
    if guards:
        parts.append(
            f"not shown worse on {_join([names.get(r.suite, r.suite) for r in guards])}"
        )
    return parts


def _promise(report: SuiteReport) -> str:
    loss = f"at most {format_score(report.margin, None)} points worse"
    match report.claim:
        case Claim.SUPERIOR:
            return "Better"
        case Claim.CHEAPER:
            cost = report.figures.cost
            share = f" by at least {format_percent(cost.min_saving)}" if cost else ""
            return f"Cheaper{share} and {loss}"
        case _:
            return loss.capitalize()


def _loss(deciding: Sequence[SuiteReport]) -> str:
    costs = [report.figures.cost for report in deciding]
    if costs and all(
        cost is not None and cost.outcome == CostOutcome.REFUTED for cost in costs
    ):
        return "Not as cheap as claimed"
    if deciding and all(report.figures.worse_slices for report in deciding):
        return WORSE_IN_SLICE
    if all(report.claim is Claim.SUPERIOR for report in deciding):
        return "Worse than the current model"
    return PROBLEMS["failed"]


def _name(basis: VerdictBasis, report: SuiteReport, names: Mapping[str, str]) -> str:
    if report is basis.mean:
        members = [names.get(member.suite, member.suite) for member in basis.members]
        return f"the weighted mean of {len(members)} suites ({_join(members)})"
    return names.get(report.suite, report.suite)


def _join(names: Sequence[str]) -> str:
    """Lists names as a sentence does: `a`, `a and b`, `a, b and c`."""
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


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
