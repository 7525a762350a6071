import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.reliability.breaker import DEFAULT_BREAKER
from harness.routing.reliability.caller_leaves import (
    MOST_LEAVES,
    Leave,
    Leaves,
    TargetUse,
    add_leave,
    shows_hang,
)

pytestmark = pytest.mark.req("A6", "B4")

NEVER = TargetUse(-math.inf, 0, frozenset())


def _left(count: int, *, keys: int = 1, callers: int = 30, every_s: float = 1.0) -> Leaves:
    """Returns leaves after 15 s each; the first request begins at 0."""
    return tuple(
        Leave(n * every_s, n * every_s + 15.0, f"user-{n % callers}", f"key-{n % keys}")
        for n in range(count)
    )


def _opens(leaves: Leaves, use: TargetUse = NEVER) -> bool:
    return shows_hang(leaves, use, leaves[-1].at, DEFAULT_BREAKER)


def test_the_fifth_caller_who_leaves_shows_that_the_target_hangs() -> None:
    assert [_opens(_left(count)) for count in range(1, 7)] == [False] * 4 + [True] * 2


def test_one_caller_shows_nothing_however_often_it_leaves() -> None:
    assert not _opens(_left(50, callers=1))


def test_an_answer_in_the_usual_time_excuses_the_requests_before_it() -> None:
    leaves = _left(10)

    assert not _opens(leaves, NEVER._replace(answered_at=6.0))
    assert _opens(leaves, NEVER._replace(answered_at=5.0))


def test_late_answers_excuse_no_request_but_count_as_requests() -> None:
    assert _opens(_left(5), NEVER._replace(late_answers=20))
    assert not _opens(_left(5), NEVER._replace(late_answers=21))


def test_one_key_that_hangs_up_under_many_names_opens_nothing_for_other_keys() -> None:
    shared = NEVER._replace(keys=frozenset({"key-0", "other"}))

    assert not _opens(_left(90), shared)
    assert _opens(_left(90, keys=2), shared)
    assert _opens(_left(90), NEVER._replace(keys=frozenset({"key-0"})))


def test_leaves_that_are_old_or_too_quick_do_not_count() -> None:
    leaves: Leaves = ()
    for leave in _left(5, every_s=15.0):
        leaves = add_leave(leaves, leave, 1.0, DEFAULT_BREAKER)
    assert len(leaves) == 4
    assert not _opens(leaves)
    assert add_leave((), leaves[0], 15.1, DEFAULT_BREAKER) == ()


requests = st.lists(
    st.tuples(
        st.floats(0, 300),
        st.floats(0, 60),
        st.sampled_from("abc"),
        st.sampled_from(("k", "l")),
    ),
    max_size=150,
)


@given(
    requests,
    st.floats(0, 300),
    st.integers(0, 50),
    st.frozensets(st.sampled_from(("k", "l", "m"))),
)
def test_more_reasons_to_trust_a_target_never_open_its_circuit(
    ended: list[tuple[float, float, str, str]],
    answered_at: float,
    late: int,
    keys: frozenset[str],
) -> None:
    leaves: Leaves = ()
    now = 0.0
    for began, waited_s, caller, key in sorted(ended):
        now = max(now, began + waited_s)
        leave = Leave(now - waited_s, now, caller, key)
        leaves = add_leave(leaves, leave, 1.0, DEFAULT_BREAKER)
    assert len(leaves) <= MOST_LEAVES

    use = TargetUse(answered_at, late, keys)
    opens = shows_hang(leaves, use, now, DEFAULT_BREAKER)
    trusted = TargetUse(answered_at + 1, late + 1, keys)
    if not opens:
        assert not shows_hang(leaves, trusted, now, DEFAULT_BREAKER)
        assert not shows_hang(leaves[1:], use, now, DEFAULT_BREAKER) or len(keys) > 1
    strict = replace(DEFAULT_BREAKER, failures=6)
    assert opens or not shows_hang(leaves, use, now, strict)
    if opens:
        assert len(leaves) >= DEFAULT_BREAKER.failures
        assert len({(leave.caller, leave.key) for leave in leaves}) > 1
