"""Judges a suite's whole claim: its scores and, for a cost claim, its costs. Judges several
primary suites as one claim: their weighted mean, or Holm's rule.

`judge_costs` tests paired costs of the same items, item by item, until the claim is shown,
refuted or cannot be shown. With a share s to be saved, the null is that the mean of y = (1 - s)
* incumbent - candidate is at most 0. The test bets on y, in units of a ceiling, as on scores
(statistics.md §1.3). So the level holds at every moment and for any distribution of costs, as
long as no item of the candidate costs more than its ceiling. If an item does, the claim cannot
be shown: a mean of cheap answers would hide a rare expensive answer. (Without a ceiling, data
can show nothing about a mean: Bahadur & Savage 1956.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from operator import mul
from typing import Final

from harness.frame.plain_data import digest
from harness.gate.budget import holm_test
from harness.gate.offline.design import REJECT_LOG_E, spent_alpha
from harness.gate.offline.intervals import mean_interval
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.people_claims import SuiteLabels, judge_people
from harness.gate.offline.slices import (
    merge_clusters,
    merge_items,
    promotion_waits_for,
)
from harness.gate.offline.suite_judgement import (
    StoppedRun,
    SuiteJudgement,
    judge_pairs,
    waiting_report,
)
from harness.gate.sentences import cost_reason
from harness.gate.suite_plan import Claim, SuitePlan
from harness.gate.verdict import (
    CostFigures,
    CostOutcome,
    HolmFigures,
    SuiteReport,
)

# US dollars per item of (incumbent, candidate), means over epochs; None if unknown.
CostPair = tuple[float | None, float | None]

# An item may also cost this multiple of the dearest earlier item, because rare high costs
# appear early.
COST_HEADROOM: Final = 5.0

# A side without a known cost after this many items has no known price.
KNOWN_AFTER: Final = 20

_MOST_STAKE: Final = 0.75

_PRIOR_SQUARES: Final = 0.25


class _Bet:
    """A betting e-process for a mean above 0 of values that are at least -1."""

    def __init__(self, log_level: float, n_max: int) -> None:
        self._level = log_level
        self._n_max = n_max
        self._n = 0
        self._total = 0.0
        self._squares = 0.0
        self.log_e = 0.0

    @property
    def crossed(self) -> bool:
        """Tells whether the evidence has reached the level at least now."""
        return self.log_e >= self._level

    def add(self, x: float) -> None:
        spread = self._squares - self._total * self._total / self._n if self._n else 0.0
        variance = (_PRIOR_SQUARES + max(spread, 0.0)) / (self._n + 1.0)
        stake = min(math.sqrt(2.0 * self._level / (variance * self._n_max)), _MOST_STAKE)
        self.log_e += math.log1p(stake * x)
        self._n += 1
        self._total += x
        self._squares += x * x


def judge_costs(pairs: Sequence[CostPair], plan: SuitePlan) -> CostFigures:
    """Judges costs item by item, until the claim is decided.

    The ceiling of an item is the larger of two values: plan.cost_ceiling times the mean cost of
    the incumbent's earlier items, and COST_HEADROOM times the candidate's dearest earlier item.
    Before the first known cost of the incumbent the test does not bet. A missing cost counts
    against the claim under test: the candidate's as the ceiling, the incumbent's as 0.
    """
    cheaper = _Bet(math.log(1.0 / plan.alpha), plan.n_max)
    dearer = _Bet(REJECT_LOG_E, plan.n_max)
    known = 0
    total = 0.0
    dearest = 0.0
    used = 0
    above = 0
    unknown = False
    for ours, theirs in pairs:
        used += 1
        if total > 0.0:
            ceiling = max(plan.cost_ceiling * total / known, COST_HEADROOM * dearest)
            above += theirs is not None and theirs > ceiling
            low, high = _bound_saving(
                ours,
                theirs,
                plan.min_saving,
                ceiling,
            )
            cheaper.add(low)
            dearer.add(-high)
        if ours is not None:
            known = known + 1
            total = total + ours
        dearest = max(dearest, theirs or 0.0)
        unknown = used == KNOWN_AFTER and _lacks_known_costs(pairs[:used])
        if above or unknown or cheaper.crossed or dearer.crossed:
            break
    outcome = CostOutcome.OPEN
    if dearer.crossed:
        outcome = CostOutcome.REFUTED
    elif above or unknown:
        outcome = CostOutcome.UNSHOWABLE
    elif cheaper.crossed:
        outcome = CostOutcome.SHOWN
    return _build_figures(pairs[:used], plan, outcome, (cheaper.log_e, dearer.log_e), above)


def items_to_show_saving(saving: float, plan: SuitePlan) -> int | None:
    """Estimates how many items show a saving if every answer saves this share; None if never.

    Each item multiplies the evidence by at most 1 + .75 (saving - claimed) / ceiling.
    """
    gap = saving - plan.min_saving
    if gap <= 0.0:
        return None
    return math.ceil(
        math.log(1.0 / plan.alpha) / math.log1p(_MOST_STAKE * gap / plan.cost_ceiling)
    )


def _bound_saving(
    ours: float | None,
    theirs: float | None,
    share: float,
    ceiling: float,
) -> tuple[float, float]:
    """Returns the bounds of (1 - share) * ours - theirs in ceilings, within [-1, 1]."""
    if ours is not None and theirs is not None:
        y = max(-1.0, min(1.0, ((1.0 - share) * ours - theirs) / ceiling))
        return y, y
    least = 0.0 if ours is None else (1.0 - share) * ours / ceiling
    spent = 1.0 if theirs is None else theirs / ceiling
    return max(-1.0, min(1.0, least - spent)), 1.0


def _lacks_known_costs(pairs: Sequence[CostPair]) -> bool:
    """Tells whether a side has no known cost: its price is unknown, or it is free."""
    return not any(a for a, _ in pairs) or all(b is None for _, b in pairs)


def _build_figures(
    pairs: Sequence[CostPair],
    plan: SuitePlan,
    outcome: CostOutcome,
    logs: tuple[float, float],
    above: int,
) -> CostFigures:
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    saving, low, high = _measure_saving(both)
    return CostFigures(
        min_saving=plan.min_saving,
        outcome=outcome,
        n_used=len(pairs),
        incumbent_usd=_mean(a for a, _ in both),
        candidate_usd=_mean(b for _, b in both),
        saving=saving,
        saving_low=low,
        saving_high=high,
        log_e=logs[0],
        log_e_bad=logs[1],
        missing_incumbent=sum(a is None for a, _ in pairs),
        missing_candidate=sum(b is None for _, b in pairs),
        above_ceiling=above,
    )


def _measure_saving(
    both: Sequence[tuple[float, float]],
) -> tuple[float | None, float | None, float | None]:
    """Returns 1 minus the ratio of the means, with its interval by linearisation."""
    ours = math.fsum(a for a, _ in both)
    if ours <= 0.0:
        return None, None, None
    ratio = math.fsum(b for _, b in both) / ours
    if not math.isfinite(ratio):
        return None, None, None
    mean = ours / len(both)
    found = mean_interval([1.0 - ratio + (ratio * a - b) / mean for a, b in both])
    return 1.0 - ratio, *(found or (None, None))


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return math.fsum(known) / len(known) if known else None


# The vote of a suite whose answers are complete, and whose labels have not ended.
UNLABELLED: Final = "unlabelled"

# With these outcomes of the scores, the costs can change the result. Another outcome stays.
COST_RELEVANT_OUTCOMES: Final = ("passed", "running")


@dataclass(frozen=True, slots=True)
class SuiteClaim:
    """One suite's registration and its measurements."""

    plan: SuitePlan
    paired: PairedSuite
    stopped: StoppedRun | None = None
    # by_people: whether people's labels decide instead of the scores. labels: None before their
    # end.
    by_people: bool = False
    labels: SuiteLabels | None = None

    def vote(self, outcome: str) -> str:
        """Returns the outcome as a vote: `UNLABELLED` for a suite with all answers that waits
        only for people's labels.
        """
        is_complete = self.plan.units_in(len(self.paired.items)) >= self.plan.n_max
        waits = self.by_people and self.labels is None and is_complete
        return UNLABELLED if waits and outcome == "running" else outcome

    def first(self, units: int) -> "SuiteClaim":
        """Returns the claim on its first units, without any later item or stop."""
        items = self.plan.items_in(units)
        if items >= len(self.paired.items):
            return self
        cut = replace(self.paired, items=self.paired.items[:items], blocked="")
        return SuiteClaim(self.plan, cut, by_people=self.by_people, labels=self.labels)


