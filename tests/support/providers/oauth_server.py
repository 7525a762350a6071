"""A strict OAuth server runs on loopback, with the provider that takes its tokens.

It says no to what the real ones say no to: another content type, a missing field, an unknown
client. What it grants is `MemoryOAuth`'s.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qs

from harness.frame.errors import SignInRefused, SignInUnreachable
from harness.frame.ports import Clock
from harness.providers.calls.oauth_http import DEVICE_GRANT
from harness.providers.oauth import (
    SLOW_DOWN_S,
    DeviceCode,
    OAuthEndpoints,
    OAuthFlow,
    OAuthTokens,
    PollAnswer,
)
from tests.support.site.http_thread import Exchange, serving

DEAD: Final = "invalid_grant"


@dataclass(frozen=True, slots=True)
class _SignIn:
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


CLIENT = "Iv1.swapgate-test"
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


class Refusal(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class OAuthSite:
    """accounts: what it grants. strict: the provider takes the newest token alone, else any
    that lives. asked: of the provider, the token of each request and whether it was taken.
    Another provider, below /spare, takes any request.
    """

    def __init__(self, accounts: MemoryOAuth, clock: Clock, *, github: bool = True) -> None:
        self.accounts = accounts
        self.github = github
        self.strict = False
        self.asked: list[tuple[str, bool]] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""
        self._clock = clock
        self._codes: dict[str, DeviceCode] = {}
        self._granted: dict[str, OAuthTokens] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> OAuthEndpoints:
        if self.github:
            return OAuthEndpoints(
                device_url=f"{self.url}/login/device/code",
                token_url=f"{self.url}/login/oauth/access_token",
                exchange_url=f"{self.url}/copilot_internal/v2/token",
                scope="read:user",
                client_id=CLIENT,
            )
        return OAuthEndpoints(
            flow=OAuthFlow.OPENAI,
            device_url=f"{self.url}/api/accounts/deviceauth/usercode",
            poll_url=f"{self.url}/api/accounts/deviceauth/token",
            token_url=f"{self.url}/oauth/token",
            verification_url=f"{self.url}/codex/device",
            redirect_uri=f"{self.url}/deviceauth/callback",
            client_id=CLIENT,
        )

    def answer(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, object]]:
        ways = {
            "/login/device/code": self._device_code,
            "/login/oauth/access_token": self._github_token,
            "/copilot_internal/v2/token": self._exchange,
            "/api/accounts/deviceauth/usercode": self._user_code,
            "/api/accounts/deviceauth/token": self._openai_poll,
            "/oauth/token": self._openai_token,
            "/v1/chat/completions": self._chat,
            "/spare/v1/chat/completions": self._spare,
        }
        with self._lock:
            if self.accounts.down and not path.endswith("/chat/completions"):
                return 503, {}
            try:
                return 200, ways[path](headers, body)
            except KeyError:
                return 404, {"error": "not_found"}
            except SignInRefused as refused:
                word = str(refused).rpartition(" ")[2]
                return (401, {}) if word == "401" else (400, {"error": word})
            except Refusal as refused:
                # GitHub's errors of the token's address have status 200.
                github = path == "/login/oauth/access_token"
                return 200 if github else refused.status, {"error": refused.error}

    def _device_code(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        asked = _form(headers, body)
        _need(asked.get("scope") == "read:user", 400, "invalid_scope")
        code = self._new_code(asked)
        return {
            "device_code": code.secret,
            "user_code": code.user_code,
            "verification_uri": code.verification_url,
            "expires_in": code.expires_in_s,
            "interval": code.interval_s,
        }

    def _user_code(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        code = self._new_code(_json(headers, body))
        # A number as text, as the real one sends it.
        return {
            "device_auth_id": code.secret,
            "user_code": code.user_code,
            "interval": f"{code.interval_s:.0f}",
        }

    def _new_code(self, asked: Mapping[str, str]) -> DeviceCode:
        self._known_client(asked)
        code = self.accounts.device_code(self.place)
        self._codes[code.secret] = code
        return code

    def _github_token(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        asked = _form(headers, body)
        self._known_client(asked)
        if asked.get("grant_type") == "refresh_token":
            return _shown(self.accounts.refresh(self.place, asked["refresh_token"]))
        _need(asked.get("grant_type") == DEVICE_GRANT, 400, "unsupported_grant_type")
        return _shown(self._polled(asked.get("device_code", "")))

    def _openai_poll(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        asked = _json(headers, body)
        code = self._codes.get(asked.get("device_auth_id", ""))
        _need(code is not None and code.user_code == asked.get("user_code"), 400, "bad")
        try:
            tokens = self._polled(asked["device_auth_id"])
        except Refusal as refused:
            status = 403 if refused.error == PollAnswer.PENDING else refused.status
            raise Refusal(status, refused.error) from None
        granted = f"code-{len(self._granted)}"
        self._granted[granted] = tokens
        return {
            "authorization_code": granted,
            "code_verifier": "v" * 43,
            "code_challenge": "c" * 43,
        }

    def _openai_token(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        asked = _form(headers, body)
        self._known_client(asked)
        if asked.get("grant_type") == "refresh_token":
            return _shown(self.accounts.refresh(self.place, asked["refresh_token"]))
        _need(asked.get("grant_type") == "authorization_code", 400, "unsupported_grant_type")
        _need(asked.get("code_verifier") == "v" * 43, 400, "invalid_grant")
        _need(asked.get("redirect_uri") == self.place.redirect_uri, 400, "invalid_grant")
        _need(asked.get("code") in self._granted, 400, "invalid_grant")
        return _shown(self._granted.pop(asked["code"]))

    def _polled(self, secret: str) -> OAuthTokens:
        _need(secret in self._codes, 400, "invalid_grant")
        found = self.accounts.poll(self.place, self._codes[secret])
        if isinstance(found, PollAnswer):
            raise Refusal(400, found.value)
        return found

    def _exchange(self, headers: Mapping[str, str], _body: bytes) -> Mapping[str, object]:
        kind, _, token = headers.get("authorization", "").partition(" ")
        _need(kind == "token", 401, "bad_credentials")
        self.headers.append(headers)
        got = self.accounts.exchange(self.place, token)
        said: dict[str, object] = {"token": got.access_token}
        if got.expires_in_s is not None:
            said |= {"expires_at": self._clock.now().timestamp() + got.expires_in_s}
        return said

    def _chat(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        kind, _, token = headers.get("authorization", "").partition(" ")
        newest = token == self.accounts.newest or not self.strict
        taken = kind == "Bearer" and newest and self.accounts.accepts(token)
        self.asked.append((token, taken))
        _need(taken, 401, "invalid_token")
        return _completion(body)

    def _spare(self, _headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        return _completion(body)

    def _known_client(self, asked: Mapping[str, str]) -> None:
        _need(asked.get("client_id") == CLIENT, 401, "invalid_client")


def _completion(body: bytes) -> Mapping[str, object]:
    message = {"role": "assistant", "content": "blue"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": json.loads(body)["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


def _need(condition: object, status: int, error: str) -> None:
    if not condition:
        raise Refusal(status, error)


def _form(headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    # GitHub answers in another form to whoever does not ask for JSON.
    _need(headers.get("content-type") == FORM, 415, "unsupported_media_type")
    _need(headers.get("accept") == JSON, 406, "not_acceptable")
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def _json(headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    _need(headers.get("content-type") == JSON, 415, "unsupported_media_type")
    found: Mapping[str, str] = json.loads(body)
    return found


def _shown(tokens: OAuthTokens) -> Mapping[str, object]:
    said: dict[str, object] = {"access_token": tokens.access_token, "token_type": "bearer"}
    if tokens.refresh_token:
        said |= {"refresh_token": tokens.refresh_token}
    if tokens.expires_in_s is not None:
        said |= {"expires_in": tokens.expires_in_s}
    return said


@contextmanager
def oauth_site(
    accounts: MemoryOAuth, clock: Clock, *, github: bool = True
) -> Iterator[OAuthSite]:
    site = OAuthSite(accounts, clock, github=github)

    class Handler(Exchange):
        do_GET = Exchange.do_POST  # noqa: N815 - the base class calls it so

        def exchange(self) -> None:
            body = self.received_body()
            status, said = site.answer(self.path, self.received_headers(), body)
            self.answer(status, json.dumps(said).encode(), {"content-type": JSON})

    with serving(Handler) as port:
        site.url = f"http://127.0.0.1:{port}"
        yield site
