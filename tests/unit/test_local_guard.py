import asyncio
import heapq
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import (
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
    Reading,
)
from harness.gate.online.worker_guard import (
    FIRST_WEIGHT,
    GuardCount,
    GuardError,
    WorkerGuard,
    abort_log_e,
)
from harness.routing.table import Arm, Canary, Route
from router.observers.canary_guard import (
    SPARE_S,
    CanaryGuards,
    GuardedCaller,
    GuardedRequest,
    RolloutGuard,
)
from router.observers.guarded_clients import MAX_CLIENTS, GuardedClients
from router.recording.shared_files import GuardFiles, GuardTurn, LocalAbort
from router.snapshot.compiler import compile_snapshot
from tests.support.canary.outcomes import outcome_of
from tests.support.control.manual_clock import ManualClock
from tests.support.router.live_router import snapshot

pytestmark = pytest.mark.req("F3")

RULE = ExposureRule(local_alpha=0.01)
CANARY = Canary("t_new", 100, "salt", "r-1", RULE)
ROUTE = Route("support", 1, "t_old", CANARY)
LONGEST_S = 120.0
WINDOW_S = 600.0
WINDOWED = replace(ROUTE, canary=replace(CANARY, unit_rule=replace(RULE, window_s=WINDOW_S)))
shares = st.floats(0.001, 0.999)
ratios = st.floats(0.5, 4.0)
failures = st.lists(st.booleans(), max_size=30)


def after(
    arms: list[bool],
    share: float,
    rho: float = 1.0,
) -> WorkerGuard:
    guard = WorkerGuard(rho)
    for canary in arms:
        guard = guard.after(canary=canary, share=share)
    return guard


@given(arms=failures, share=shares, rho=ratios)
def test_where_who_fails_is_drawn_by_share_alone_evidence_is_expected_to_stay_as_it_is(
    arms: list[bool],
    share: float,
    rho: float,
) -> None:
    before = after(arms, share, rho)

    # At the tolerated ratio itself, the worst case of what is no harm.
    null = max(1.0, rho)
    chance = share * null / (share * null + 1.0 - share)
    canary = math.exp(before.after(canary=True, share=share).log_e)
    other = math.exp(before.after(canary=False, share=share).log_e)

    assert chance * canary + (1 - chance) * other == pytest.approx(math.exp(before.log_e))
    assert canary > other


@pytest.mark.parametrize(
    ("weight_bps", "workers", "exposures"),
    [
        (100, 1, 2),
        (100, 4, 3),
        (100, 16, 3),
        (2500, 4, 6),
    ],
)
def test_a_canary_that_always_fails_is_stopped_after_a_handful(
    weight_bps: int,
    workers: int,
    exposures: int,
) -> None:
    limit = abort_log_e(0.01 / 2, workers=workers, turn=0)

    needed = next(
        n for n in range(1, 20) if after([True] * n, weight_bps / 10_000).log_e >= limit
    )

    assert needed == exposures


def test_a_break_after_a_long_healthy_time_is_found_all_the_same() -> None:
    healthy = after([False] * 1000, 0.01)

    assert healthy.log_e < 0
    broken = healthy
    for _ in range(7):
        broken = broken.after(canary=True, share=0.01)
    assert broken.log_e > abort_log_e(0.01, workers=4, turn=0)


@given(share=st.sampled_from([0.0, 1.0]), canary=st.booleans())
def test_where_all_are_in_one_arm_nothing_is_learnt(share: float, canary: bool) -> None:  # noqa: FBT001 - drawn
    assert WorkerGuard().after(canary=canary, share=share) == WorkerGuard()


@given(workers=st.integers(1, 64), alpha=st.floats(0.001, 0.2))
def test_however_often_workers_are_started_again_all_spend_at_most_alpha(
    workers: int, alpha: float
) -> None:
    spent = [math.exp(-abort_log_e(alpha, workers=workers, turn=n)) for n in range(2000)]

    assert sum(spent) <= alpha
    assert spent[0] == pytest.approx(alpha * FIRST_WEIGHT / workers)