def judge_claim(case: SuiteClaim) -> SuiteJudgement:
    """Judges everything that the plan claims about this suite.

    CHEAPER is an intersection-union test (Berger 1982): the candidate must show quality and
    cost, each at the whole alpha. The first refutation in the order of the items decides.
    """
    scores = _judge_quality(case)
    if case.plan.claim is not Claim.CHEAPER:
        return scores
    costs = _judge_unit_costs(case, case.plan.n_max)
    if not case.by_people and costs.against and costs.n_used <= scores.consumed:
        # Take the scores as of that item; later items do not count.
        upto = case.plan.items_in(costs.n_used)
        at = replace(case.paired, items=case.paired.items[:upto], blocked="")
        scores = judge_pairs(case.plan, at)
    if scores.report.outcome not in COST_RELEVANT_OUTCOMES:
        costs = _judge_unit_costs(case, scores.consumed)
        return SuiteJudgement(_add_costs(scores.report, costs), scores.consumed)
    report = _add_costs(scores.report, costs)
    outcome = _combine_outcomes(case, report.outcome, costs)
    cost_text = cost_reason(costs, case.plan)
    reason = cost_text if costs.against else f"{report.reason} {cost_text}"
    used = max(scores.consumed, costs.n_used)
    return SuiteJudgement(replace(report, outcome=outcome, reason=reason), used)


