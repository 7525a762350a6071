"""`swapgate gate run` within one process: what the monthly cap means for it."""

from dataclasses import replace

import pytest

from harness.control.context import Context
from harness.control.operations.spending_meter import SpendingMeter
from harness.control.proposals import gate_run
from harness.control.proposals.gate_run import ComparisonRequest, run_until_decided
from harness.control.routing import targets
from harness.domain.errors import SpendingPaused
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.spending import SpendingPurpose
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import ControlSettings, RouterSettings, Settings, UiSettings
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F10")

CAP_USD = 0.01


def compare(world: SmallInstallation, ctx: Context, *suites: str) -> Proposal:
    with world.store.read() as tx:
        providers = tx.providers.all()
    parts = (RouterSettings(), ControlSettings(), UiSettings())
    settings = Settings("", world.folder, None, *parts, providers, {}, {}, {})
    seeds = (Target("sim", "base"), Target("sim", "better"))
    return gate_run.register_comparison(
        ctx, SYSTEM, settings, ComparisonRequest(suites, *seeds)
    )


def waits(_: Proposal) -> bool:
    raise AssertionError("it waits, and nobody can raise the cap")


def test_a_comparison_whose_model_has_no_price_ends_and_says_so(
    world: SmallInstallation,
) -> None:
    targets.put_provider(
        world.context(), SYSTEM, Provider("sim", "sim", "http://127.0.0.1:9/v1")
    )
    ctx = replace(world.context(), monthly_cap_usd=CAP_USD)

    with pytest.raises(
        SpendingPaused, match="not measured: the price of sim/base is not known"
    ):
        run_until_decided(ctx, compare(world, ctx, "colours").id, waits)


def test_a_comparison_at_the_monthly_cap_ends_and_says_so(world: SmallInstallation) -> None:
    ctx = replace(world.context(), monthly_cap_usd=CAP_USD)

    proposal = compare(world, ctx, "colours")
    world.run_once(replace(ctx, workers=None))  # puts the cap into the database
    meter = SpendingMeter(world.store, world.clock, SpendingPurpose.EVALS)
    meter.pay(CAP_USD)
    meter.refresh()

    with pytest.raises(SpendingPaused, match=r"the monthly cap of \$0\.01 is reached"):
        run_until_decided(ctx, proposal.id, waits)
