"""How often healthy canaries are stopped by a router's own guards: at most alpha."""

import math

import numpy as np
import pytest

from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import Reading
from harness.gate.online.worker_guard import (
    FIRST_WEIGHT,
    HARM_GRID,
    WorkerGuard,
    abort_log_e,
)
from router.observers.canary_guard import GuardedRequest, RolloutGuard
from tests.support.sampling import later

ALPHA = 0.01
REQUESTS = 100_000


def ever_stopped(
    arms: np.ndarray,
    share: float,
    limit: float,
) -> np.ndarray:
    """Whether each row's failures, in order, reach the limit: LocalGuard for many at once."""
    grid = np.array(HARM_GRID)
    among = grid * share + 1.0 - share
    sums = np.zeros((len(arms), len(grid)))
    stopped = np.zeros(len(arms), dtype=bool)
    for t in range(1, arms.shape[1] + 1):
        weight = FIRST_WEIGHT if t == 1 else (1.0 - FIRST_WEIGHT) / (t * (t - 1))
        factor = np.where(arms[:, t - 1, None], grid, 1.0) / among
        sums = (sums + weight) * factor
        stopped |= sums.mean(axis=1) + (1.0 - FIRST_WEIGHT) / t >= math.exp(limit)
    return stopped


def test_many_at_once_are_what_one_is() -> None:
    random = np.random.default_rng(5)
    rows = random.random((40, 60)) < 0.2
    limit = 1.5

    for row, stops in zip(rows, ever_stopped(rows, 0.05, limit), strict=True):
        guard = WorkerGuard()
        stopped = False
        for canary in row:
            guard = guard.after(canary=bool(canary), share=0.05)
            stopped = stopped or guard.log_e >= limit
        assert stopped == stops


@pytest.mark.req("F3")
@pytest.mark.parametrize(
    ("share", "error_rate"),
    [
        (0.01, 0.01),
        later(0.05, 0.02),
        later(0.25, 0.002),
    ],
)
def test_in_100_000_requests_healthy_canaries_are_stopped_at_most_as_often_as_alpha(
    share: float, error_rate: float
) -> None:
    random = np.random.default_rng(20)
    rollouts = 4000
    workers = 4
    seen = round(REQUESTS * error_rate / workers)
    limit = abort_log_e(ALPHA, workers=workers, turn=0)

    each = ever_stopped(random.random((rollouts * workers, seen)) < share, share, limit)
    found = each.reshape(rollouts, workers).any(axis=1).mean()

    # Three standard deviations above alpha would be 0.0147.
    assert found <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / rollouts)


@pytest.mark.req("F3")
@pytest.mark.parametrize(
    ("share", "rate", "rollouts"),
    [
        (0.05, 0.05, 60),
        *(
            later(*cell, 400)
            for cell in [
                (0.05, 0.01),
                (0.25, 0.01),
                (0.25, 0.05),
            ]
        ),
    ],
)
def test_an_equal_candidate_that_fails_sooner_is_not_stopped(
    share: float,
    rate: float,
    rollouts: int,
) -> None:
    """The candidate's failures arrive after 1 s, the incumbent's after 30 s, 5 callers a
    second. If the guard read them as they arrive, it would stop the canary.
    """
    random = np.random.default_rng(23)
    stopped = sum(_is_stopped(random, share, rate) for _ in range(rollouts))

    assert stopped <= ALPHA * rollouts + 3 * math.sqrt(ALPHA * (1 - ALPHA) * rollouts)


def _is_stopped(
    random: np.random.Generator,
    share: float,
    rate: float,
) -> bool:
    guard = RolloutGuard(
        "r", ExposureRule(), abort_log_e(ALPHA, workers=1, turn=0), longest_s=120.0
    )
    number = 1500
    canary = random.random(number) < share
    failed = random.random(number) < rate
    begun_s = np.arange(number) / 5.0
    lasts_s = np.where(failed, np.where(canary, 1.0, 30.0), 2.0)
    events = np.concatenate([begun_s, begun_s + lasts_s])
    requests: dict[int, GuardedRequest] = {}
    for event in np.argsort(events, kind="stable").tolist():
        key = event % number
        now_s = float(events[event])
        if event < number:
            begun = guard.begin(
                str(key),
                canary=bool(canary[key]),
                share=share,
                now_s=now_s,
            )
            assert begun is not None
            requests[key] = begun
        else:
            caller, _ = requests.pop(key)
            caller.first = Reading.BAD if failed[key] else Reading.GOOD
            if guard.read(now_s):
                return True
    return False


TURNS = 5
WINDOW_S = 600.0
LONGEST_S = 120.0


@pytest.mark.req("F3")
@pytest.mark.parametrize(
    ("share", "rate", "rollouts"),
    [
        (0.25, 0.05, 25),
        *(
            later(*cell, 100)
            for cell in [
                (0.05, 0.01),
                (0.05, 0.05),
                (0.25, 0.01),
                (0.25, 0.05),
            ]
        ),
    ],
)
def test_an_equal_candidate_whose_later_turns_fail_sooner_is_not_stopped(
    share: float,
    rate: float,
    rollouts: int,
) -> None:
    """Callers have 5 turns, 20 s apart. The candidate's failures arrive after 1 s, the
    incumbent's after 110 s, 5 callers a second. If windows entered the guard as their failures
    arrive, it would stop the canary in .65 and 1.00 of rollouts at 25 %, and in .16 and .86 at
    5 %, with 1 and 5 % failing.
    """
    random = np.random.default_rng(29)
    stopped = sum(_are_windows_stopped(random, share, rate) for _ in range(rollouts))

    assert stopped <= ALPHA * rollouts + 3 * math.sqrt(ALPHA * (1 - ALPHA) * rollouts)


def _are_windows_stopped(
    random: np.random.Generator,
    share: float,
    rate: float,
) -> bool:
    """Plays a rollout's requests in the order of their arrivals and ends."""
    guard = RolloutGuard(
        "r",
        ExposureRule(window_s=WINDOW_S),
        abort_log_e(ALPHA / 2, workers=1, turn=0),
        longest_s=LONGEST_S,
    )
    callers = 1500
    canary = np.repeat(random.random(callers) < share, TURNS)
    failed = random.random(callers * TURNS) < rate
    begun_s = (np.arange(callers)[:, None] / 5.0 + 20.0 * np.arange(TURNS)).ravel()
    lasts_s = np.where(failed, np.where(canary, 1.0, 110.0), 2.0)
    events = np.concatenate([begun_s, begun_s + lasts_s])
    requests: dict[int, GuardedRequest] = {}
    for event in np.argsort(events, kind="stable").tolist():
        number = event % len(failed)
        now_s = float(events[event])
        if event < len(failed):
            begun = guard.begin(
                str(number // TURNS),
                canary=bool(canary[number]),
                share=share,
                now_s=now_s,
            )
            assert begun is not None
            requests[number] = begun
        else:
            caller, is_first = requests.pop(number)
            reading = Reading.BAD if failed[number] else Reading.GOOD
            if is_first:
                caller.first = reading
            if caller.window is Reading.GOOD:
                caller.window = reading
            if guard.read(now_s):
                return True
    # The rest of the windows become known one by one, as no request comes any more.
    last_s = callers / 5.0 + WINDOW_S + LONGEST_S + 2.0
    return any(guard.read(now_s) for now_s in np.arange(WINDOW_S, last_s, 0.2).tolist())
