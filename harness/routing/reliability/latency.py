"""Computes latency quantiles and time limits from recorded histograms. Limits a target's
concurrent eval calls: one more while answers do not slow down. Pure.

Sources: Chiu and Jain 1989 (additive increase, multiplicative decrease); Brakmo and Peterson
1995 (TCP Vegas). Times are monotonic seconds.

The router enforces the time limits (`router.request.attempts`), and eval workers the number of
calls (`evals.runner.rate_gate`).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

# Upper bounds of the recorded histogram's buckets in ms; -1 stands for "no bound".
LATENCY_BOUNDS_MS: Final[tuple[int, ...]] = (
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10_000,
    30_000,
    60_000,
)
# Upper bounds (ms) of the time to a plain answer: from 10 s to a day, in steps of 25 %.
ANSWER_BOUNDS_MS: Final = tuple(round(10_000 * 1.25**step) for step in range(42))
# Upper bounds (ms) of the time to a stream's first output.
FIRST_TOKEN_BOUNDS_MS: Final = (*LATENCY_BOUNDS_MS[:9], *ANSWER_BOUNDS_MS)
# A 99 % quantile needs at least 100 answers.
MIN_ANSWERS: Final = 100
MAX_ANSWERS: Final = 1000
MIN_LIMIT_S: Final = 30.0
P99_FACTOR: Final = 3.0
# The speed of a slow but healthy target.
SLOW_TOKENS_PER_S: Final = 20.0
# Limits need more answers than this.
FEW_ANSWERS: Final = 3
# Upper bounds of a request's output limit, in tokens.
ANSWER_CLASSES: Final[tuple[int, ...]] = (256, 1024, 4096, 16_384)
AnswerTimes = Mapping[int, int]


def merge_histograms(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Adds up histograms, which have a count for each upper bound in ms (-1: no bound)."""
    found: dict[int, int] = {}
    for histogram in histograms:
        for bound, count in histogram.items():
            found[bound] = found.get(bound, 0) + count
    return found


def quantile_ms(
    histogram: Mapping[int, int], share: float, bounds_ms: Sequence[int] = LATENCY_BOUNDS_MS
) -> float | None:
    """Interpolates the latency quantile `share`; None without requests. In the bucket without a
    bound, returns its lower end. Source: Prometheus, `histogram_quantile`.
    """
    rank = share * sum(histogram.values())
    if not rank:
        return None
    below, seen = 0, 0
    for bound in bounds_ms:
        count = histogram.get(bound, 0)
        if count and seen + count >= rank:
            return below + (bound - below) * (rank - seen) / count
        below, seen = bound, seen + count
    return float(below)


def answer_class(max_tokens: int) -> int:
    """Classifies answers by length; 0 without a limit. max_tokens: the client's limit, or 0."""
    if max_tokens <= 0:
        return 0
    place = bisect_left(ANSWER_CLASSES, max_tokens)
    return ANSWER_CLASSES[place] if place < len(ANSWER_CLASSES) else ANSWER_CLASSES[-1] + 1


