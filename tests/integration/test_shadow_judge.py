"""A simulated judge compares pairs that a real router has stored, as a suite's judge does."""

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from evals.runner.rate_gate import RateGates
from evals.sim import faults, server
from evals.sim.simulator import Simulator
from harness.app.shadow_judge import ProviderPairJudge, choose_judge
from harness.app.store.store import Store
from harness.canary import shadows
from harness.evals.month_spending import SpendingPurpose, month_of
from harness.evals.records import Spending
from harness.frame.runtime.encryption import FernetCipher
from harness.gate.policy import GatePolicy, Policy
from harness.gate.suite_plan import Claim
from harness.operations.shadow_judging import ShadowJudging
from harness.providers.records import Providers
from harness.providers.target import Price
from harness.routing.records.shadow_scores import ShadowScores
from harness.routing.shadow_score import ScoreReason
from router.access.rate_limits import SharedRates
from tests.integration.test_router_shadow import ADA, ALL, CLOCK, NEW, Scene, change, scene
from tests.integration.test_router_shadow_pairs import KEEPS, have_ended
from tests.support.control.known_secrets import ENCRYPTION_KEYS
from tests.support.control.manual_clock import ManualClock
from tests.support.router.live_router import SECRET, wait_until
from tests.support.site.signing_keys import CONTROL

pytestmark = pytest.mark.req("F8")

JUDGE = "other/sim-backup"
GATE = GatePolicy(claim=Claim.NON_INFERIOR, margin=0.1)
CALLERS = 6
# Each simulated model makes up other values.
FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "places",
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("from", "to", "by")},
            "required": ["from", "to", "by"],
        },
    },
}


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return server.simulator(time_scale=0.0)


def begin(at: Scene) -> Scene:
    """Starts a judged shadow, and lets CALLERS callers ask."""
    ctx = replace(at.ctx, policies={"default": Policy("default", gate=GATE)})
    change(at, KEEPS)
    with ctx.store.write() as tx:
        provider = Providers(tx).all()["other"]
        prices = {**provider.prices, "sim-backup": Price(3.0, 12.0)}
        Providers(tx).put(replace(provider, prices=prices))
    judge = choose_judge(JUDGE, anyway="a simulation")
    shadow = shadows.start_shadow(
        ctx, ADA, "support", NEW.name, ALL, reason="a look", judge=judge
    )
    at.await_mirroring(shadow)
    for number in range(CALLERS):
        at.ask(number, response_format=FORM)
    wait_until(lambda: have_ended(at, CALLERS))
    return replace(at, ctx=ctx)


def test_a_judge_scores_stored_pairs_in_both_orders_and_its_costs_count(
    sqlite_url: str, sim: Simulator, sim_url: str, tmp_path: Path
) -> None:
    with scene(sqlite_url, sim, sim_url, tmp_path) as at:
        begun = begin(at)
        later = ManualClock(CLOCK.now() + timedelta(minutes=5))
        store = Store(sqlite_url, secret=SECRET, clock=later, signatures=CONTROL)
        with closing(store):
            ctx = replace(
                begun.ctx,
                store=store,
                clock=later,
                cipher=FernetCipher(lambda: ENCRYPTION_KEYS),
            )
            gates = RateGates({}, SharedRates(tmp_path / "rates"), tmp_path)
            job = ShadowJudging(ProviderPairJudge(ctx, lambda: gates))
            sim.faults.set("sim-backup", faults.parse_fault({"kind": "garbage"}))
            job(ctx)
            assert shadows.load_status(ctx, "support").judge_usd == 0.0
            sim.faults.clear()
            later.advance(60)
            job(ctx)

            status = shadows.load_status(ctx, "support")
            assert status.verdict
            assert (status.verdict.callers, status.verdict.unknown) == (CALLERS, 0)
            assert status.shadow.terms
            with ctx.store.read() as tx:
                scores = ShadowScores(tx).of_series(status.shadow.terms.series)
                month = Spending(tx).month(month_of(later.now()))
            judged = [score for score in scores if score.reason is not ScoreReason.EQUAL]
            assert judged
            assert all(score.calls >= 2 and score.cost_usd for score in judged)
            assert {score.low for score in judged} <= {0.0, 0.25, 0.4, 0.5, 0.75, 1.0}
            spent = next(row for row in month.purposes if row.purpose is SpendingPurpose.JUDGES)
            assert spent.calls == sum(score.calls for score in scores)
            assert spent.spent_usd == pytest.approx(status.judge_usd)
            assert status.today.cost_usd == pytest.approx(status.cost_usd + status.judge_usd)
