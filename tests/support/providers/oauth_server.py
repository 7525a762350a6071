"""A strict OAuth server runs on loopback, with the provider that takes its tokens.

It says no to what the real ones say no to: another content type, a missing field, an unknown
client.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from harness.frame.ports import Clock
from harness.providers.calls.oauth_http import DEVICE_GRANT
from harness.providers.oauth import (
    SLOW_DOWN_S,
    OAuthEndpoints,
    OAuthFlow,
    PollAnswer,
)
from tests.support.site.http_thread import Exchange, serving

CLIENT: Final = "Iv1.swapproof-test"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
CODE_LIFE_S: Final = 900.0
VERIFIER: Final = "v" * 43
Headers = Mapping[str, str]
Said = Mapping[str, object]


class Refusal(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


@dataclass
class _Code:
    """said: what the person did on the other screen, None for an approval."""

    user_code: str
    last_poll: float
    interval_s: float
    ends_at: float
    said: PollAnswer | None = PollAnswer.PENDING


class OAuthSite:
    """Refresh tokens rotate: a used one ends the whole sign-in.

    life_s: of access tokens. down: answers nobody. leeway_s: after its end an access token is
    still taken for so long. newest: the access token given last; all: every token ever given,
    for leak tests. asked: of the provider, the token of each request and whether it was taken.
    Another provider, below /spare, takes any request.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        github: bool = True,
        life_s: float = 600.0,
    ) -> None:
        self.github = github
        self.life_s = life_s
        self.interval_s = 5.0
        self.leeway_s = 0.0
        self.down = False
        self.newest = self.url = ""
        self.all: list[str] = []
        self.asked: list[tuple[str, bool]] = []
        self._clock = clock
        self._codes: dict[str, _Code] = {}
        self._granted: dict[str, Said] = {}
        self._accounts: set[str] = set()
        self._refreshes: set[str] = set()  # that may still be used
        self._ends: dict[str, float] = {}  # of access tokens
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

    def say(self, user_code: str, answer: PollAnswer | None) -> None:
        (code,) = (code for code in self._codes.values() if code.user_code == user_code)
        code.said = answer

    def revoke(self) -> None:
        self._accounts.clear()
        self._refreshes.clear()
        self._ends.clear()

    def accepts(self, access_token: str) -> bool:
        ends = self._ends.get(access_token, float("-inf"))
        return self._clock.monotonic() < ends + self.leeway_s

    def answer(
        self,
        path: str,
        headers: Headers,
        body: bytes,
    ) -> tuple[int, Said]:
        ways: Mapping[str, Callable[[Headers, bytes], Said]] = {
            "/login/device/code": self._device_code,
            "/login/oauth/access_token": self._token,
            "/copilot_internal/v2/token": self._exchange,
            "/api/accounts/deviceauth/usercode": self._device_code,
            "/api/accounts/deviceauth/token": self._openai_poll,
            "/oauth/token": self._token,
            "/v1/chat/completions": self._chat,
            "/spare/v1/chat/completions": lambda _, body: _completion(body),
        }
        with self._lock:
            if self.down and not path.endswith("/chat/completions"):
                return 503, {}
            try:
                return 200, ways[path](headers, body)
            except KeyError:
                return 404, {"error": "not_found"}
            except Refusal as refused:
                # GitHub's errors of the token's address have status 200.
                github = path == "/login/oauth/access_token"
                return 200 if github else refused.status, {"error": refused.error}

    def _device_code(self, headers: Headers, body: bytes) -> Said:
        asked = _form(headers, body) if self.github else _json(headers, body)
        _need(
            not self.github or asked.get("scope") == "read:user",
            400,
            "invalid_scope",
        )
        self._known_client(asked)
        now = self._clock.monotonic()
        secret = self._new("device")
        user_code = f"USER-{len(self._codes) + 1:04d}"
        self._codes[secret] = _Code(user_code, now, self.interval_s, now + CODE_LIFE_S)
        if not self.github:
            # A number as text, as the real one sends it.
            interval = f"{self.interval_s:.0f}"
            return {
                "device_auth_id": secret,
                "user_code": user_code,
                "interval": interval,
            }
        return {
            "device_code": secret,
            "user_code": user_code,
            "verification_uri": "https://vendor.example/device",
            "expires_in": CODE_LIFE_S,
            "interval": self.interval_s,
        }

    def _openai_poll(self, headers: Headers, body: bytes) -> Said:
        asked = _json(headers, body)
        secret = asked.get("device_auth_id", "")
        known = self._codes.get(secret)
        _need(
            known is not None and known.user_code == asked.get("user_code"),
            400,
            "bad",
        )
        try:
            tokens = self._poll(secret)
        except Refusal as refused:
            status = 403 if refused.error == PollAnswer.PENDING else refused.status
            raise Refusal(status, refused.error) from None
        granted = f"code-{len(self._granted)}"
        self._granted[granted] = tokens
        return {
            "authorization_code": granted,
            "code_verifier": VERIFIER,
            "code_challenge": "c" * 43,
        }

    def _token(self, headers: Headers, body: bytes) -> Said:
        asked = _form(headers, body)
        self._known_client(asked)
        if asked.get("grant_type") == "refresh_token":
            if asked["refresh_token"] not in self._refreshes:
                self.revoke()
                raise Refusal(400, "invalid_grant")
            self._refreshes.remove(asked["refresh_token"])
            return self._tokens()
        if self.github:
            _need(
                asked.get("grant_type") == DEVICE_GRANT,
                400,
                "unsupported_grant_type",
            )
            return self._poll(asked.get("device_code", ""))
        _need(
            asked.get("grant_type") == "authorization_code",
            400,
            "unsupported_grant_type",
        )
        _need(asked.get("code_verifier") == VERIFIER, 400, "invalid_grant")
        _need(
            asked.get("redirect_uri") == self.place.redirect_uri,
            400,
            "invalid_grant",
        )
        _need(asked.get("code") in self._granted, 400, "invalid_grant")
        return self._granted.pop(asked["code"])

    def _poll(self, secret: str) -> Said:
        _need(secret in self._codes, 400, "invalid_grant")
        known = self._codes[secret]
        now = self._clock.monotonic()
        is_early = now < known.last_poll + known.interval_s
        known.last_poll = now
        if now >= known.ends_at:
            raise Refusal(400, PollAnswer.EXPIRED.value)
        if is_early:
            known.interval_s += SLOW_DOWN_S
            raise Refusal(400, PollAnswer.SLOW_DOWN.value)
        if known.said is not None:
            raise Refusal(400, known.said.value)
        return self._tokens()

    def _exchange(self, headers: Headers, _body: bytes) -> Said:
        kind, _, token = headers.get("authorization", "").partition(" ")
        _need(
            kind == "token" and token in self._accounts,
            401,
            "bad_credentials",
        )
        ends = self._clock.now().timestamp() + self.life_s
        return {"token": self._access(), "expires_at": ends}

    def _chat(self, headers: Headers, body: bytes) -> Said:
        kind, _, token = headers.get("authorization", "").partition(" ")
        taken = kind == "Bearer" and self.accepts(token)
        self.asked.append((token, taken))
        _need(taken, 401, "invalid_token")
        return _completion(body)

    def _tokens(self) -> Said:
        """Of GitHub an account's token, which is exchanged for one of access."""
        refresh = self._new("refresh")
        self._refreshes.add(refresh)
        said: Said = {"token_type": "bearer", "refresh_token": refresh}
        if not self.github:
            return {
                **said,
                "access_token": self._access(),
                "expires_in": self.life_s,
            }
        account = self._new("account")
        self._accounts = {account}
        return {**said, "access_token": account}

    def _access(self) -> str:
        self.newest = self._new("access")
        self._ends[self.newest] = self._clock.monotonic() + self.life_s
        return self.newest

    def _new(self, what: str) -> str:
        token = f"sim-{what}-{len(self.all):04d}-0123456789abcdef"
        self.all.append(token)
        return token

    def _known_client(self, asked: Mapping[str, str]) -> None:
        _need(asked.get("client_id") == CLIENT, 401, "invalid_client")


