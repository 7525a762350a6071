"""Drawbacks are what speaks against a swap although the verdict does not rest on it: a slower
or dearer candidate, more failed calls, a slice or suite in which it looks worse. Each has its
95 % interval, and says whether chance may explain it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.formatting import (
    format_latency,
    format_percent,
    format_points,
    format_points_interval,
    format_quantity,
    format_range,
    format_score,
    format_thousand_price,
)
from harness.gate.online.rollout import CanaryEnd, describe_who
from harness.gate.verdict import SuiteReport, VerdictBasis
from harness.proposals.report.comparison import Comparison

# A figure that differs by less is as good as the other's.
CLEAR_CHANGE: Final = 0.02
MOST_SLICES: Final = 3

Interval = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Drawback:
    what: str
    text: str  # both figures with their intervals
    clear: bool  # more than chance explains


@dataclass(frozen=True, slots=True)
class _Figure:
    old: float | None
    new: float | None
    old_interval: Interval
    new_interval: Interval
    write: Callable[[float | None], str]

    @property
    def worse(self) -> bool:
        if self.old is None or self.new is None:
            return False
        return self.new - self.old > CLEAR_CHANGE * self.old

    @property
    def clear(self) -> bool:
        """Whether the intervals are apart, which asks for more than a test would."""
        if self.old_interval is None or self.new_interval is None:
            return False
        return self.new_interval[0] > self.old_interval[1]

    @property
    def text(self) -> str:
        new = self._with_interval(self.new, self.new_interval)
        old = self._with_interval(self.old, self.old_interval)
        chance = ""
        if self.old_interval is None or self.new_interval is None:
            chance = " Too few answers for an interval."
        elif not self.clear:
            chance = " The intervals overlap: this may be chance."
        return f"{new} against {old}.{chance}"

    def _with_interval(self, value: float | None, ends: Interval) -> str:
        between = f" (95 % CI {format_range(ends, self.write)})" if ends else ""
        return f"{self.write(value)}{between}"


def list_drawbacks(
    comparison: Comparison, titles: Mapping[str, str] | None = None
) -> Sequence[Drawback]:
    """Lists what speaks against a swap, the clear ones first. titles: of suites, by name."""
    if not comparison.is_measured:
        return []
    names = titles or {}
    found = [*_of_canary(comparison), *_of_arms(comparison)]
    if comparison.basis is not None:
        found += [*_of_suites(comparison.basis, names), *_of_slices(comparison.basis, names)]
    return sorted(found, key=lambda drawback: not drawback.clear)


def describe_absence(comparison: Comparison) -> str:
    before, after = comparison.incumbent_figures, comparison.candidate_figures
    if not comparison.is_measured:
        return "Nothing is known: it was not measured."
    if None in (before.p50_s, after.p50_s):
        return "Nothing was measured of its latency, cost and failures."
    parts = ["not slower (median, p95)"]
    priced = None not in (before.cost_usd_per_1000, after.cost_usd_per_1000)
    parts += ["not dearer"] if priced else []
    text = f"Nothing: it is {', '.join(parts)}, and no more of its calls failed."
    reports = comparison.basis.suites if comparison.basis else ()
    slices = [slice_ for report in reports for slice_ in report.figures.slices or ()]
    if slices:
        other = "other " if any(slice_.worse for slice_ in slices) else ""
        text += f" No {other}slice looks worse."
    return text if priced else f"{text} What it costs beside the current model is unknown."


def _of_canary(comparison: Comparison) -> Iterator[Drawback]:
    """What users' requests showed counts more than any eval."""
    proposal = comparison.proposal
    if proposal.end is not None:
        why = describe_who(proposal.closed_because).rstrip(".")
        where = "" if proposal.end is CanaryEnd.TAKEN_BACK else " in its canary"
        yield Drawback(f"{proposal.end.capitalize()}{where}", f"{why}.", clear=True)


def _of_arms(comparison: Comparison) -> Iterator[Drawback]:
    before, after = comparison.incumbent_figures, comparison.candidate_figures
    if not (before.samples and after.samples):
        return

    def compare(name: str, interval: str, write: Callable[[float | None], str]) -> _Figure:
        old, new = getattr(before, name), getattr(after, name)
        return _Figure(old, new, getattr(before, interval), getattr(after, interval), write)

    p95 = compare("p95_s", "p95_interval_s", format_latency)
    median = compare("p50_s", "p50_interval_s", format_latency)
    cost = compare("cost_usd_per_1000", "cost_interval_usd_per_1000", format_thousand_price)
    failed = compare("failed", "failed_interval", _one_decimal)
    for figure, name in ((p95, "at p95"), (median, "at the median")):
        if figure.worse and figure.old is not None and figure.new is not None:
            slower = format_latency(figure.new - figure.old)
            yield Drawback(f"{slower} slower {name}", figure.text, figure.clear)
    if cost.worse and cost.old and cost.new is not None:
        share = format_percent(cost.new / cost.old - 1, significant=2)
        text = f"per 1,000 requests {cost.text}"
        yield Drawback(f"{share} dearer", text, cost.clear)
    if failed.worse and _one_decimal(failed.old) != _one_decimal(failed.new):
        yield Drawback("More failed calls", failed.text, failed.clear)


def _of_suites(basis: VerdictBasis, names: Mapping[str, str]) -> Iterator[Drawback]:
    for report in basis.suites:
        decided = basis.decides(report) and report.outcome != "passed"
        if decided or not _below_zero(report.ci_high):
            continue
        allowed = f"; allowed loss {format_score(report.margin)}"
        text = _effect(report.delta, report.ci_low, report.ci_high) + allowed
        yield Drawback(f"{_title(report, names)} is worse", f"{text}.", clear=True)


def _of_slices(basis: VerdictBasis, names: Mapping[str, str]) -> Iterator[Drawback]:
    looking = [
        (slice_, report)
        for report in basis.suites
        for slice_ in report.figures.slices or ()
        if not slice_.worse and _below_zero(slice_.ci_high)
    ]
    looking.sort(key=lambda pair: pair[0].delta)
    for slice_, report in looking[:MOST_SLICES]:
        effect = _effect(slice_.delta, slice_.ci_low, slice_.ci_high)
        used = format_quantity(slice_.n_used, report.figures.unit)
        text = (
            f"{effect}; {used}. One of several slices looks so by chance easily: the slices' "
            "test does not show it."
        )
        yield Drawback(f"{_title(report, names)}, {slice_.name} looks worse", text, clear=False)


def _title(report: SuiteReport, names: Mapping[str, str]) -> str:
    return names.get(report.suite, report.suite)


def _effect(delta: float, low: float | None, high: float | None) -> str:
    return f"{format_points(delta)} points, 95 % CI {format_points_interval(low, high)}"


def _below_zero(high: float | None) -> bool:
    return high is not None and high < 0.0


def _one_decimal(share: float | None) -> str:
    return format_percent(share, 1)
