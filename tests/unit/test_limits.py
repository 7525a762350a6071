import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.frame.people.limits import (
    EvalLimits,
    RateLimit,
    RateState,
    admit_request,
    settle_request,
)
from harness.frame.ports import RateBook
from router.access import rate_limits
from router.access.rate_limits import LocalRates, SharedRates, take_tokens

START = RateState()
steps = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 50)), max_size=60)


def test_a_request_that_one_limit_refuses_takes_nothing_of_the_other() -> None:
    limit = RateLimit(requests_per_min=60, tokens_per_min=100)
    state = admit_request(START, limit, 80, 0.0).state
    refused = admit_request(state, limit, 40, 0.0)

    assert refused.retry_after_s == pytest.approx(12.0)
    assert refused.reason == "this key's limit of 100 tokens per minute is used up"
    assert refused.state == state
    assert admit_request(refused.state, limit, 20, 0.0).allowed


def test_tokens_are_settled_by_what_was_used() -> None:
    limit = RateLimit(tokens_per_min=100)
    state = admit_request(START, limit, 100, 0.0).state
    less = settle_request(
        state,
        limit,
        estimated=100,
        actual=10,
        now=0.0,
    )
    more = settle_request(
        state,
        limit,
        estimated=100,
        actual=160,
        now=0.0,
    )

    assert admit_request(less, limit, 90, 0.0).allowed
    assert not admit_request(less, limit, 91, 0.0).allowed
    assert admit_request(more, limit, 100, 0.0).retry_after_s == pytest.approx(96.0)
    assert (
        settle_request(
            START,
            limit,
            estimated=50,
            actual=0,
            now=5.0,
        ).tokens_until
        == 5.0
    )


@given(steps, st.floats(1, 100), st.floats(1, 100))
def test_no_more_is_let_through_than_a_minutes_worth_and_what_time_brings(
    steps: list[tuple[float, float]],
    requests: float,
    tokens: float,
) -> None:
    limit = RateLimit(requests, tokens)
    state = START
    now = 0.0
    gone = 0
    gone_tokens = 0.0
    largest = 0.0
    for seconds, amount in steps:
        now += seconds
        decision = admit_request(state, limit, amount, now)
        state = decision.state
        assert decision.allowed is (decision.retry_after_s == 0)
        if decision.allowed:
            gone = gone + 1
            gone_tokens = gone_tokens + amount
            largest = max(largest, amount)
        assert gone <= max(1.0, requests) + requests * now / 60 + 1e-6
        assert gone_tokens <= max(largest, tokens) + tokens * now / 60 + 1e-6


@given(steps, st.floats(1, 100), st.floats(1, 100))
def test_who_waits_as_long_as_told_gets_through_and_nobody_earlier(
    steps: list[tuple[float, float]],
    requests: float,
    tokens: float,
) -> None:
    limit = RateLimit(requests, tokens)
    state = START
    now = 0.0
    for seconds, amount in steps:
        now += seconds
        decision = admit_request(state, limit, amount, now)
        if not decision.allowed:
            wait = decision.retry_after_s
            assert math.isfinite(wait)
            early = admit_request(decision.state, limit, amount, now + wait * 0.99 - 1e-3)
            assert not early.allowed
            now += wait
            decision = admit_request(decision.state, limit, amount, now)
            assert decision.allowed
        state = decision.state


@pytest.mark.parametrize("field", ["requests_per_min", "tokens_per_min"])
@pytest.mark.parametrize("value", [0, 0.5, -1, math.nan, math.inf])
def test_a_limit_that_lets_nothing_through_is_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        RateLimit(**{field: value})


@given(
    per_minute=st.integers(1, 300),
    pauses=st.lists(st.floats(0, 20), min_size=1, max_size=200),
)
def test_of_a_provider_no_minute_has_more_requests_than_its_limit(
    per_minute: int, pauses: list[float]
) -> None:
    """Whoever waits as long as told, then goes; a minute begins with any of the requests."""
    limit = EvalLimits(requests_per_min=per_minute).rate
    state = START
    now = 1000.0
    went = []
    for pause in pauses:
        for _ in range(10):
            decision = admit_request(state, limit, 0, now)
            if not decision.allowed:
                now += decision.retry_after_s
                decision = admit_request(state, limit, 0, now)
            assert decision.allowed
            state = decision.state
            went.append(now)
        now += pause
    for number, at in enumerate(went):
        within = [time_s for time_s in went[number:] if time_s < at + 60 - 1e-4]
        assert len(within) <= per_minute


