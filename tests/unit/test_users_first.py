"""Calls that no user waits for leave users their share of an account's limit."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.people.limits import MINUTE_S
from harness.routing.reliability.rate_headers import RateKind, RateReading
from harness.routing.reliability.users_first import (
    CAUTION_S,
    FREE,
    LONGEST_GAP_S,
    MOST_CALLS,
    ONE_CALL,
    AccountState,
    RateReport,
    account_of,
    permit_calls,
)

pytestmark = pytest.mark.req("F2")

NOW = 1_000_000.0
REQUESTS = RateKind.REQUESTS
TOKENS = RateKind.TOKENS


def state_of(
    remaining: float | None = None,
    users: float = 0.0,
    *,
    limit: float | None = None,
    reset_s: float | None = None,
    age_s: float = 0.0,
    kind: RateKind = REQUESTS,
    model: str = "m",
) -> AccountState:
    reading = None if remaining is None else RateReading(kind, remaining, limit, reset_s)
    return AccountState(
        rates=(RateReport(model, NOW - age_s, reading),) if reading else (),
        per_min={kind: users},
        users_seen=users > 0,
    )


def test_an_account_without_any_report_limits_no_call() -> None:
    assert permit_calls(AccountState(), "m", NOW) == FREE


@pytest.mark.parametrize("kind", [REQUESTS, TOKENS])
def test_calls_grow_only_while_twice_the_users_minute_is_left(kind: RateKind) -> None:
    assert permit_calls(state_of(61, 30, kind=kind), "m", NOW).calls == 1
    assert permit_calls(state_of(70, 30, kind=kind), "m", NOW).calls == 10
    assert permit_calls(state_of(9000, 30, kind=kind), "m", NOW).calls == MOST_CALLS
    tight = permit_calls(state_of(60, 30, kind=kind), "m", NOW)
    assert tight.calls == 1
    assert "callers sent 30 in a minute" in tight.reason


def test_calls_in_turn_take_half_of_the_users_rate() -> None:
    permit = permit_calls(state_of(30, 30), "m", NOW)
    assert (permit.calls, permit.gap_s) == (1, 4.0)
    assert permit_calls(state_of(1, 1), "m", NOW).gap_s == LONGEST_GAP_S


def test_no_call_begins_when_only_the_users_reserve_is_left() -> None:
    permit = permit_calls(state_of(10, 30), "m", NOW)
    assert (permit.calls, permit.wait_s) == (0, MINUTE_S)
    assert permit.reason
    soon = permit_calls(state_of(10, 30, reset_s=20.0), "m", NOW)
    assert (soon.calls, soon.wait_s) == (0, 20.0)
    assert permit_calls(state_of(10, 30, reset_s=10.0), "m", NOW).calls == 1


def test_a_report_that_is_too_old_is_unknown_and_one_call_reads_it_again() -> None:
    assert permit_calls(state_of(9000, 30, age_s=61), "m", NOW) == ONE_CALL
    assert permit_calls(state_of(10, 30, reset_s=20.0, age_s=21), "m", NOW) == ONE_CALL


def test_without_users_only_a_used_up_limit_stops_calls_and_names_no_user() -> None:
    assert permit_calls(state_of(3, limit=60), "m", NOW).calls == 3
    permit = permit_calls(state_of(0, limit=60, reset_s=9.0), "m", NOW)
    assert (permit.calls, permit.wait_s, permit.reason) == (0, 9.0, "")


@pytest.mark.parametrize("remaining", [None, 9000.0])
def test_for_ten_minutes_after_a_users_429_one_call_runs_at_a_time(
    remaining: float | None,
) -> None:
    state = replace(state_of(remaining, 30), refused_at=NOW, resume_at=NOW + 20)
    paused = permit_calls(state, "m", NOW)
    assert (paused.calls, paused.wait_s) == (0, 20.0)
    permit = permit_calls(state, "m", NOW + 20)
    assert (permit.calls, permit.gap_s) == (1, 4.0)
    assert "429" in permit.reason
    later = permit_calls(replace(state, rates=()), "m", NOW + CAUTION_S)
    assert later == FREE


def test_a_limit_of_the_same_model_counts_beside_a_newer_one_of_another() -> None:
    state = state_of(10, 30, age_s=2)
    other = RateReport("other", NOW, RateReading(REQUESTS, 9000.0))
    both = replace(state, rates=(*state.rates, other))
    assert permit_calls(both, "m", NOW).calls == 0
    assert permit_calls(both, "other", NOW).calls == MOST_CALLS


def test_providers_with_the_same_address_and_key_share_an_account() -> None:
    account = account_of("http://a/v1", "key")
    assert account == account_of("http://a/v1/", "key")
    assert account not in (account_of("http://a/v1", "other"), account_of("http://b/v1", "key"))
    assert "key" not in account


states = st.builds(
    state_of,
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1e5),
    limit=st.none() | st.floats(1, 1e6),
    reset_s=st.none() | st.floats(0, 1e6),
    age_s=st.floats(0, 1e3),
    kind=st.sampled_from(RateKind),
)


@given(states, st.none() | st.floats(NOW - 2e3, NOW))
def test_a_users_refusal_and_users_never_give_other_calls_more_room(
    state: AccountState, refused_at: float | None
) -> None:
    permit = permit_calls(state, "m", NOW)
    assert 0 <= permit.calls <= MOST_CALLS
    assert (permit.calls == 0) is (permit.wait_s > 0)
    idle = replace(state, per_min={}, users_seen=False)
    assert permit.calls <= permit_calls(idle, "m", NOW).calls
    refused = permit_calls(replace(state, refused_at=refused_at), "m", NOW)
    assert refused.calls <= permit.calls
    assert refused.gap_s >= permit.gap_s


@dataclass
class Limit:
    """A provider's limit of requests in a minute, of one of three kinds."""

    kind: str
    most: int
    times: deque[float] = field(default_factory=deque)
    left: float = 0.0
    filled_at: float = 0.0

    def take(self, now: float) -> bool:
        """Takes a request, if one is left."""
        self._renew(now)
        taken = self._left() >= 1
        if taken:
            self.times.append(now)
            self.left -= 1
        return taken

    def read(self) -> RateReading:
        return RateReading(REQUESTS, float(int(self._left())), float(self.most), None)

    def _left(self) -> float:
        return self.left if self.kind == "bucket" else self.most - len(self.times)

    def _renew(self, now: float) -> None:
        if self.kind == "bucket":
            added = (now - self.filled_at) * self.most / MINUTE_S
            self.left = min(self.most, self.left + added)
            self.filled_at = now
        while self.times and self._is_over(self.times[0], now):
            self.times.popleft()

    def _is_over(self, at: float, now: float) -> bool:
        if self.kind == "window":
            return at // MINUTE_S < now // MINUTE_S
        return now - at >= MINUTE_S


