"""A step ends only after the windows of its callers are known."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from harness.gate.explain import explain_rollout
from harness.gate.online.guardrails import ArmSplit, Guardrail, WindowTally
from harness.gate.online.late_outcomes import REPORT_S
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.canary.left_out_traffic import (
    START,
    ArmTruth,
    LeftOutScene,
    simulate_left_out,
)

pytestmark = pytest.mark.req("F3")

KNOWN_S = 720.0
POLICY = CanaryPolicy(
    steps=(CanaryStep(2_500, 40), CanaryStep(5_000, 1_000_000)),
    p0=0.05,
    warm_up_s=0.0,
)
ROLLOUT = Rollout(
    id="r",
    proposal="p",
    route="chat",
    incumbent="a",
    candidate="b",
    verdict="v",
    policy=POLICY,
    salt="s",
    step=0,
    state=RolloutState.MEASURING,
    started_at=START,
    step_started_at=START,
    updated_at=START,
)
# One block closes each second. The first two have the step's 40 callers.
CALLERS = [
    replace(block, windows_known_s=KNOWN_S)
    for block in simulate_left_out(
        LeftOutScene(ArmTruth()), blocks=4, rng=np.random.default_rng(3)
    )
]


def windows_of(block: ObservationBlock, *, failed: bool = False) -> ObservationBlock:
    """Returns the block of late outcomes that reports a block's windows."""
    whole = ArmSplit(block.units, block.canary_units)
    canary = block.canary_units if failed else 0
    tally = WindowTally(*whole, canary, canary, requests=whole, squares=whole)
    return replace(
        block,
        sequence=block.sequence + 100,
        number=block.number + 100,
        units=0,
        canary_units=0,
        failures=0,
        canary_failures=0,
        outcomes={},
        counts={Guardrail.CALLER_ERRORS: tally},
        windows_known_s=0.0,
        late_of=block.sequence,
        late_units=block.units,
        late_canary_units=block.canary_units,
    )


def decide(blocks: Sequence[ObservationBlock], after_s: float) -> RolloutAction:
    return decide_action(ROLLOUT, blocks, START + timedelta(seconds=after_s))


def test_a_step_with_its_exposures_waits_for_their_windows_and_says_how_long() -> None:
    held = decide(CALLERS, 542.0)

    assert held.signal is None
    assert "waits until the windows of its callers are known: 3 min are left" in held.reason
    assert held.figures.windows_open == 40
    # The second block's callers are the last ones of the 40.
    assert held.figures.windows_left_s == 180.0
    assert held.figures.as_json()["windows_left_s"] == 180.0


def test_the_step_ends_when_the_windows_of_enough_callers_are_known() -> None:
    one = decide([*CALLERS, windows_of(CALLERS[0])], KNOWN_S + 3.0)
    two = decide([*CALLERS, *map(windows_of, CALLERS[:2])], KNOWN_S + 3.0)

    assert one.signal is None
    assert "known: the routers report them next" in one.reason
    assert two.signal is RolloutSignal.STEP_DONE
    assert "windows_open" not in two.figures.as_json()


def test_windows_that_failed_end_the_canary_before_its_step() -> None:
    harmed = decide([*CALLERS, windows_of(CALLERS[0], failed=True)], 723.0)

    assert harmed.signal is RolloutSignal.HARM
    assert harmed.figures.tripped is Guardrail.CALLER_ERRORS


def test_windows_that_an_earlier_step_lost_are_no_known_windows_of_this_step() -> None:
    # The routers lose the first step's windows, and the second step's block notices that.
    after_s = KNOWN_S + POLICY.missing_s + REPORT_S + 1.0
    second = replace(
        CALLERS[1],
        weight_bps=5_000,
        closed_at=CALLERS[1].closed_at + timedelta(seconds=after_s),
    )

    found = collect_evidence([CALLERS[0], second], POLICY)

    assert found.lost_windows == CALLERS[0].units
    assert found.open_windows == {5_000: second.canary_units}


def test_a_step_of_callers_without_windows_waits_for_none() -> None:
    without = [replace(block, windows_known_s=0.0) for block in CALLERS]

    assert decide(without, 5.0).signal is RolloutSignal.STEP_DONE


def test_the_explanation_lists_the_wait_with_its_time() -> None:
    now = START + timedelta(seconds=542)
    needs = explain_rollout(ROLLOUT, decide(CALLERS, 542.0), CALLERS, now).needs

    (need,) = [need for need in needs if need.what == "windows"]
    assert (need.done, need.share, need.eta_s) == (False, 0.0, 180.0)
    assert need.words == (
        "the step waits until the windows of its callers are known: 3 min are left"
    )


def test_before_the_exposures_the_explanation_counts_the_windows_after_them() -> None:
    few = CALLERS[:1]
    now = START + timedelta(seconds=2)
    needs = explain_rollout(ROLLOUT, decide(few, 2.0), few, now).needs

    (need,) = [need for need in needs if need.what == "windows"]
    assert (need.done, need.eta_s) == (False, None)
    assert need.words == "the windows of its callers are known"
