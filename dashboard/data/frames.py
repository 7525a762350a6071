"""Turns comparisons, canary blocks and traffic into what tables and charts show: pandas frames
of suites, samples and failure rates, a sample's rating, the cost trend, a latency bound. Cells
are made safe from spreadsheet formulas.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dashboard.text import labels
from dashboard.text.html import PairCounts
from harness.control.proposals.comparison import Comparison, SuiteAnswers
from harness.domain.canary.observation import ObservationBlock, TrafficMinute
from harness.domain.evals.run import Claim, Sample, SampleError, SuiteReport, SuiteRole

# Fewer pairs than this carry no interval worth showing.
FEWEST_PAIRS = 30
# Differences this small look like a tie to people.
TIE_BAND = 0.01
FORMULA_STARTS = ("=", "+", "-", "@")

CHANGES = ("regressed", "improved", "same")
CHANGE_SYMBOLS = {"regressed": "▼", "improved": "▲", "same": "="}

SAMPLE_COLUMNS = [
    "key", "suite", "title", "item", "epoch", "change", "prompt",
    "incumbent", "candidate", "latency_s", "incumbent_answer", "candidate_answer",
]  # fmt: skip


def limit_of(report: SuiteReport) -> float:
    """What the whole effect must lie above, as a share: minus the allowed loss, or 0."""
    return 0.0 if report.claim is Claim.SUPERIOR else -report.allowed_loss


def in_reading_order(reports: Sequence[SuiteReport]) -> list[SuiteReport]:
    """Sorts suites for reading: the primary one first."""
    return sorted(reports, key=lambda report: report.role is not SuiteRole.PRIMARY)


def suites(reports: Sequence[SuiteReport], titles: Mapping[str, str]) -> pd.DataFrame:
    """Builds one row per measured suite, in points. low, high: NaN below 30 pairs."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        if report.n_used == 0:
            continue
        label = labels.VERDICT_LABELS[report.outcome]
        shown = report.n_used >= FEWEST_PAIRS and report.ci_low is not None
        rows.append(
            {
                "suite": report.suite,
                "title": titles.get(report.suite, report.suite),
                "row": "|".join(textwrap.wrap(titles.get(report.suite, report.suite), 18)),
                "outcome": report.outcome,
                "verdict": f"{label.symbol} {label.words.lower()}",
                "delta": report.delta * 100,
                "low": report.ci_low * 100 if shown and report.ci_low is not None else None,
                "high": report.ci_high * 100 if shown and report.ci_high is not None else None,
                "limit": limit_of(report) * 100,
                "label": labels.points(report.delta),
            }
        )
    columns = [
        "suite", "title", "row", "outcome", "verdict", "delta", "low", "high", "limit", "label"
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(("delta", "low", "high", "limit"), "float64"))


