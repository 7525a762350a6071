from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from harness.app.store.tables import metadata
from harness.frame.errors import SignatureInvalid
from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import TrafficMinute
from harness.operations import queries
from harness.operations.route_queries import load_target_traffic
from harness.providers.records import Targets
from harness.providers.registry import targets
from harness.providers.target import Provider
from harness.routing.control import routes
from harness.routing.records.failovers import Failovers
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.reliability.failover import Failover, hash_user
from harness.routing.reports import scorecard
from harness.routing.reports.traffic_report import (
    TargetTraffic,
    hide_single_sums,
    load_traffic_report,
)
from harness.routing.route_settings import RouteSettings
from tests.support.control.colours_suite import ITEMS, SKILL
from tests.support.control.control_plane import SmallInstallation
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("A3", "B9")


def recorded(
    world: SmallInstallation,
    hours: float,
    **changes: Any,
) -> None:
    with world.store.write() as tx:
        route = Routing(tx).route("chat")
        assert route is not None
        fields: dict[str, Any] = {
            "route": "chat",
            "minute": world.clock.now() - timedelta(hours=hours),
            "worker": "w",
            "arm": "incumbent",
            "target": route.incumbent,
            "revision": 1,
            "requests": 100,
            "failed": 1,
            "charged": 5,
            "streams": 0,
            "input_tokens": 10_000,
            "output_tokens": 2_000,
            "cost_usd": 0.014,
            "latency_ms": {50: 50, 100: 50},
        }
        Observations(tx).append([], [TrafficMinute(**{**fields, **changes})])


def test_a_route_that_nobody_uses_shows_nothing_and_no_zero(world: SmallInstallation) -> None:
    (route_scorecard,) = scorecard.build_scorecards(world.context())

    assert [(score.suite, score.score) for score in route_scorecard.scores] == [
        ("colours", None)
    ]
    assert (
        route_scorecard.usd_per_1000,
        route_scorecard.month_usd,
        route_scorecard.failed,
        route_scorecard.p95_ms,
    ) == (None,) * 4


@pytest.mark.spine
def test_scores_are_of_the_incumbents_newest_run_with_interval_and_time(
    world: SmallInstallation,
) -> None:
    world.decided("sim/worse")

    (score,) = scorecard.build_scorecard(world.context(), "chat").scores

    assert None not in (
        score.measured_at,
        score.score,
        score.low,
        score.high,
    )
    assert score.current
    assert 0 < score.items <= ITEMS
    assert score.score == pytest.approx(SKILL["base"] / 12, abs=0.2)
    assert (score.low or 1.0) < (score.score or 0.0) < (score.high or 0.0)


@pytest.mark.spine
def test_cost_failures_and_latency_are_of_the_recorded_traffic(
    world: SmallInstallation,
) -> None:
    recorded(world, 72)
    recorded(world, 2)

    route_scorecard = scorecard.build_scorecard(world.context(), "chat")

    # $0.028 for 200 requests in 3 days.
    assert route_scorecard.usd_per_1000 == pytest.approx(0.14)
    assert route_scorecard.month_usd == pytest.approx(0.28)
    assert (
        route_scorecard.failed,
        route_scorecard.charged,
    ) == pytest.approx((0.01, 0.05))
    # Of the last day: half up to 50 ms, half from there to 100.
    assert (route_scorecard.p50_ms, route_scorecard.p95_ms) == pytest.approx((50.0, 95.0))
    assert route_scorecard.requests_day == 100
    facts = dict(scorecard.list_facts(route_scorecard, lambda _: "today"))
    assert facts["latency"] == "median 0.05 s, 95th percentile 0.10 s"
    assert (facts["failed requests"], facts["failures of the model"]) == (
        "1.00 %",
        "5.00 %",
    )


def test_another_targets_answers_are_no_measure_of_the_incumbent(
    world: SmallInstallation,
) -> None:
    recorded(world, 2)
    recorded(
        world,
        2,
        target="t_other",
        cost_usd=9.0,
        latency_ms={1000: 100},
        failed=0,
    )

    route_scorecard = scorecard.build_scorecard(world.context(), "chat")

    assert route_scorecard.usd_per_1000 == pytest.approx(0.14)
    assert route_scorecard.bill.requests == 200
    assert route_scorecard.p95_ms == pytest.approx(95.0)
    assert route_scorecard.failed == pytest.approx(0.005)


@contextmanager
def statements() -> Iterator[list[str]]:
    asked: list[str] = []

    def note(
        _connection: object,
        _cursor: object,
        statement: str,
        *_: object,
    ) -> None:
        asked.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_the_scorecards_of_all_routes_take_no_query_for_each_of_them(
    world: SmallInstallation,
) -> None:
    world.decided("sim/worse")

    def ask() -> tuple[list[str], int]:
        with statements() as asked:
            made = scorecard.build_scorecards(ctx)
        assert made == [scorecard.build_scorecard(ctx, one.route.name) for one in made]
        return [one.route.name for one in made], len(asked)

    ctx = world.context()
    recorded(world, 2)
    _, alone = ask()
    names = [f"chat-{number}" for number in range(5)]
    for name in names:
        world.add_route(name)
        recorded(world, 2, route=name)
    assert ask() == (["chat", *names], alone)


