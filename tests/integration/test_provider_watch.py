"""The control plane's checks of providers, over HTTP."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.clock import SystemClock
from harness.gate.online.observation import TrafficMinute
from harness.operations import route_queries
from harness.operations.context import Context
from harness.operations.route_status import RouteState
from harness.providers.calls.probe import HttpProviderProbe
from harness.providers.registry import targets
from harness.providers.target import Provider
from harness.routing.control import outages, provider_watch
from harness.routing.control.provider_watch import ProviderWatch
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from tests.support.control.control_plane import SmallInstallation
from tests.support.router.router_process import eventually
from tests.support.site.http_thread import Exchange, serving
from tests.support.site.processes import free_port, site

pytestmark = pytest.mark.req("B9", "F5")
DOWN = AlertKind.PROVIDER_DOWN
INTERVAL_S = 20.0


@contextmanager
def answering(answer: Callable[[Exchange], None]) -> Iterator[tuple[str, list[str]]]:
    """Yields the address of a provider, and the requests that it gets."""
    requests: list[str] = []

    class Handler(Exchange):
        do_GET = Exchange.do_POST  # noqa: N815 - the base class calls it so

        def exchange(self) -> None:
            requests.append(f"{self.command} {self.path}")
            answer(self)

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/v1", requests


def refusing_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"


def move(world: SmallInstallation, address: str, **changes: object) -> None:
    provider = Provider("sim", "sim", address, **changes)  # type: ignore[arg-type]
    ctx = replace(world.context(), allow_addresses=("169.254.0.0/16",))
    targets.put_provider(ctx, SYSTEM, provider, reason="a drill")


def watching(
    world: SmallInstallation, interval_s: float = INTERVAL_S, allowed: tuple[str, ...] = ()
) -> Callable[[], str]:
    """Returns a function that looks for due checks, and returns the open alert's text."""
    ctx: Context = replace(
        world.context(),
        probe=HttpProviderProbe(SystemClock(), allowed),
    )
    watch = ProviderWatch(interval_s, pause=lambda _: None)

    def look() -> str:
        watch(ctx)
        with world.store.read() as tx:
            record = Alerts(tx).newest(f"{DOWN.value}:sim")
        return record.text if record is not None and record.open else ""

    return look


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 405, 429, 500])
def test_a_provider_that_answers_with_any_status_of_its_own_is_up(
    world: SmallInstallation, status: int
) -> None:
    with answering(lambda exchange: exchange.answer(status, b"{}")) as (address, requests):
        move(world, address)
        assert watching(world)() == ""
    assert requests == ["GET /v1/models"]


@pytest.mark.parametrize("status", [502, 503, 504, 529])
def test_a_gateway_before_a_server_that_is_away_does_not_count_as_an_answer(
    world: SmallInstallation, status: int
) -> None:
    with answering(lambda exchange: exchange.answer(status, b"gone")) as (address, requests):
        move(world, address)
        assert f"3 checks in a row failed: {status}" in watching(world)()
    assert requests == ["GET /v1/models"] * 3


def test_a_refused_connection_is_down_at_the_third_check(world: SmallInstallation) -> None:
    move(world, refusing_address())
    look = watching(world)
    assert "Connection refused" in look()
    status = route_queries.load_status(world.context(), "chat")
    assert status.state is RouteState.DOWN
    assert status.reason.endswith(
        "no target of the route answers: sim does not answer Swapproof's checks."
    )


def test_two_failures_are_not_enough(world: SmallInstallation) -> None:
    statuses = iter([503, 503, 200])
    with answering(lambda exchange: exchange.answer(next(statuses))) as (address, requests):
        move(world, address)
        assert watching(world)() == ""
    assert len(requests) == provider_watch.FAILED_CHECKS


def test_a_provider_that_hangs_is_down(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_watch, "CHECK_TIMEOUT_S", 0.05)
    end = Event()
    with answering(lambda _: (end.wait(), None)[1]) as (address, _):
        move(world, address)
        assert "does not answer: timed out" in watching(world)()
        end.set()


