"""The failover log of a real router process: one JSON object a line on stderr."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from evals.sim import faults, server
from evals.sim.simulator import Simulator
from harness.domain.operations.access import key_hash
from harness.domain.reliability.failover import hash_user
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, Routed, ask, eventually, routed


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return server.simulator(time_scale=0.0)


@pytest.fixture(scope="module")
def provider(sim: Simulator) -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim) as url:
        yield url


def failovers(world: Routed) -> list[dict[str, object]]:
    lines = world.place.log("router").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in found if event["event"] == "failover"]


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.req("B4", "B5")
def test_a_failure_is_found_again_by_the_users_id_and_the_breaker_is_seen(
    sim: Simulator, provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        world.start()
        sim.faults.set("sim-base", faults.parse_fault({"kind": "status", "status": 401}))
        with world.client() as client:
            with pytest.raises(openai.InternalServerError):
                ask(client, user="alice")
            sim.faults.clear()
            assert ask(client, user="bob")
            metrics = client._client.get(
                f"{world.url}/metrics", headers={"authorization": f"Bearer {world.key}"}
            ).text
        eventually(lambda: len(failovers(world)) == 1)

        (event,) = failovers(world)
        secret = world.installation.secret
        assert event["user"] == hash_user("user:alice", secret)
        assert (event["route"], event["target"]) == (ROUTE, "sim/sim-base")
        assert (event["failure_class"], event["status"]) == ("our_key", 401)
        assert event["answered_by"] is None
        assert "Colour" not in world.place.log("router")
        assert 'swapgate_breaker_state{target="sim/sim-base",worker="0"} 2.0' in metrics
        assert key_hash(world.key, secret) not in world.place.log("router")
        assert world.place.terminate("router") == 0
