"""The demo waits as long as something moves, however long that takes."""

import pytest

from harness.app.demo.actions import Patience


@pytest.mark.req("F7")
def test_the_demo_waits_while_there_is_progress_and_says_once_what_is_slow() -> None:
    patience = Patience(stalled_s=180, slow_s=60)
    for minute in range(60):
        assert patience.lasts(("evaluating", minute), minute * 100.0)
        assert patience.is_slow(minute * 100.0 + 70)
        assert not patience.is_slow(minute * 100.0 + 80)
    last = 59 * 100.0
    assert patience.lasts(("evaluating", 59), last + 179)
    assert not patience.lasts(("evaluating", 59), last + 180)
