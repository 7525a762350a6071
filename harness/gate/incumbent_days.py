"""The scheduled runs of an incumbent: its score of an item is the mean over the last days, and
the days tell how much a model's mean score varies from day to day (statistics.md §1.20).

A proposer could choose the incumbent's worst day for a run. So all scheduled runs count, and no
run that a person started. The candidate answers on a single day, so its own day is uncertain:
the test adds the variance between days.

`harness.proposals.scheduled_runs` finds the runs; `harness.gate.offline` uses the variance.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final, Self

from harness.frame.formatting import format_score
from harness.frame.plain_data import digest
from harness.gate.run import Sample
from harness.gate.suite_plan import ClaimPopulation, SuitePlan

RECENT_DAYS: Final = 7  # the incumbent's score is the mean over these days
LEAST_DAYS: Final = 3  # of the recent days; with fewer, one fresh run is the evidence
SPREAD_DAYS: Final = 28  # the variance between days is estimated from these days
NEWEST_AGE: Final = timedelta(days=2)  # an older newest run says nothing about costs now
# The assumed standard deviation of a day's mean score before any run; it counts as one day.
PRIOR_SD: Final = 0.02
REJECT_SD: Final = 0.5  # how far from the mean a rejection lets a day be, in deviations
TOLERANCE: Final = 1e-9
MEAN_RUN_PREFIX: Final = (
    "run_mean_"  # begins the id of a run that contains the days' mean scores
)
MAX_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A complete run of the whole suite that the schedule started."""

    run: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class RunDay:
    """The scheduled runs of one day (UTC), in the order of their start."""

    day: date
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DaySpread:
    """The standard deviation of a day's mean score, as a share of 1.

    freedom: degrees of freedom of the estimated variance. recent: the number of days in the
    incumbent's mean.
    """

    sd: float
    freedom: float
    recent: int

    @property
    def variance(self) -> float:
        """Variance of the candidate's single day and of the incumbent's mean over its days."""
        return self.sd * self.sd * (1.0 + 1.0 / self.recent)

    @property
    def allowance(self) -> float:
        """How far a rejection lowers the null hypothesis, as a share of 1."""
        return REJECT_SD * math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class IncumbentDays:
    """The scheduled runs behind an incumbent's scores, and the spread of their days."""

    days: tuple[RunDay, ...]  # the oldest first
    spread: DaySpread

    @property
    def recent(self) -> tuple[RunDay, ...]:
        return self.days[-self.spread.recent :]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(run for day in self.days for run in day.runs)

    @property
    def text(self) -> str:
        """Describes the incumbent's evidence in one sentence."""
        number = sum(len(day.runs) for day in self.recent)
        return (
            f"The incumbent's scores are the mean of {number} scheduled runs on "
            f"{self.spread.recent} days; {len(self.days)} days give a model's day a standard "
            f"deviation of {format_score(self.spread.sd)} points."
        )

    @classmethod
    def measure(
        cls,
        days: Sequence[RunDay],
        recent: int,
        samples: Mapping[str, Sequence[Sample]],
    ) -> Self:
        """Estimates the spread of the days.

        Args:
            samples: of each run, by run id.
        """
        return cls(tuple(days), estimate_spread(_scores_by_day(days, samples), recent))


def describe_fresh_run(where: str) -> str:
    """Describes that the incumbent's evidence is one fresh run.

    Args:
        where: ` on SUITE`; empty for all suites.
    """
    return (
        f"The incumbent's scores{where} are one fresh run, not the mean of scheduled runs on "
        f"{LEAST_DAYS} or more of the last {RECENT_DAYS} days."
    )


def uses_days(plan: SuitePlan, *, judged: bool) -> bool:
    """Tells whether scheduled runs can be the incumbent's evidence for this plan.

    A judge scores both models' answers on one day, so that a changed judge favours no model. A
    claim about these items, and suites that are judged together, use one fresh run too.
    """
    alone = plan.combine is None
    return alone and not judged and plan.population is ClaimPopulation.LIKE_THESE


def choose_days(
    runs: Iterable[ScheduledRun],
    now: datetime,
) -> tuple[tuple[RunDay, ...], int]:
    """Returns the days of the last SPREAD_DAYS and the number of recent days among them.

    Returns no day with fewer than LEAST_DAYS recent days, and if the newest run is too old.
    """
    by_day: dict[date, list[ScheduledRun]] = {}
    for run in runs:
        if now - timedelta(days=SPREAD_DAYS) < run.started_at <= now:
            by_day.setdefault(run.started_at.date(), []).append(run)
    days = tuple(
        RunDay(day, tuple(run.run for run in sorted(of_day, key=_start_order)))
        for day, of_day in sorted(by_day.items())
    )
    oldest = now - timedelta(days=RECENT_DAYS)
    recent = sum(any(run.started_at > oldest for run in of_day) for of_day in by_day.values())
    newest = max((run.started_at for of_day in by_day.values() for run in of_day), default=now)
    is_current = now - newest < NEWEST_AGE
    return (days, recent) if recent >= LEAST_DAYS and is_current else ((), 0)


def _start_order(run: ScheduledRun) -> tuple[datetime, str]:
    return run.started_at, run.run


def name_mean_run(days: IncumbentDays, plan: SuitePlan) -> str:
    """Names the run that contains the days' mean scores. Equal runs in an equal order give an
    equal name.
    """
    recent = [list(day.runs) for day in days.recent]
    content = digest([recent, plan.suite_digest, plan.order_seed, plan.epochs])
    return f"{MEAN_RUN_PREFIX}{content[:32]}"