def play(limit: Limit, users_per_min: int, minutes: int = 6) -> tuple[int, int]:
    """Plays users at a steady rate, and evals from the second minute on, whose calls take no
    time. Reports arrive a second late. Returns the users' refused requests, and evals' calls.
    """
    limit.left = limit.most
    refused = calls = 0
    reports = deque[RateReport]()
    known: tuple[RateReport, ...] = ()
    step_s = MINUTE_S / users_per_min

    def user(now: float) -> float:
        nonlocal refused
        refused += not limit.take(now)
        reports.append(RateReport("inc", now, limit.read()))
        return now + step_s

    def eval_(now: float) -> float:
        nonlocal calls, known
        while reports and now - reports[0].at >= 1:
            known = (reports.popleft(),)
        per_min = {REQUESTS: float(users_per_min)}
        state = AccountState(known, per_min, users_seen=True)
        permit = permit_calls(state, "inc", now)
        if permit.calls == 0:
            return now + min(1.0, permit.wait_s)
        calls += limit.take(now)
        known = (RateReport("inc", now, limit.read()),)
        return now + max(0.01, permit.gap_s)

    events: list[tuple[float, int, Callable[[float], float]]]
    events = [(0.3, 0, user), (MINUTE_S, 1, eval_)]
    while events[0][0] < minutes * MINUTE_S:
        now, order, act = heapq.heappop(events)
        heapq.heappush(events, (act(now), order, act))
    return refused, calls


@pytest.mark.parametrize("kind", ["sliding", "window", "bucket"])
@pytest.mark.parametrize(("most", "users"), [(60, 30), (60, 40), (600, 60), (500, 300)])
def test_no_user_is_refused_and_evals_go_on(kind: str, most: int, users: int) -> None:
    refused, calls = play(Limit(kind, most), users)
    assert refused == 0
    assert calls >= 20
