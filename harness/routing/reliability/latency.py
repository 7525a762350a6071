"""Computes latency quantiles and time limits from recorded histograms. Pure."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

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
# A healthy target may be this slow.
SLOW_TOKENS_PER_S: Final = 20.0
# This many answers or fewer give no limit, because five failures open a circuit.
FEW_ANSWERS: Final = 3
# Upper bounds of a request's output limit, in tokens.
ANSWER_CLASSES: Final[tuple[int, ...]] = (256, 1024, 4096, 16_384)
AnswerTimes = Mapping[int, int]


def merge_histograms(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Adds up histograms: upper bound in ms (-1: no bound) to count."""
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
    """The time limit before measurements: a slow target's time for max_tokens; inf without."""
    if max_tokens <= 0 or thinks:
        return math.inf
    return max(MIN_LIMIT_S, max_tokens / SLOW_TOKENS_PER_S)


def first_byte_limit_s(times: AnswerTimes | None, unmeasured_s: float) -> float:
    """Three times the 99 % quantile. Until MIN_ANSWERS are measured, at least unmeasured_s, so
    that a slow target is not cut off for ever.
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
    """The 99 % quantile in seconds, a lower one below MIN_ANSWERS; None for too few answers."""
    measured = sum(times.values()) if times else 0
    if times is None or measured <= FEW_ANSWERS:
        return None
    share = 0.99 if measured >= MIN_ANSWERS else 1 - FEW_ANSWERS / measured
    return (quantile_ms(times, share, bounds_ms) or 0.0) / 1000
