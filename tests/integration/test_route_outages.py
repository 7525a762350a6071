from datetime import timedelta

import pytest

from harness.evals.account_meter import AccountMeter, StoredLoads
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.alert_record import Notified
from harness.frame.alerts.records import Alerts
from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import TrafficMinute
from harness.operations import alert_delivery, route_queries
from harness.operations.route_status import RouteState, describe_needs
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.providers.records import Targets
from harness.routing.control import freezes, outages, routes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.control.outage_rule import REPORT_DELAY
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.reports import scorecard
from harness.routing.reports.traffic_report import load_traffic_report
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.short_policies import approved

pytestmark = pytest.mark.req("B9", "F5")
DOWN = AlertKind.ROUTE_DOWN
ON_FALLBACK = AlertKind.ON_FALLBACK
RAISED = Notified.RAISED
RESOLVED = Notified.RESOLVED


def serve(
    world: SmallInstallation,
    target: str,
    *,
    route: str = "chat",
    failed: int = 0,
    left: int = 0,
) -> None:
    """Records nine requests of a minute that is over, and reported completely.

    Args:
        left: failed at the route's own model.
    """
    minute = world.clock.now().replace(second=0, microsecond=0)
    with world.store.write() as tx:
        (id_,) = (id_ for id_, t in Targets(tx).all().items() if t.name == target)
        row = TrafficMinute(
            route,
            minute,
            "w",
            "incumbent",
            id_,
            1,
            9,
            failed,
            left,
            0,
            0,
            0,
            0.0,
        )
        Observations(tx).append([], [row])
    reported = minute + timedelta(minutes=1) + REPORT_DELAY
    world.clock.advance((reported - world.clock.now()).total_seconds())
    outages.update_outage_alerts(world.context())
    alert_delivery.run_once(world.context())


def messages(world: SmallInstallation, sink: str) -> list[tuple[AlertKind, Notified]]:
    return [(message.kind, message.state) for message in world.sinks.kept[sink]]


def with_fallback(world: SmallInstallation, *names: str) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    for name in names:
        routes.create_route(
            world.context(),
            SYSTEM,
            name,
            "sim/base",
            fallbacks=("sim/good",),
            settings=settings,
        )


@pytest.mark.both_databases
def test_a_fallback_is_a_warning_with_its_price_and_score_and_errors_to_callers_are_critical(
    world: SmallInstallation,
) -> None:
    with_fallback(world, "help")
    world.decided("sim/good")
    world.sinks.only["mail"] = {DOWN}

    serve(
        world,
        "sim/good",
        route="help",
        left=9,
    )
    (warning,) = world.sinks.kept["chat"]
    assert (warning.kind, warning.severity.name) == (ON_FALLBACK, "WARNING")
    assert warning.title == "sim/good answers for sim/base on route help"
    assert "fallbacks answered 9 of 9 requests in place of sim/base. Its price is the same" in (
        warning.text
    )
    assert "on colours it scores 83.3, sim/base 58.3" in warning.text

    serve(
        world,
        "sim/good",
        route="help",
        failed=9,
        left=9,
    )
    serve(world, "sim/base", route="help")
    assert messages(world, "chat")[1:] == [
        (DOWN, RAISED),
        (ON_FALLBACK, RESOLVED),
        (DOWN, RESOLVED),
    ]
    assert messages(world, "mail") == [(DOWN, RAISED), (DOWN, RESOLVED)]
    assert world.sinks.kept["mail"][0].severity.name == "CRITICAL"


@pytest.mark.parametrize(
    ("account", "names_evals"), [("account", True), ("another account", False)]
)
@pytest.mark.req("F2")
def test_a_route_that_is_down_names_evals_that_use_up_its_users_limit(
    world: SmallInstallation, account: str, *, names_evals: bool
) -> None:
    router = AccountMeter(world.clock, "router")
    router.note_refusal("account", "sim", "base", {}, of_user=True)
    router.refresh(StoredLoads(world.store))
    worker = AccountMeter(world.clock, "worker")
    for _ in range(3):
        worker.note_call(account, "sim")
    worker.refresh(StoredLoads(world.store))
    with_fallback(world)
    serve(world, "sim/base", failed=9)

    with world.store.read() as tx:
        record = Alerts(tx).newest(f"{DOWN.value}:chat")
    assert record is not None
    text = "evals, judges or shadows share its limit: they sent 3 calls"
    assert (text in record.text) is names_evals


