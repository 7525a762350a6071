"""The kill switch's forms, each against a router in a process of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.sim import server as sim
from harness.domain.routing.kill_switch import ENVIRONMENT_VARIABLE
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, Routed, eventually, routed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url:
        yield url


def ruled_by(world: Routed) -> str:
    """What the next answer says of switches."""
    with world.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model=ROUTE, messages=[{"role": "user", "content": "hi"}]
        )
    return str(raw.headers.get("x-swapgate-switch", ""))


@pytest.mark.req("B11")
def test_file_command_and_environment_rule_in_this_order(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    with routed(tmp_path, provider) as world:
        config = world.place.config
        config.write_text(config.read_text() + f"switches: ['{ROUTE}=provider:sim']\n")
        world.start()
        assert ruled_by(world) == "config-1; provider:sim; in_effect"

        words = ("switch", "throw", "target:sim/sim-base", "--reason", "a drill", "--json")
        thrown = json.loads(world.place.run(*words).stdout)["id"]
        told = f"{thrown}; target:sim/sim-base; in_effect"
        eventually(lambda: ruled_by(world) == told)
        world.place.terminate("router")

        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "provider:sim")
        world.start()
        assert ruled_by(world) == "environment-1; provider:sim; in_effect"
        world.place.terminate("router")

        monkeypatch.delenv(ENVIRONMENT_VARIABLE)
        world.start()
        world.place.run("switch", "lift", thrown, "--reason", "over")
        eventually(lambda: ruled_by(world).startswith("config-1"))
