"""Signs people in at a model vendor by OAuth's device flow, or by OpenAI's own form of it.
Errors omit a server's text, which may contain a token.

Answers are untrusted, so this module checks texts and numbers before use. It sends single
requests and never waits for a person: `harness.providers.registry.sign_in` polls and stores.
The rules of flows and renewals are in `harness.providers.oauth`.
"""

import http.client
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from harness.frame.errors import SignInRefused, SignInUnreachable
from harness.frame.ports import Clock
from harness.providers.calls.guarded_http import GuardedHttpClient
from harness.providers.oauth import (
    DEFAULT_INTERVAL_S,
    DeviceCode,
    OAuthEndpoints,
    OAuthFlow,
    OAuthTokens,
    PollAnswer,
    lifetime_s,
)

MAX_BYTES: Final = 1024 * 1024
TIMEOUT_S: Final = 15.0
CODE_LIFE_S: Final = 900.0  # if the server gives no lifetime
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
RATE_LIMITED_STATUS: Final = 429
PENDING_STATUSES: Final = (403, 404)  # from OpenAI, until the person consents
REFUSED_STATUSES: Final = (400, 401, 403, 404, 422)
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_ERROR_CODE: Final = re.compile(r"[a-z0-9_]{1,60}")
_TEMPORARY_ERRORS: Final = ("slow_down", "temporarily_unavailable", "server_error")
_USER_CODE: Final = re.compile(r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class _Reply:
    """A server's answer. Its methods read only known fields."""

    status: int
    body: Mapping[str, object]  # its JSON object; empty for another body
    host: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def error(self) -> str:
        """The server's error as a word of the protocol; empty without one, or for free text."""
        error = self.body.get("error")
        code = error.get("code") if isinstance(error, dict) else error
        return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""

    def text(self, *names: str) -> str:
        """Reads the first of the named fields that has a text; empty without one."""
        values = (self.body.get(name) for name in names)
        return next((value for value in values if isinstance(value, str)), "")

    def seconds(self, name: str) -> float | None:
        """Reads a number, or a text that contains a number."""
        value = self.body.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        return number if 0 <= number < 1e12 else None


class HttpOAuthServer:
    """Implements ports.OAuthServer. allowed: entries of `router.allow_addresses`."""

    def __init__(self, clock: Clock, allowed: Collection[str] = ()) -> None:
        self._clock = clock
        self._client = GuardedHttpClient(allowed)

    def device_code(self, place: OAuthEndpoints) -> DeviceCode:
        if place.flow is OAuthFlow.OPENAI:
            reply = self._post(
                place,
                place.device_url,
                _JSON,
                {"client_id": place.client_id},
            )
            secret = reply.text("device_auth_id")
        else:
            fields = {"client_id": place.client_id, "scope": place.scope}
            reply = self._post(place, place.device_url, _FORM, fields)
            secret = reply.text("device_code")
        user_code = reply.text("user_code", "usercode")
        url = reply.text("verification_uri", "verification_url") or place.verification_url
        if not (reply.ok and secret and _USER_CODE.fullmatch(user_code) and _is_showable(url)):
            raise _reply_error(reply)
        life_s = reply.seconds("expires_in")
        interval_s = reply.seconds("interval")
        return DeviceCode(
            secret,
            user_code,
            url,
            CODE_LIFE_S if life_s is None else life_s,
            DEFAULT_INTERVAL_S if interval_s is None else interval_s,
        )

    def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        try:
            if place.flow is OAuthFlow.OPENAI:
                return self._poll_openai(place, code)
            fields = {
                "client_id": place.client_id,
                "device_code": code.secret,
                "grant_type": DEVICE_GRANT,
            }
            reply = self._post(place, place.token_url, _FORM, fields)
        except SignInUnreachable:
            return PollAnswer.UNREACHABLE
        if reply.status == RATE_LIMITED_STATUS:
            return PollAnswer.SLOW_DOWN
        # GitHub sends errors with status 200.
        if reply.error in set(PollAnswer) - {PollAnswer.UNREACHABLE}:
            return PollAnswer(reply.error)
        if reply.ok or reply.error:
            return _parse_tokens(reply)
        return PollAnswer.UNREACHABLE

    def _poll_openai(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        """Polls by OpenAI's form: once the person consents, exchanges the granted code for
        tokens.
        """
        fields = {"device_auth_id": code.secret, "user_code": code.user_code}
        reply = self._post(place, place.poll_url, _JSON, fields)
        if reply.error in (
            PollAnswer.DENIED,
            PollAnswer.EXPIRED,
            PollAnswer.SLOW_DOWN,
        ):
            return PollAnswer(reply.error)
        if reply.status in PENDING_STATUSES:
            return PollAnswer.PENDING
        if reply.status == RATE_LIMITED_STATUS:
            return PollAnswer.SLOW_DOWN
        authorization_code = reply.text("authorization_code")
        if not (reply.ok and authorization_code):
            raise _reply_error(reply)
        fields = {
            "client_id": place.client_id,
            "grant_type": "authorization_code",
            "code": authorization_code,
            "code_verifier": reply.text("code_verifier"),
            "redirect_uri": place.redirect_uri,
        }
        return _parse_tokens(self._post(place, place.token_url, _FORM, fields))

    def refresh(self, place: OAuthEndpoints, refresh_token: str) -> OAuthTokens:
        fields = {
            "client_id": place.client_id,
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
        }
        return _parse_tokens(self._post(place, place.token_url, _FORM, fields))

    def exchange(self, place: OAuthEndpoints, account_token: str) -> OAuthTokens:
        reply = self._send(
            place,
            place.exchange_url,
            None,
            {"Authorization": f"token {account_token}"},
        )
        token = reply.text("token")
        expires_at = reply.seconds("expires_at")
        if not (reply.ok and token):
            raise _reply_error(reply)
        left_s = (
            None if expires_at is None else max(expires_at - self._clock.now().timestamp(), 0.0)
        )
        return OAuthTokens(
            token,
            expires_in_s=left_s,
            refresh_in_s=reply.seconds("refresh_in"),
        )

    def _post(
        self,
        place: OAuthEndpoints,
        url: str,
        form: str,
        fields: Mapping[str, str],
    ) -> _Reply:
        """Posts the fields that have a value, as a form or as JSON. Raises
        SignInUnreachable.
        """
        filled_fields = {name: value for name, value in fields.items() if value}
        content = json.dumps(filled_fields) if form == _JSON else urlencode(filled_fields)
        return self._send(place, url, content.encode(), {"Content-Type": form})

    def _send(
        self,
        place: OAuthEndpoints,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> _Reply:
        """Sends a request, and reads at most MAX_BYTES. Raises SignInUnreachable without an
        answer.
        """
        all_headers = {
            "Accept": _JSON,
            **place.headers,
            **headers,
        }
        host = urlsplit(url).hostname or ""
        try:
            with self._client.send(url, all_headers, body, timeout_s=TIMEOUT_S) as answer:
                return _Reply(answer.status, _parse_object(answer.read(MAX_BYTES)), host)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SignInUnreachable(
                f"{host} does not answer ({type(error).__name__}): check whether this machine "
                "reaches it"
            ) from None


def _parse_object(content: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_showable(url: str) -> bool:
    """Tells whether a URL is safe to show: http or https, on one line, without spaces."""
    return url.startswith(("https://", "http://")) and url.isprintable() and " " not in url


def _parse_tokens(reply: _Reply) -> OAuthTokens:
    """Reads tokens from an answer. Raises the errors of `_reply_error`.

    Without `expires_in`, the token's own claims give its lifetime.
    """
    token = reply.text("access_token")
    if not (reply.ok and token and not reply.error):
        raise _reply_error(reply)
    expires_in_s = reply.seconds("expires_in")
    return OAuthTokens(
        token,
        reply.text("refresh_token"),
        lifetime_s(token) if expires_in_s is None else expires_in_s,
    )


def _reply_error(reply: _Reply) -> SignInRefused | SignInUnreachable:
    """Builds the error of an answer: SignInRefused if the server would refuse a repeated
    request too, else SignInUnreachable.
    """
    cause = reply.error or f"status {reply.status}"
    is_refusal = reply.status in REFUSED_STATUSES or (reply.ok and reply.error)
    if is_refusal and reply.error not in _TEMPORARY_ERRORS:
        return SignInRefused(f"{reply.host} refuses: {cause}")
    return SignInUnreachable(f"{reply.host} sent no valid answer: {cause}")
