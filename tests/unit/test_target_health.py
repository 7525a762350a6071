"""A target's health: successes counted together are worth as much as one by one."""

from hypothesis import given
from hypothesis import strategies as st

from harness.domain.reliability.breaker import CLOSED_BREAKER, BreakerPolicy, admit, settle
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from router.health.target_health import TargetHealth

TARGET = "t"
POLICY = BreakerPolicy(failures=2, window_s=12.0, share=0.5, open_s=5.0, trickle_s=3.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.4, 1.0, 3.0, 13.0]),
            st.sampled_from([None, None, None, FailureClass.SERVER, FailureClass.CANCELLED]),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_a_breaker_moves_as_if_each_success_were_settled_alone(
    requests: list[tuple[float, FailureClass | None, bool]],
) -> None:
    now = [100.0]
    health, alone = TargetHealth(POLICY, lambda: now[0]), CLOSED_BREAKER
    waiting: list[tuple[int, FailureClass | None]] = []  # tickets of answers that come late
    for pause_s, outcome, comes_late in requests:
        now[0] += pause_s
        ticket = health.admit(TARGET)
        alone, expected = admit(alone, now[0], POLICY)
        assert ticket == expected
        if ticket is None:
            continue
        health.begin(TARGET)
        waiting.append((ticket, outcome))
        if comes_late:
            continue
        for held, ended in waiting:
            if ended is None:
                health.answered(TARGET, held, Endpoint.CHAT)
                assert health.answered_at[TARGET] == now[0]
            else:
                health.end(TARGET)
                health.judge(TARGET, ended, Endpoint.CHAT)
                health.settle(TARGET, held, ended)
            alone = settle(alone, held, ended, now[0], POLICY)
        waiting.clear()
        assert health.state(TARGET) is alone.state
        assert not health.busy(TARGET)


def test_a_success_is_what_end_judge_and_settle_make_of_it() -> None:
    together, apart = (TargetHealth(POLICY, lambda: 7.0) for _ in range(2))
    for health in (together, apart):
        assert health.admit(TARGET) == 0
        health.begin(TARGET)
    together.answered(TARGET, 0, Endpoint.CHAT)
    apart.end(TARGET)
    apart.judge(TARGET, None, Endpoint.CHAT)
    apart.settle(TARGET, 0, None)

    assert together.answered_at == apart.answered_at == {TARGET: 7.0}
    assert together.users_find_well(TARGET)
    assert apart.users_find_well(TARGET)
    assert together.spoken == {TARGET: Endpoint.CHAT}
    assert not together.busy(TARGET)
