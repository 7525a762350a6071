"""Rows that a router would write."""

from datetime import UTC, datetime

from harness.frame.ports import Clock
from harness.frame.records.database import Database
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout
from harness.routing.records.router_reports import RouterReport, RouterReports
from harness.routing.table import BUCKETS


def block_of(
    rollout: Rollout,
    number: int,
    clock: Clock,
    *,
    failing: bool,
) -> ObservationBlock:
    weight = BUCKETS - rollout.policy.bake_bps if rollout.baking else rollout.current.weight_bps
    canary = max(1, weight // 100)
    lost = min(canary, 50) if failing else 0
    return ObservationBlock(
        rollout=rollout.id,
        worker="router-test",
        sequence=number,
        weight_bps=weight,
        units=100,
        canary_units=canary,
        # Of a bake, the one that is held back never fails.
        failures=lost + (1 if number % 3 == 0 and not rollout.baking else 0),
        canary_failures=lost,
        missing=0,
        opened_at=clock.now(),
        closed_at=clock.now(),
    )


def let_router_serve(store: Database) -> None:
    """Stores the report of a router that serves at any time of a clock."""
    with store.write() as tx:
        report = RouterReport("router", tx.now(), datetime.max.replace(tzinfo=UTC))
        RouterReports(tx).keep(report)
