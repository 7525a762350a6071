"""Computes latency quantiles and time limits from recorded histograms. Limits a target's
concurrent eval calls: one more while answers do not slow down. Pure.

Sources: Chiu and Jain 1989 (additive increase, multiplicative decrease); Brakmo and Peterson
1995 (TCP Vegas). Times are monotonic seconds.

The router enforces the time limits (`router.request.attempts`), and eval workers the number of
calls (`evals.runner.rate_gate`).
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
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
# Upper bounds (ms) of a wait for the first output: above 10 s, in steps of 25 % to a day.
WAIT_BOUNDS_MS: Final = (
    *LATENCY_BOUNDS_MS[:9],
    *(round(10_000 * 1.25**step) for step in range(42)),
)
_FIND_WAIT_BOUND: Final = partial(bisect_left, WAIT_BOUNDS_MS)
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
# Without a setting, a stream's first output has at least this time.
FIRST_TOKEN_S: Final = 10.0
# Measured times raise a configured limit to this multiple at most.
MOST_FACTOR: Final = 3.0
# The least share of cut waits that shows a slow target, and not single requests that hang.
SLOW_SHARE: Final = 0.5
_ROUNDING: Final = 1e-9
_BUCKET_RATIO: Final = 1.25  # between the bounds of two buckets above 10 s
# A usual answer takes at most USUAL_FACTOR times the USUAL_SHARE quantile.
USUAL_SHARE: Final = 0.9
USUAL_FACTOR: Final = 2.0
# An answer within this time is always usual, and a shorter wait of a caller shows no fault.
LEAST_WAIT_S: Final = 1.0


class AnswerTimes(NamedTuple):
    """The times to the first output of a target's answers: two histograms over
    `WAIT_BOUNDS_MS`.

    answered: waits that ended with output. cut: waits that the router's own limit ended, so
    that their whole length is unknown (censored).
    """

    answered: Mapping[int, int]
    cut: Mapping[int, int]

    @property
    def waits(self) -> int:
        """The number of waits in both histograms."""
        return sum(self.answered.values()) + sum(self.cut.values())


NO_TIMES: Final = AnswerTimes({}, {})


def merge_histograms(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Adds up histograms, which have a count for each upper bound in ms (-1: no bound)."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bound, count in histogram.items():
            total[bound] = total.get(bound, 0) + count
    return total


def quantile_ms(
    histogram: Mapping[int, int],
    share: float,
    bounds_ms: Sequence[int] = LATENCY_BOUNDS_MS,
) -> float | None:
    """Interpolates the latency quantile `share`; None without requests. In the bucket without a
    bound, returns its lower end. Source: Prometheus, `histogram_quantile`.
    """
    rank = share * sum(histogram.values())
    if not rank:
        return None
    lower_ms = 0
    counted = 0
    for bound in bounds_ms:
        count = histogram.get(bound, 0)
        if count and counted + count >= rank:
            return lower_ms + (bound - lower_ms) * (rank - counted) / count
        lower_ms = bound
        counted = counted + count
    return float(lower_ms)


def answer_class(max_tokens: int) -> int:
    """Classifies answers by length; 0 without a limit.

    Args:
        max_tokens: the client's limit, or 0.
    """
    if max_tokens <= 0:
        return 0
    index = bisect_left(ANSWER_CLASSES, max_tokens)
    return ANSWER_CLASSES[index] if index < len(ANSWER_CLASSES) else ANSWER_CLASSES[-1] + 1


def add_waits(
    times: AnswerTimes | None,
    answered_s: Iterable[float],
    cut_s: Iterable[float] = (),
) -> AnswerTimes:
    """Adds waits in seconds to the histograms. Above MAX_ANSWERS, it halves all counts."""
    earlier = times or NO_TIMES
    answered = _add_counts(earlier.answered, answered_s)
    cut = _add_counts(earlier.cut, cut_s)
    while sum(answered.values()) + sum(cut.values()) > MAX_ANSWERS:
        answered = _halve_counts(answered)
        cut = _halve_counts(cut)
    return AnswerTimes(answered, cut)


def _add_counts(histogram: Mapping[int, int], waits_s: Iterable[float]) -> dict[int, int]:
    """Counts waits in a copy of a histogram over `WAIT_BOUNDS_MS`."""
    counts = dict(histogram)
    waits_ms = [seconds * 1000 for seconds in waits_s]
    for index, count in Counter(map(_FIND_WAIT_BOUND, waits_ms)).items():
        bound = WAIT_BOUNDS_MS[min(index, len(WAIT_BOUNDS_MS) - 1)]
        counts[bound] = counts.get(bound, 0) + count
    return counts


def _halve_counts(counts: Mapping[int, int]) -> dict[int, int]:
    return {bound: count // 2 for bound, count in counts.items() if count > 1}


def wait_quantile_s(times: AnswerTimes, share: float) -> float | None:
    """Estimates the quantile `share` of the time to the first output, in seconds.

    None if too many waits were cut before it: the quantile is then unknown. Without a cut wait,
    it equals `quantile_ms`. Source: Kaplan and Meier 1958. A cut wait counts as longer than
    answers in the same bucket.
    """
    remaining = times.waits
    longer_share = 1.0  # the estimated share of waits above `below`
    lower_ms = 0
    for bound in WAIT_BOUNDS_MS:
        answered = times.answered.get(bound, 0)
        if answered:
            next_share = longer_share * (1 - answered / remaining)
            if next_share <= 1 - share + _ROUNDING:
                fraction = (longer_share - (1 - share)) / (longer_share - next_share)
                return (lower_ms + (bound - lower_ms) * min(1.0, fraction)) / 1000
            longer_share = next_share
        remaining -= answered + times.cut.get(bound, 0)
        lower_ms = bound
    return None


def unmeasured_limit_s(max_tokens: int, *, thinks: bool) -> float:
    """Returns the limit before measurements, in seconds: a slow target's time for `max_tokens`.
    Infinite if the target thinks, or there is no `max_tokens`.
    """
    if max_tokens <= 0 or thinks:
        return math.inf
    return max(MIN_LIMIT_S, max_tokens / SLOW_TOKENS_PER_S)


def first_byte_limit_s(times: AnswerTimes | None, unmeasured_s: float) -> float:
    """Returns three times the 99 % quantile, in seconds. Below MIN_ANSWERS answers, returns at
    least unmeasured_s: a lower limit would end a slow target's answers, so that it could never
    be measured.
    """
    if times is None:
        return unmeasured_s
    has_enough = times.waits >= MIN_ANSWERS
    return _limit_from_times_s(times, MIN_LIMIT_S if has_enough else unmeasured_s, math.inf)


def first_token_limit_s(
    times: AnswerTimes | None,
    least_s: float,
    most_s: float = math.inf,
) -> float:
    """Returns three times the 99 % quantile, from least_s to most_s."""
    return least_s if times is None else _limit_from_times_s(times, least_s, most_s)


def usual_wait_s(times: AnswerTimes | None) -> float | None:
    """Returns the longest time to an answer that is usual, in seconds; None if too few answers
    are known.
    """
    if times is None or sum(times.answered.values()) <= FEW_ANSWERS:
        return None
    usual_ms = quantile_ms(times.answered, USUAL_SHARE, WAIT_BOUNDS_MS) or 0.0
    return max(LEAST_WAIT_S, USUAL_FACTOR * usual_ms / 1000)


def telling_wait_s(times: AnswerTimes | None) -> float:
    """Returns the wait in seconds after which a leaving caller is evidence about the target:
    the median of its answers, and at least LEAST_WAIT_S.
    """
    half_ms = quantile_ms(times.answered, 0.5, WAIT_BOUNDS_MS) if times is not None else None
    return max(LEAST_WAIT_S, (half_ms or 0.0) / 1000)


def _limit_from_times_s(times: AnswerTimes, least_s: float, most_s: float) -> float:
    """Returns three times the 99 % quantile, from least_s to most_s. Below MIN_ANSWERS waits, a
    lower quantile counts; for very few, returns least_s.

    If cut waits hide the quantile, the times of the answers give a limit, and some waits may
    last P99_FACTOR times as long: a slow target then shows its times. If such waits were cut
    as well, the requests hang, and more time does not help. If most waits were cut, the target
    itself is slow or down: the limit rises with each cut until answers come, because the
    circuit breaker judges a target that is down.
    """
    waits_measured = times.waits
    if waits_measured <= FEW_ANSWERS:
        return least_s
    share = 0.99 if waits_measured >= MIN_ANSWERS else 1 - FEW_ANSWERS / waits_measured
    slow_s = wait_quantile_s(times, share)
    if slow_s is not None:
        return max(least_s, min(P99_FACTOR * slow_s, most_s))
    if sum(times.cut.values()) > SLOW_SHARE * waits_measured:
        waits = merge_histograms(times)
        slow_ms = quantile_ms(waits, share, WAIT_BOUNDS_MS) or 0.0
        return max(least_s, min(P99_FACTOR * slow_ms / 1000, most_s))
    answered_ms = quantile_ms(times.answered, share, WAIT_BOUNDS_MS) or 0.0
    limit_s = max(least_s, min(P99_FACTOR * answered_ms / 1000, most_s))
    longer_ms = 1000 * _BUCKET_RATIO * limit_s
    cut_after_longer_time = sum(
        count for bound, count in times.cut.items() if bound > longer_ms
    )
    if cut_after_longer_time >= FEW_ANSWERS:
        return limit_s
    return min(P99_FACTOR * limit_s, most_s)


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
    """The number of calls that a target gets at once, and the sums that adapt this number."""

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
    """Returns the speed, or a new CallSpeed if the last answer is older than FORGET_S."""
    return speed if 0 <= now - speed.used_at <= FORGET_S else CallSpeed(used_at=now)


def note_answer(
    speed: CallSpeed,
    call: EndedCall,
    max_calls: int,
) -> CallSpeed:
    """Returns the speed after an answer.

    Args:
        max_calls: the largest number of calls at once.

    After each round of answers: fewer calls if a token takes TOO_SLOW times as long as at
    first, and one more if the limit was used.
    """
    speed = current_speed(speed, call.now)._replace(used_at=call.now)
    if call.started_at < speed.changed_at:
        return speed
    tokens = max(1, call.tokens)
    if speed.calls <= START_CALLS:
        speed = speed._replace(
            first_s=speed.first_s + call.seconds,
            first_tokens=speed.first_tokens + tokens,
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
        return _change_calls(speed, speed.calls * SLOWER_SHARE, call.now)
    increased = speed.calls + speed.round_full
    return _change_calls(speed, min(float(max_calls), increased), call.now)


def note_overload(speed: CallSpeed, call: EndedCall) -> CallSpeed:
    """Halves the limit after an overload, but only once for all calls that ran at that time."""
    speed = current_speed(speed, call.now)._replace(used_at=call.now)
    if call.started_at < speed.changed_at:
        return speed
    return _change_calls(speed, speed.calls * OVERLOAD_SHARE, call.now)


def _change_calls(
    speed: CallSpeed,
    calls: float,
    now: float,
) -> CallSpeed:
    return speed._replace(
        calls=max(1.0, calls),
        changed_at=now if calls != speed.calls else speed.changed_at,
        round_s=0.0,
        round_tokens=0.0,
        round_answers=0.0,
        round_full=0.0,
    )
