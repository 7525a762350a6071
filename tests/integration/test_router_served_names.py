from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from harness.domain.canary.rollout import Rollout
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import ProposalPhase
from harness.store.store import Store
from tests.support.router.live_router import KEY, wait_until
from tests.support.router.router_process import ask, eventually, routed, start_canary
from tests.support.router.simulated_router import OWN, SimScene

pytestmark = pytest.mark.req("F6")


def live(store: Store) -> list[Rollout]:
    with store.read() as tx:
        return list(tx.rollouts.live())


def stand_for(sim_url: str, alias: str, serves: str) -> None:
    done = httpx.post(f"{sim_url}/sim/profiles/{alias}", json={"serves": serves})
    assert done.status_code == 200, done.text


HI = [{"role": "user", "content": "hi"}]
ASKS: Mapping[str, Mapping[str, object]] = {
    "chat/completions": {"messages": HI},
    "messages": {"messages": HI, "max_tokens": 50},
    "responses": {"input": "hi"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("endpoint", ASKS)
def test_the_name_in_the_providers_answer_is_noted_once(
    scene: SimScene, sim_url: str, endpoint: str, *, stream: bool
) -> None:
    url, body = f"{scene.world.url}/v1/{endpoint}", {"model": "support", "stream": stream}
    bearer = {"authorization": f"Bearer {KEY}"}
    serving = scene.world.holder.current
    assert serving is not None
    targets = serving.snapshot.table.targets.values()
    target = next(target for target in targets if target.model == OWN)
    for name in ("first-2026", "second-2026"):
        stand_for(sim_url, OWN, name)
        for _ in range(3):
            done = httpx.post(url, json={**body, **ASKS[endpoint]}, headers=bearer, timeout=60)
            assert done.status_code == 200, done.text
    scene.world.wait_for_traffic(6)
    wait_until(lambda: len(scene.world.store.sightings) >= 2)

    seen = [
        (sighting.target, sighting.served.model) for sighting in scene.world.store.sightings
    ]
    assert seen == [(target.id, "first-2026"), (target.id, "second-2026")]


@pytest.mark.slow
def test_an_alias_that_changes_in_mid_canary_takes_it_back_without_another_eval(
    sim_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    stand_for(sim_url, "sim-better", "sim-better")
    with routed(tmp_path, sim_url, sqlite_url) as world, world.client() as client:
        world.start("--workers", "2")
        control = start_canary(world, tmp_path)
        (rollout,) = live(world.installation.store)

        def served_models() -> set[str]:
            for turn in range(8):
                ask(client, stream=turn % 2 == 0, user=f"user-{turn}")
            with world.installation.store.read() as tx:
                return {
                    sighting.served.model
                    for sighting in tx.sightings.for_target(rollout.candidate)
                }

        eventually(lambda: "sim-better" in served_models() and world.recorded() > 0)
        control.run_once()
        assert live(world.installation.store) == [rollout]

        stand_for(sim_url, "sim-better", "cheap-2027")
        eventually(lambda: "cheap-2027" in served_models())
        control.run_once()

        after = control.get(rollout.proposal)
        with control.store.read() as tx:
            told = {alert.kind: alert for alert in tx.alerts.list()}
    assert after.phase is ProposalPhase.ROLLED_BACK
    assert "serves cheap-2027" in after.closed_because
    assert "serves cheap-2027" in told[AlertKind.ROLLED_BACK].text
