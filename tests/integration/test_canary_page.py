"""The Canary page of a canary that a router's own rule stopped."""

from datetime import UTC, datetime

import pytest

from dashboard.views import canary_text, canary_timeline
from dashboard.views.canary_text import CanaryView
from harness.canary.status import CanaryStatus
from tests.integration.test_canary_replay import (
    COUNT,
    harmed_tools,
    stopped_by_guard,
    store_blocks,
)
from tests.support.control.control_plane import SmallInstallation


def loaded(world: SmallInstallation) -> tuple[CanaryView, CanaryStatus]:
    view = canary_text.load_canary(world.context(), "chat")
    assert view.status is not None
    return view, view.status


@pytest.mark.req("F4")
def test_page_plot_and_reason_show_the_counts_of_the_rollback_from_the_first_second(
    world: SmallInstallation,
) -> None:
    rollout = harmed_tools(world, rate=0.0)
    stopped_by_guard(world, rollout, COUNT)

    def shown() -> list[str]:
        view, status = loaded(world)
        steps, _, mark, _ = canary_text.list_steps(view, status)
        now = datetime(2099, 1, 1, tzinfo=UTC)
        frames = canary_timeline.build_frames(status.rollout, status.timeline, now)
        last = frames.failures[frames.failures["latest"]]
        return [
            status.state.reason,
            mark,
            steps[0][1],
            *last["text"],
            canary_text.guardrails(view, status, stale=False),
        ]

    first = shown()
    reason, mark, step, candidate_point, incumbent_point, rows = first
    assert reason.startswith("3 of 8 callers of the candidate got an error (503 overloaded)")
    assert mark == "ended here"
    assert "callers" in step
    assert "(3 of 8)" in candidate_point
    assert "(0 of 24)" in incumbent_point
    assert "(3 of 8)" in rows
    assert "(0 of 24)" in rows
    # What arrives later is not part of the decision.
    store_blocks(world, rollout, rate=0.9, first=40)
    assert shown() == first


@pytest.mark.req("F4")
def test_the_statistics_of_a_rollback_stand_behind_how_it_decides(
    world: SmallInstallation,
) -> None:
    stopped_by_guard(world, harmed_tools(world, rate=0.0), COUNT)
    view, status = loaded(world)

    assert "e = " in canary_text.how_it_decides(status)
    for part in (
        canary_text.headline(view, status),
        canary_text.guardrails(view, status, stale=False),
        canary_text.harm_line(status),
    ):
        assert "e = " not in part
        assert "worker" not in part.lower()