def slices(report: SuiteReport) -> Mapping[str, pd.DataFrame]:
    """Builds one frame for each slice field of a suite, with a row per slice, in points; as
    `suites`, for charts side by side. A slice has no limit: it may not be shown worse at all.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for part in report.figures.slices or ():
        if part.n_used == 0:
            continue
        outcome = "worse" if part.worse else "untested" if part.p is None else "kept"
        label = labels.SLICE_LABELS[outcome]
        used = labels.plural(part.n_used, report.figures.unit)
        found.setdefault(part.field, []).append(
            {
                "row": "|".join([*textwrap.wrap(part.value, 18), used]),
                "outcome": outcome,
                "verdict": f"{label.symbol} {label.words}",
                "delta": part.delta * 100,
                "low": None if part.ci_low is None else part.ci_low * 100,
                "high": None if part.ci_high is None else part.ci_high * 100,
                "limit": None,
                "label": labels.points(part.delta),
            }
        )
    return {
        name: pd.DataFrame(rows).astype(
            dict.fromkeys(("delta", "low", "high", "limit"), "float64")
        )
        for name, rows in found.items()
    }


def pair_counts(reports: Sequence[SuiteReport], titles: Mapping[str, str]) -> list[PairCounts]:
    return [
        PairCounts(titles.get(r.suite, r.suite), won=r.wins, lost=r.losses, tied=r.ties)
        for r in reports
        if r.n_used
    ]


def samples(comparison: Comparison, titles: Mapping[str, str]) -> pd.DataFrame:
    """Pairs both answers to each item that has two, in the order of asking.

    With a verdict: the items that it used, and only those. change: by the gate's own paired
    scores where there is a verdict, by the samples' scores before.
    """
    rows: list[dict[str, Any]] = []
    used = _used_pairs(comparison)
    for side in comparison.suites:
        rows += _side_rows(side, titles, used.get(side.plan.suite))
    return pd.DataFrame(rows, columns=SAMPLE_COLUMNS)


def _used_pairs(comparison: Comparison) -> Mapping[str, Mapping[str, tuple[float, float]]]:
    """By suite and item: the scores of (incumbent, candidate) that the verdict rests on."""
    verdict = comparison.verdict
    stored: Any = verdict.inputs.get("pairs", {}) if verdict else {}
    return {
        suite: {str(row[0]): (float(row[1]), float(row[2])) for row in pairs}
        for suite, pairs in stored.items()
    }


def _side_rows(
    side: SuiteAnswers,
    titles: Mapping[str, str],
    used: Mapping[str, tuple[float, float]] | None,
) -> list[dict[str, Any]]:
    suite = side.plan.suite
    before = {(s.item, s.epoch): s for s in side.incumbent}
    rows = []
    for after in side.candidate:
        ours = before.get((after.item, after.epoch))
        if ours is None or (used is not None and after.item not in used):
            continue
        # With epochs the gate pairs means; a single epoch's row shows its own scores.
        pair = used[after.item] if used is not None and side.plan.epochs == 1 else None
        rows.append(
            {
                "key": f"{suite}/{after.item}/{after.epoch}",
                "suite": suite,
                "title": titles.get(suite, suite),
                "item": after.item,
                "epoch": after.epoch,
                "change": _change(*(pair or (ours.strict, after.strict))),
                "prompt": ours.prompt or after.prompt,
                "incumbent": rating(ours),
                "candidate": rating(after),
                "latency_s": after.duration_s,
                "incumbent_answer": ours.answer,
                "candidate_answer": after.answer,
            }
        )
    return rows


def _change(incumbent: float | None, candidate: float | None) -> str:
    if incumbent is None or candidate is None:
        return "same"
    difference = candidate - incumbent
    if abs(difference) <= TIE_BAND:
        return "same"
    return "improved" if difference > 0 else "regressed"


def rating(sample: Sample) -> str:
    """Describes a score: `✓ correct`, `✕ wrong`, `◐ 0.50`, and for form: `✕ wrong form
    (code_fence)`.
    """
    if sample.error is SampleError.INFRA:
        return "? no answer"
    if sample.error is SampleError.UNSCORED or sample.strict is None:
        return "? not scored"
    if sample.strict >= 1 - TIE_BAND:
        return "✓ correct"
    if sample.rule and sample.lenient is not None and sample.lenient > sample.strict:
        return f"✕ wrong form ({sample.rule})"
    return "✕ wrong" if sample.strict <= TIE_BAND else f"◐ {sample.strict:.2f}"


def filter_rows(frame: pd.DataFrame, show: str, suite: str) -> pd.DataFrame:
    """The rows of one change (or `all`) and one suite (or `all`)."""
    if show != "all":
        frame = frame[frame["change"] == show]
    if suite != "all":
        frame = frame[frame["suite"] == suite]
    return frame.reset_index(drop=True)


def sample_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What the sample table shows, under the heads that people read."""
    return pd.DataFrame(
        {
            "Sample": [no_formula(item) for item in frame["item"]],
            "Change": [f"{CHANGE_SYMBOLS[change]} {change}" for change in frame["change"]],
            "Prompt": [no_formula(one_line(prompt)) for prompt in frame["prompt"]],
            "Current": [no_formula(answer) for answer in frame["incumbent"]],
            "Candidate": [no_formula(answer) for answer in frame["candidate"]],
            "Latency": [labels.seconds(latency) for latency in frame["latency_s"]],
        }
    )


def no_formula(value: object) -> object:
    """A text of a model's or a suite's as it may stand in a cell: the table's own download is
    CSV, and a spreadsheet runs what begins like a formula (OWASP, "CSV injection").
    """
    if isinstance(value, str) and value.lstrip().startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def one_line(text: str, length: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def failure_rates(blocks: Sequence[ObservationBlock]) -> pd.DataFrame:
    """Computes the percentage of failed units so far, by arm and block, in order of arrival."""
    rows: list[tuple[int, str, float]] = []
    canary = control = canary_failed = control_failed = 0
    for block in sorted(blocks, key=lambda observation_block: observation_block.number):
        canary += block.canary_units
        control += block.units - block.canary_units
        canary_failed += block.canary_failures
        control_failed += block.failures - block.canary_failures
        if canary:
            rows.append((block.number, "canary", 100 * canary_failed / canary))
        if control:
            rows.append((block.number, "control", 100 * control_failed / control))
    return pd.DataFrame(rows, columns=["block", "arm", "rate"])


def cost_trend(traffic: Sequence[TrafficMinute], *, minutes: int = 5) -> list[float]:
    """Computes USD per 1,000 requests in each `minutes` of recorded traffic, oldest first."""
    return _binned(traffic, minutes, lambda t: t.cost_usd)


def _binned(
    traffic: Sequence[TrafficMinute], minutes: int, figure: Callable[[TrafficMinute], float]
) -> list[float]:
    sums: dict[int, tuple[float, int]] = {}
    for minute in traffic:
        at = int(minute.minute.timestamp()) // (60 * minutes)
        amount, requests = sums.get(at, (0.0, 0))
        sums[at] = (amount + figure(minute), requests + minute.requests)
    return [1000 * amount / n for _, (amount, n) in sorted(sums.items()) if n]


def latency_ms(traffic: Sequence[TrafficMinute], arm: str, share: float) -> int | None:
    """Returns the bound in ms below which `share` of the arm's requests came; None without any.

    -1: beyond the histogram's last bound.
    """
    histogram: dict[int, int] = {}
    for minute in traffic:
        if minute.arm == arm:
            for bound, number in minute.latency_ms.items():
                histogram[bound] = histogram.get(bound, 0) + number
    total, seen = sum(histogram.values()), 0
    for bound in sorted(histogram, key=lambda bound_value: (bound_value < 0, bound_value)):
        seen += histogram[bound]
        if total and seen >= share * total:
            return bound
    return None
