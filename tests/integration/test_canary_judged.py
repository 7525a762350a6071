import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from evals.sim import server as sim
from harness.gate.online.guardrails import (
    CanaryJudge,
    Guardrail,
    Guardrails,
    JudgeTally,
)
from harness.gate.online.rollout import Rollout, RolloutState
from harness.operations import control_jobs
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from tests.support.control.colours_suite import ITEMS
from tests.support.control.short_policies import CANARY
from tests.support.providers import simulator_thread
from tests.support.router.router_process import (
    Routed,
    ask,
    eventually,
    routed,
    start_canary,
)

pytestmark = [
    pytest.mark.verify,
    pytest.mark.timeout(600),
    pytest.mark.req("F3"),
]

JUDGED = replace(
    CANARY,
    block_size=20,
    guardrails=replace(Guardrails.none(), judge=3.0),
    judge=CanaryJudge("sim/sim-backup", "It names the colour's number.", max_usd=50.0),
)
PRICES = {
    name: {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    for name in ("sim-base", "sim-better", "sim-backup")
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A right answer has a digit, which the simulated judge likes; a wrong one has none."""
    suite = tmp_path_factory.mktemp("suite") / "colours.jsonl"
    # Callers ask for number 3; who is wrong says what another one is.
    items = [
        {
            "input": f"Colour number {n}?",
            "target": "c3" if n == 3 else "no idea",
        }
        for n in range(ITEMS)
    ]
    suite.write_text("".join(f"{json.dumps(item)}\n" for item in items), encoding="utf-8")
    with simulator_thread.serve_in_thread(sim.simulator(suites=[suite], time_scale=0.0)) as url:
        change(url, "sim-base", skill=1.0)
        change(url, "sim-backup", skill=1.0)
        yield url


def change(
    provider: str,
    model: str,
    **profile: object,
) -> None:
    answer = httpx.post(f"{provider}/sim/profiles/{model}", json=profile)
    assert answer.status_code == 200, answer.text


def tallies(world: Routed, rollout: str) -> list[JudgeTally]:
    with world.installation.store.read() as tx:
        blocks = Observations(tx).blocks(rollout)
    found = (block.counts.get(Guardrail.JUDGE) for block in blocks)
    return [block for block in found if isinstance(block, JudgeTally)]


def rollout_of(world: Routed) -> Rollout:
    with world.installation.store.read() as tx:
        return Rollouts(tx).list(route="chat")[0]


def test_a_judged_canary_through_health_a_judge_that_is_down_and_bad_answers(
    provider: str, tmp_path: Path
) -> None:
    change(provider, "sim-better", skill=1.0)
    providers = {
        "sim": {
            "kind": "sim",
            "api_base": f"{provider}/v1",
            "prices": PRICES,
        }
    }
    with routed(tmp_path, provider, providers=providers) as world:
        start_canary(world, tmp_path, canary=JUDGED)
        world.start("--workers", "2")
        ctx = world.installation.context
        live = rollout_of(world)

        def judged(least: int) -> bool:
            return sum(tally.units for tally in tallies(world, live.id)) >= least

        # Healthy: both arms are read, both are good, and it stays.
        with world.load(callers=3) as load:
            eventually(lambda: judged(60), timeout_s=180)
            healthy = tallies(world, live.id)
            assert sum(tally.canary for tally in healthy) > 0
            assert sum(tally.units - tally.canary for tally in healthy) > 0
            assert all(tally.failures == tally.no_verdict.failures for tally in healthy)
            assert sum(tally.cost_usd for tally in healthy) > 0
            assert world.counter("swapproof_router_judge_good_total") > 0
            control_jobs.reconcile(ctx)
            assert rollout_of(world).live

            # The judge fails: users have their answers all the same, and nothing goes back.
            httpx.put(
                f"{provider}/sim/faults/sim-backup",
                json={"kind": "status", "status": 503},
            )
            eventually(
                lambda: world.counter("swapproof_router_judge_resting_total") > 0,
                timeout_s=180,
            )
            load.more(60)
        assert load.errors == []
        control_jobs.reconcile(ctx)
        assert rollout_of(world).live
        httpx.delete(f"{provider}/sim/faults/sim-backup")

        # The candidate's answers turn bad, without one error.
        change(provider, "sim-better", skill=0.0)
        with world.client() as client:
            said = {ask(client, user=f"u-{n}") for n in range(12)}
        assert said == {"c3", "no idea"}

        def ended() -> bool:
            control_jobs.reconcile(ctx)
            return not rollout_of(world).live

        with world.load(callers=3) as load:
            eventually(ended, timeout_s=300)
        assert load.errors == []
        after = rollout_of(world)
        assert after.state is RolloutState.ROLLED_BACK
        assert "is found bad by the judge more often than the incumbent" in after.ended_because

        shown = world.place.run("canary", "explain", "chat").stdout
        assert "Found bad by the judge" in shown
        assert "sim/sim-backup was paid $" in shown
        assert "without a verdict: candidate " in shown, shown
