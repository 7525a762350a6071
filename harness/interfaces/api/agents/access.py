"""Says on whose behalf a request of the agents API is made: a data key's, a management key's,
or, with `open_on_loopback`, nobody's on this machine itself; else 401.

Without a key there is only the connection to go by, and a web page in the operator's browser
shares it. Such a request is believed only from a loopback peer that no proxy stands for, to a
Host that is this machine's, and from no other Origin; a body has to be JSON, which a page can
send nowhere without being asked. A name that a page's DNS turns into 127.0.0.1 is another Host.
"""

import math
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.agents import agents
from harness.agents.agents import AgentsClient
from harness.agents.caller import PEER_HEADER, HeaderFault, read_peer_header, sign_peer_header
from harness.agents.turn_runner import TurnRunner
from harness.app.installation import Installation
from harness.frame.errors import ConfigError, NotAllowed
from harness.frame.people.access import (
    DATA_KEY_PREFIX,
    MANAGEMENT_KEY_PREFIX,
    client_address,
    is_loopback,
    listens_on_loopback,
)
from harness.interfaces.api.agents.errors import ErrorAnswer
from harness.interfaces.api.frame.access import OPEN, read_bearer
from harness.operations import keys
from harness.operations.single_sign_on import FailedAttempts
from harness.routing.agent import AgentSession
from harness.routing.context import Context
from harness.routing.settings import http_url

# A request that one of these stands in came by a proxy: its peer is not who asks.
_PROXY_HEADERS: Final = ("x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via")
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})


def key_client(installation: Installation, key: str) -> AgentsClient:
    """Authenticates a client. Raises NotAllowed for what is no valid key."""
    store, secret = installation.store, installation.secret
    if key.startswith(DATA_KEY_PREFIX):
        return AgentsClient.of_data_key(keys.authenticate_data_key(store, key, secret=secret))
    if key.startswith(MANAGEMENT_KEY_PREFIX):
        return AgentsClient.of_person(keys.authenticate(store, key, secret=secret))
    raise NotAllowed("what was sent is no key of ours")


class FailedKeys:
    """Counts the failed keys of each address, wherever below /agents they come. A key is looked
    at before its address: whoever guesses keeps nobody else out.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._attempts = FailedAttempts(installation.clock)

    def count(self, scope: Scope) -> int:
        """One more of this request's address; seconds to wait where there were too many."""
        peer = find_peer(scope, self._installation)
        address = client_address(_socket_peer(scope) if peer is None else peer, (), ())
        wait_s = self._attempts.wait_s(address)
        if not wait_s:
            self._attempts.failed(address)
        return math.ceil(wait_s)


class AgentsAccess:
    """Puts the AgentsClient behind a request into its state, or refuses the request.

    is_open: this machine needs no key. Only where router and agents listen on loopback alone,
    which the configuration has made sure of.
    """

    def __init__(
        self, app: ASGIApp, *, installation: Installation, is_open: bool, failed: FailedKeys
    ) -> None:
        self._app, self._installation = app, installation
        self._is_open, self._failed = is_open, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in OPEN:
            client = await self._find_client(scope, Headers(scope=scope))
            if isinstance(client, AgentsClient):
                scope.setdefault("state", {})["client"] = client
            else:
                app = client
        await app(scope, receive, send)

    async def _find_client(self, scope: Scope, headers: Headers) -> AgentsClient | ErrorAnswer:
        if not _is_json(scope["method"], headers):
            return ErrorAnswer(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "send the body as JSON, with the header Content-Type: application/json",
                "unsupported_media_type",
            )
        given = headers.getlist("authorization")
        try:
            if given:
                key = read_bearer(given[0]) if len(given) == 1 else ""
                return await run_in_threadpool(key_client, self._installation, key)
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
            raise NotAllowed("the header x-swapgate-peer is not the router's")
        if not is_loopback(peer) or any(name in headers for name in _PROXY_HEADERS):
            raise NotAllowed("there is no key, and the request is not of this machine")

    def _refuse(self, scope: Scope, reason: str) -> ErrorAnswer:
        if wait_s := self._failed.count(scope):
            return ErrorAnswer(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many requests without a valid key came from this address: send a valid "
                "one",
                "too_many_failures",
                retry_after_s=wait_s,
            )
        return ErrorAnswer(
            HTTPStatus.UNAUTHORIZED,
            f"{reason}; send `Authorization: Bearer {DATA_KEY_PREFIX}…`, a key that `swapgate "
            "key create NAME` makes (with `--role approver` for a model that no route has)",
            "invalid_api_key",
            headers={"www-authenticate": 'Bearer realm="swapgate agents"'},
        )


