"""From a provider that breaks to a webhook that says so, through every process, and back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.sim import faults, server
from evals.sim.simulator import Simulator
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, Routed, ask, eventually, routed
from tests.support.site.alert_receiver import Receiver

ROUTES = {ROUTE: {"incumbent": "sim/sim-base", "fallbacks": ["spare/sim-better"]}}
BREAKER = {"open_s": 1.0, "open_max_s": 2.0, "probe_successes": 1}


@pytest.fixture
def sim() -> Simulator:
    return server.simulator(time_scale=0.0)


@pytest.fixture
def provider(sim: Simulator) -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim) as url:
        yield url


def settings(provider: str, port: int) -> dict[str, Any]:
    address = {"kind": "sim", "api_base": f"{provider}/v1"}
    webhook = {"webhook": f"http://127.0.0.1:{port}/hook", "secret_env": "HOOK_SECRET"}
    return {
        "router": {"flush_interval_s": 0.2, "breaker": BREAKER},
        "providers": {"sim": address, "spare": address},
        "routes": ROUTES,
        "alerts": {"sinks": [webhook], "deliver_interval_s": 0.2},
    }


def received_alerts(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(got.body) for got in receiver.got]


def cli(world: Routed, *words: str) -> Any:
    return json.loads(world.place.run(*words, "--json").stdout)


def shown(world: Routed) -> Any:
    """The one open alert."""
    (listed,) = cli(world, "alert", "list", "--open")
    return listed


@pytest.mark.verify
@pytest.mark.req("A6", "B5", "B9")
def test_a_webhook_hears_that_a_circuit_opened_who_carries_the_load_and_that_it_closed(
    sim: Simulator,
    provider: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    receiver = Receiver()
    with (
        receiver.up(),
        routed(tmp_path, provider, **settings(provider, receiver.port)) as world,
    ):
        world.start()
        world.place.start("control", "serve", "control", wait_for="/readyz")
        sim.faults.set("sim-base", faults.parse_fault({"kind": "status", "status": 401}))
        with world.client() as client:
            for _ in range(4):
                assert ask(client, user="alice")
            eventually(lambda: len(receiver.got) == 1)
            # That it was delivered is written after the receiver has it.
            eventually(lambda: shown(world)["delivered"] == 1)
            listed = shown(world)
            sim.faults.clear()

            def resolved() -> bool:
                assert ask(client, user="bob")
                return len(receiver.got) == 2

            eventually(resolved, timeout_s=120)
        found = cli(world, "route", "failovers", "--user", "alice")
        others = cli(world, "route", "failovers", "--user", "carol")

        raised, over = received_alerts(receiver)
        assert (raised["kind"], raised["state"]) == ("our_key", "raised")
        assert raised["subject"] == "provider sim"
        assert f"Route {ROUTE}: spare/sim-better carries its load now." in raised["text"]
        assert (over["state"], over["alert"]) == ("resolved", raised["alert"])
        assert (listed["id"], listed["delivered"]) == (raised["alert"], 1)
        assert {failover["target"] for failover in found} == {"sim/sim-base"}
        assert {failover["next_target"] for failover in found} == {"spare/sim-better"}
        assert {failover["failure"] for failover in found} <= {"our_key", "circuit_open"}
        assert others == []
        (tried,) = cli(world, "alert", "test")
        assert (tried["sink"], tried["delivered"]) == ("webhook-1", True)
        logs = world.place.log("router") + world.place.log("control")
        assert "s3cret" not in logs
        assert "Colour" not in logs
        assert world.place.terminate("router") == 0
        assert world.place.terminate("control") == 0