@pytest.mark.parametrize(
    ("turn", "part"),
    [
        (0, 0.95 / 2),
        (1, 0.95 / 2),
        (2, 0.05 / 2),
        (3, 0.05 / 6),
        (4, 0.05 / 12),
    ],
)
def test_the_workers_of_the_beginning_share_most_of_alpha_and_later_ones_the_rest(
    turn: int, part: float
) -> None:
    limit = abort_log_e(0.01, workers=2, turn=turn)

    assert math.exp(-limit) == pytest.approx(0.01 * part)


class GuardedRollout:
    def __init__(self, window_s: float = 0.0) -> None:
        limit = abort_log_e(0.01, workers=1, turn=0)
        self.guard = RolloutGuard(
            "support",
            ExposureRule(window_s=window_s, window_requests=3),
            limit,
            longest_s=LONGEST_S,
        )
        self.now_s = 0.0
        self.share = 0.01

    def begin(self, key: str, *, canary: bool = False, client: str = "") -> GuardedCaller:
        """Begins a caller's first request."""
        request = self.request(key, canary=canary, client=client)
        assert request is not None
        caller, is_first = request
        assert is_first
        return caller

    def request(
        self, key: str, *, canary: bool = False, client: str = ""
    ) -> GuardedRequest | None:
        return self.guard.begin(
            key,
            canary=canary,
            share=self.share,
            now_s=self.now_s,
            client=client,
        )

    def fail_later(self, key: str) -> bool:
        """A later request of a canary's caller fails; returns whether it counts."""
        request = self.request(key, canary=True)
        if request is None:
            return False
        caller, is_first = request
        assert not is_first
        caller.window = Reading.BAD
        return True

    def windows(self, now_s: float) -> tuple[int, int]:
        """Returns the read windows of the canary, and those that failed."""
        self.guard.read(now_s)
        return self.guard.window_exposures, self.guard.windows.evidence.canary_failures


def test_a_failure_is_read_once_the_requests_before_it_have_ended() -> None:
    guarded = GuardedRollout()
    slow = guarded.begin("slow")
    for n in range(3):
        guarded.begin(f"canary-{n}", canary=True).first = Reading.BAD

    # The slow one may be about to fail as well: then it was not the canary.
    assert not guarded.guard.read(guarded.now_s)
    assert guarded.guard.firsts.evidence.failures == 0
    slow.first = Reading.GOOD
    assert guarded.guard.read(guarded.now_s)
    assert guarded.guard.firsts.evidence.canary_failures == 3


def test_an_exposure_without_an_outcome_is_no_failure_in_either_arm() -> None:
    guarded = GuardedRollout()
    for n in range(3):
        guarded.begin(f"incumbent-{n}")
    guarded.begin("canary", canary=True)
    guarded.begin("late", canary=True).first = Reading.BAD

    assert not guarded.guard.read(LONGEST_S)
    assert guarded.guard.firsts.evidence.failures == 0

    guarded.guard.read(LONGEST_S + SPARE_S)
    assert (
        guarded.guard.firsts.evidence.failures,
        guarded.guard.firsts.evidence.canary_failures,
    ) == (1, 1)


