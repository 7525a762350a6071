"""`auto` from a client to a provider: evals, the agents process and the router run for real,
and the answer says who was chosen and why (C7).
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evals.sim import server as sim
from harness.control.context import Context
from harness.control.evals import worker_supervision
from harness.domain.operations.access import SYSTEM
from tests.support.control.control_plane import suite_file
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, eventually, routed
from tests.support.site.agents_site import error_of, events, good
from tests.support.site.processes import free_port

pytestmark = [pytest.mark.req("C7", "E2"), pytest.mark.verify]

DEAR = {"input_usd_per_mtok": 10, "output_usd_per_mtok": 20}
CHEAP = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[str]:
    """It knows the suite's items, so that its models have their skill in them."""
    made = sim.simulator(suites=[suite_file(tmp_path)], time_scale=0.0)
    with simulator_thread.serve_in_thread(made) as url:
        yield url


def test_a_session_on_auto_is_answered_by_the_cheapest_good_enough_and_says_so(
    provider: str, tmp_path: Path
) -> None:
    port = free_port()
    sections = {
        "agents": {
            "open_on_loopback": True,
            "port": port,
            "floors": {ROUTE: {"floor": 0.4, "suite": "colours"}},
        },
        "providers": {
            "sim": {
                "kind": "sim",
                "api_base": f"{provider}/v1",
                "prices": {"sim-better": DEAR, "sim-equal": CHEAP},
            }
        },
        "routes": {
            ROUTE: {
                "incumbent": "sim/sim-better",
                "fallbacks": ["sim/sim-equal"],
                "suites": ["colours"],
            }
        },
    }
    with routed(tmp_path, provider, None, **sections) as world:
        world.place.ports["agents"] = port
        world.start()
        world.place.start("agents", "serve", "agents", wait_for="/readyz")
        with httpx.Client(base_url=world.url, timeout=120) as client:
            body = {"name": "helper", "model": "auto"}
            agent = good(client.post("/agents", json=body))
            assert agent["model"] == "auto"
            where = f"/agents/{agent['id']}/sessions"
            session = f"{where}/{good(client.post(where, json={}))['id']}/messages"
            asked = {"role": "user", "content": "Colour number 3?"}

            before = client.post(session, json=asked)
            assert good(before)["target"] == "sim/sim-better"
            assert "nothing is known" in before.headers["x-swapgate-auto"]

            ctx = world.installation.context
            for model in ("sim-better", "sim-equal"):
                worker_supervision.start_run(ctx, SYSTEM, "colours", f"sim/{model}")
            world.place.start("control", "serve", "control", wait_for="/readyz")
            eventually(lambda: _is_measured(world.installation.context))

            chosen = client.post(session, json=asked)
            answer = good(chosen)
            assert answer["target"] == "sim/sim-equal"
            assert answer["model"] == "auto"
            assert answer["auto"].startswith(
                "sim/sim-equal: the cheapest of 2 known to reach 0.4"
            )
            assert chosen.headers["x-swapgate-auto"] == answer["auto"]

            streamed = client.post(session, json={**asked, "stream": True})
            assert streamed.headers["x-swapgate-auto"] == answer["auto"]
            name, last = events(streamed)[-1]
            assert (name, last["target"]) == ("turn.completed", "sim/sim-equal")
            kept = good(client.get(session))["items"]
            assert kept[-1]["auto"] == answer["auto"]

            # A target that nobody can reach for this session alone is covered by the route.
            fault = {"kind": "status", "status": 503}
            httpx.put(f"{provider}/sim/faults/sim-equal", json=fault).raise_for_status()
            covered = good(client.post(session, json=asked))
            assert covered["target"] == "sim/sim-better"
            assert covered["fallback"]["from"] == "auto"

            # What nobody granted is no model to a client, whoever asks.
            direct = {"model": "@sim/sim-equal", "messages": [asked]}
            bearer = {"authorization": f"Bearer {world.key}"}
            refused = client.post("/v1/chat/completions", json=direct, headers=bearer)
            assert error_of(refused, 404)["code"] == "model_not_found"


def _is_measured(ctx: Context) -> bool:
    with ctx.store.read() as tx:
        return all(run.state.value == "done" for run in tx.runs.list())
