"""`MemoryOAuth` is an OAuth server in memory, strict as RFC 8628 and RFC 6749 ask: device
codes, polling, refresh tokens that rotate. A test approves, revokes, or takes it down.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from harness.domain.errors import SignInRefused, SignInUnreachable
from harness.domain.providers.oauth_kinds import OAuthEndpoints
from harness.domain.providers.oauth_tokens import (
    SLOW_DOWN_S,
    DeviceCode,
    OAuthTokens,
    PollAnswer,
)
from harness.ports import Clock

DEAD: Final = "invalid_grant"


@dataclass(frozen=True, slots=True)
class _SignIn:
    """said: what the person did. last_poll, ends_at: seconds."""

    code: DeviceCode = field(repr=False)
    last_poll: float
    interval_s: float
    ends_at: float
    said: PollAnswer = PollAnswer.PENDING
    granted: bool = False


class MemoryOAuth:
    """Implements ports.OAuthServer. Refresh tokens rotate: a used one ends the whole sign-in.

    life_s: of access tokens, None for ever. renewable: gives refresh tokens. down: answers
    nobody. leeway_s: after its end an access token is still taken for so long. newest: the
    access token given last; all: every token ever given, for leak tests.
    """

    def __init__(self, clock: Clock, *, life_s: float | None = 600.0) -> None:
        self.life_s = life_s
        self.code_life_s = 900.0
        self.interval_s = 5.0
        self.renewable = True
        self.down = False
        self.leeway_s = 0.0
        self.newest = ""
        self.all: list[str] = []
        self._clock = clock
        self._asked: dict[str, _SignIn] = {}
        self._accounts: set[str] = set()
        self._refreshes: dict[str, bool] = {}  # whether it may still be used
        self._ends: dict[str, float] = {}  # of access tokens

    def say(self, user_code: str, answer: PollAnswer | None) -> None:
        """What the person does on the other screen: None approves. Raises KeyError."""
        (secret,) = (s for s, flow in self._asked.items() if flow.code.user_code == user_code)
        known = self._asked[secret]
        self._asked[secret] = (
            replace(known, granted=True) if answer is None else replace(known, said=answer)
        )

    def revoke(self) -> None:
        """The vendor ends every sign-in, and all their tokens."""
        self._accounts.clear()
        self._refreshes.clear()
        self._ends.clear()

    def accepts(self, access_token: str) -> bool:
        ends = self._ends.get(access_token, float("-inf"))
        return self._clock.monotonic() < ends + self.leeway_s

    def device_code(self, place: OAuthEndpoints) -> DeviceCode:
        self._refuse_unless_reachable(place)
        number = len(self._asked) + 1
        code = DeviceCode(
            self._new("device"),
            f"USER-{number:04d}",
            place.verification_url or "https://vendor.example/device",
            self.code_life_s,
            self.interval_s,
        )
        now = self._clock.monotonic()
        ends_at = now + self.code_life_s
        self._asked[code.secret] = _SignIn(code, now, self.interval_s, ends_at)
        return code

    def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        try:
            self._refuse_unless_reachable(place)
        except SignInUnreachable:
            return PollAnswer.UNREACHABLE
        known, now = self._asked.get(code.secret), self._clock.monotonic()
        if known is None:
            raise SignInRefused("the vendor refuses: invalid_grant")
        early = now < known.last_poll + known.interval_s
        slower = SLOW_DOWN_S if early else 0.0
        self._asked[code.secret] = replace(
            known, last_poll=now, interval_s=known.interval_s + slower
        )
        if now >= known.ends_at:
            return PollAnswer.EXPIRED
        if early:
            return PollAnswer.SLOW_DOWN
        if not known.granted:
            return known.said
        del self._asked[code.secret]
        return self._tokens(place)

    def refresh(self, place: OAuthEndpoints, refresh_token: str) -> OAuthTokens:
        self._refuse_unless_reachable(place)
        if not self._refreshes.get(refresh_token, False):
            self.revoke()
            raise SignInRefused(f"the vendor refuses: {DEAD}")
        self._refreshes[refresh_token] = False
        return self._tokens(place)

    def exchange(self, place: OAuthEndpoints, account_token: str) -> OAuthTokens:
        self._refuse_unless_reachable(place)
        if account_token not in self._accounts:
            raise SignInRefused("the vendor refuses: status 401")
        return OAuthTokens(self._access(), expires_in_s=self.life_s)

    def _tokens(self, place: OAuthEndpoints) -> OAuthTokens:
        if place.exchange_url:
            account, life_s = self._new("account"), None
            self._accounts = {account}
        else:
            account, life_s = self._access(), self.life_s
        refresh = self._new("refresh") if self.renewable else ""
        self._refreshes[refresh] = True
        return OAuthTokens(account, refresh, life_s)

    def _access(self) -> str:
        self.newest = self._new("access")
        life_s = float("inf") if self.life_s is None else self.life_s
        self._ends[self.newest] = self._clock.monotonic() + life_s
        return self.newest

    def _new(self, what: str) -> str:
        token = f"sim-{what}-{len(self.all):04d}-0123456789abcdef"
        self.all.append(token)
        return token

    def _refuse_unless_reachable(self, place: OAuthEndpoints) -> None:
        if self.down:
            raise SignInUnreachable("vendor.example does not answer (Down)")
        if not place.client_id:
            raise SignInRefused("the vendor refuses: invalid_client")