@pytest.mark.parametrize("answer_s", [0.5, 5.0, 30.0, 120.0])
@pytest.mark.parametrize("failure_s", [0.1, 120.0])
def test_the_guard_needs_as_few_failures_however_long_the_incumbent_answers(
    answer_s: float, failure_s: float
) -> None:
    """One caller a second; every hundredth is in the canary, and all its requests fail."""
    guarded = GuardedRollout()
    ends: list[tuple[float, int, bool]] = []
    begun: dict[int, GuardedCaller] = {}
    stopped_s = None
    for second in range(1000):
        guarded.now_s = float(second)
        while ends and ends[0][0] <= guarded.now_s:
            _, key, failed = heapq.heappop(ends)
            begun.pop(key).first = Reading.BAD if failed else Reading.GOOD
            if guarded.guard.read(guarded.now_s):
                stopped_s = stopped_s or guarded.now_s
        canary = second % 100 == 50
        begun[second] = guarded.begin(str(second), canary=canary)
        lasts_s = failure_s if canary else answer_s
        heapq.heappush(ends, (second + lasts_s, second, canary))
        if stopped_s is not None:
            break

    assert guarded.guard.firsts.evidence.canary_failures == 2
    # The second failure arrives, and then the outcomes of the requests before it.
    assert stopped_s is not None
    assert stopped_s <= 150.0 + max(answer_s, failure_s) + 1.0


def test_a_key_counts_once() -> None:
    guarded = GuardedRollout()

    assert guarded.request("ann", canary=True) is not None
    assert guarded.request("ann", canary=True) is None
    assert guarded.guard.exposures == 1


def test_a_window_is_read_when_all_requests_of_its_age_are_known_and_never_earlier() -> None:
    guarded = GuardedRollout(WINDOW_S)
    guarded.begin("ann", canary=True)
    guarded.now_s = 1.0
    assert guarded.fail_later("ann")

    known_s = WINDOW_S + LONGEST_S + SPARE_S
    assert guarded.windows(known_s - 0.01) == (0, 0)
    assert guarded.windows(known_s) == (1, 1)
    assert guarded.guard.firsts.evidence.failures == 0


def test_a_failed_first_request_fails_its_window_too() -> None:
    side = Side(GuardFiles(), WINDOWED)
    side.request("ann", Arm.CANARY, failed=True)
    guard = side.guards._guards[CANARY.rollout]

    guard.read(WINDOW_S + LONGEST_S + SPARE_S)

    assert guard.firsts.evidence.canary_failures == 1
    assert guard.windows.evidence.canary_failures == 1


def test_two_failures_of_a_caller_are_one_failed_window() -> None:
    guarded = GuardedRollout(WINDOW_S)
    guarded.begin("ann", canary=True)

    assert guarded.fail_later("ann")
    assert guarded.fail_later("ann")
    assert guarded.windows(WINDOW_S + LONGEST_S + SPARE_S) == (1, 1)


def later_harm(clients: int) -> float:
    """Reads 400 windows of 100 clients. `clients` of these make the later turns of all their
    callers in the canary fail. Returns the evidence as a share of the level.
    """
    guarded = GuardedRollout(WINDOW_S)
    guarded.share = 0.25
    for number in range(400):
        canary = number % 4 == 0
        client = number % clients if number % 8 < 4 else clients + number % 100
        begun = guarded.begin(str(number), canary=canary, client=str(client))
        if canary and client < clients:
            begun.window = Reading.BAD
    guarded.guard.read(WINDOW_S + LONGEST_S + SPARE_S)
    return guarded.guard.count().distance


def test_one_client_key_alone_cannot_stop_a_canary_at_later_turns() -> None:
    assert later_harm(1) < 0.5
    assert later_harm(3) == 1.0


def test_the_only_client_key_stops_a_canary_at_later_turns() -> None:
    guarded = GuardedRollout(WINDOW_S)
    guarded.share = 0.25
    for number in range(80):
        canary = number % 4 == 0
        begun = guarded.begin(str(number), canary=canary, client="app")
        begun.window = Reading.BAD if canary else Reading.GOOD
    assert guarded.guard.read(WINDOW_S + LONGEST_S + SPARE_S)


def test_a_key_with_many_failures_takes_the_place_of_a_key_with_few() -> None:
    clients = GuardedClients()
    evidence = WorkerGuard()
    for number in range(MAX_CLIENTS + 40):
        client = str(number) if number < MAX_CLIENTS else "many"
        clients.add(client)
        clients.add_failure(client, evidence, canary=True, share=0.01, incident=False)
        evidence = evidence.after(canary=True, share=0.01)
    alone = WorkerGuard()
    for _ in range(MAX_CLIENTS):
        alone = alone.after(canary=True, share=0.01)

    assert clients.log_e == pytest.approx(alone.log_e)


