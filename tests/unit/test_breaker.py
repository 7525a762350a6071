import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from harness.frame.errors import InputError
from harness.frame.failures import FAILURE_RULES, BreakerEffect, FailureClass
from harness.routing.reliability.breaker import (
    BUCKETS,
    CLOSED_BREAKER,
    LAST_RESORT_TICKET,
    PROBE_UNDER_WAY_S,
    TRANSITIONS,
    Breaker,
    BreakerPolicy,
    BreakerState,
    Ticket,
    admit,
    reset_after_new_key,
    reset_breaker,
    retry_in_s,
    settle,
)

pytestmark = pytest.mark.req("A6", "B4")

F = FailureClass
TRICKLE = BreakerPolicy()
POLICY = BreakerPolicy(trickle_s=TRICKLE.open_max_s)  # without one: the waits alone
OPENING = [failure for failure in F if FAILURE_RULES[failure].breaker is BreakerEffect.OPENS]
NEUTRAL = [failure for failure in F if FAILURE_RULES[failure].breaker is BreakerEffect.NEUTRAL]
COUNTED = [failure for failure in F if FAILURE_RULES[failure].breaker is BreakerEffect.FAILURE]


def after(
    breaker: Breaker,
    now: float,
    *outcomes: F | None,
    policy: BreakerPolicy = POLICY,
) -> Breaker:
    for outcome in outcomes:
        breaker, ticket = admit(
            breaker,
            now,
            policy,
        )
        assert ticket is not None
        breaker = settle(breaker, ticket, outcome, now, policy)
    return breaker


def opened(now: float = 0.0, policy: BreakerPolicy = POLICY) -> Breaker:
    return after(CLOSED_BREAKER, now, F.QUOTA, policy=policy)


def test_five_failures_within_a_minute_open_it_for_two() -> None:
    four = after(CLOSED_BREAKER, 10.0, *[F.SERVER] * 4)
    five = after(four, 40.0, F.TIMEOUT)

    assert four.state is BreakerState.CLOSED
    assert five.state is BreakerState.OPEN
    assert five.because is F.TIMEOUT
    assert admit(five, 159.9, POLICY)[1] is None
    assert admit(five, 160.0, POLICY)[1] is not None


def test_failures_all_over_the_minute_are_added_up() -> None:
    breaker = CLOSED_BREAKER
    for now in (0.0, 10.0, 20.0):
        breaker = after(breaker, now, None, F.SERVER, None)
    breaker = after(breaker, 59.0, F.SERVER)

    assert breaker.state is BreakerState.CLOSED
    assert sum(bucket.requests for bucket in breaker.window) == 10
    assert after(breaker, 59.0, F.SERVER).state is BreakerState.OPEN


@pytest.mark.req("B3")
@pytest.mark.parametrize("failure", OPENING)
def test_a_fault_of_ours_opens_it_at_once(failure: F) -> None:
    breaker = after(CLOSED_BREAKER, 0.0, *[None] * 100, failure)

    assert breaker.state is BreakerState.OPEN
    assert breaker.because is failure


@pytest.mark.parametrize("failure", NEUTRAL)
def test_a_neutral_outcome_changes_nothing_while_closed(failure: F) -> None:
    assert after(CLOSED_BREAKER, 0.0, *[failure] * 50) == CLOSED_BREAKER


def test_half_open_lets_one_probe_at_a_time_and_closes_after_three_good_ones() -> None:
    breaker = opened()
    for left in (2, 1, 0):
        breaker, probe = admit(
            breaker,
            120.0,
            POLICY,
        )
        assert breaker.state is BreakerState.HALF_OPEN
        assert probe is not None
        assert admit(breaker, 120.0, POLICY) == (breaker, None)
        assert retry_in_s(breaker, 120.0, POLICY) == PROBE_UNDER_WAY_S
        breaker = settle(breaker, probe, None, 121.0, POLICY)
        assert breaker.state is (BreakerState.HALF_OPEN if left else BreakerState.CLOSED)

    assert breaker == Breaker(serial=breaker.serial, failed_at=0.0)


@pytest.mark.parametrize("failure", [*COUNTED, *OPENING])
def test_every_failed_probe_doubles_the_time_up_to_fifteen_minutes(failure: F) -> None:
    breaker = opened()
    now = 0.0
    for expected in (120.0, 240.0, 480.0, 900.0, 900.0):
        assert breaker.open_s == expected
        assert retry_in_s(breaker, now, POLICY) == expected
        now += expected
        breaker = after(breaker, now, None, None, failure)
        assert breaker.state is BreakerState.OPEN
        assert breaker.because is failure


