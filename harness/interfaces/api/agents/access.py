"""Authenticates requests of the agents API: by a client key, by a management key, or with
`open_on_loopback` as this machine's operator without a key.

A web page in the operator's browser shares the operator's connection. So a request without a
key must come from a loopback peer, without a proxy. It must name this machine as its Host, and
have no other Origin. Its body must be JSON, which a browser sends to another Origin only after
a CORS preflight.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPSConnection
from http.client import HTTPException as ConnectionFailed
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.agents import agents
from harness.agents.agents import AgentsClient
from harness.agents.caller import (
    PEER_HEADER,
    HeaderFault,
    read_peer_header,
    sign_peer_header,
)
from harness.agents.turn_runner import TurnRunner
from harness.app.installation import Installation
from harness.frame.errors import (
    ConfigError,
    DecryptionFailed,
    InputError,
    NotAllowed,
    SignatureInvalid,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.people.access import (
    DATA_KEY_PREFIX,
    MANAGEMENT_KEY_PREFIX,
    client_address,
    is_loopback,
    listens_on_loopback,
)
from harness.interfaces.api.frame import error_status
from harness.interfaces.api.frame.access import KEYLESS_PATHS, read_bearer
from harness.interfaces.api.frame.error_status import (
    RETRY_AFTER_S,
    describe_request_faults,
)
from harness.operations import keys
from harness.operations.context import Context
from harness.operations.single_sign_on import FailedAttempts
from harness.routing.agent import AgentSession
from harness.routing.settings import http_url

STATUS: Final[Mapping[type[SwapproofError], HTTPStatus]] = {
    **error_status.STATUS,
    InputError: HTTPStatus.BAD_REQUEST,
    # The request is valid, but the operator must change the installation first.
    ConfigError: HTTPStatus.SERVICE_UNAVAILABLE,
    SignatureInvalid: HTTPStatus.SERVICE_UNAVAILABLE,
    DecryptionFailed: HTTPStatus.SERVICE_UNAVAILABLE,
}

# The codes, by status, of errors without a code of their own.
_CODES: Final[Mapping[int, str]] = {
    400: "invalid_request",
    403: "not_allowed",
    404: "not_found",
    409: "conflict",
    503: "not_available",
}

# Messages about a client's input begin with the field's name.
_FIELD_NAME: Final = re.compile(r"([a-z][A-Za-z0-9_]*(?:[.\[][A-Za-z0-9_\]]+)*): ")

_ERROR_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class ErrorAnswer(Response):
    media_type = "application/json"

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        kind = _ERROR_TYPES.get(
            status,
            "server_error" if status >= 500 else "invalid_request_error",
        )
        error = {
            "message": message,
            "type": kind,
            "code": code,
            "param": param,
        }
        body = json.dumps({"error": error})
        super().__init__(body, status, dict(headers or {}))
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)


def find_status(error: SwapproofError) -> HTTPStatus | None:
    return error_status.find_status(error, STATUS)


def answer_error(error: SwapproofError) -> ErrorAnswer | None:
    if (status := find_status(error)) is None:
        return None
    is_store_down = isinstance(error, StoreUnavailable)
    code = "store_unavailable" if is_store_down else _CODES.get(status, "server_error")
    field_match = _FIELD_NAME.match(str(error))
    # Every 503 is temporary: clients may retry after the operator has repaired the
    # installation.
    is_temporary = error.retryable or status is HTTPStatus.SERVICE_UNAVAILABLE
    return ErrorAnswer(
        status,
        str(error),
        error.code or code,
        param=field_match.group(1) if field_match else None,
        retry_after_s=RETRY_AFTER_S if is_temporary else None,
    )


async def answer_http_error(_: Request, error: Exception) -> ErrorAnswer:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this error only
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    text = f"{error.detail}: see /agents/openapi.json for the endpoints"
    return ErrorAnswer(error.status_code, text, code, headers=error.headers)


async def answer_validation_error(request: Request, error: Exception) -> ErrorAnswer:
    """Names every wrong field, but not its value, which may be a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this error only
    faults = describe_request_faults(request, error)
    places = [(".".join(path), reason) for _, path, reason in faults]
    text = "; ".join(f"{place}: {reason}" if place else reason for place, reason in places)
    param = places[0][0] or None
    return ErrorAnswer(HTTPStatus.BAD_REQUEST, text, "invalid_request", param=param)


