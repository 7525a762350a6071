"""Runs a router in front of the simulator, whose faults are set by model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.sim import faults
from evals.sim.simulator import Simulator
from harness.frame.people.access import key_hash
from harness.gate.online.guardrails import ExposureRule
from harness.providers.target import Provider, Target
from harness.routing.route_settings import RouteSettings
from harness.routing.settings import RouterSettings
from harness.routing.table import Canary, KeyGrant, Route, RoutingTable, Snapshot
from tests.support.router.live_router import (
    KEY,
    NARROW_KEY,
    QUICK,
    SECRET,
    World,
    running_router,
)

OWN = "sim-base"
SPARE = "sim-better"
OTHER = "sim-worse"
# Some faults are silence.
HURRIED = replace(
    QUICK,
    first_token_timeout_s=3.0,
    between_chunks_timeout_s=2.0,
    total_timeout_s=8.0,
)
HELLO = "Say 12 words please."


@dataclass
class SimScene:
    sim: Simulator
    world: World

    def fault(
        self,
        kind: str,
        model: str = OWN,
        **fields: Any,
    ) -> None:
        self.sim.faults.set(model, faults.parse_fault({"kind": kind, **fields}))

    def requests_to(self, model: str) -> int:
        stats = self.sim.stats.get(model)
        return stats.requests if stats else 0

    def gone(self, model: str = OWN) -> int:
        stats = self.sim.stats.get(model)
        return stats.client_gone if stats else 0


def served(headers: Mapping[str, str]) -> str:
    return headers["x-swapproof-target"].partition("/")[2]


def snapshot_of(
    sim_url: str,
    *,
    own_kind: str = "sim",
    spare_kind: str = "sim",
    canary: bool = False,
) -> Snapshot:
    """Route `support` with a spare, which `canary` makes its canary; `other` has none."""
    own = Target("up", OWN)
    spare = Target("other", SPARE)
    other = Target("up", OTHER)
    all_ = Canary(spare.id, 10_000, "salt", "r-1", ExposureRule())
    support = Route(
        "support",
        1,
        own.id,
        all_ if canary else None,
        () if canary else (spare.id,),
        RouteSettings(),
    )
    lone = Route("other", 1, other.id, None, (), RouteSettings())
    return Snapshot(
        RoutingTable(
            1,
            {"support": support, "other": lone},
            {t.id: t for t in (own, spare, other)},
        ),
        {
            "up": Provider("up", own_kind, f"{sim_url}/v1", "UP_KEY"),
            "other": Provider("other", spare_kind, f"{sim_url}/v1", "UP_KEY"),
        },
        (
            KeyGrant("k", key_hash(KEY, SECRET)),
            KeyGrant(
                "k-narrow",
                key_hash(NARROW_KEY, SECRET),
                frozenset({"other"}),
            ),
        ),
        "1",
    )


@contextmanager
def before_sim(
    sim: Simulator,
    sim_url: str,
    folder: Path,
    settings: RouterSettings = HURRIED,
    *,
    own_kind: str = "sim",
    spare_kind: str = "sim",
) -> Iterator[SimScene]:
    sim.faults.clear()
    sim.stats.clear()
    first = snapshot_of(sim_url, own_kind=own_kind, spare_kind=spare_kind)
    with running_router(first, folder, settings) as world:
        yield SimScene(sim, world)