def _judge_quality(case: SuiteClaim) -> SuiteJudgement:
    """Judges a suite without its costs: by people's labels, or by its scores."""
    if case.by_people:
        return judge_people(case.plan, case.paired, case.labels, case.stopped)
    return judge_pairs(case.plan, case.paired, stopped=case.stopped)


def _judge_unit_costs(case: SuiteClaim, units: int) -> CostFigures:
    measured = merge_clusters(case.plan, case.paired.items)[:units]
    return judge_costs([unit.costs for unit in measured], case.plan)


def _add_costs(report: SuiteReport, costs: CostFigures) -> SuiteReport:
    return replace(report, details=replace(report.figures, cost=costs).as_json())


def _combine_outcomes(
    case: SuiteClaim,
    scores: str,
    costs: CostFigures,
) -> str:
    if costs.outcome is CostOutcome.REFUTED:
        return "failed"
    if costs.outcome is CostOutcome.UNSHOWABLE:
        return "inconclusive"
    if costs.outcome is CostOutcome.SHOWN or scores == "running":
        return scores
    if costs.n_used >= case.plan.n_max:
        return "inconclusive"
    if case.stopped is not None:
        return case.stopped[0]
    return "infra_error" if case.paired.blocked else "running"


# The space in this name prevents a collision with a suite's name.
WEIGHTED_MEAN: Final = "weighted mean"


@dataclass(frozen=True, slots=True)
class ClaimGroup:
    """The judgement of suites that decide together, or of one suite alone."""

    votes: tuple[tuple[str, SuiteReport], ...]  # (outcome that counts, its report)
    members: Mapping[str, SuiteJudgement]  # by suite
    whole: SuiteReport | None = None  # the report on the joint claim


