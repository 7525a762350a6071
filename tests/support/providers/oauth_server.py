"""A strict OAuth server runs on loopback, with the provider that takes its tokens.

It says no to what the real ones say no to: another content type, a missing field, an unknown
client. What it grants is `MemoryOAuth`'s.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from harness.domain.errors import SignInRefused
from harness.domain.providers.oauth_kinds import OAuthEndpoints, OAuthFlow
from harness.domain.providers.oauth_tokens import DeviceCode, OAuthTokens, PollAnswer
from harness.ports import Clock
from harness.runtime.outbound.oauth_http import DEVICE_GRANT
from tests.support.providers.memory_oauth import MemoryOAuth

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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(size)
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, said = site.answer(self.path, headers, body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", JSON)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815 - the base class calls it so

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
