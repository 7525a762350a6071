"""What comes of a shadow before the canary, by its pairs, its money and who stopped it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import load_settings
from harness.domain.errors import ConfigError
from harness.domain.proposals.policy import ShadowStagePolicy
from harness.gate.shadow_stage import (
    ShadowMove,
    ShadowStageState,
    decide_shadow_stage,
)

pytestmark = pytest.mark.req("F8")

DEFAULTS = Path(__file__).parents[2] / "config" / "default.yaml"
POLICY = ShadowStagePolicy(share_bps=500, min_pairs=200, max_cost_usd=5.0)


@pytest.mark.parametrize(
    ("seen", "move"),
    [
        (ShadowStageState(), ShadowMove.START),
        (ShadowStageState(obstacle="the route has the shadow sh_9"), ShadowMove.HOLD),
        (ShadowStageState(mirroring=True), ShadowMove.MIRROR),
        (ShadowStageState(pairs=199, spent_usd=4.99, mirroring=True), ShadowMove.MIRROR),
        (ShadowStageState(pairs=199, spent_usd=5.0), ShadowMove.HOLD),
        (ShadowStageState(pairs=199, spent_usd=5.0, mirroring=True), ShadowMove.MIRROR),
        (ShadowStageState(pairs=200, spent_usd=9.0), ShadowMove.OPEN),
        (ShadowStageState(pairs=100, stopped="ada stopped the shadow"), ShadowMove.HOLD),
        (ShadowStageState(pairs=200, stopped="ada stopped the shadow"), ShadowMove.OPEN),
        (ShadowStageState(pairs=200, lost_won={"answered": (30, 0)}), ShadowMove.REJECT),
        (
            ShadowStageState(pairs=0, lost_won={"json": (30, 0)}, spent_usd=9.0),
            ShadowMove.REJECT,
        ),
        (ShadowStageState(pairs=200, lost_won={"answered": (20, 20)}), ShadowMove.OPEN),
    ],
)
def test_each_state_of_a_shadow_has_one_answer(
    seen: ShadowStageState, move: ShadowMove
) -> None:
    decision = decide_shadow_stage(POLICY, seen)
    assert decision.move is move
    assert decision.reason.endswith(".")


def test_the_reason_names_what_was_worse_and_the_level_is_the_policys() -> None:
    state = ShadowStageState(
        pairs=50,
        lost_won={"answered": (1, 1), "json": (9, 0)},
        mirroring=True,
    )
    strict, loose = (
        decide_shadow_stage(POLICY, state),
        decide_shadow_stage(replace(POLICY, alpha=0.2), state),
    )

    assert strict.move is ShadowMove.MIRROR
    assert loose.move is ShadowMove.REJECT
    assert "9 callers where only the incumbent held json" in loose.reason
    assert loose.distance > 1 > strict.distance > 0
    assert strict.log_e == pytest.approx(strict.distance * math.log(100))


@given(
    pairs=st.integers(0, 199),
    spent=st.floats(0, 100),
    lost=st.integers(0, 60),
    won=st.integers(0, 60),
    mirroring=st.booleans(),
    stopped=st.sampled_from(["", "ada stopped it"]),
)
def test_no_canary_opens_before_its_pairs_are_there(
    *, pairs: int, spent: float, lost: int, won: int, mirroring: bool, stopped: str
) -> None:
    state = ShadowStageState(pairs, {"answered": (lost, won)}, spent, mirroring, stopped)
    assert decide_shadow_stage(POLICY, state).move is not ShadowMove.OPEN


FILE = """
providers: {up: {api_base: "http://127.0.0.1:9/v1"}}
policies:
  careful:
    canary:
      shadow: {SHADOW}
routes:
  orders:
    incumbent: up/old
    policy: careful
    TOOLS
"""


def loaded(folder: Path, shadow: str, tools: str = "") -> ShadowStagePolicy | None:
    file = folder / "swapgate.yaml"
    file.write_text(FILE.replace("SHADOW", shadow).replace("TOOLS", tools), encoding="utf-8")
    return load_settings(file, {}, defaults=DEFAULTS).policies["careful"].canary.shadow


RIGHT = "share_bps: 500, min_pairs: 200, max_cost_usd: 5"


def test_a_policy_of_the_file_has_it_and_one_percent_is_the_level(tmp_path: Path) -> None:
    assert loaded(tmp_path, RIGHT) == POLICY
    assert POLICY.alpha == 0.01


@pytest.mark.parametrize(
    ("shadow", "word"),
    [
        ("share_bps: 0, min_pairs: 200, max_cost_usd: 5", "shadow.share_bps"),
        ("share_bps: 10001, min_pairs: 200, max_cost_usd: 5", "shadow.share_bps"),
        ("share_bps: 500, min_pairs: 0, max_cost_usd: 5", "shadow.min_pairs"),
        ("share_bps: 500, min_pairs: 200, max_cost_usd: 0", "shadow.max_cost_usd"),
        ("share_bps: 500, min_pairs: 200", "max_cost_usd"),
        (f"{RIGHT}, alpha: 1", "shadow.alpha"),
        (f"{RIGHT}, pairs: 3", "pairs"),
    ],
)
def test_one_that_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path, shadow: str, word: str
) -> None:
    with pytest.raises(ConfigError, match=r"swapgate\.yaml:6") as said:
        loaded(tmp_path, shadow)
    assert word in str(said.value)


def test_a_route_whose_tools_act_on_the_world_cannot_have_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"swapgate\.yaml:11.* routes\.orders\.tools") as said:
        loaded(tmp_path, RIGHT, "tools: side_effects")
    assert "careful" in str(said.value)