def answer_unforeseen(name: str) -> ErrorAnswer:
    """Answers an internal error.

    Args:
        name: its id in the log.
    """
    text = f"this is our fault, not yours; the agents process's log has it as {name}"
    return ErrorAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, text, "internal_error")


# A request with such a header came through a proxy, so its peer is not the sender.
_PROXY_HEADERS: Final = (
    "x-forwarded-for",
    "x-forwarded-host",
    "forwarded",
    "x-real-ip",
    "via",
)

_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


def authenticate_key(installation: Installation, key: str) -> AgentsClient:
    """Authenticates a client. Raises NotAllowed for an invalid key."""
    store = installation.store
    secret = installation.secret
    if key.startswith(DATA_KEY_PREFIX):
        return AgentsClient.of_data_key(keys.authenticate_data_key(store, key, secret=secret))
    if key.startswith(MANAGEMENT_KEY_PREFIX):
        return AgentsClient.of_person(keys.authenticate(store, key, secret=secret))
    raise NotAllowed("the key is not a key of Swapproof")


class FailedKeys:
    """Counts failed keys by address.

    Callers count an address only after a wrong key. So a guesser does not lock out clients with
    a valid key at the same address.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._attempts = FailedAttempts(installation.clock)

    def count(self, scope: Scope) -> int:
        """Counts a failure of the request's address; returns the seconds to wait."""
        peer = find_peer(scope, self._installation)
        address = client_address(_find_socket_peer(scope) if peer is None else peer, (), ())
        wait_s = self._attempts.wait_s(address)
        if not wait_s:
            self._attempts.failed(address)
        return math.ceil(wait_s)