def weighted_mean(cases: Sequence[SuiteClaim]) -> ClaimGroup:
    """Judges the claim on composite items, each made of one item of each suite.

    Score and cost of a composite item are weighted means of its parts, so the gate judges it
    like any other item, with the same error. Each suite is still a guard: if a suite is shown
    worse before the mean is decided, that suite decides the claim.
    """
    whole = join_suites(cases)
    judgement_of_mean = judge_claim(whole)
    is_decided = judgement_of_mean.report.outcome != "running"
    used_units = judgement_of_mean.consumed if is_decided else len(whole.paired.items)
    ready = max(promotion_waits_for(case.plan) for case in cases)
    if judgement_of_mean.report.outcome == "passed" and used_units < ready:
        # A slice without its first look blocks a promotion, also in a part of the mean.
        used_units = min(ready, len(whole.paired.items))
        if used_units < ready:
            report = waiting_report(whole.paired, judgement_of_mean.report, whole.stopped)
            judgement_of_mean = replace(judgement_of_mean, report=report)
            is_decided = report.outcome != "running"
    votes = [(judgement_of_mean.report.outcome, judgement_of_mean.report)]
    members = {}
    for case in cases:
        judgement, counts = _judge_member(
            case,
            used_units,
            decided=is_decided,
        )
        members[case.plan.suite] = judgement
        if counts:
            votes.insert(0, (judgement.report.outcome, judgement.report))
    return ClaimGroup(tuple(votes), members, judgement_of_mean.report)


def at_least_one(cases: Sequence[SuiteClaim]) -> ClaimGroup:
    """Judges whether one or more of the suites show superiority, each at its own n_max. Source:
    Holm 1979.

    A suite that is not measured to its end has p = 1. A worse suite still rejects. A suite that
    people label has a fixed share of alpha, and Holm's rule has the rest.
    """
    scored = [case for case in cases if not case.by_people]
    # Each suite that people label has its share of alpha (`label_alpha`).
    alpha = spent_alpha(min(case.plan.alpha for case in cases)) * len(scored) / len(cases)
    judgements = {case.plan.suite: _judge_quality(case) for case in cases}
    p_values = [_p_at_end(judgements[case.plan.suite].report) for case in scored]
    shown = holm_test(p_values, alpha)
    ranks = _ranks(p_values)
    members = {
        **judgements,
        **{
            case.plan.suite: replace(
                judgements[case.plan.suite],
                report=_apply_holm(
                    judgements[case.plan.suite].report,
                    p,
                    rank,
                    alpha / (len(scored) - rank),
                    ok=ok,
                ),
            )
            for case, p, rank, ok in zip(scored, p_values, ranks, shown, strict=True)
        },
    }
    votes = [
        (case.vote(members[case.plan.suite].report.outcome), members[case.plan.suite].report)
        for case in cases
    ]
    blocking = [
        (vote, report)
        for vote, report in votes
        if vote in BLOCKING_OUTCOMES or _rejected(report) or report.figures.worse_slices
    ]
    passed = [(vote, report) for vote, report in votes if vote == "passed"]
    # The strongest comes last, because the verdict names the last report.
    passed.sort(key=lambda pair: -_p_at_end(pair[1]))
    return ClaimGroup(tuple(blocking or passed or votes), members)


def _rejected(report: SuiteReport) -> bool:
    """Tells whether the strict scores reject, even if the report waits for lenient scores."""
    over = report.how is not None and report.outcome != "passed"
    return over and report.log_e_bad >= REJECT_LOG_E


BLOCKING_OUTCOMES: Final = ("failed", "running", "infra_error", UNLABELLED)


