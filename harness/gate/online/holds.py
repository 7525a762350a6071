"""Holds keep a canary where it is although its evidence would move it: traffic stopped, clocks
are wrong, a router's snapshot is old, the canary gets no units, a newer version's routers count
what this one does not know.

Pure. Each gives a reason in words, or an empty string. Harm is never held back.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from harness.domain.canary.observation import ObservationBlock, TrafficMinute
from harness.domain.canary.rollout import Rollout
from harness.domain.formatting import format_bps, format_span

GAP: Final = timedelta(seconds=60)
BEFORE_GAP: Final = timedelta(hours=1)
# So many requests or canary units expected, and none seen: by chance once in 1 000 times.
MIN_EXPECTED: Final = 7.0
AHEAD: Final = timedelta(seconds=60)
CATCH_UP: Final = timedelta(seconds=120)
RECENT: Final = timedelta(minutes=10)


def traffic_gap(traffic: Sequence[TrafficMinute], now: datetime) -> str:
    """The routers' rows of this route stopped, though its traffic should go on.

    traffic: of the last two hours; each row is a minute's.
    """
    if not traffic:
        return ""
    last = max(row.minute for row in traffic) + timedelta(minutes=1)
    silent = now - last
    if silent <= GAP:
        return ""
    before = sum(row.requests for row in traffic if row.minute >= last - BEFORE_GAP)
    if before * (silent / BEFORE_GAP) < MIN_EXPECTED:
        return ""
    return (
        f"no router has recorded anything of this route for "
        f"{format_span(silent.total_seconds())}, "
        f"after {before:,} requests in the hour before: see that routers run and reach the "
        "database"
    )


def future_traffic(traffic: Sequence[TrafficMinute], now: datetime) -> str:
    """Rows of minutes that are not yet: old ones, it may be, that pass for new when they come.

    It is how a process sees that the clock was set back before it began.
    """
    newest = max((row.minute for row in traffic), default=now)
    if newest - now <= AHEAD:
        return ""
    return (
        "this machine's clock was set back, or a router's is wrong: this route's traffic has "
        f"rows up to {newest:%Y-%m-%d %H:%M} UTC, "
        f"{format_span((newest - now).total_seconds())} in the future, and "
        "until then old rows cannot be told from new ones"
    )


def missing_units(
    rollout: Rollout, traffic: Sequence[TrafficMinute], step_units: int, now: datetime
) -> str:
    """The route has traffic, and this step's canary none of it."""
    if step_units or now - rollout.step_started_at < RECENT:
        return ""
    since = rollout.step_started_at + timedelta(minutes=1)
    requests = sum(row.requests for row in traffic if row.minute >= since)
    share = rollout.current.weight_bps / 10_000
    if requests * share < MIN_EXPECTED:
        return ""
    return (
        f"{requests:,} requests since the step began, and no unit of the canary at "
        f"{format_bps(rollout.current.weight_bps)}: see that routers serve the newest "
        "revision, and that callers have sticky keys of their own"
    )


def clock_skew(blocks: Sequence[ObservationBlock], now: datetime) -> str:
    """The newest block is dated later than now: a router's clock is wrong, or ours."""
    newest = max(blocks, key=lambda block: block.number, default=None)
    if newest is None or newest.closed_at - now <= AHEAD:
        return ""
    ahead = (newest.closed_at - now).total_seconds()
    return (
        f"the newest block of {newest.worker} is dated {format_span(ahead)} in the future: see "
        "the clocks of routers and control plane"
    )


def stale_snapshot(rollout: Rollout, blocks: Sequence[ObservationBlock], now: datetime) -> str:
    """A router still assigns by another share: its snapshot is old."""
    since = max(rollout.step_started_at + CATCH_UP, now - RECENT)
    weight = rollout.current.weight_bps
    for block in blocks:
        if block.opened_at >= since and block.weight_bps != weight:
            return (
                f"router {block.worker} still assigns {format_bps(block.weight_bps)} where the "
                f"step has {format_bps(weight)}: its snapshot is old, see `/readyz` and "
                "`swapgate_snapshot_age_seconds`"
            )
    return ""