def test_a_request_after_the_windows_end_does_not_count() -> None:
    guarded = GuardedRollout(WINDOW_S)
    guarded.begin("ann", canary=True)

    guarded.now_s = WINDOW_S
    assert not guarded.fail_later("ann")


def test_a_request_after_the_first_ones_that_a_window_counts_does_not_count() -> None:
    guarded = GuardedRollout(WINDOW_S)
    guarded.begin("ann", canary=True)

    counted = [guarded.fail_later("ann") for _ in range(4)]
    assert counted == [True, True, False, False]


@pytest.mark.parametrize("canary", [True, False])
def test_another_share_ends_all_windows_and_keeps_the_failures_before_it(
    canary: bool,  # noqa: FBT001 - a parameter
) -> None:
    guarded = GuardedRollout(WINDOW_S)
    failed = guarded.begin("failed", canary=canary)
    guarded.begin("healthy", canary=canary)
    failed.window = Reading.BAD

    guarded.now_s = 5.0
    guarded.share = 0.05
    assert guarded.request("healthy", canary=canary) is None
    guarded.share = 0.01
    assert guarded.request("healthy", canary=canary) is None
    # Another request of the older snapshot begins no window.
    guarded.begin("late", canary=canary)
    assert guarded.request("late", canary=canary) is None

    guarded.guard.read(WINDOW_S + LONGEST_S + SPARE_S)
    assert guarded.guard.windows.evidence.failures == 1


def test_a_later_request_that_the_other_model_serves_does_not_count() -> None:
    guarded = GuardedRollout(WINDOW_S)
    guarded.begin("ann", canary=False)

    assert guarded.request("ann", canary=True) is None
    assert guarded.request("ann", canary=False) is not None


def test_callers_who_come_while_too_many_windows_are_open_have_no_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.observers.canary_guard.MAX_WINDOWS", 1)
    guarded = GuardedRollout(WINDOW_S)
    guarded.begin("ann", canary=True)
    guarded.begin("ben", canary=True)

    assert guarded.fail_later("ann")
    assert not guarded.fail_later("ben")
    assert guarded.guard.exposures == 2
    assert guarded.windows(WINDOW_S + LONGEST_S + SPARE_S) == (1, 1)


def test_a_canary_whose_later_turns_fail_is_stopped_and_the_alert_names_them() -> None:
    side = Side(GuardFiles(), WINDOWED)
    for n in range(5):
        side.request(f"k{n}", Arm.CANARY, failed=False)
        side.request(f"k{n}", Arm.CANARY, failed=True)
    side.evaluate()
    assert not side.guards.stopped(CANARY)

    side.clock.advance(WINDOW_S + LONGEST_S + SPARE_S)
    side.evaluate()

    assert side.guards.stopped(CANARY)
    count = side.alerts[0].count
    assert (count.window_s, count.exposures, count.canary_failures) == (WINDOW_S, 5, 5)
    assert (count.control_exposures, count.control_failures) == (0, 0)
    assert count.error == GuardError("timeout", None, 5)


def test_first_requests_and_windows_spend_half_of_the_level_each() -> None:
    whole, half = Side(GuardFiles()), Side(GuardFiles(), WINDOWED)

    limits = [side.guards._guards[CANARY.rollout].limit for side in (whole, half)]
    assert limits[1] - limits[0] == pytest.approx(math.log(2.0))