def find_peer(scope: Scope, installation: Installation) -> str | None:
    """Who is connected: as the router says in its signed header, else to this process. None
    where the header is not the router's.
    """
    given = Headers(scope=scope).getlist(PEER_HEADER.decode())
    if not given:
        return _socket_peer(scope)
    now = installation.clock.now().timestamp()
    peer = read_peer_header(given[0].encode("latin-1"), installation.secret, now)
    return None if len(given) > 1 or isinstance(peer, HeaderFault) else peer


def _socket_peer(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _find_foreign_page(headers: Headers) -> str | None:
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not _is_own_host(hosts[0]):
        return "without a key, the Host is localhost, 127.0.0.1 or [::1]"
    if origins and origins != [f"http://{hosts[0]}"]:
        return "without a key, a request has no other Origin than its own Host"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "without a key, no other site may send a request"
    return None


def _is_own_host(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return False
    name = parts.hostname or ""
    plain = f"[{name}]" if ":" in name else name
    same = host.lower() in (plain, f"{plain}:{port}")
    return same and listens_on_loopback(name)


def _is_json(method: str, headers: Headers) -> bool:
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (method not in _BODY_METHODS and not has_body)


# The control plane needs these of a client's request.
_PASSED_ON: Final = (
    "accept",
    "authorization",
    "content-type",
    "host",
    "origin",
    "sec-fetch-site",
)
# Of the control plane's answer; this process's server writes its own.
_NOT_SENT_BACK: Final = frozenset(
    {"cache-control", "connection", "content-encoding", "content-length", "date", "server"}
    | {"transfer-encoding", "x-content-type-options"}
)
CONTROL_TIMEOUT_S: Final = 30.0


def pass_on(installation: Installation, request: Request, body: bytes) -> Response:
    """The control plane's answer to a request that takes its signature. The control plane looks
    at the client's key and the agent before it signs. Raises ConfigError.
    """
    settings, secret = installation.settings, installation.secret
    url = settings.agents.control_url or http_url(settings.control.host, settings.control.port)
    peer = find_peer(request.scope, installation) or ""
    now = installation.clock.now().timestamp()
    headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    headers[PEER_HEADER.decode()] = sign_peer_header(peer, secret, now).decode()
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        with closing(kind(parts.netloc, timeout=CONTROL_TIMEOUT_S)) as connection:
            connection.request(request.method, quote(request.url.path), body, headers)
            answer = connection.getresponse()
            kept = {n: v for n, v in answer.getheaders() if n.lower() not in _NOT_SENT_BACK}
            return Response(answer.read(), answer.status, kept)
    except (OSError, HTTPException) as error:
        raise ConfigError(
            "this process has no signing key, and the control plane, which has it, does "
            f"not answer at {url} ({type(error).__name__}): run `swapgate serve "
            "control`, or correct `agents.control_url`"
        ) from error


@dataclass(frozen=True)
class AgentsRequest:
    client: AgentsClient
    installation: Installation
    http: Request

    @property
    def turns(self) -> TurnRunner:
        # The control plane has none, and serves no sessions.
        turns: TurnRunner = self.http.app.state.turns
        return turns

    @property
    def ctx(self) -> Context:
        return self.installation.context

    def require_session(self, agent: str, id_: str) -> AgentSession:
        return agents.load_session(self.ctx, self.client, agent, id_)


def _agents_request(request: Request) -> AgentsRequest:
    return AgentsRequest(request.state.client, request.app.state.installation, request)


AgentsRequestParam = Annotated[AgentsRequest, Depends(_agents_request)]
