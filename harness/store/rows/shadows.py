"""Converts shadows (a route's requests mirrored to a candidate) and the daily tallies of their
workers to column values and back.
"""

from collections.abc import Mapping
from typing import Any

from harness.domain.routing.target import Target
from harness.domain.shadow.shadow import Shadow, ShadowLimits, ShadowTally
from harness.ports import ShadowRecord
from harness.store.rows import Row, Values


def shadow_to_row(shadow: Shadow) -> Values:
    limits = shadow.limits
    return {
        "id": shadow.id,
        "route": shadow.route,
        "incumbent": shadow.incumbent,
        "candidate": shadow.candidate.id,
        "data_class": shadow.data_class,
        "share_bps": limits.share_bps,
        "at_once": limits.at_once,
        "requests_per_day": limits.requests_per_day,
        "usd_per_day": limits.usd_per_day,
        "usd_in_all": limits.usd_in_all,
        "proposal": shadow.proposal,
        "reason": shadow.reason,
        "started_by": shadow.started_by,
        "started_at": shadow.started_at,
        "expires_at": shadow.expires_at,
    }


def shadow_from_row(row: Row, targets: Mapping[str, Target]) -> ShadowRecord:
    limits = ShadowLimits(
        row.share_bps, row.at_once, row.requests_per_day, row.usd_per_day, row.usd_in_all
    )
    started = Shadow(
        id=row.id,
        route=row.route,
        incumbent=row.incumbent,
        candidate=targets[row.candidate],
        data_class=row.data_class,
        limits=limits,
        proposal=row.proposal,
        reason=row.reason,
        started_by=row.started_by,
        started_at=row.started_at,
        expires_at=row.expires_at,
    )
    return ShadowRecord(started, row.ended_at, row.ended_by, row.ended_because)


def tally_to_row(tally: ShadowTally) -> dict[str, Any]:
    return {
        "shadow": tally.shadow,
        "day": tally.day,
        "worker": tally.worker,
        "counts": dict(sorted(tally.counts.items())),
        "sums": dict(sorted(tally.sums.items())),
    }


def tally_from_row(row: Row) -> ShadowTally:
    # JSON writes 1.0 as 1.
    sums = {name: float(value) for name, value in row.sums.items()}
    return ShadowTally(row.shadow, row.day, row.worker, row.counts, sums)