def join_suites(cases: Sequence[SuiteClaim]) -> SuiteClaim:
    """Builds one claim from composite items, as many as the shortest suite has units."""
    plans = [case.plan for case in cases]
    weights = weight_shares(plans)
    units = [merge_clusters(case.plan, case.paired.items) for case in cases]
    length = min(map(len, units))
    rows = zip(*(measured[:length] for measured in units), strict=True)
    items = tuple(_build_composite_item(n, row, weights) for n, row in enumerate(rows, start=1))
    # The suite with the fewest items explains why the verdict ended.
    ended = [
        case for case, measured in zip(cases, units, strict=True) if len(measured) == length
    ]
    blocked = next((case.paired.blocked for case in ended if case.paired.blocked), "")
    plan = replace(
        plans[0],
        suite=WEIGHTED_MEAN,
        suite_digest=digest([plan.suite_digest for plan in plans]),
        alpha=min(plan.alpha for plan in plans),
        n_max=min(plan.n_max for plan in plans),
        look=max(plan.look for plan in plans),
        combine=None,
        weight=1.0,
        cluster="",
        cluster_sizes=(),
        slices=(),
    )
    return SuiteClaim(plan, PairedSuite(items, "", "", blocked), _merge_stops(ended))


def weight_shares(plans: Sequence[SuitePlan]) -> tuple[float, ...]:
    """Returns the plans' weights as shares that sum to 1."""
    total = fsum(plan.weight for plan in plans)
    return tuple(plan.weight / total for plan in plans)


def _merge_stops(ended: Sequence[SuiteClaim]) -> StoppedRun | None:
    found = [case.stopped for case in ended if case.stopped]
    # If both occur, "not measured" precedes "not enough evidence".
    return min(found, key=lambda result: result[0] != "infra_error") if found else None


def _build_composite_item(
    number: int,
    parts: Sequence[PairedItem],
    weights: Sequence[float],
) -> PairedItem:
    whole = merge_items(parts, lambda values: fsum(map(mul, weights, values)))
    return replace(whole, pair=replace(whole.pair, item=f"{number}"))


def _judge_member(
    case: SuiteClaim,
    upto: int,
    *,
    decided: bool,
) -> tuple[SuiteJudgement, bool]:
    """Judges one suite, and tells whether it is shown worse. Only a worse suite's outcome
    counts.
    """
    first = case.first(upto)
    early = judge_pairs(case.plan, first.paired, stopped=first.stopped)
    if early.report.figures.worse_slices:
        return replace(early, consumed=max(early.consumed, upto)), True
    if _rejected(early.report):
        # Later items may show whether the candidate lost by form or by substance.
        judgement = judge_pairs(case.plan, case.paired, stopped=case.stopped)
        return replace(judgement, consumed=max(judgement.consumed, upto)), True
    report = early.report
    if decided and report.outcome in ("running", "infra_error"):
        report = replace(
            report,
            outcome="inconclusive",
            reason="This suite alone decides nothing.",
        )
    reason = (
        f"{report.reason} It counts in the weighted mean, with weight {case.plan.weight:g}."
    )
    return SuiteJudgement(replace(report, reason=reason), upto), False


def _p_at_end(report: SuiteReport) -> float:
    """Returns the p-value at the planned end; 1 if the suite is not measured to its end."""
    p = report.p_final
    return p if p is not None and report.n_used >= report.n_max else 1.0


def _ranks(p_values: Sequence[float]) -> list[int]:
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    return [order.index(index) for index in range(len(p_values))]


def _apply_holm(
    report: SuiteReport,
    p: float,
    rank: int,
    limit: float,
    *,
    ok: bool,
) -> SuiteReport:
    holm = HolmFigures(p, rank + 1, limit)
    details = replace(report.figures, holm=holm).as_json()
    rule_text = f"By Holm's rule p = {p:.2g}; the limit is {limit:.2g}."
    if report.outcome not in ("passed", "inconclusive"):
        return replace(report, details=details)
    outcome = "passed" if ok else "inconclusive"
    reason = report.reason
    if report.outcome == "passed" and not ok:
        reason = "Better by itself, but not after the correction for the other suites."
    return replace(
        report,
        outcome=outcome,
        reason=f"{reason} {rule_text}",
        details=details,
    )
