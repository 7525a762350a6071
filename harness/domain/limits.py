"""Rate limits of a key: two token buckets, for requests and for tokens. Pure.

Each worker has buckets of its own: it is given its part of the limit (`RateLimit.part`).
Time is monotonic seconds, handed in.
"""

from dataclasses import dataclass, replace

from harness.domain.errors import InputError

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Per minute; None for no limit. A minute's worth may come at once.

    Raises InputError for a limit below 1: to shut a key out, revoke it.
    """

    requests_per_min: float | None = None
    tokens_per_min: float | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("requests_per_min", self.requests_per_min),
            ("tokens_per_min", self.tokens_per_min),
        ):
            if value is not None and not value > 0:
                raise InputError(f"{name} is above 0, or absent for no limit; not {value}")

    def part(self, workers: int) -> "RateLimit":
        """One worker's part of the limit."""
        return RateLimit(
            self.requests_per_min and self.requests_per_min / workers,
            self.tokens_per_min and self.tokens_per_min / workers,
        )


@dataclass(frozen=True, slots=True)
class Level:
    """used: of the minute's worth, 0 when full. at: monotonic seconds of the last look."""

    used: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class RateState:
    requests: Level = Level()
    tokens: Level = Level()


@dataclass(frozen=True, slots=True)
class RateDecision:
    """state: to keep, whatever was decided. retry_after_s: 0 when allowed. reason: in words."""

    state: RateState
    allowed: bool
    retry_after_s: float = 0.0
    reason: str = ""


def admit(state: RateState, limit: RateLimit, tokens: float, now: float) -> RateDecision:
    """May a request with about so many tokens go? It takes from both buckets, or from none.

    A request larger than a whole minute's worth goes when its bucket is full, and the debt is
    waited off by those after it: otherwise it could never go.
    """
    requests = _drained(state.requests, limit.requests_per_min, now)
    used = _drained(state.tokens, limit.tokens_per_min, now)
    for_requests = _wait_s(requests, limit.requests_per_min, 1.0)
    for_tokens = _wait_s(used, limit.tokens_per_min, tokens)
    wait_s = max(for_requests, for_tokens)
    if wait_s > 0:
        per_minute, what = (
            (limit.requests_per_min, "requests")
            if for_requests >= for_tokens
            else (limit.tokens_per_min, "tokens")
        )
        reason = f"this key's limit of {per_minute:g} {what} per minute is used up"
        return RateDecision(RateState(requests, used), False, wait_s, reason)  # noqa: FBT003
    taken = RateState(
        replace(requests, used=requests.used + 1.0), replace(used, used=used.used + tokens)
    )
    return RateDecision(taken, allowed=True)


def settle(
    state: RateState, limit: RateLimit, *, estimated: float, actual: float, now: float
) -> RateState:
    """The state once a request's tokens are known. estimated: what `admit` was told."""
    tokens = _drained(state.tokens, limit.tokens_per_min, now)
    return replace(
        state, tokens=replace(tokens, used=max(0.0, tokens.used + actual - estimated))
    )


def _drained(level: Level, per_minute: float | None, now: float) -> Level:
    if per_minute is None:
        return Level(0.0, now)
    if now <= level.at:
        return level
    return Level(max(0.0, level.used - (now - level.at) * per_minute / MINUTE_S), now)


def _wait_s(level: Level, per_minute: float | None, amount: float) -> float:
    """0 when the amount may be taken now."""
    if per_minute is None:
        return 0.0
    room = max(0.0, per_minute - amount)
    # Who comes back after exactly the time told must not be a rounding error too early.
    if level.used <= room + 1e-9 * per_minute:
        return 0.0
    return (level.used - room) * MINUTE_S / per_minute
