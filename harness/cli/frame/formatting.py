"""Formats figures for people: times, shares, points, intervals, money, durations, a rollout's
state. What is not known is `unknown` or a dash, never 0.
"""

from collections.abc import Callable
from datetime import datetime

from harness.domain.canary.rollout import Rollout
from harness.domain.evals.run import SuiteReport
from harness.domain.routing.target import Price, Provider, Target


def timestamp(moment: datetime | None) -> str:
    """UTC, to the second."""
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else "–"


def share(weight_bps: int) -> str:
    return f"{weight_bps / 100:g} %"


def points(value: float) -> str:
    """A share of 1 as points of a hundred, with its sign."""
    return f"{value * 100:+.1f}"


def interval(report: SuiteReport) -> str:
    if report.ci_low is None or report.ci_high is None:
        return "–"
    return f"{points(report.ci_low)} to {points(report.ci_high)}"


def money(usd: float | None) -> str:
    return "unknown" if usd is None else f"${usd:,.4f}".rstrip("0").rstrip(".")


def span_range(found: tuple[float, float] | None, words: Callable[[float | None], str]) -> str:
    return "–" if found is None else f"{words(found[0])} to {words(found[1])}"


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def span(length_s: float) -> str:
    """A length of time in its largest units: `40 s`, `12 min`, `2 h 5 min`."""
    minutes, hours = round(length_s / 60), int(length_s // 3600)
    if length_s < 60:
        return f"{length_s:.0f} s"
    return f"{minutes} min" if not hours else f"{hours} h {minutes - hours * 60} min"


def known_price(target: Target, provider: Provider | None) -> Price | None:
    """The target's price at its provider; None where it is not known."""
    return provider.prices.get(target.model) if provider else None


def harm(distance_to_trip: float) -> str:
    return f"evidence of harm: {distance_to_trip:.0%} of the rollback level".replace("%", " %")


def rollout_state(rollout: Rollout) -> str:
    """`measuring, at 5 %`; `promoted, and bakes`."""
    if rollout.baking:
        return "promoted, and bakes"
    state = rollout.state.value.replace("_", " ")
    return f"{state}, at {share(rollout.current.weight_bps)}" if rollout.live else state
