"""Sums up the recorded traffic of a window by provider and target (B9). Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.control.routing.traffic_report import RouteTraffic
from harness.domain.canary.observation import TrafficTotal
from harness.domain.reliability.failover import FailoverReason
from harness.domain.reliability.latency import merge_histograms, quantile_ms


@dataclass(frozen=True, slots=True)
class TargetTraffic:
    provider: str
    target: str  # its name; empty for all of the provider's
    requests: int  # answered by it
    left: int  # times that a request left it, since it failed or its circuit was open
    p95_ms: float | None  # of its answers in the last day of the window; None without one
    known_cost_usd: float | None  # None where no request's price is known


def sum_by_target(
    answered: Iterable[TrafficTotal],
    names: Mapping[str, str],
    latencies: Mapping[tuple[str, str], Mapping[int, int]],
    reasons: Iterable[FailoverReason],
) -> Sequence[TargetTraffic]:
    """Lists for each provider its sum, then its targets; those with most requests first."""
    left: Counter[str] = Counter()
    for reason in reasons:
        left[reason.target] += reason.times
    totals: dict[str, list[TrafficTotal]] = defaultdict(list)
    for total in answered:
        totals[names.get(total.target, total.target)].append(total)
    times: dict[str, Mapping[int, int]] = {}
    for (_, target), histogram in latencies.items():
        name = names.get(target, target)
        times[name] = merge_histograms((times.get(name, {}), histogram))
    by_provider: dict[str, list[str]] = defaultdict(list)
    for name in totals.keys() | left.keys():
        by_provider[name.partition("/")[0]].append(name)
    rows: list[Sequence[TargetTraffic]] = []
    for provider, targets in by_provider.items():
        own = [
            _row(provider, name, totals[name], left[name], times.get(name, {}))
            for name in sorted(targets)
        ]
        together = [total for name in targets for total in totals[name]]
        histogram = merge_histograms(times.get(name, {}) for name in targets)
        whole = _row(provider, "", together, sum(left[name] for name in targets), histogram)
        rows.append([whole, *sorted(own, key=lambda row: -row.requests)])
    rows.sort(key=lambda group: (-group[0].requests, group[0].provider))
    return [row for group in rows for row in group]


def hide_single_sums(rows: Sequence[TargetTraffic]) -> Sequence[TargetTraffic]:
    targets = Counter(row.provider for row in rows if row.target)
    return [row for row in rows if row.target or targets[row.provider] > 1]


def _row(
    provider: str,
    target: str,
    totals: Sequence[TrafficTotal],
    left: int,
    times: Mapping[int, int],
) -> TargetTraffic:
    sums = RouteTraffic.from_totals("", totals)
    p95_ms = quantile_ms(times, 0.95)
    return TargetTraffic(provider, target, sums.requests, left, p95_ms, sums.known_cost_usd)
