"""Failed attempts per address: a few at once, then one a second."""

from hypothesis import given
from hypothesis import strategies as st

from harness.control.operations.single_sign_on import MOST_ADDRESSES, FailedAttempts
from tests.support.control.manual_clock import ManualClock


def test_after_the_burst_one_comes_back_a_second() -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock, burst=3, per_s=1.0)
    for _ in range(3):
        assert attempts.wait_s("a") == 0
        attempts.failed("a")

    assert attempts.wait_s("a") == 1
    assert attempts.wait_s("b") == 0
    clock.advance(0.5)
    assert attempts.wait_s("a") == 0.5
    clock.advance(0.5)
    assert attempts.wait_s("a") == 0
    attempts.failed("a")
    assert attempts.wait_s("a") == 1


def test_a_set_wall_clock_frees_nobody() -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock, burst=1)
    attempts.failed("a")
    clock.jump(3600)
    assert attempts.wait_s("a") == 1


def test_the_memory_is_bounded_and_forgets_the_oldest_failure() -> None:
    attempts = FailedAttempts(ManualClock(), burst=1)
    for number in range(MOST_ADDRESSES + 1):
        attempts.failed(str(number))
    assert attempts.wait_s("0") == 0
    assert attempts.wait_s("1") == 1


@given(st.lists(st.floats(0, 5), max_size=60))
def test_no_rhythm_gets_more_than_the_burst_and_one_a_second(pauses: list[float]) -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock, burst=3, per_s=1.0)
    failed = 0
    for pause in pauses:
        clock.advance(pause)
        if attempts.wait_s("a") == 0:
            attempts.failed("a")
            failed += 1
    # Rounding of the sum of pauses may give one more at the very edge.
    assert failed <= 3 + clock.monotonic() + 1e-6
