"""How long a route's callers wait for output: recorded by minute, read by plan and canary."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from harness.canary.duration_estimate import estimate_for_route
from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.waiting import (
    RequestWaits,
    WaitCounts,
    count_waits,
    wait_bin,
)
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from router.recording.sums import CompletedRequest, minute_rows
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F3")
ANSWERED: Final = RequestWaits(streamed=False, first_s=0.4)
LEFT: Final = RequestWaits(streamed=False, first_s=None, left_s=0.2)
DAY: Final = timedelta(days=1)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
DONE: Final = CompletedRequest(
    "chat",
    "incumbent",
    "t",
    outcome="ok",
    latency_ms=400.0,
)


def record(
    world: SmallInstallation,
    waits: WaitCounts,
    *,
    arm: str = "incumbent",
    target: str = "",
) -> None:
    """Records waits of this minute on route chat."""
    minute = world.clock.now().replace(second=0, microsecond=0)
    counts = (100, 0, 0, 0, 100, 100, 0.1)
    row = TrafficMinute("chat", minute, "w", arm, target, 1, *counts, waits=waits)
    with world.store.write() as tx:
        Observations(tx).append([], [row])


def incumbent(world: SmallInstallation) -> str:
    with world.store.read() as tx:
        found = Routing(tx).route("chat")
    assert found is not None
    return found.incumbent


def rule_waits(world: SmallInstallation) -> tuple[float, float, float]:
    with world.store.read() as tx:
        route = Routing(tx).route("chat")
    assert route is not None
    assert route.canary is not None
    rule = route.canary.unit_rule
    return rule.first_wait_s, rule.stream_wait_s, rule.gap_wait_s


def test_a_minute_counts_waits_of_answers_and_of_callers_who_left() -> None:
    stream = DONE._replace(
        stream=True,
        latency_ms=9000.0,
        first_token_s=0.5,
        gap_s=0.1,
    )
    gone = DONE._replace(target="", outcome="cancelled", waited_s=3.0)
    hasty = DONE._replace(target="", outcome="failed", waited_s=2.0)
    failed = DONE._replace(target="", outcome="failed")

    rows = minute_rows([DONE, stream, gone, hasty, failed], START, "w")

    assert {row.target: dict(row.waits) for row in rows} == {
        "t": {
            "first": {wait_bin(0.4): 1},
            "stream_first": {wait_bin(0.5): 1},
            "gap": {wait_bin(0.1): 1},
        },
        "": {"first_left": {wait_bin(3.0): 1, wait_bin(2.0): 1}},
    }


@pytest.mark.both_databases
def test_waits_of_the_incumbent_add_up_and_no_others(world: SmallInstallation) -> None:
    target = incumbent(world)
    record(world, count_waits([ANSWERED] * 60), target=target)
    record(world, count_waits([ANSWERED] * 40), target=target)
    record(world, count_waits([LEFT] * 30))
    record(world, count_waits([slow(9.0)] * 50), target="t_other")
    record(
        world,
        count_waits([slow(9.0)] * 50),
        arm="keep_warm",
        target=target,
    )

    with world.store.read() as tx:
        waits = Observations(tx).waits("chat", target, world.clock.now() - DAY)
    assert waits == {
        "first": {wait_bin(0.4): 100},
        "first_left": {wait_bin(0.2): 30},
    }


def test_a_canary_begins_with_the_limits_of_the_day_before(world: SmallInstallation) -> None:
    record(world, count_waits([ANSWERED] * 100), target=incumbent(world))

    world.decided(route="chat")

    assert rule_waits(world) == pytest.approx((0.4, 10.0, 10.0), rel=0.02)


def test_without_answers_the_routes_own_limits_count(world: SmallInstallation) -> None:
    routes.change_settings(
        world.context(),
        SYSTEM,
        "chat",
        lambda now: replace(now, first_byte_timeout_s=3.0),
    )

    world.decided(route="chat")

    assert rule_waits(world) == (3.0, 10.0, 10.0)


def test_the_plan_tells_how_many_callers_leave_too_soon_to_show_a_hang(
    world: SmallInstallation,
) -> None:
    record(world, {}, target=incumbent(world))
    unknown = estimate_for_route(world.context(), "chat").words
    assert "only callers who leave after 10.0 s without output" in unknown

    record(world, count_waits([ANSWERED] * 100), target=incumbent(world))
    record(world, count_waits([LEFT] * 25))

    words = estimate_for_route(world.context(), "chat").words
    assert "begins 99 % of its plain answers within 0.41 s" in words
    assert "About 20 % of callers leave sooner if no output comes" in words


def slow(seconds: float) -> RequestWaits:
    return ANSWERED._replace(first_s=seconds)
