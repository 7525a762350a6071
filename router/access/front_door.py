"""Identifies callers, finds the serving revision, and counts requests under way.

The first step after `router.server.app`: a request without a known key goes no further.
This module reads only a request's head. The key's limits are in `admission`, the routes of
the request in `router.request.model_endpoint`.
"""

import hmac
import itertools
import json
import logging
from collections import Counter
from datetime import datetime
from typing import Final

from harness.agents.caller import (
    AGENT_HEADER,
    AgentCaller,
    HeaderFault,
    read_agent_header,
)
from harness.frame.people.access import (
    client_address,
    key_hash,
    parse_proxy_networks,
)
from harness.frame.ports import Clock
from harness.routing.settings import RouterSettings
from harness.routing.table import KeyGrant
from router.access.admission import Admission
from router.frame.asgi import Scope, header
from router.frame.replies import CLOSE, JSON, Header, Reply, error_reply
from router.health.provider_keys import EarlyRecovery
from router.protocols.endpoints import ENDPOINTS
from router.protocols.messages.answer_writer import anthropic_error
from router.protocols.messages.dialect import VERSION_HEADER
from router.recording.internal_errors import InternalErrors, RouterPart
from router.recording.port import Recording
from router.snapshot.compiled import (
    CompiledRoute,
    CompiledSnapshot,
    RouteNames,
)
from router.snapshot.holder import SnapshotHolder

# The grant in usage records of requests by the local operator or with a management key.
OPEN_KEY: Final = KeyGrant("agents-open", "")
CALLER: Final = "swapproof_agent_caller"  # the scope's key for an agent's caller
_MESSAGES: Final = "/v1/messages"
_OWN_KEYS: Final = frozenset({b"authorization", b"x-api-key"})


class Callers:
    """Identifies the callers of one worker. secret: the installation's."""

    def __init__(
        self,
        settings: RouterSettings,
        secret: bytes,
        clock: Clock,
        admission: Admission,
        counters: Counter[str],
    ) -> None:
        self._secret = secret
        self._clock = clock
        self._counters = counters
        self._admission = admission
        self._proxies = parse_proxy_networks(settings.trusted_proxies)

    def identify(self, scope: Scope, serving: CompiledSnapshot) -> KeyGrant | Reply:
        """Returns the grant of the request's key, or the refusal."""
        authorization = None
        for name, value in scope["headers"]:
            if name == b"authorization" and authorization is None:
                authorization = value
            elif name == AGENT_HEADER:
                return self._identify_agent(scope, serving)
        grant = find_grant(bearer_key(authorization), serving, self._secret)
        if grant is None and (speaks_anthropic(scope) or scope["path"].startswith(FLAGS_PATH)):
            grant = find_grant(header(scope, b"x-api-key"), serving, self._secret)
        if grant is None:
            return self._admission.refuse_unknown_key(self._read_address(scope))
        return grant

    def _identify_agent(self, scope: Scope, serving: CompiledSnapshot) -> KeyGrant | Reply:
        """Returns the grant of the key that an agent's signed header names.

        Only this installation's agents process can write the header. A request with the header
        must not have a key. The scope keeps the caller under CALLER.
        """
        headers = scope["headers"]
        values = [value for name, value in headers if name == AGENT_HEADER]
        if len(values) != 1 or any(name in _OWN_KEYS for name, _ in headers):
            return self._refuse("send it exactly once, and send no key with it")
        now = self._clock.now().timestamp()
        caller = read_agent_header(values[0], self._secret, now)
        if caller is HeaderFault.STALE:
            return self._refuse("it is older than a minute; compare the machines' clocks")
        if caller is HeaderFault.FORGED:
            return self._refuse("only this installation's agents process can write it")
        grant = serving.keys_by_id.get(caller.key) if caller.key else OPEN_KEY
        if grant is None:
            return self._refuse("the key that it names is revoked or does not exist")
        scope[CALLER] = caller
        return grant

    def _refuse(self, reason: str) -> Reply:
        self._counters["agent_callers_refused"] += 1
        message = f"{AGENT_HEADER.decode()} is refused: {reason}"
        return error_reply(401, message, "invalid_agent_header")

    def _read_address(self, scope: Scope) -> str:
        """Returns the client's address, behind the proxies that the settings trust."""
        client = scope.get("client")
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return client_address(client[0] if client else None, forwarded, self._proxies)


def find_literal(
    scope: Scope,
    model: str,
    serving: CompiledSnapshot,
    now: datetime,
) -> CompiledRoute | None:
    """Finds the target that a grant lets this agent and session use now under this name."""
    caller: AgentCaller = scope[CALLER]
    literal = serving.literals.get(caller.grant)
    if literal is None or literal.route.route.name != model:
        return None
    return literal.route if literal.grant.opens(caller.agent, caller.session, now) else None


log = logging.getLogger(__name__)

SOON: Final[Header] = (b"retry-after", b"1")