class Side:
    def __init__(
        self,
        files: GuardFiles,
        route: Route = ROUTE,
        *,
        stale: bool = False,
    ) -> None:
        self.announced: list[LocalAbort] = []
        self.alerts: list[LocalAbort] = []
        self.holder = SimpleNamespace(current=None, stale=stale)
        self.serve(route)
        self.clock = ManualClock()
        self.guards = CanaryGuards(
            cast("Any", self.holder),
            files,
            self.clock,
            workers=2,
            worker="router-a",
            announce=self.announced.append,
            on_abort=self.alerts.append,
        )
        self.guards.boot()

    def serve(self, route: Route) -> None:
        compiled = compile_snapshot(snapshot("http://127.0.0.1:1/v1"))
        served = replace(compiled.routes["support"], route=route)
        self.holder.current = replace(compiled, routes={route.name: served})

    def request(
        self,
        key: str,
        arm: Arm,
        *,
        failed: bool,
    ) -> None:
        counted = self.guards.begin(CANARY, arm, key)
        why = FailureClass.TIMEOUT.value if failed else ""
        self.guards.end(CANARY.rollout, counted, outcome_of(failed=failed, why=why))

    def break_it(self) -> None:
        for n in range(3):
            self.request(f"k{n}", Arm.CANARY, failed=True)

    def evaluate(self) -> None:
        asyncio.run(self.guards.evaluate())


@pytest.mark.req("F4")
def test_a_gross_failure_stops_the_canary_in_this_worker_with_its_own_last_request() -> None:
    side = Side(GuardFiles())

    side.break_it()

    assert side.guards.stopped(CANARY)
    assert side.announced == side.alerts
    count = side.alerts[0].count
    assert (count.window_s, count.exposures, count.canary_failures) == (0.0, 2, 2)
    assert (count.control_exposures, count.control_failures) == (0, 0)
    assert count.error == GuardError("timeout", None, 2)
    assert not side.guards.stopped(replace(CANARY, rollout="r-2"))


def test_a_guard_counts_the_callers_of_both_arms_and_the_most_frequent_error() -> None:
    side = Side(GuardFiles())
    for n in range(4):
        side.request(f"old-{n}", Arm.INCUMBENT, failed=False)
    overloaded = outcome_of(failed=True, why="overloaded: 503 busy")
    failed = [(overloaded, 503), (outcome_of(failed=True), None), (overloaded, 503)]

    for n, (outcome, status) in enumerate(failed):
        counted = side.guards.begin(CANARY, Arm.CANARY, f"new-{n}")
        side.guards.end(CANARY.rollout, counted, outcome, status)

    count = side.alerts[0].count
    assert (count.exposures, count.canary_failures) == (2, 2)
    assert (count.control_exposures, count.control_failures) == (4, 0)
    assert count.error == GuardError("overloaded", 503, 1)


def test_the_error_that_opened_a_circuit_is_named_and_not_the_open_circuit() -> None:
    side = Side(GuardFiles(), WINDOWED)
    opened = [outcome_of(failed=True, why=why) for why in ("server", *["circuit_open"] * 4)]
    for n, outcome in enumerate(opened):
        side.request(f"k{n}", Arm.CANARY, failed=False)
        counted = side.guards.begin(CANARY, Arm.CANARY, f"k{n}")
        side.guards.end(CANARY.rollout, counted, outcome, 500 if n == 0 else None)

    side.clock.advance(WINDOW_S + LONGEST_S + SPARE_S)
    side.evaluate()

    count = side.alerts[0].count
    assert count.canary_classes == {"server": 1, "circuit_open": 4}
    assert count.error == GuardError("server", 500, 1)


def test_failures_that_hit_both_arms_stop_nothing() -> None:
    side = Side(GuardFiles())

    for n in range(2000):
        side.request(
            f"k{n}",
            Arm.CANARY if n % 100 == 7 else Arm.INCUMBENT,
            failed=True,
        )

    assert not side.guards.stopped(CANARY)


