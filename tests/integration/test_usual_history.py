"""What a canary knows of the incumbent's days before it: the usual rate, and caps of sums."""

from datetime import datetime, timedelta
from typing import Final

import pytest

from harness.gate.caller_forecast import TrafficPart
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.usual_rate import DayCount, bound_usual_rate
from harness.gate.online.waiting import RequestWaits, count_waits
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F3")
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
STREAM: Final = RequestWaits(streamed=True, first_s=0.5)


def record(
    world: SmallInstallation,
    at: datetime,
    *,
    target: str = "",
    arm: str = "incumbent",
    first: tuple[int, int] = (1_000, 10),
    windows: tuple[int, int] = (0, 0),
) -> None:
    """Records 1,000 requests of a minute: 50 tokens, $0.002 and 1.5 s each."""
    minute = at.replace(second=0, microsecond=0)
    row = TrafficMinute(
        "chat",
        minute,
        "w",
        arm,
        target,
        1,
        requests=1_000,
        failed=0,
        charged=0,
        streams=1_000,
        input_tokens=100_000,
        output_tokens=50_000,
        cost_usd=2.0,
        latency_ms={2500: 1_000},
        waits=count_waits([STREAM] * 1_000),
        first_requests=first[0],
        first_failed=first[1],
        windows=windows[0],
        windows_failed=windows[1],
    )
    with world.store.write() as tx:
        Observations(tx).append([], [row])


def rule(world: SmallInstallation) -> ExposureRule:
    with world.store.read() as tx:
        route = Routing(tx).route("chat")
    assert route is not None
    assert route.canary is not None
    return route.canary.unit_rule


def incumbent(world: SmallInstallation) -> str:
    with world.store.read() as tx:
        route = Routing(tx).route("chat")
    assert route is not None
    return route.incumbent


@pytest.mark.both_databases
def test_first_requests_and_windows_of_the_incumbents_arm_add_up(
    world: SmallInstallation,
) -> None:
    now = world.clock.now()
    record(world, now - HOUR)
    record(world, now - HOUR, windows=(900, 40))
    record(world, now - HOUR, target="t_fallback", first=(5, 5))
    record(world, now - HOUR, arm="canary")
    record(world, now - DAY - HOUR)

    with world.store.read() as tx:
        found = Observations(tx).caller_counts("chat", now - DAY, now)
        none = Observations(tx).caller_counts("other", now - DAY, now)

    firsts, windows = Guardrail.ERRORS, Guardrail.CALLER_ERRORS
    assert found == {firsts: DayCount(2_005, 25), windows: DayCount(900, 40)}
    assert none == {firsts: DayCount(0, 0), windows: DayCount(0, 0)}


@pytest.mark.both_databases
def test_parts_of_ten_minutes_have_the_requests_and_callers_of_each_process(
    world: SmallInstallation,
) -> None:
    begin = world.clock.now().replace(minute=0, second=0, microsecond=0) - HOUR
    minute = timedelta(minutes=1)
    record(world, begin + 2 * minute)
    record(world, begin + 9 * minute, arm="canary", first=(300, 0))
    record(world, begin + 10 * minute, first=(5, 0))
    record(world, begin + 11 * minute, arm="keep_warm")
    record(world, begin - DAY)

    with world.store.read() as tx:
        found = Observations(tx).parts("chat", since=begin)
        none = Observations(tx).parts("other", since=begin)

    assert found == [
        TrafficPart("w", begin + 2 * minute, 2_000, 1_300),
        TrafficPart("w", begin + 10 * minute, 1_000, 5),
    ]
    assert none == []


def test_a_canary_begins_with_the_usual_rate_of_the_days_before(
    world: SmallInstallation,
) -> None:
    world.clock.advance(4 * 86_400.0)
    now = world.clock.now()
    for number, failed in enumerate((10, 20, 30)):
        counts = (1_000, failed)
        record(world, now - number * DAY - HOUR, first=counts, windows=(1_000, 2 * failed))

    world.decided(route="chat")

    days = [DayCount(1_000, failed) for failed in (10, 20, 30)]
    twice = [DayCount(1_000, 2 * failed) for failed in (10, 20, 30)]
    assert rule(world).usual_rates == {
        Guardrail.ERRORS: pytest.approx(bound_usual_rate(days)),
        Guardrail.CALLER_ERRORS: pytest.approx(bound_usual_rate(twice)),
    }


def test_days_before_the_incumbent_served_the_route_do_not_count(
    world: SmallInstallation,
) -> None:
    now = world.clock.now()
    for number in range(5):
        record(world, now - number * DAY - HOUR)

    world.decided(route="chat")

    assert rule(world).usual_rates == {}


def test_a_canary_begins_with_caps_of_twenty_means_of_the_day_before(
    world: SmallInstallation,
) -> None:
    record(world, world.clock.now() - HOUR, target=incumbent(world))

    world.decided(route="chat")

    caps = rule(world).caps
    assert caps[Guardrail.TIME_TO_FIRST_TOKEN] == pytest.approx(20 * 0.5, rel=0.02)
    assert caps[Guardrail.LATENCY] == pytest.approx(20 * 1.58, rel=0.01)
    assert Guardrail.INTER_TOKEN_LATENCY not in caps
    values = {Guardrail.COST_PER_SUCCESS: 0.04, Guardrail.OUTPUT_TOKENS: 1_000.0}
    for guardrail in values.keys() & caps.keys():
        assert caps[guardrail] == pytest.approx(values[guardrail])
    assert values.keys() & caps.keys()


def test_without_traffic_a_canary_has_no_caps(world: SmallInstallation) -> None:
    world.decided(route="chat")

    assert rule(world).caps == {}