class FrontDoor:
    """Gives requests an id, a grant, a revision and a place among the requests under way.

    max_under_way: how many requests a worker serves at once.
    renewals: ends pauses of targets when a new revision begins to serve.
    """

    def __init__(
        self,
        holder: SnapshotHolder,
        recorder: Recording,
        max_under_way: int,
        callers: Callers,
        renewals: EarlyRecovery,
        errors: InternalErrors,
    ) -> None:
        self.under_way = 0
        self._holder = holder
        self._recorder = recorder
        self._max_under_way = max_under_way
        self._callers = callers
        self._renewals = renewals
        self._errors = errors
        self._numbers = itertools.count(1)

    def next_id(self) -> Header:
        # Each process has a new worker name, so that ids never repeat.
        id_ = f"req_{self._recorder.worker}-{next(self._numbers):x}"
        return b"x-swapproof-request-id", id_.encode()

    def identify(self, scope: Scope) -> Reply | tuple[KeyGrant, CompiledSnapshot]:
        """Returns the caller's grant and the serving revision, or the refusal.

        The request keeps this revision to its end, unless a later one serves before its body is
        complete. Replies 503 before the first revision.
        """
        serving = self._holder.current
        if serving is None:
            message = "the router has no routes yet; try again in a second"
            return error_reply(503, message, "not_ready", headers=(SOON,))
        try:
            if self._renewals.serving is not serving:
                self._renewals.evaluate(serving)
        except Exception as error:
            self._errors.note(RouterPart.RECORDING, error)
        grant = self._callers.identify(scope, serving)
        return grant if isinstance(grant, Reply) else (grant, serving)

    def enter(self) -> Reply | None:
        """Counts a request in, or returns a 503 if the worker is full. After None, call
        `leave` once.
        """
        if self.under_way >= self._max_under_way:
            self._recorder.counters["refused_when_full"] += 1
            return error_reply(
                503,
                "this worker is full",
                "overloaded",
                headers=(SOON, CLOSE),
            )
        self.under_way += 1
        return None

    def leave(self) -> None:
        self.under_way -= 1

    def note_failure(self, request_id: Header, error: Exception) -> Reply:
        """Returns the 500 for a fault of the router's own code, with the request's id to
        quote.
        """
        number = request_id[1].decode()
        # The error's message may contain content; InternalErrors logs its place once.
        log.error("request %s failed", number)
        self._errors.note(RouterPart.REQUEST, error)
        return error_reply(500, f"the router failed; quote {number}", "internal_error")

    def rewrite_reply(
        self,
        scope: Scope,
        request_id: Header,
        reply: Reply,
    ) -> Reply:
        """Rewrites an error for a client of Anthropic's protocol; returns other replies
        unchanged.
        """
        if reply.status >= 400 and speaks_anthropic(scope):
            return anthropic_error(reply, request_id[1].decode())
        return reply


def speaks_anthropic(scope: Scope) -> bool:
    """Returns whether the client speaks Anthropic's protocol, by its path or its version
    header.
    """
    path = scope["path"]
    return path in (_MESSAGES, f"{_MESSAGES}/count_tokens") or (
        path not in ENDPOINTS and header(scope, VERSION_HEADER) is not None
    )


MODELS: Final = "/v1/models"
FLAGS_PATH: Final = "/ofrep/v1/evaluate/flags"


def list_models(
    serving: CompiledSnapshot,
    grant: KeyGrant,
    path: str,
    aliases: RouteNames,
    *,
    anthropic: bool,
) -> Reply:
    """Lists the models that a key may ask, or shows the model that the path names."""

    def is_open(route: str) -> bool:
        return route in serving.routes and is_route_allowed(grant, route)

    alias_names = {name for name, route in aliases.exact_aliases().items() if is_open(route)}
    names = sorted(alias_names.union(filter(is_open, serving.routes)))
    name = path[len(MODELS) + 1 :]
    describe = _describe_for_anthropic if anthropic else _describe_for_openai
    if name in names or (name and is_open(aliases.resolve_name(name))):
        return Reply(200, (JSON,), json.dumps(describe(name)).encode())
    if name:
        message = f"there is no route {name!r}"
        return error_reply(404, message, "model_not_found", param="model")
    body: dict[str, object] = {"data": [describe(name) for name in names]}
    if anthropic:
        body |= {
            "has_more": False,
            "first_id": _name_at(names, 0),
            "last_id": _name_at(names, -1),
        }
    else:
        body["object"] = "list"
    return Reply(200, (JSON,), json.dumps(body).encode())


def _describe_for_openai(name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "swapproof",
    }


def _describe_for_anthropic(name: str) -> dict[str, object]:
    return {
        "id": name,
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def _name_at(names: list[str], place: int) -> str | None:
    return names[place] if names else None


_SCHEME: Final = b"bearer "


def find_grant(
    key: bytes | None,
    serving: CompiledSnapshot,
    secret: bytes,
) -> KeyGrant | None:
    """Finds a key's grant, or None.

    Args:
        secret: used to hash keys.
    """
    if key is None:
        return None
    hashed = key_hash(key.strip().decode("latin-1"), secret)
    grant = serving.grants.get(hashed)
    is_equal = grant is not None and hmac.compare_digest(grant.hash.encode(), hashed.encode())
    return grant if is_equal else None


def bearer_key(authorization: bytes | None) -> bytes | None:
    """Returns the key of an `authorization` header; None for another scheme."""
    if authorization is None or authorization[:7].lower() != _SCHEME:
        return None
    return authorization[7:]


def is_route_allowed(grant: KeyGrant, route: str) -> bool:
    return not grant.routes or route in grant.routes