@pytest.mark.parametrize("failure", [*COUNTED, *OPENING])
def test_an_open_circuit_is_probed_from_ten_seconds_on_by_one_request_at_a_time(
    failure: F,
) -> None:
    breaker = opened(policy=TRICKLE)

    assert admit(breaker, 9.9, TRICKLE) == (breaker, None)
    assert retry_in_s(breaker, 4.0, TRICKLE) == 6.0
    breaker, probe = admit(
        breaker,
        10.0,
        TRICKLE,
    )
    assert probe is not None
    assert admit(breaker, 19.0, TRICKLE) == (breaker, None)
    assert retry_in_s(breaker, 19.0, TRICKLE) == PROBE_UNDER_WAY_S
    breaker = settle(breaker, probe, failure, 25.0, TRICKLE)

    # It changes nothing but the time of the next: the full wait is not longer for it.
    assert (breaker.state, breaker.open_until) == (BreakerState.OPEN, 120.0)
    assert admit(breaker, 34.9, TRICKLE)[1] is None
    assert admit(breaker, 35.0, TRICKLE)[1] is not None


def test_a_closed_breaker_that_is_reset_stays_as_it_is() -> None:
    breaker = after(CLOSED_BREAKER, 10.0, F.SERVER)

    assert reset_breaker(breaker) == breaker
    assert reset_breaker(opened()).state is BreakerState.CLOSED


def test_a_probe_that_is_never_settled_is_given_up_after_its_lease() -> None:
    breaker, lost = admit(
        opened(),
        120.0,
        POLICY,
    )
    lease_over = 120.0 + POLICY.probe_lease_s

    assert admit(breaker, lease_over - 0.1, POLICY)[1] is None
    breaker, probe = admit(
        breaker,
        lease_over,
        POLICY,
    )
    assert probe not in (None, lost)
    assert lost is not None
    assert settle(breaker, lost, F.SERVER, lease_over, POLICY).state is BreakerState.HALF_OPEN


@pytest.mark.req("D3")
@pytest.mark.parametrize("because", OPENING)
@pytest.mark.parametrize("probing", [False, True])
def test_a_new_credential_closes_what_our_own_side_opened(because: F, *, probing: bool) -> None:
    breaker = after(CLOSED_BREAKER, 0.0, because)
    late = breaker.serial
    if probing:
        breaker, probe = admit(
            breaker,
            120.0,
            POLICY,
        )
        assert probe is not None
        late = probe

    closed = reset_after_new_key(breaker)

    assert closed.state is BreakerState.CLOSED
    assert closed.because is None
    # An answer to the old key, come late, opens nothing.
    assert settle(closed, late, F.OUR_KEY, 121.0, POLICY).state is BreakerState.CLOSED
    assert after(closed, 121.0, F.OUR_KEY).open_s == POLICY.open_s


@pytest.mark.parametrize("outcome", [None, *COUNTED, *OPENING])
def test_a_last_resort_only_moves_the_time_of_the_last_failure(outcome: F | None) -> None:
    breaker = settle(opened(), LAST_RESORT_TICKET, outcome, 50.0, POLICY)

    assert breaker == opened()._replace(failed_at=0.0 if outcome is None else 50.0)


def test_the_time_of_the_last_failure_never_goes_back() -> None:
    breaker = settle(opened(50.0), LAST_RESORT_TICKET, F.SERVER, 10.0, POLICY)

    assert breaker.failed_at == 50.0


def test_a_breaker_whose_longest_wait_is_below_its_first_is_refused() -> None:
    with pytest.raises(InputError, match="open_max_s"):
        BreakerPolicy(open_max_s=1.0)


def test_a_policy_at_its_limits_is_a_policy() -> None:
    smallest = BreakerPolicy(
        failures=1,
        share=0.0,
        open_s=1.0,
        open_max_s=1.0,
    )

    breaker, ticket = admit(
        CLOSED_BREAKER,
        0.0,
        smallest,
    )
    assert ticket is not None
    assert settle(breaker, ticket, F.SERVER, 0.0, smallest).open_until == 1.0
    assert BreakerPolicy(share=1.0, probe_successes=1).share == 1.0


