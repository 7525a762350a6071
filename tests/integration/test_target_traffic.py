"""Traffic by provider and target, as the page and `swapgate route traffic` show it."""

from datetime import timedelta

import pytest

from harness.control.operations import queries
from harness.control.routing import routes
from harness.control.routing.queries import load_target_traffic
from harness.control.routing.traffic_report import (
    TargetTraffic,
    hide_single_sums,
    load_traffic_report,
)
from harness.domain.canary.observation import TrafficMinute
from harness.domain.operations.access import SYSTEM
from harness.domain.reliability.failover import Failover, hash_user
from harness.domain.routing.table import RouteSettings
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("B9")
SECRET = b"s" * 32


def record(world: SmallInstallation, target: str, requests: int, bound_ms: int) -> None:
    """Records requests of this minute on two routes. target: empty where none answered."""
    minute = world.clock.now().replace(second=0, microsecond=0)
    with world.store.write() as tx:
        ids = {t.name: id_ for id_, t in tx.routing.targets().items()}
        rows = [
            TrafficMinute(
                *(route, minute, "w", "incumbent", ids.get(target, ""), 1, requests),
                *(0 if target else requests, 0, 0, 0, 0, 0.25),
                latency_ms={bound_ms: requests},
            )
            for route in ("chat", "mail")
        ]
        tx.observations.append([], rows)


def leave(world: SmallInstallation, target: str, number: int) -> None:
    left = Failover(
        worker="w1", number=number, at=world.clock.now(), request="req_1", route="chat",
        arm="incumbent", target=target, provider=target.partition("/")[0], failure="overloaded",
        status=529, attempts=1, latency_ms=120.0, endpoint="chat", stream=True, body_bytes=1234,
        messages=1, tools=1, user_hash=hash_user("user:alice", SECRET), next_target=None,
    )  # fmt: skip
    with world.store.write() as tx:
        tx.failovers.append([left])


def load(world: SmallInstallation, route: str | None = None) -> list[TargetTraffic]:
    report = load_traffic_report(world.context(), timedelta(hours=1), route)
    reasons = queries.count_failovers(world.context(), report.since, route)
    return list(load_target_traffic(world.context(), report, reasons, route))


def test_requests_latency_cost_and_failovers_are_summed_by_provider_and_target(
    world: SmallInstallation,
) -> None:
    routes.create_route(
        world.context(),
        SYSTEM,
        "mail",
        "sim/base",
        fallbacks=("sim/good",),
        settings=RouteSettings(),
    )
    record(world, "sim/base", 30, 1000)
    record(world, "sim/good", 10, 2500)
    record(world, "", 5, 10)
    for number in range(2):
        leave(world, "sim/base", number)
    leave(world, "away/large", 2)

    assert load(world) == [
        TargetTraffic("sim", "", 80, 2, 2200.0, 1.0),
        TargetTraffic("sim", "sim/base", 60, 2, 975.0, 0.5),
        TargetTraffic("sim", "sim/good", 20, 0, 2425.0, 0.5),
        TargetTraffic("away", "", 0, 1, None, 0.0),
        TargetTraffic("away", "away/large", 0, 1, None, 0.0),
    ]
    assert [row.target for row in hide_single_sums(load(world, "chat"))] == [
        "",
        "sim/base",
        "sim/good",
        "away/large",
    ]


@pytest.mark.req("B5")
def test_failovers_of_a_user_are_found_by_the_id_and_by_the_part_of_the_hash_that_is_shown(
    world: SmallInstallation,
) -> None:
    leave(world, "sim/base", 1)
    (failover,) = queries.list_failovers(world.context(), secret=SECRET)
    assert failover.shape == "chat, stream, 1,234 bytes, 1 tool"
    for user, times in (("alice", 1), (failover.user, 1), (failover.user[:-1], 0), ("bob", 0)):
        page = queries.list_failovers(world.context(), secret=SECRET, user=user)
        assert len(page) == times, user