def test_an_incumbent_that_its_provider_limits_makes_no_candidate_look_worse() -> None:
    # Half of the incumbent's requests are limited. Half of all other requests fail.
    side = Side(GuardFiles())
    half = replace(CANARY, weight_bps=5_000)
    limited = ExposureOutcome(OutcomeKind.LIMITED, OutcomeReason.RATE)
    good, bad = outcome_of(failed=False), outcome_of(failed=True)
    arms = {Arm.CANARY: [good, bad, good, bad], Arm.INCUMBENT: [good, bad, limited, limited]}

    for n in range(200):
        for arm, outcomes in arms.items():
            for number, outcome in enumerate(outcomes):
                counted = side.guards.begin(half, arm, f"{arm}-{n}-{number}")
                side.guards.end(half.rollout, counted, outcome)

    assert not side.guards.stopped(half)


def test_a_policy_without_a_local_alpha_has_no_guard() -> None:
    rule = replace(RULE, local_alpha=0.0)
    side = Side(GuardFiles(), replace(ROUTE, canary=replace(CANARY, unit_rule=rule)))

    side.break_it()

    assert not side.guards.stopped(CANARY)


def test_a_worker_that_is_started_again_tells_what_nobody_has_confirmed(tmp_path: Path) -> None:
    files = GuardFiles(tmp_path / "guard")
    first = Side(files)
    first.break_it()
    first.evaluate()

    # Its alert may have died with it. The database is away at first: who knows what it has.
    again = Side(GuardFiles(tmp_path / "guard"), stale=True)
    again.evaluate()
    assert again.guards.stopped(CANARY)
    assert (again.alerts, again.announced) == ([], [])
    again.holder.stale = False
    again.evaluate()
    again.evaluate()
    assert again.alerts == first.alerts

    # Confirmed: the canary has left the table.
    confirmed = Side(GuardFiles(tmp_path / "guard"), replace(ROUTE, canary=None))
    confirmed.evaluate()
    assert confirmed.alerts == []


async def test_an_abort_is_put_on_disk_as_it_comes_into_force_and_not_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.observers.canary_guard.LOOK_S", 3600.0)
    side = Side(GuardFiles(tmp_path / "guard"))
    watching = asyncio.create_task(side.guards.watch())
    await asyncio.sleep(0)  # it waits

    side.break_it()

    files = GuardFiles(tmp_path / "guard")
    while not files.aborted():  # noqa: ASYNC110 - of a thread and a disk: no event tells
        await asyncio.sleep(0.001)
    assert files.aborted() == side.announced
    watching.cancel()


def test_an_abort_is_over_with_the_rollout_and_leaves_nothing_behind(tmp_path: Path) -> None:
    side = Side(GuardFiles(tmp_path / "guard"))
    side.break_it()
    side.evaluate()

    side.serve(replace(ROUTE, canary=None))
    side.evaluate()

    assert not side.guards.stopped(CANARY)
    assert list((tmp_path / "guard").glob("*.json")) == []


def test_a_worker_whose_snapshot_is_older_keeps_what_another_one_tells(tmp_path: Path) -> None:
    files = GuardFiles(tmp_path / "guard")
    side = Side(files, replace(ROUTE, canary=None))
    side.guards.apply_abort(LocalAbort("r-1", "support", "w", COUNT, EPOCH))
    side.evaluate()

    assert side.guards.stopped(CANARY)


EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = GuardCount(
    3,
    3,
    0,
    log_e=7.0,
    log_limit=6.0,
)


def test_every_process_that_watches_a_rollout_gets_a_turn_of_its_own(tmp_path: Path) -> None:
    first = GuardFiles(tmp_path / "guard")
    second = GuardFiles(tmp_path / "guard")

    assert first.claim("r/1", 2) == GuardTurn(0, 2)
    assert second.claim("r/1", 4) == GuardTurn(1, 2)
    assert first.claim("r/2", 4) == GuardTurn(0, 4)


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    files = GuardFiles(tmp_path / "guard")
    files.keep(LocalAbort("r-1", "support", "w", COUNT, EPOCH))
    (tmp_path / "guard" / "r-1.json").write_bytes(b'{"torn')

    assert files.aborted() == []