def test_the_scorecards_that_a_page_shows_read_what_routes_share_once(
    world: SmallInstallation,
) -> None:
    world.decided("sim/worse")
    ctx = world.context()
    names = ["chat", *(f"chat-{number}" for number in range(5))]
    for name in names[1:]:
        world.add_route(name)
        recorded(world, 2, route=name)
    with statements() as asked:
        shown = scorecard.build_sound_scorecards(ctx, names)

    assert shown == {name: scorecard.build_scorecard(ctx, name) for name in names}
    runs = [statement for statement in asked if "FROM eval_run" in statement]
    assert len(runs) == 1
    assert sum("FROM sample" in statement for statement in asked) == 1


def test_a_forged_run_takes_the_scorecards_of_its_own_routes_alone(
    world: SmallInstallation,
) -> None:
    world.decided("sim/worse")
    ctx = world.context()
    world.add_route("mail", "sim/worse")
    theirs = scorecard.build_scorecard(ctx, "mail").incumbent.id
    with owned(world.store) as db:
        runs = metadata.tables["eval_run"]
        db.execute(sa.update(runs).where(runs.c.target == theirs).values(suite_digest="0" * 64))

    with pytest.raises(SignatureInvalid):
        scorecard.build_scorecard(ctx, "mail")
    assert list(scorecard.build_sound_scorecards(ctx, ["chat", "mail"])) == ["chat"]


def test_the_provider_matrix_names_the_medians_that_the_scorecards_show(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    assert scorecard.load_speeds(ctx) == {}
    recorded(world, 2)

    (shown,) = scorecard.build_scorecards(ctx)
    assert scorecard.load_speeds(ctx) == {shown.incumbent.id: shown.p50_ms}


def test_without_a_price_the_cost_is_unknown(world: SmallInstallation) -> None:
    recorded(
        world,
        2,
        cost_usd=0.0,
        unpriced=100,
    )
    priced = scorecard.build_scorecard(world.context(), "chat")
    targets.put_provider(
        world.context(),
        SYSTEM,
        Provider("sim", "sim", "http://127.0.0.1:9/v1"),
    )

    # 100 input tokens at $1 and 20 output at $2 per million.
    assert priced.usd_per_1000 == pytest.approx(0.14)
    assert scorecard.build_scorecard(world.context(), "chat").usd_per_1000 is None


SECRET = b"s" * 32


def record(
    world: SmallInstallation,
    target: str,
    requests: int,
    bound_ms: int,
) -> None:
    """Records requests of this minute on two routes.

    Args:
        target: empty where none answered.
    """
    minute = world.clock.now().replace(second=0, microsecond=0)
    with world.store.write() as tx:
        ids = {t.name: id_ for id_, t in Targets(tx).all().items()}
        rows = [
            TrafficMinute(
                route,
                minute,
                "w",
                "incumbent",
                ids.get(target, ""),
                1,
                requests,
                0 if target else requests,
                0,
                0,
                0,
                0,
                0.25,
                latency_ms={bound_ms: requests},
            )
            for route in ("chat", "mail")
        ]
        Observations(tx).append([], rows)


def leave(
    world: SmallInstallation,
    target: str,
    number: int,
) -> None:
    left = Failover(
        worker="w1",
        number=number,
        at=world.clock.now(),
        request="req_1",
        route="chat",
        arm="incumbent",
        target=target,
        provider=target.partition("/")[0],
        failure="overloaded",
        status=529,
        attempts=1,
        latency_ms=120.0,
        endpoint="chat",
        stream=True,
        body_bytes=1234,
        messages=1,
        tools=1,
        user_hash=hash_user("user:alice", SECRET),
        next_target=None,
    )
    with world.store.write() as tx:
        Failovers(tx).append([left])


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


@pytest.mark.spine
@pytest.mark.req("B5")
def test_failovers_of_a_user_are_found_by_the_id_and_by_the_part_of_the_hash_that_is_shown(
    world: SmallInstallation,
) -> None:
    leave(world, "sim/base", 1)
    (failover,) = queries.list_failovers(world.context(), secret=SECRET)
    assert failover.shape == "chat, stream, 1,234 bytes, 1 tool"
    for user, times in (
        ("alice", 1),
        (failover.user, 1),
        (failover.user[:-1], 0),
        ("bob", 0),
    ):
        page = queries.list_failovers(world.context(), secret=SECRET, user=user)
        assert len(page) == times, user
