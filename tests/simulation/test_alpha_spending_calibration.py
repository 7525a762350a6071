"""Does spelling model and suite anew each time let a dishonest proposer pass by luck?

He gets fresh answers of a model that is no better at each of his looks, and stops at the first
that passes. Seeded; the limit is the documented one plus three standard errors.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.frame.people.access import SYSTEM
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import Claim
from harness.proposals import submission
from harness.proposals.submission import ProposalRequest
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN

pytestmark = pytest.mark.req("F2", "A7")

LOOKS = 8
TRIALS = 1500
ITEMS = 100
ALPHA = 0.05
BOUND = 1.5 * ALPHA


def alphas(folder: Path) -> list[float]:
    """What the control plane registers for each further spelling of one model and one suite."""
    clock = ManualClock()
    world = SmallInstallation(folder, clock=clock)
    world.set_up()
    file = world.suites["colours"].path
    assert file is not None
    text = file.read_text(encoding="utf-8")
    found = []
    for number in range(LOOKS):
        respelled = folder / f"spelling-{number}.jsonl"
        respelled.write_text(text.replace("?", " " * number + "?"), encoding="utf-8")
        name = f"suite-{number}"
        world.suites[name] = replace(
            world.suites["colours"],
            name=name,
            path=respelled,
            version=str(number),
        )
        ctx = world.context()
        settings = RouteSettings(suites=(RouteSuite(name),))
        routes.create_route(ctx, SYSTEM, f"route-{number}", "sim/base", settings=settings)
        target = targets.add_target(ctx, ANN, Target("sim", "worse", {"seed": number}))
        made = submission.create_proposal(
            ctx, ANN, ProposalRequest(f"route-{number}", target.id)
        )
        world.until_decided(made.id)
        found.append(made.plans[0].alpha)
    return found


def passed_once(levels: list[float]) -> float:
    """Share of proposers whom one of his looks lets pass; no difference in truth."""
    rng = np.random.default_rng(78)
    passed = np.zeros(TRIALS, dtype=bool)
    for level in levels:
        draws = rng.random((TRIALS, ITEMS))
        d = np.where(draws < 0.1, 1.0, np.where(draws > 0.9, -1.0, 0.0))
        design = Design(Claim.SUPERIOR, 0.05, ITEMS, alpha=level)
        passed |= judge_batch(d, design).promoted
    return float(passed.mean())


@pytest.mark.verify
def test_spelling_model_and_suite_anew_buys_no_luck(tmp_path: Path) -> None:
    error = math.sqrt(BOUND * (1.0 - BOUND) / TRIALS)

    assert passed_once(alphas(tmp_path)) <= BOUND + 3.0 * error


@pytest.mark.verify
def test_without_the_count_it_would() -> None:
    """So that the limit above is one that can be missed."""
    assert passed_once([ALPHA] * LOOKS) > 2.5 * ALPHA
