"""A person signs in on another screen (RFC 8628): what is waited for, and how it ends. Pure.

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
    """What the server gave out. user_code: what the person types at verification_url."""

    secret: str = field(repr=False)
    user_code: str
    verification_url: str
    expires_in_s: float
    interval_s: float = DEFAULT_INTERVAL_S


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    """expires_in_s: None when the server does not say. refresh_in_s: when it wants to be asked
    for the next one, if it says so. refresh_token: empty for none, or for the same as before.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_in_s: float | None = None
    refresh_in_s: float | None = None


class PollAnswer(StrEnum):
    """Of the server, asked whether the person is done. Values: as the protocol names them."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class FlowWaiting:
    """ask_at, ends_at: seconds of a clock that never jumps."""

    code: DeviceCode
    interval_s: float
    ask_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class FlowGranted:
    tokens: OAuthTokens


@dataclass(frozen=True, slots=True)
class FlowEnded:
    """because: DENIED or EXPIRED."""

    because: PollAnswer


FlowState = FlowWaiting | FlowGranted | FlowEnded


def begin_flow(code: DeviceCode, now: float) -> FlowWaiting:
    interval_s = min(max(code.interval_s, MIN_INTERVAL_S), MAX_INTERVAL_S)
    ends_at = now + min(code.expires_in_s, MAX_WAIT_S)
    return FlowWaiting(code, interval_s, min(now + interval_s, ends_at), ends_at)


def advance_flow(state: FlowWaiting, seen: PollAnswer | OAuthTokens, now: float) -> FlowState:
    """What becomes of it. An answer that comes late counts all the same."""
    if isinstance(seen, OAuthTokens):
        return FlowGranted(seen)
    if seen in (PollAnswer.DENIED, PollAnswer.EXPIRED):
        return FlowEnded(seen)
    if now >= state.ends_at:
        return FlowEnded(PollAnswer.EXPIRED)
    interval_s = _interval_s(state.interval_s, seen)
    # Once more at the very end: the person may be done by then.
    return replace(state, interval_s=interval_s, ask_at=min(now + interval_s, state.ends_at))


def _interval_s(before: float, seen: PollAnswer) -> float:
    if seen is PollAnswer.SLOW_DOWN:
        return before + SLOW_DOWN_S
    if seen is PollAnswer.UNREACHABLE:
        return max(before, min(2 * before, MAX_INTERVAL_S))
    return before
