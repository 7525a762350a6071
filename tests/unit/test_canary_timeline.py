import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dashboard.theme import DARK, LIGHT, Palette
from dashboard.views import canary_timeline
from dashboard.views.canary_timeline import TimelineFrames
from harness.canary import status
from harness.canary.status import FailureShare, build_timeline
from harness.gate.online.rollout import RolloutState
from harness.gate.online.rollout_evidence import collect_evidence
from tests.unit.test_canary_policy import START
from tests.unit.test_canary_sentences import POLICY, blocks, waiting

pytestmark = pytest.mark.req("F3")


def test_every_point_shows_the_evidence_as_it_was_then() -> None:
    policy = POLICY
    days = [replace(block, period=1 + block.number // 10) for block in blocks(24, slow=True)]
    points = build_timeline(replace(waiting(), policy=policy), days)

    evidence = [
        collect_evidence(days[: place + 1], policy).distance_to_trip
        for place in range(len(points))
    ]
    assert [point.distance for point in points] == pytest.approx(evidence)


def test_it_ends_where_the_evidence_tripped_with_the_figures_of_the_decision() -> None:
    counted = blocks(19, failing=True)

    last = build_timeline(waiting(), counted)[-1]

    decided = collect_evidence(counted, POLICY)
    assert last.distance == decided.distance_to_trip == 1.0
    assert last.candidate == FailureShare(decided.canary_failures, decided.exposures)
    assert last.incumbent == FailureShare(decided.control_failures, decided.control_units)


def test_an_interval_holds_the_share_and_narrows_with_units() -> None:
    few = FailureShare(1, 10)
    many = FailureShare(100, 1000)

    # Wilson 1927, as R's prop.test without its correction gives it.
    assert few.interval == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert many.interval == pytest.approx((0.0829, 0.1202), abs=1e-4)
    assert FailureShare(0, 5).interval == pytest.approx((0.0, 0.4345), abs=1e-4)
    assert FailureShare(0, 0).interval is None


def test_a_long_canary_is_thinned_and_keeps_its_end_and_its_steps() -> None:
    one = blocks(700)
    two = blocks(1000, bps=2500)[700:]

    points = build_timeline(waiting(), [*one, *two])

    assert len(points) <= status.MOST_POINTS + 2
    assert points[-1].at == two[-1].closed_at
    first = next(point for point in points if point.weight_bps == 2500)
    assert first.at == two[0].closed_at


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_the_charts_share_one_axis_of_time_and_tell_the_arms_apart_without_colour(
    palette: Palette,
) -> None:
    now = START + timedelta(minutes=30)
    frames = canary_timeline.build_frames(waiting(), build_timeline(waiting(), blocks(12)), now)

    panels = _panels(frames, palette)

    domains = {json.dumps(_axes(panel)) for panel in panels}
    assert len(domains) == 1
    text = json.dumps(panels)
    assert "utcFormat(datum.value, '%H:%M')" in text
    assert "strokeDash" in text
    assert '"square"' in text
    assert "block" not in text
    assert "candidate: 0.0 % failed (0 of 12), 95 % CI 0.0 % to 24.2 %; 00:12:00 UTC" in text


def _panels(frames: TimelineFrames, palette: Palette = LIGHT) -> list[dict[str, Any]]:
    """The specifications with their data, as a browser gets them."""
    return [
        {
            **panel,
            "datasets": {
                name: frame.to_dict("records") for name, frame in panel["datasets"].items()
            },
        }
        for panel in canary_timeline.draw(frames, palette)
    ]


def _axes(panel: dict[str, Any]) -> object:
    return panel["layer"][0]["encoding"]["x"]["scale"]


def test_the_charts_stay_the_same_while_no_data_come() -> None:
    points = build_timeline(waiting(), blocks(12))
    times = [START + timedelta(minutes=40, seconds=second) for second in (3, 5)]

    one, two = (canary_timeline.build_frames(waiting(), points, now) for now in times)

    assert one.ends == two.ends
    assert one.shares.equals(two.shares)


def test_new_data_and_a_longer_axis_change_nothing_else_of_a_chart() -> None:
    """A browser draws a chart anew where anything else changes: it flickers."""
    texts = set()
    for minutes, counted in ((13, 12), (31, 30)):
        points = build_timeline(waiting(), blocks(counted, failing=minutes > 20))
        now = START + timedelta(minutes=minutes)
        frames = canary_timeline.build_frames(waiting(), points, now)
        panels = _panels(frames)
        assert [list(panel.pop("datasets")) for panel in panels] == [
            ["shares", "corners"],
            ["evidence", "corners"],
            ["failures", "corners"],
        ]
        texts.add(json.dumps(panels))

    assert len(texts) == 1


def test_the_share_goes_to_zero_when_it_was_rolled_back() -> None:
    ended = replace(
        waiting(),
        state=RolloutState.ROLLED_BACK,
        updated_at=START + timedelta(minutes=20),
    )

    frames = canary_timeline.build_frames(
        ended, build_timeline(ended, blocks(12)), START + timedelta(hours=9)
    )

    assert frames.ends == START + timedelta(minutes=20)
    assert frames.shares["share"].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("state", [RolloutState.WAITING, RolloutState.ROLLED_BACK])
@pytest.mark.parametrize("counted", [12, 0])
def test_a_step_begins_when_it_began_also_before_a_request_of_it_was_counted(
    state: RolloutState, counted: int
) -> None:
    began = START + timedelta(minutes=12.5)
    ended = START + timedelta(minutes=40)
    second = replace(
        waiting(),
        state=state,
        step=1,
        step_started_at=began,
        updated_at=ended,
    )
    both = [*blocks(12), *blocks(12 + counted, bps=2500)[12:]]

    found = canary_timeline.build_frames(second, build_timeline(second, both), ended)

    rise = found.shares[found.shares["share"] == 25.0].iloc[0]
    assert rise["at"] == 1000 * began.timestamp()


def test_nothing_counted_draws_nothing_and_fails_nowhere() -> None:
    frames = canary_timeline.build_frames(waiting(), build_timeline(waiting(), []), START)

    assert frames.failures.empty
    assert len(canary_timeline.draw(frames, LIGHT)) == 3
