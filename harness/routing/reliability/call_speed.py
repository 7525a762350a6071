"""Limits a target's concurrent eval calls: one more while answers do not slow down. Pure.

Sources: Chiu and Jain 1989 (additive increase, multiplicative decrease); Brakmo and Peterson
1995 (TCP Vegas). Times are monotonic seconds.
"""

from typing import Final, NamedTuple

START_CALLS: Final = 2.0
MOST_CALLS: Final = 256
ROUND_ANSWERS: Final = 4  # least number of answers before a decision
# Answers are too slow if a token takes this many times as long as at first: then the target
# queues further calls.
TOO_SLOW: Final = 2.0
SLOWER_SHARE: Final = 0.75  # factor for `calls` if answers are too slow
OVERLOAD_SHARE: Final = 0.5
FORGET_S: Final = 600.0  # after this long without an answer the limit starts again


class CallSpeed(NamedTuple):
    calls: float = START_CALLS
    changed_at: float = 0.0  # answers to calls begun before do not count
    used_at: float = 0.0
    first_s: float = 0.0  # first_s, first_tokens: sums while calls <= START_CALLS
    first_tokens: float = 0.0
    round_s: float = 0.0  # round_s and below: sums since the last decision
    round_tokens: float = 0.0
    round_answers: float = 0.0
    round_full: float = 0.0  # 1 if the target had all its allowed calls at one time


class EndedCall(NamedTuple):
    started_at: float
    now: float
    full: bool  # the target had all its allowed calls
    tokens: int = 1

    @property
    def seconds(self) -> float:
        return self.now - self.started_at


def current_speed(speed: CallSpeed, now: float) -> CallSpeed:
    return speed if 0 <= now - speed.used_at <= FORGET_S else CallSpeed(used_at=now)


def note_answer(speed: CallSpeed, call: EndedCall, most: int) -> CallSpeed:
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
    """Halves the limit once for all calls that ran when the target was overloaded."""
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
