"""Authenticates requests of the management API by their bearer key, and limits failed attempts
by address. Health checks need no key; /metrics also accepts its own token.
"""

import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.frame.errors import NotAllowed
from harness.frame.people.access import (
    MANAGEMENT_KEY_PREFIX,
    Actor,
    Role,
    client_address,
)
from harness.frame.ports import Clock
from harness.frame.records.database import Database
from harness.interfaces.api.frame.error_status import JsonAnswer, problem
from harness.operations import keys
from harness.operations.single_sign_on import FailedAttempts

# uvicorn's settings for all apps.
SERVER: Final[Mapping[str, Any]] = {
    "access_log": False,
    "log_level": "warning",
    # Off, because a caller could forge these headers, and failed attempts count by address.
    "proxy_headers": False,
    "server_header": False,
    "ws": "none",  # no app serves websockets, and their library is slow to import
}


KEYLESS_PATHS = frozenset({"/healthz", "/readyz"})
METRICS_PATH = "/metrics"
METRICS_ACTOR = Actor("metrics token", Role.VIEWER, "metrics token")


@dataclass(frozen=True)
class AccessRules:
    """Finds the valid keys for `Authenticated`. metrics_token: opens only /metrics."""

    store: Database
    secret: bytes
    clock: Clock
    metrics_token: str | None = None


class Authenticated:
    """Adds the bearer key's Actor to the request's state, or answers 401 or 429.

    It checks the key first and limits the address only after a wrong key. So a guesser does
    not lock out callers with a valid key at the same address.
    """

    def __init__(self, app: ASGIApp, *, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules
        self._failed_attempts = FailedAttempts(rules.clock)

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http" or scope["path"] in KEYLESS_PATHS:
            await self._app(scope, receive, send)
            return
        token = read_bearer(Headers(scope=scope).get("authorization", ""))
        try:
            actor = await self._find_actor(token, scope["path"])
        except NotAllowed as error:
            answer = self._refuse(scope, str(error), has_token=bool(token))
            await answer(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor
        await self._app(scope, receive, send)

    def _refuse(
        self,
        scope: Scope,
        reason: str,
        *,
        has_token: bool,
    ) -> JsonAnswer:
        peer = scope["client"][0] if scope.get("client") else None
        address = client_address(peer, (), ())
        wait_s = self._failed_attempts.wait_s(address)
        if wait_s > 0:
            return _ask_to_wait(wait_s)
        self._failed_attempts.failed(address)
        return _refuse_key(reason, has_token=has_token)

    async def _find_actor(self, token: str, path: str) -> Actor:
        rules = self._rules
        is_scrape = path == METRICS_PATH and rules.metrics_token is not None
        if is_scrape and hmac.compare_digest(
            token.encode(), (rules.metrics_token or "").encode()
        ):
            return METRICS_ACTOR
        if not token.startswith(MANAGEMENT_KEY_PREFIX):
            raise NotAllowed(f"send `Authorization: Bearer {MANAGEMENT_KEY_PREFIX}…`")
        return await run_in_threadpool(
            keys.authenticate, rules.store, token, secret=rules.secret
        )


def read_bearer(header: str) -> str:
    """Returns the key of a header `Authorization`; empty for another scheme."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _refuse_key(message: str, *, has_token: bool) -> JsonAnswer:
    challenge = 'Bearer realm="swapproof"' + (', error="invalid_token"' if has_token else "")
    return problem(
        HTTPStatus.UNAUTHORIZED,
        "Unauthenticated",
        f"{message}. `swapproof key create --role viewer NAME` makes a key.",
        headers={"www-authenticate": challenge},
    )


def _ask_to_wait(wait_s: float) -> JsonAnswer:
    return problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "TooManyFailures",
        "Too many wrong keys came from this address. Send the right one.",
        retryable=True,
        headers={"retry-after": str(math.ceil(wait_s))},
    )
