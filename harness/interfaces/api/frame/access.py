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


OPEN = frozenset({"/healthz", "/readyz"})
METRICS = "/metrics"
SCRAPER = Actor("metrics token", Role.VIEWER, "metrics token")


@dataclass(frozen=True)
class AccessRules:
    """The keys that `Authenticated` accepts. metrics_token: gives access to /metrics only."""

    store: Database
    secret: bytes
    clock: Clock
    metrics_token: str | None = None


class Authenticated:
    """Adds the bearer key's Actor to the request's state, or answers 401 or 429.

    It checks the key before the address, so that a guesser does not lock out other callers of
    the address.
    """

    def __init__(self, app: ASGIApp, *, locks: AccessRules) -> None:
        self._app = app
        self._locks = locks
        self._attempts = FailedAttempts(locks.clock)

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        token = read_bearer(Headers(scope=scope).get("authorization", ""))
        try:
            actor = await self._actor(token, scope["path"])
        except NotAllowed as refused:
            answer = self._refusal(scope, str(refused), given=bool(token))
            await answer(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor
        await self._app(scope, receive, send)

    def _refusal(
        self,
        scope: Scope,
        why: str,
        *,
        given: bool,
    ) -> JsonAnswer:
        peer = scope["client"][0] if scope.get("client") else None
        address = client_address(peer, (), ())
        wait_s = self._attempts.wait_s(address)
        if wait_s > 0:
            return _slow_down(wait_s)
        self._attempts.failed(address)
        return _unknown(why, given=given)

    async def _actor(self, token: str, path: str) -> Actor:
        locks = self._locks
        scraper = path == METRICS and locks.metrics_token is not None
        if scraper and hmac.compare_digest(
            token.encode(), (locks.metrics_token or "").encode()
        ):
            return SCRAPER
        if not token.startswith(MANAGEMENT_KEY_PREFIX):
            raise NotAllowed(f"send `Authorization: Bearer {MANAGEMENT_KEY_PREFIX}…`")
        return await run_in_threadpool(
            keys.authenticate, locks.store, token, secret=locks.secret
        )


def read_bearer(header: str) -> str:
    """Returns the key of a header `Authorization`; empty for another scheme."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unknown(message: str, *, given: bool) -> JsonAnswer:
    challenge = 'Bearer realm="swapgate"' + (', error="invalid_token"' if given else "")
    return problem(
        HTTPStatus.UNAUTHORIZED,
        "Unauthenticated",
        f"{message}. `swapgate key create --role viewer NAME` makes a key.",
        headers={"www-authenticate": challenge},
    )


def _slow_down(wait_s: float) -> JsonAnswer:
    return problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "TooManyFailures",
        "Too many wrong keys came from this address. Send the right one.",
        retryable=True,
        headers={"retry-after": str(math.ceil(wait_s))},
    )