def test_a_slow_list_is_not_read_to_its_end(world: SmallInstallation) -> None:
    end = Event()

    def begin(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("content-length", "1000000")
        exchange.end_headers()
        end.wait()

    with answering(begin) as (address, _):
        move(world, address)
        assert watching(world)() == ""
        end.set()


def test_a_tls_error_is_down(world: SmallInstallation) -> None:
    with answering(lambda exchange: exchange.answer(200)) as (address, _):
        move(world, address.replace("http:", "https:"))
        assert "SSL" in watching(world)().upper()


def test_the_rules_of_addresses_apply_to_checks(world: SmallInstallation) -> None:
    """The routers do not call such an address either."""
    move(world, "http://169.254.169.254/v1")
    assert "no link-local addresses" in watching(world)()


def test_no_proxy_of_the_environment_is_used(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, refusing_address())
    with answering(lambda exchange: exchange.answer(200)) as (address, requests):
        move(world, address)
        assert watching(world)() == ""
    assert requests


def test_a_check_carries_the_key_and_a_provider_without_its_key_is_not_called(
    world: SmallInstallation,
) -> None:
    keys = []

    def note(exchange: Exchange) -> None:
        keys.append(exchange.received_headers().get("authorization"))
        exchange.answer(200)

    with answering(note) as (address, _):
        move(world, address, api_key_env="SIM_KEY")
        assert watching(world)() == ""
        assert keys == []
        ctx = replace(
            world.context(),
            probe=HttpProviderProbe(SystemClock()),
            environ={"SIM_KEY": "sk-1"},
        )
        ProviderWatch(INTERVAL_S)(ctx)
    assert keys == ["Bearer sk-1"]


def test_one_answer_ends_the_alert_and_a_new_process_ends_none(
    world: SmallInstallation,
) -> None:
    statuses = [503, 503, 503]
    with answering(lambda exchange: exchange.answer(statuses.pop() if statuses else 200)) as (
        address,
        requests,
    ):
        move(world, address)
        look = watching(world)
        assert look()
        world.clock.advance(INTERVAL_S - 1)
        assert look()
        assert len(requests) == provider_watch.FAILED_CHECKS

        statuses += [503] * provider_watch.FAILED_CHECKS
        next_process = watching(world)
        assert next_process()

        world.clock.advance(1)
        assert look() == ""
        assert route_queries.load_status(world.context(), "chat").state is not RouteState.DOWN


def test_a_route_that_checks_found_down_ends_with_an_answered_check_without_a_doubt(
    world: SmallInstallation,
) -> None:
    """After an outage that only requests showed, silence would be no sign of its end."""
    statuses = [503] * provider_watch.FAILED_CHECKS
    with answering(lambda exchange: exchange.answer(statuses.pop() if statuses else 200)) as (
        address,
        _,
    ):
        move(world, address)
        look = watching(world)
        for is_down in (True, False):
            assert bool(look()) is is_down
            outages.update_outage_alerts(world.context())
            assert alerts.is_open(world.context(), AlertKind.ROUTE_DOWN, "chat") is is_down
            world.clock.advance(INTERVAL_S)
    with world.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.ROUTE_DOWN.value}:chat")
    assert record is not None
    assert record.title == "route chat is down: no target answers"


def test_the_alert_of_a_provider_that_no_route_uses_ends(world: SmallInstallation) -> None:
    move(world, refusing_address())
    with world.store.write() as tx:
        alerts.raise_alert(tx, DOWN, "former", subject="provider former", title="t", text="x")
    assert watching(world)()
    assert alerts.list_open(world.context(), DOWN) == {(DOWN, "sim")}
    assert watching(world, interval_s=0.0)() == ""


def test_a_request_that_is_answered_later_disproves_the_failed_checks(
    world: SmallInstallation,
) -> None:
    move(world, refusing_address())
    look = watching(world)
    assert look()
    world.clock.advance(60)
    minute = world.clock.now().replace(second=0, microsecond=0)
    with world.store.write() as tx:
        target = Routing(tx).table().routes["chat"].incumbent
        row = TrafficMinute("chat", minute, "w", "incumbent", target, 1, 9, 2, 3, 0, 0, 0, 0.0)
        Observations(tx).append([], [row])
    assert look() == ""
    world.clock.advance(3_600)
    assert look() == ""


def test_an_unanswered_request_disproves_nothing(world: SmallInstallation) -> None:
    move(world, refusing_address())
    look = watching(world)
    assert look()
    world.clock.advance(60)
    minute = world.clock.now().replace(second=0, microsecond=0)
    with world.store.write() as tx:
        target = Routing(tx).table().routes["chat"].incumbent
        row = TrafficMinute("chat", minute, "w", "incumbent", target, 1, 9, 9, 9, 0, 0, 0, 0.0)
        Observations(tx).append([], [row])
    assert look()


def test_a_moved_provider_is_checked_at_once(world: SmallInstallation) -> None:
    move(world, refusing_address())
    look = watching(world)
    assert look()
    with answering(lambda exchange: exchange.answer(404)) as (address, _):
        move(world, address)
        world.clock.advance(provider_watch.LOOK_S)
        assert look() == ""


@pytest.mark.slow
def test_processes_see_a_provider_and_a_router_come_and_go_without_a_request(
    tmp_path: Path,
) -> None:
    port = free_port()
    settings: dict[str, object] = {
        "control": {"reconcile_interval_s": 0.3, "provider_check_interval_s": 1.0},
        "router": {"health_check_interval_s": 0},
        "providers": {"sim": {"kind": "sim", "api_base": f"http://127.0.0.1:{port}/v1"}},
        "routes": {"support": {"incumbent": "sim/sim-base", "suites": ["tickets"]}},
    }
    with site(tmp_path, settings) as place:
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)

        def has_state(state: RouteState) -> Callable[[], bool]:
            def check() -> bool:
                try:
                    status = route_queries.load_status(installation.context, "support")
                except NotFound:  # the control process has not read its file yet
                    return False
                return status.state is state

            return check

        with closing(installation):
            place.start("sim", "sim", "--port", str(port))
            place.start("control", "serve", "control", wait_for="/healthz")
            eventually(has_state(RouteState.NO_ROUTER))
            place.start("router", "serve", "router", wait_for="/readyz")
            eventually(has_state(RouteState.STEADY))
            place.kill("sim")
            eventually(has_state(RouteState.DOWN))
            place.start("sim", "sim", "--port", str(port))
            eventually(has_state(RouteState.STEADY))
            assert place.terminate("router") == 0
            assert has_state(RouteState.NO_ROUTER)()