def is_mean_run(run: str) -> bool:
    """Tells whether a run contains the mean scores of other runs."""
    return run.startswith(MEAN_RUN_PREFIX)


def mean_samples(
    days: Sequence[RunDay],
    samples: Mapping[str, Sequence[Sample]],
    run: str,
    places: Mapping[str, int],
) -> list[Sample]:
    """Builds the mean run's samples: the newest run's samples, with the mean scores over the
    days.

    Averages the runs of a day first, then the days. Keeps the newest run's cost, texts and
    served models, because a price may have changed since the older runs. An item without a
    score in a run has no score.

    Args:
        places: each item's position in the registered order.
    """
    strict = _mean_answer_scores(days, samples, "strict")
    lenient = _mean_answer_scores(days, samples, "lenient")
    newest = samples[days[-1].runs[-1]]
    return [
        replace(
            sample,
            run=run,
            position=places[sample.item],
            strict=strict[key],
            lenient=lenient[key],
        )
        for sample in sorted(newest, key=lambda one: (places[one.item], one.epoch))
        for key in [(sample.item, sample.epoch)]
    ]


def _mean_answer_scores(
    days: Sequence[RunDay],
    samples: Mapping[str, Sequence[Sample]],
    name: str,
) -> dict[tuple[str, int], float | None]:
    """Returns the mean over days of each answer's score; None if a run has no score of it."""
    by_day = []
    for day in days:
        runs = [{(s.item, s.epoch): getattr(s, name) for s in samples[run]} for run in day.runs]
        by_day.append(
            {key: _mean_if_complete([run.get(key) for run in runs]) for key in runs[-1]}
        )
    return {
        key: _mean_if_complete([of_day.get(key) for of_day in by_day]) for key in by_day[-1]
    }


def _mean_if_complete(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if len(known) == len(scores) else None


def _scores_by_day(
    days: Sequence[RunDay],
    samples: Mapping[str, Sequence[Sample]],
) -> list[list[float]]:
    """Returns, by item, the mean scores of the days; leaves out items without all scores."""
    by_day: list[dict[str, list[float | None]]] = []
    for day in days:
        by_item: dict[str, list[float | None]] = {}
        for key, score in _mean_answer_scores([day], samples, "strict").items():
            by_item.setdefault(key[0], []).append(score)
        by_day.append(by_item)
    items = sorted(by_day[-1])
    rows = [
        [_mean_if_complete(of_day.get(item, [None])) for of_day in by_day] for item in items
    ]
    return [[x for x in row if x is not None] for row in rows if None not in row]


def estimate_spread(scores: Sequence[Sequence[float]], recent: int) -> DaySpread:
    """Estimates the variance of a day's mean score, without the noise of single answers.

    Args:
        scores: (items, days).

    S² is the variance of the days' means. The items' own variances over the days give the part
    of S² that comes from varying answers. The rest is averaged with the prior's variance, which
    counts as one day, so the estimate is never 0. The degrees of freedom are Satterthwaite's
    (1946, Biometrics Bulletin 2:110).
    """
    prior = PRIOR_SD * PRIOR_SD
    days = len(scores[0]) if scores else 0
    if days < 2:
        return DaySpread(PRIOR_SD, 1.0, recent)
    means = _variance([math.fsum(day) / len(day) for day in zip(*scores, strict=True)])
    noise = math.fsum(_variance(row) for row in scores) / len(scores) ** 2
    total = prior + (days - 1) * max(means - noise, 0.0)
    freedom = total * total / (prior * prior + (days - 1) * means * means)
    return DaySpread(math.sqrt(total / days), freedom, recent)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)


def find_mean_faults(
    days: IncumbentDays,
    mean: Sequence[Sample],
    samples: Mapping[str, Sequence[Sample]],
) -> list[str]:
    """Describes how the mean run and the spread differ from the scheduled runs' samples.

    Args:
        mean: the mean run's samples.
        samples: of each scheduled run, by run id.
    """
    if missing := [run for run in days.runs if not samples.get(run)]:
        return [f"the scheduled runs {', '.join(missing[:MAX_NAMED])} have no samples"]
    places = {sample.item: sample.position for sample in mean}
    newest = {(one.item, one.epoch) for one in samples[days.recent[-1].runs[-1]]}
    if newest != {(one.item, one.epoch) for one in mean}:
        return ["the incumbent's mean has other items than its scheduled runs"]
    rebuilt = mean_samples(days.recent, samples, mean[0].run, places)
    stored = {(one.item, one.epoch): one for one in mean}
    different_items = [
        one.item
        for one in rebuilt
        for stored_sample in [stored[one.item, one.epoch]]
        if not (
            _is_close(one.strict, stored_sample.strict)
            and _is_close(one.lenient, stored_sample.lenient)
        )
        or (one.error, one.served, one.cost_usd)
        != (stored_sample.error, stored_sample.served, stored_sample.cost_usd)
    ]
    faults = []
    if different_items:
        named = ", ".join(different_items[:MAX_NAMED])
        faults.append(f"the incumbent's mean scores of {named} differ from its scheduled runs")
    spread = IncumbentDays.measure(days.days, days.spread.recent, samples).spread
    pairs = zip((spread.sd, spread.freedom), (days.spread.sd, days.spread.freedom), strict=True)
    if not all(_is_close(now, then) for now, then in pairs):
        faults.append("the spread of the incumbent's days differs from its scheduled runs")
    return faults


def _is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
