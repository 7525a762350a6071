from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evals.sim import server as sim
from harness.control import reconciler
from harness.domain.canary.guardrails import ErrorTally, Guardrail
from harness.domain.canary.rollout import RolloutState
from tests.support.providers import simulator_thread
from tests.support.router.router_process import Routed, ask, eventually, routed, start_canary

pytestmark = pytest.mark.slow


@pytest.fixture
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url:
        yield url


def on_the_canary(world: Routed, users: int = 40) -> int:
    """Of so many new users, how many the workers send to the candidate."""
    with world.client() as client:
        raw = [
            client.chat.completions.with_raw_response.create(
                model="chat", messages=[{"role": "user", "content": "hi"}], user=f"late-{n}"
            )
            for n in range(users)
        ]
    return sum(answer.headers["x-swapgate-arm"] == "canary" for answer in raw)


def kept_abort(folder: Path) -> bool:
    files = folder.rglob("guard/*.json")
    return any("canary_failures" in file.read_text(encoding="utf-8") for file in files)


@pytest.mark.req("F3", "F4")
@pytest.mark.verify
def test_a_canary_that_breaks_is_stopped_without_a_control_plane_and_stays_so(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        start_canary(world, tmp_path)
        world.start("--workers", "2")
        with world.client() as client:
            ask(client, user="first")
        assert on_the_canary(world) > 0
        httpx.put(f"{provider}/sim/faults/sim-better", json={"kind": "status"})

        # No control process runs.
        with world.load(callers=2) as load:
            eventually(lambda: world.counter("swapgate_router_canaries_aborted_total") == 1)

        assert load.errors == []
        # The parent counts it, and tells its workers.
        eventually(lambda: all(on_the_canary(world, users=4) == 0 for _ in range(8)))

        # The stop is in force at once, and a thread puts it on disk.
        eventually(lambda: kept_abort(tmp_path))

        world.kill()
        world.start("--workers", "2")
        assert on_the_canary(world) == 0

        ctx = world.installation.context
        with ctx.store.read() as tx:
            (rollout,) = tx.rollouts.live()
        eventually(
            lambda: any("rollback" in action for action in reconciler.reconcile(ctx).did)
        )
        with ctx.store.read() as tx:
            after = tx.rollouts.get(rollout.id)
        assert after.state is RolloutState.ROLLED_BACK
        assert "A router's own guard stopped the canary. Worker router-" in after.ended_because
        assert " server" in after.ended_because
        eventually(lambda: list(tmp_path.rglob("guard/*.json")) == [])


@pytest.mark.req("F3")
def test_workers_tell_their_parent_how_a_candidate_failed(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        start_canary(world, tmp_path)
        world.start("--workers", "2")
        httpx.put(f"{provider}/sim/faults/sim-better", json={"kind": "status"})

        assert on_the_canary(world) > 0
        assert world.place.terminate("router") == 0

        failed = [block for block in world.blocks() if block.canary_failures]
        assert failed
        for block in failed:
            tally = block.counts[Guardrail.ERRORS]
            assert isinstance(tally, ErrorTally)
            # After some errors the candidate's circuit leaves it out.
            assert tally.classes["server: 500 server_error"].canary >= 1
            assert set(tally.classes) <= {"server: 500 server_error", "circuit_open"}
            assert sum(counts.failures for counts in tally.classes.values()) == block.failures