def test_a_partial_recovery_sends_one_message_that_names_the_fallback(
    world: SmallInstallation,
) -> None:
    with_fallback(world, "help")
    world.sinks.only["mail"] = {ON_FALLBACK}
    serve(
        world,
        "sim/base",
        route="help",
        failed=9,
        left=9,
    )
    serve(
        world,
        "sim/good",
        route="help",
        left=9,
    )
    serve(
        world,
        "sim/good",
        route="help",
        left=9,
    )

    down, recovered = world.sinks.kept["chat"]
    assert (down.title, down.state) == (
        "route help is down: no target answers",
        RAISED,
    )
    assert (recovered.kind, recovered.state) == (DOWN, RESOLVED)
    carried = "sim/good answers for sim/base on route help"
    assert recovered.title == f"resolved: {down.title}; now: {carried}"
    assert "in place of sim/base. Its price is the same" in recovered.text
    assert [(m.title, m.state) for m in world.sinks.kept["mail"]] == [(carried, RAISED)]

    serve(world, "sim/base", route="help")
    assert messages(world, "chat")[2:] == [(ON_FALLBACK, RESOLVED)]
    assert messages(world, "mail")[1:] == [(ON_FALLBACK, RESOLVED)]


def test_overview_has_routes_that_are_down_first_then_those_on_a_fallback(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    world.policy = approved()
    with_fallback(world, "a", "b", "c")
    world.decided("sim/better")
    world.decided("sim/better", route="b")
    serve(
        world,
        "sim/good",
        route="b",
        left=9,
    )
    world.clock.advance(-60)
    serve(
        world,
        "sim/base",
        route="c",
        failed=9,
        left=9,
    )

    overview = route_queries.load_overview(ctx)
    assert overview.names == ["c", "b", "chat", "a"]
    down, fallback, waits = overview.active
    assert [(s.state, s.serves) for s in (down, fallback, waits)] == [
        (RouteState.DOWN, ""),
        (RouteState.ON_FALLBACK, "sim/good"),
        (RouteState.APPROVAL, "sim/base"),
    ]
    # What waits on it besides is said as well.
    assert (fallback.needs_decision, fallback.progress_text) == (
        True,
        "waits for approval",
    )
    assert route_queries.load_status(ctx, "c").state is RouteState.DOWN
    assert describe_needs(overview.active, 0, overview.at) == "c: down"


def test_a_quiet_route_whose_targets_are_all_left_out_is_down(world: SmallInstallation) -> None:
    with world.store.write() as tx:
        target = Routing(tx).table().routes["chat"].incumbent
        key = f"breaker_open:{target}"
        Alerts(tx).fold(
            [
                Alert(
                    AlertKind.BREAKER_OPEN,
                    "target sim/base",
                    key,
                    "t",
                    "x",
                    tx.now(),
                    "w",
                )
            ]
        )
    (status,) = route_queries.load_overview(world.context()).active
    assert (status.state_text, status.serves) == ("down", "")
    with world.store.write() as tx:
        alerts.end_alert(tx, AlertKind.BREAKER_OPEN, target)
        Alerts(tx).fold(
            [
                Alert(
                    AlertKind.OUR_KEY,
                    "provider sim",
                    "our_key:sim:X",
                    "t",
                    "x",
                    tx.now(),
                    "w",
                )
            ]
        )
    # One key of several is refused.
    assert not route_queries.load_overview(world.context()).active


def test_an_alert_about_a_refused_revision_hides_no_outage(world: SmallInstallation) -> None:
    with_fallback(world, "help")
    kind = AlertKind.REVISION_REFUSED
    now = world.clock.now()
    with world.store.write() as tx:  # a router raises it with a key that names no subject
        Alerts(tx).fold([Alert(kind, "routing table", kind.value, "t", "x", now, "w")])
    serve(
        world,
        "sim/good",
        route="help",
        left=9,
    )
    assert list(outages.load_outages(world.context())) == ["help"]


@pytest.mark.both_databases
def test_an_outage_that_begins_anew_within_the_pause_is_told_at_once_and_its_end_is_late(
    world: SmallInstallation,
) -> None:
    serve(
        world,
        "sim/base",
        failed=9,
        left=9,
    )
    serve(world, "sim/base")
    assert messages(world, "chat") == [(DOWN, RAISED), (DOWN, RESOLVED)]

    serve(
        world,
        "sim/base",
        failed=9,
        left=9,
    )
    assert messages(world, "chat")[2:] == [(DOWN, RAISED)]
    for _ in range(14):
        serve(world, "sim/base")
        assert messages(world, "chat")[3:] == []
    for _ in range(3):
        serve(world, "sim/base")
    assert messages(world, "chat")[3:] == [(DOWN, RESOLVED)]
    assert "Over since" in world.sinks.kept["chat"][-1].text


def test_a_sink_that_took_no_end_yet_does_not_get_it_after_the_outage_began_anew(
    world: SmallInstallation,
) -> None:
    serve(
        world,
        "sim/base",
        failed=9,
        left=9,
    )
    world.sinks.down = {"chat"}
    serve(world, "sim/base")
    world.sinks.down = set()
    serve(
        world,
        "sim/base",
        failed=9,
        left=9,
    )
    for _ in range(9):
        world.clock.advance(120)
        alert_delivery.run_once(world.context())
    assert messages(world, "chat") == [(DOWN, RAISED), (DOWN, RAISED)]


def test_an_outage_that_ends_because_no_request_comes_says_that_nothing_shows_its_end(
    world: SmallInstallation,
) -> None:
    serve(
        world,
        "sim/base",
        failed=9,
        left=9,
    )
    world.clock.advance(900)
    outages.update_outage_alerts(world.context())
    alert_delivery.run_once(world.context())
    ended = world.sinks.kept["chat"][-1]
    assert ended.state is RESOLVED
    assert "no request came since" in ended.title
    assert ended.title.endswith("so nothing shows that it works")


@pytest.mark.req("B11")
def test_a_route_whose_requests_a_switch_refuses_is_not_down_by_its_targets(
    world: SmallInstallation,
) -> None:
    with_fallback(world, "help")
    forced = Force(ForceKind.TARGET, "sim/base")
    freezes.set_switch(
        world.context(),
        SYSTEM,
        SwitchRequest(forced, "drill", route="help"),
        source=SwitchSource.CLI,
    )
    minute = world.clock.now().replace(second=0, microsecond=0)
    row = TrafficMinute(
        "help",
        minute,
        "w",
        "incumbent",
        "",
        1,
        9,
        9,
        0,
        0,
        0,
        0,
        0.0,
        refused=9,
    )
    with world.store.write() as tx:
        Observations(tx).append([], [row])
    outages.update_outage_alerts(world.context())
    alert_delivery.run_once(world.context())

    (told,) = world.sinks.kept["chat"]
    assert told.title == "route help refuses requests: the router may call none of its targets"
    assert "because of a kill switch: target sim/base for this route" in told.text
    status = route_queries.load_status(world.context(), "help")
    assert status.state_text == "refuses requests"
    report = load_traffic_report(world.context(), timedelta(hours=1), "help")
    assert (report.all.failed, report.all.left, report.all.refused) == (9, 0, 9)
    assert scorecard.build_scorecard(world.context(), "help").charged == 0


def test_three_failures_in_a_row_are_seen_though_the_minute_began_well(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    watch = outages.OutageWatch()
    for requests, failed, is_down in ((9, 0, False), (2, 2, False), (1, 1, True)):
        record(world, requests, failed)
        watch(ctx)
        assert alerts.is_open(ctx, DOWN, "chat") is is_down
    status = route_queries.load_status(ctx, "chat")
    assert (status.state, status.state_text) == (RouteState.DOWN, "callers get errors")
    assert "3 of 12 requests failed" in status.reason

    record(world, 9, 0)
    watch(ctx)
    assert alerts.is_open(ctx, DOWN, "chat")
    world.clock.advance(60)
    record(world, 9, 0)
    world.clock.advance(70)
    watch(ctx)
    assert not alerts.is_open(ctx, DOWN, "chat")


def record(world: SmallInstallation, requests: int, failed: int) -> None:
    """Records requests of the current minute."""
    minute = world.clock.now().replace(second=0, microsecond=0)
    with world.store.write() as tx:
        target = Routing(tx).table().routes["chat"].incumbent
        row = TrafficMinute(
            "chat",
            minute,
            "w",
            "incumbent",
            target,
            1,
            requests,
            failed,
            failed,
            0,
            0,
            0,
            0.0,
        )
        Observations(tx).append([], [row])