def add_answers(
    times: AnswerTimes | None,
    answers_s: Iterable[float],
    bounds_ms: Sequence[int] = ANSWER_BOUNDS_MS,
) -> AnswerTimes:
    """Adds answers to a histogram. Above MAX_ANSWERS, it halves all counts."""
    after = dict(times or {})
    total = sum(after.values())
    for seconds in answers_s:
        place = min(bisect_left(bounds_ms, seconds * 1000), len(bounds_ms) - 1)
        bound = bounds_ms[place]
        after[bound] = after.get(bound, 0) + 1
        total += 1
        if total > MAX_ANSWERS:
            after = {bound: count // 2 for bound, count in after.items() if count > 1}
            total = sum(after.values())
    return after


def unmeasured_limit_s(max_tokens: int, *, thinks: bool) -> float:
    """The limit before measurements: the time of a slow target for `max_tokens`. Infinite if
    the target thinks, or there is no `max_tokens`.
    """
    if max_tokens <= 0 or thinks:
        return math.inf
    return max(MIN_LIMIT_S, max_tokens / SLOW_TOKENS_PER_S)


def first_byte_limit_s(times: AnswerTimes | None, unmeasured_s: float) -> float:
    """Returns three times the 99 % quantile. Below MIN_ANSWERS answers, returns at least
    unmeasured_s: a lower limit would cut a slow target off, which could then never be measured.
    """
    enough = times is not None and sum(times.values()) >= MIN_ANSWERS
    slow_s = _slow_s(times, ANSWER_BOUNDS_MS)
    if slow_s is None:
        return unmeasured_s
    return max(MIN_LIMIT_S if enough else unmeasured_s, P99_FACTOR * slow_s)


def first_token_limit_s(times: AnswerTimes | None, least_s: float) -> float:
    """Three times the 99 % quantile, at least least_s."""
    return max(least_s, P99_FACTOR * (_slow_s(times, FIRST_TOKEN_BOUNDS_MS) or 0.0))


def _slow_s(times: AnswerTimes | None, bounds_ms: Sequence[int]) -> float | None:
    """The 99 % quantile in seconds; a lower quantile below MIN_ANSWERS answers. None for very
    few answers.
    """
    measured = sum(times.values()) if times else 0
    if times is None or measured <= FEW_ANSWERS:
        return None
    share = 0.99 if measured >= MIN_ANSWERS else 1 - FEW_ANSWERS / measured
    return (quantile_ms(times, share, bounds_ms) or 0.0) / 1000


START_CALLS: Final = 2.0
MOST_CALLS: Final = 256
ROUND_ANSWERS: Final = 4  # least number of answers before a decision
# Answers are too slow if a token takes this many times as long as at first. The target then
# seems to queue calls.
TOO_SLOW: Final = 2.0
SLOWER_SHARE: Final = 0.75  # factor for `calls` if answers are too slow
OVERLOAD_SHARE: Final = 0.5
FORGET_S: Final = 600.0  # after this long without an answer the limit starts again


class CallSpeed(NamedTuple):
    """How many calls a target gets at once, and the sums that this number is adapted by."""

    calls: float = START_CALLS
    changed_at: float = 0.0  # answers to earlier calls do not count
    used_at: float = 0.0
    first_s: float = 0.0  # first_s, first_tokens: sums while calls <= START_CALLS
    first_tokens: float = 0.0
    round_s: float = 0.0  # round_s and below: sums since the last decision
    round_tokens: float = 0.0
    round_answers: float = 0.0
    round_full: float = 0.0  # 1 if as many calls as allowed were running at one time


class EndedCall(NamedTuple):
    """A call that has ended. Times are monotonic seconds."""

    started_at: float
    now: float
    full: bool  # whether as many calls as allowed were running
    tokens: int = 1

    @property
    def seconds(self) -> float:
        return self.now - self.started_at


def current_speed(speed: CallSpeed, now: float) -> CallSpeed:
    """Returns the speed, or a fresh one if the last answer is too old to say anything."""
    return speed if 0 <= now - speed.used_at <= FORGET_S else CallSpeed(used_at=now)


def note_answer(speed: CallSpeed, call: EndedCall, most: int) -> CallSpeed:
    """Returns the speed after an answer. most: the largest number of calls at once.

    After each round of answers: fewer calls if a token takes TOO_SLOW times as long as at
    first, and one more if the limit was used.
    """
    speed = current_speed(speed, call.now)._replace(used_at=call.now)
    if call.started_at < speed.changed_at:
        return speed
    tokens = max(1, call.tokens)
    if speed.calls <= START_CALLS:
        speed = speed._replace(
            first_s=speed.first_s + call.seconds, first_tokens=speed.first_tokens + tokens
        )
    speed = speed._replace(
        round_s=speed.round_s + call.seconds,
        round_tokens=speed.round_tokens + tokens,
        round_answers=speed.round_answers + 1,
        round_full=max(speed.round_full, float(call.full)),
    )
    if speed.round_answers < max(ROUND_ANSWERS, int(speed.calls)):
        return speed
    if speed.round_s * speed.first_tokens > TOO_SLOW * speed.first_s * speed.round_tokens:
        return _change(speed, speed.calls * SLOWER_SHARE, call.now)
    more = speed.calls + speed.round_full
    return _change(speed, min(float(most), more), call.now)


def note_overload(speed: CallSpeed, call: EndedCall) -> CallSpeed:
    """Halves the limit, once for all calls that ran at the time of an overload."""
    speed = current_speed(speed, call.now)._replace(used_at=call.now)
    if call.started_at < speed.changed_at:
        return speed
    return _change(speed, speed.calls * OVERLOAD_SHARE, call.now)


def _change(speed: CallSpeed, calls: float, now: float) -> CallSpeed:
    return speed._replace(
        calls=max(1.0, calls),
        changed_at=now if calls != speed.calls else speed.changed_at,
        round_s=0.0,
        round_tokens=0.0,
        round_answers=0.0,
        round_full=0.0,
    )
