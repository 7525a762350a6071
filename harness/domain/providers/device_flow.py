"""The device flow lets a person sign in on another screen (RFC 8628); this is its state
machine. Pure.

Waiting ──granted──▶ Granted
   │ │
   │ └──denied, expired, time over──▶ Ended
   └──pending, slow_down, unreachable──▶ Waiting, later
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

DEFAULT_INTERVAL_S: Final = 5.0
SLOW_DOWN_S: Final = 5.0  # added for good, each time
MIN_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 60.0
MAX_WAIT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """Holds the codes that an OAuth server gave out for one sign-in."""

    secret: str = field(repr=False)
    user_code: str  # what the person types at verification_url
    verification_url: str
    expires_in_s: float
    interval_s: float = DEFAULT_INTERVAL_S


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    """Holds the tokens that an OAuth server granted."""

    access_token: str = field(repr=False)
    # Empty for none, or for the same as before.
    refresh_token: str = field(default="", repr=False)
    expires_in_s: float | None = None  # None when the server does not say
    # When it wants to be asked for the next one, if it says so.
    refresh_in_s: float | None = None


class PollAnswer(StrEnum):
    """The server's answer to whether the person is done; values as the protocol names them."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class FlowWaiting:
    """The person has not finished signing in yet."""

    code: DeviceCode
    interval_s: float
    ask_at: float  # ask_at, ends_at: seconds of a clock that never jumps
    ends_at: float


@dataclass(frozen=True, slots=True)
class FlowGranted:
    tokens: OAuthTokens


@dataclass(frozen=True, slots=True)
class FlowEnded:
    """The sign-in failed."""

    because: PollAnswer  # DENIED or EXPIRED


FlowState = FlowWaiting | FlowGranted | FlowEnded


def begin_flow(code: DeviceCode, now: float) -> FlowWaiting:
    interval_s = min(max(code.interval_s, MIN_INTERVAL_S), MAX_INTERVAL_S)
    ends_at = now + min(code.expires_in_s, MAX_WAIT_S)
    return FlowWaiting(code, interval_s, min(now + interval_s, ends_at), ends_at)


def advance_flow(state: FlowWaiting, answer: PollAnswer | OAuthTokens, now: float) -> FlowState:
    """Advances a sign-in by the server's answer, which counts all the same when it comes
    late.
    """
    if isinstance(answer, OAuthTokens):
        return FlowGranted(answer)
    if answer in (PollAnswer.DENIED, PollAnswer.EXPIRED):
        return FlowEnded(answer)
    if now >= state.ends_at:
        return FlowEnded(PollAnswer.EXPIRED)
    interval_s = _interval_s(state.interval_s, answer)
    # Once more at the very end: the person may be done by then.
    return replace(state, interval_s=interval_s, ask_at=min(now + interval_s, state.ends_at))


def _interval_s(before: float, answer: PollAnswer) -> float:
    if answer is PollAnswer.SLOW_DOWN:
        return before + SLOW_DOWN_S
    if answer is PollAnswer.UNREACHABLE:
        return max(before, min(2 * before, MAX_INTERVAL_S))
    return before