class AnyTraffic(RuleBasedStateMachine):
    policy = POLICY

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CLOSED_BREAKER
        self.now = 1000.0
        self.out: list[tuple[Ticket, bool]] = []  # and whether it is a probe
        self.counted: list[tuple[int, bool]] = []  # bucket and whether failed, since closing

    @rule(seconds=st.sampled_from([0.1, 4.0, 5.0, 31.0, 60.0, 120.0, 1000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        before = self.breaker
        may = retry_in_s(before, self.now, self.policy) <= 0
        self.breaker, ticket = admit(
            before,
            self.now,
            self.policy,
        )
        assert may is (ticket is not None)
        if before.state is BreakerState.CLOSED:
            assert ticket is not None
        if ticket is None:
            assert self.breaker == before
            assert retry_in_s(before, self.now, self.policy) > 0
        else:
            probe = before.state is not BreakerState.CLOSED
            assert ticket > before.serial if probe else ticket == before.serial
            self.out.append((ticket, probe))

    @rule()
    def change_the_credential(self) -> None:
        before = self.breaker
        self.breaker = reset_after_new_key(before)
        if self.breaker is not before:
            assert before.because in OPENING
            assert self.breaker.serial > before.serial
            assert self.breaker.window == ()
            self.counted.clear()

    @rule(
        failure=st.sampled_from([F.SERVER, F.CONNECT]),
        times=st.integers(1, 8),
    )
    def fail_some(self, failure: F, times: int) -> None:
        for _ in range(times):
            self.begin()
            if self.out:
                self.end(failure, -1)

    @precondition(lambda self: self.out)
    @rule(
        outcome=st.sampled_from([None, None, None, *F]),
        which=st.integers(0, 100),
    )
    def end(self, outcome: F | None, which: int) -> None:
        ticket, probe = self.out.pop(which % len(self.out))
        before = self.breaker
        self.breaker = settle(before, ticket, outcome, self.now, self.policy)
        assert self.breaker.serial >= before.serial
        if before.state is BreakerState.CLOSED and ticket == before.serial:
            self._keep_books(outcome)
        if before.state is not self.breaker.state:
            reachable = {to for (state, _), to in TRANSITIONS.items() if state is before.state}
            assert self.breaker.state in reachable
            assert self.breaker.serial > before.serial
            self._check_move(before, outcome, probe=probe)

    def _keep_books(self, outcome: F | None) -> None:
        if outcome not in NEUTRAL:
            bucket = int(self.now * BUCKETS // self.policy.window_s)
            self.counted.append((bucket, outcome is not None))

    def _check_move(
        self,
        before: Breaker,
        outcome: F | None,
        *,
        probe: bool,
    ) -> None:
        if before.state is BreakerState.CLOSED:
            bucket = int(self.now * BUCKETS // self.policy.window_s)
            window = [failed for at, failed in self.counted if at > bucket - BUCKETS]
            enough = sum(window) >= 5 and sum(window) / len(window) >= 0.2
            assert outcome in OPENING or (enough and outcome in COUNTED)
            assert self.breaker.open_s == self.policy.open_s
        elif before.state is BreakerState.OPEN:
            assert probe
            assert outcome is None
            assert self.breaker.good_probes == 1
        elif self.breaker.state is BreakerState.OPEN:
            assert probe
            assert outcome in (*COUNTED, *OPENING)
            assert self.breaker.open_s == min(2 * before.open_s, self.policy.open_max_s)
        else:
            assert probe
            assert before.good_probes == self.policy.probe_successes - 1
        self.counted.clear()

    @invariant()
    def never_more_than_one_probe_counts(self) -> None:
        if self.breaker.state is not BreakerState.CLOSED:
            valid = [ticket for ticket, _ in self.out if ticket == self.breaker.serial]
            assert len(valid) == (self.breaker.probe_since is not None)

    @invariant()
    def nothing_is_negative_and_memory_is_bounded(self) -> None:
        breaker = self.breaker
        assert len(breaker.window) <= BUCKETS
        assert all(0 <= bucket.failures <= bucket.requests for bucket in breaker.window)
        assert 0 <= breaker.good_probes < self.policy.probe_successes
        assert 0 <= breaker.open_s <= self.policy.open_max_s
        if breaker.state is not BreakerState.CLOSED:
            assert breaker.window == ()
            assert breaker.because is not None


class AnyTrickle(AnyTraffic):
    policy = TRICKLE


TestAnyTrickle = AnyTrickle.TestCase
TestAnyTraffic = AnyTraffic.TestCase