class AgentsAccess:
    """Adds the AgentsClient to a request's state, or refuses the request.

    is_open: callers on this machine need no key, because router and agents listen on loopback
    only.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        installation: Installation,
        is_open: bool,
        failed: FailedKeys,
    ) -> None:
        self._app = app
        self._installation = installation
        self._is_open = is_open
        self._failed = failed

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in KEYLESS_PATHS:
            client = await self._find_client(scope, Headers(scope=scope))
            if isinstance(client, AgentsClient):
                scope.setdefault("state", {})["client"] = client
            else:
                app = client
        await app(scope, receive, send)

    async def _find_client(self, scope: Scope, headers: Headers) -> AgentsClient | ErrorAnswer:
        if not _is_json_or_empty(scope["method"], headers):
            return ErrorAnswer(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "send the body as JSON, with the header Content-Type: application/json",
                "unsupported_media_type",
            )
        authorizations = headers.getlist("authorization")
        try:
            if authorizations:
                key = read_bearer(authorizations[0]) if len(authorizations) == 1 else ""
                return await run_in_threadpool(authenticate_key, self._installation, key)
            self._check_keyless(scope, headers)
        except NotAllowed as error:
            return self._refuse(scope, str(error))
        if reason := _find_foreign_page(headers):
            return ErrorAnswer(HTTPStatus.FORBIDDEN, reason, "foreign_origin")
        return AgentsClient.of_operator()

    def _check_keyless(self, scope: Scope, headers: Headers) -> None:
        if not self._is_open:
            raise NotAllowed("there is no key")
        peer = find_peer(scope, self._installation)
        if peer is None:
            raise NotAllowed("the header x-swapproof-peer is not the router's")
        if not is_loopback(peer) or any(name in headers for name in _PROXY_HEADERS):
            raise NotAllowed("there is no key, and the request is not from this machine")

    def _refuse(self, scope: Scope, reason: str) -> ErrorAnswer:
        if wait_s := self._failed.count(scope):
            return ErrorAnswer(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many requests without a valid key came from this address: send a valid "
                "key",
                "too_many_failures",
                retry_after_s=wait_s,
            )
        return ErrorAnswer(
            HTTPStatus.UNAUTHORIZED,
            f"{reason}; send `Authorization: Bearer {DATA_KEY_PREFIX}…`, a key from `swapproof "
            "key create NAME` (with `--role approver` if the agent's model is PROVIDER:MODEL)",
            "invalid_api_key",
            headers={"www-authenticate": 'Bearer realm="swapproof agents"'},
        )


def find_peer(scope: Scope, installation: Installation) -> str | None:
    """Finds the client's address: from the router's signed header, or without it from the
    socket. Returns None if the header is not the router's.
    """
    peer_headers = Headers(scope=scope).getlist(PEER_HEADER.decode())
    if not peer_headers:
        return _find_socket_peer(scope)
    now = installation.clock.now().timestamp()
    peer = read_peer_header(peer_headers[0].encode("latin-1"), installation.secret, now)
    return None if len(peer_headers) > 1 or isinstance(peer, HeaderFault) else peer


def _find_socket_peer(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _find_foreign_page(headers: Headers) -> str | None:
    hosts = headers.getlist("host")
    origins = headers.getlist("origin")
    if len(hosts) != 1 or not _is_own_host(hosts[0]):
        return "without a key, the Host must be localhost, 127.0.0.1 or [::1]"
    if origins and origins != [f"http://{hosts[0]}"]:
        return "without a key, the Origin must be the request's own Host"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "without a key, another site must not send a request"
    return None


def _is_own_host(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return False
    name = parts.hostname or ""
    plain = f"[{name}]" if ":" in name else name
    is_exact = host.lower() in (plain, f"{plain}:{port}")
    return is_exact and listens_on_loopback(name)


def _is_json_or_empty(method: str, headers: Headers) -> bool:
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (method not in _BODY_METHODS and not has_body)


# The client's headers that the control plane needs for its checks.
_FORWARDED_HEADERS: Final = frozenset(
    {
        "accept",
        "authorization",
        "content-type",
        "host",
        "origin",
        "sec-fetch-site",
    }
)

# The control plane's headers that the client does not get: this process writes its own.
_DROPPED_HEADERS: Final = frozenset(
    {
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "server",
    }
    | {"transfer-encoding", "x-content-type-options"}
)

CONTROL_TIMEOUT_S: Final = 30.0


def pass_on(
    installation: Installation,
    request: Request,
    body: bytes,
) -> Response:
    """Sends a request that needs a signature to the control plane, and returns its answer. The
    control plane checks the client's key and the agent itself. Raises ConfigError.
    """
    settings = installation.settings
    secret = installation.secret
    url = settings.agents.control_url or http_url(settings.control.host, settings.control.port)
    peer = find_peer(request.scope, installation) or ""
    now = installation.clock.now().timestamp()
    headers = {
        name: request.headers[name] for name in _FORWARDED_HEADERS if name in request.headers
    }
    headers[PEER_HEADER.decode()] = sign_peer_header(peer, secret, now).decode()
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        with closing(kind(parts.netloc, timeout=CONTROL_TIMEOUT_S)) as connection:
            connection.request(request.method, quote(request.url.path), body, headers)
            answer = connection.getresponse()
            answer_headers = {
                n: v for n, v in answer.getheaders() if n.lower() not in _DROPPED_HEADERS
            }
            return Response(answer.read(), answer.status, answer_headers)
    except (OSError, ConnectionFailed) as error:
        raise ConfigError(
            "this process has no signing key, and the control plane, which has it, does "
            f"not answer at {url} ({type(error).__name__}): run `swapproof serve "
            "control`, or correct `agents.control_url`"
        ) from error


@dataclass(frozen=True)
class AgentsRequest:
    client: AgentsClient
    installation: Installation
    http: Request

    @property
    def turns(self) -> TurnRunner:
        # Only the agents process has turns; the control plane serves no sessions.
        turns: TurnRunner = self.http.app.state.turns
        return turns

    @property
    def ctx(self) -> Context:
        return self.installation.context

    def require_session(self, agent: str, session_id: str) -> AgentSession:
        return agents.load_session(self.ctx, self.client, agent, session_id)


def _build_request(request: Request) -> AgentsRequest:
    return AgentsRequest(request.state.client, request.app.state.installation, request)


AgentsRequestParam = Annotated[AgentsRequest, Depends(_build_request)]
