import json
import os
from dataclasses import asdict
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.frame.configuration.setting import settings_of
from harness.frame.formatting import NEVER, add_seconds
from harness.frame.plain_data import canonical_json, to_shown
from harness.gate import explain
from harness.gate.explain import explain_rollout
from harness.gate.online.guardrails import (
    RATIO,
    ArmLevels,
    FailureTally,
    Guardrail,
    GuardrailKind,
    Guardrails,
    guardrail_kind,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import RolloutState
from harness.gate.online.rollout_action import decide_action
from harness.gate.policy import CanaryPolicy, CanaryStep, PeakHours
from harness.gate.ramp import TrafficPace, plan_ramp
from tests.unit.test_canary_policy import START, rollout

RANGES = {
    name: declared.range
    for part in (CanaryPolicy, CanaryStep, PeakHours)
    for name, declared in settings_of(part).items()
    if declared.range
}

pytestmark = pytest.mark.req("F3", "A7")


def numbers(name: str) -> st.SearchStrategy[float]:
    low, high, *_ = RANGES[name]
    whole = low == int(low) and not name.endswith("_s") and name not in ("certificate", "alpha")
    inner = (
        st.integers(int(low), int(high))
        if whole
        else st.floats(low, high, allow_subnormal=False)
    )
    ends: list[float] = [int(low), int(high)] if whole else [float(low), float(high)]
    return st.sampled_from(ends) | inner


@st.composite
def steps(draw: st.DrawFn) -> tuple[CanaryStep, ...]:
    weights = sorted(draw(st.sets(numbers("weight_bps"), min_size=1, max_size=2)))
    names = ("min_exposures", "deadline_s", "min_s", "min_peak_s")
    return tuple(
        CanaryStep(
            int(weight),
            certify=draw(st.booleans()),
            **{name: draw(numbers(name)) for name in names},  # type: ignore[arg-type]
        )
        for weight in weights
    )


RATIOS = (
    st.sampled_from([False]) | st.sampled_from([RATIO.low, RATIO.high]) | st.floats(0.1, 100)
)
FREE = (
    "alpha",
    "rho",
    "rho_ni",
    "p0",
    "certificate",
    "block_size",
    "bake_s",
    "bake_bps",
)
POLICIES = st.builds(
    CanaryPolicy,
    steps=steps(),
    guardrails=st.builds(
        Guardrails,
        latency=RATIOS,
        truncation=RATIOS,
        feedback=RATIOS,
    ),
    peak=st.builds(PeakHours, st.integers(0, 24), st.integers(0, 24)),
    **{name: numbers(name) for name in FREE},
)


@st.composite
def blocks(draw: st.DrawFn) -> list[ObservationBlock]:
    found = []
    for number in range(1, 1 + draw(st.integers(0, 6))):
        units = draw(st.integers(1, 60))
        counts = {
            guardrail: draw(tallies(units))
            for guardrail in Guardrail
            if guardrail_kind(guardrail) is GuardrailKind.COUNTS and draw(st.booleans())
        }
        errors = draw(tallies(units))
        ranks = tuple(draw(st.lists(st.floats(0, 1), max_size=5)))
        values = st.floats(1e-9, 1e9)
        opened = START + timedelta(seconds=draw(st.floats(0, 1e8)))
        found.append(
            ObservationBlock(
                rollout="r",
                worker="w",
                sequence=number,
                number=number,
                weight_bps=draw(numbers("weight_bps")),  # type: ignore[arg-type]
                units=units,
                canary_units=errors.canary,
                failures=errors.failures,
                canary_failures=errors.canary_failures,
                missing=0,
                opened_at=opened,
                closed_at=opened + timedelta(seconds=draw(st.floats(0, 1e6))),
                period=draw(st.integers(1, 3)),
                counts=counts,
                ranks={Guardrail.LATENCY: ranks} if ranks else {},
                levels={Guardrail.LATENCY: ArmLevels(draw(values), draw(values))}
                if ranks
                else {},
            )
        )
    return found


@st.composite
def tallies(draw: st.DrawFn, units: int) -> FailureTally:
    canary = draw(st.integers(0, units))
    ours = draw(st.integers(0, units - canary))
    theirs = draw(st.integers(0, canary))
    return FailureTally(units, canary, ours + theirs, theirs)


def shown(
    policy: CanaryPolicy,
    observation_blocks: list[ObservationBlock],
    now: datetime,
    pace: TrafficPace,
) -> None:
    for state in (
        RolloutState.WAITING,
        RolloutState.MEASURING,
        RolloutState.PAUSED,
    ):
        found = rollout(state, policy=policy)
        action = decide_action(found, observation_blocks, now)
        again = decide_action(found, observation_blocks, now)
        assert canonical_json(to_shown(action)) == canonical_json(to_shown(again))
        explanation = explain_rollout(found, action, observation_blocks, now)
        for text in (action, explanation):
            json.dumps(asdict(text), allow_nan=False, default=str)
    planned = plan_ramp(policy, pace)
    json.dumps([asdict(step) for step in planned], allow_nan=False)
    assert explain.ramp_summary(pace, planned)


# One example takes up to a second.
in_verify = os.environ.get("SWAPPROOF_HYPOTHESIS") == "verify"
PACES = st.builds(
    TrafficPace,
    st.floats(0.01, 1e7),
    st.floats(0.01, 1e7),
    st.floats(0, 1),
    st.booleans(),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60 if in_verify else 5)
@given(
    policy=POLICIES,
    seen=blocks(),
    now_s=st.floats(0, 1e8),
    pace=PACES,
)
def test_no_policy_that_loads_breaks_a_look_a_page_or_a_plan(
    policy: CanaryPolicy,
    seen: list[ObservationBlock],
    now_s: float,
    pace: TrafficPace,
) -> None:
    shown(policy, seen, START + timedelta(seconds=now_s), pace)


@example(float("inf"))
@given(st.floats(0, allow_nan=False))
def test_a_moment_beyond_the_calendar_is_never(seconds: float) -> None:
    assert START <= add_seconds(START, seconds) <= NEVER