def test_a_provider_without_limits_holds_nothing_back() -> None:
    assert EvalLimits().rate.requests_per_min is None
    assert admit_request(START, EvalLimits().rate, 10**9, 0.0).allowed


TEN = RateLimit(requests_per_min=10)
# Asks as often as it is told, at a standstill of the clock, and says how often it was let in.
ASKER = """
import sys, time
from pathlib import Path
from harness.frame.people.limits import RateLimit
from router.access.rate_limits import SharedRates, take_tokens
book = SharedRates(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
limit, allowed = RateLimit(requests_per_min=100), 0
for _ in range(int(sys.argv[2])):
    allowed += take_tokens(book, "k", limit, 0, 1000.0).allowed
    time.sleep(0.001)
print(allowed)
"""
# Stops in the middle of a change, and stays there.
STUCK = """
import os, signal, sys
from pathlib import Path
from router.access.rate_limits import SharedRates
book = SharedRates(Path(sys.argv[1]))
def change(state):
    print("changing", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return state
book.change("k", change)
"""


@pytest.fixture(params=["alone", "shared"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RateBook]:
    made = LocalRates() if request.param == "alone" else SharedRates(tmp_path / "rates.book")
    with closing(made):
        yield made


def child(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def at(number: int, _: RateState) -> RateState:
    return RateState(number, -number)


def test_each_key_has_a_state_of_its_own(book: RateBook) -> None:
    assert [take_tokens(book, "a", TEN, 0, 1000.0).allowed for _ in range(11)] == [
        True
    ] * 10 + [False]
    assert take_tokens(book, "b", TEN, 0, 1000.0).allowed
    assert take_tokens(book, "a", TEN, 0, 1006.1).allowed


def test_with_no_place_left_a_key_is_counted_in_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "SLOTS", 4)
    monkeypatch.setattr(rate_limits, "PROBES", 4)
    with closing(SharedRates(tmp_path / "rates.book")) as book:
        for key in "abcdef":
            assert [take_tokens(book, key, TEN, 0, 9.0).allowed for _ in range(11)].count(
                True
            ) == 10


@pytest.mark.req("G5")
def test_a_disk_that_takes_nothing_costs_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(SharedRates(tmp_path / "rates.book")) as book:
        assert take_tokens(book, "a", TEN, 0, 1000.0).allowed
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            allowed = [take_tokens(book, "a", TEN, 0, 1000.0).allowed for _ in range(20)].count(
                True
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)

    assert allowed == 10
    assert caplog.text.count("this process alone counts the rates") == 1


def test_processes_share_one_limit(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    askers = [child(ASKER, file, 60) for _ in range(4)]
    for asker in askers:
        assert asker.stdout
        assert asker.stdout.readline() == "ready\n"
    allowed = sum(int(asker.communicate("go\n", timeout=60)[0]) for asker in askers)

    # A process that loses the processor in mid-change may cost a few updates. Each for itself
    # would let 240 through.
    assert 100 <= allowed <= 160

    alone = child(ASKER, file, 120)
    assert alone.stdout
    assert alone.stdout.readline() == "ready\n"
    assert alone.communicate("go\n", timeout=60)[0] == "100\n"


def test_a_process_that_stopped_in_the_middle_holds_up_no_request(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    with closing(SharedRates(file)) as book:
        stuck = child(STUCK, file)
        try:
            assert stuck.stdout
            assert stuck.stdout.readline() == "changing\n"
            assert [take_tokens(book, "k", TEN, 0, 5.0).allowed for _ in range(11)].count(
                True
            ) == 10
        finally:
            os.kill(stuck.pid, signal.SIGKILL)
            stuck.communicate()


def test_who_comes_first_begins_anew_and_who_comes_later_does_not(tmp_path: Path) -> None:
    file = tmp_path / "rates.book"
    with (
        closing(SharedRates(file)) as first,
        closing(SharedRates(file)) as second,
    ):
        first.change("k", lambda _: RateState(7.0))
        assert second.change("k", lambda state: state) == RateState(7.0)

    # As after a restart of the machine, whose clock begins at 0 again.
    with closing(SharedRates(file)) as later:
        assert later.change("k", lambda state: state) == RateState()