def _completion(body: bytes) -> Said:
    message = {"role": "assistant", "content": "blue"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": json.loads(body)["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 1,
            "total_tokens": 4,
        },
    }


def _need(
    condition: object,
    status: int,
    error: str,
) -> None:
    if not condition:
        raise Refusal(status, error)


def _form(headers: Headers, body: bytes) -> Mapping[str, str]:
    # GitHub answers in another form to whoever does not ask for JSON.
    _need(headers.get("content-type") == FORM, 415, "unsupported_media_type")
    _need(headers.get("accept") == JSON, 406, "not_acceptable")
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def _json(headers: Headers, body: bytes) -> Mapping[str, str]:
    _need(headers.get("content-type") == JSON, 415, "unsupported_media_type")
    found: Mapping[str, str] = json.loads(body)
    return found


@contextmanager
def oauth_site(
    clock: Clock,
    *,
    github: bool = True,
    life_s: float = 600.0,
) -> Iterator[OAuthSite]:
    site = OAuthSite(clock, github=github, life_s=life_s)

    class Handler(Exchange):
        do_GET = Exchange.do_POST  # noqa: N815 - the base class calls it so

        def exchange(self) -> None:
            body = self.received_body()
            status, said = site.answer(
                self.path,
                self.received_headers(),
                body,
            )
            self.answer(status, json.dumps(said).encode(), {"content-type": JSON})

    with serving(Handler) as port:
        site.url = f"http://127.0.0.1:{port}"
        yield site
