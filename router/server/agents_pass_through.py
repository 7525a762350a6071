"""Passes requests for `/agents` on to the agents process, so that clients need one address.

It has its own connections and its own limit of requests, so that an unavailable or slow
agents process does not slow requests to models. The router checks no key here and does not
interpret the body: the agents process does. It gets the client's address, signed by the
router. The other side is in `harness.agents`.
"""

import re
import ssl
import sys
from collections import Counter
from typing import Final
from urllib.parse import quote, urlsplit

from harness.agents.caller import AGENT_HEADER, PEER_HEADER, sign_peer_header
from harness.frame.people.access import (
    UNKNOWN_ADDRESS,
    client_address,
    is_loopback,
    parse_proxy_networks,
)
from harness.frame.ports import Clock
from harness.routing.settings import AgentSettings, RouterSettings
from router.frame.asgi import (
    ON_LEAVING,
    DisconnectWatch,
    Receive,
    Scope,
    Send,
)
from router.frame.failure import UpstreamFailed
from router.frame.limits import Timers
from router.frame.replies import (
    CLOSE,
    Header,
    Reply,
    drop_hop_by_hop,
    error_reply,
)
from router.server.request_body import read_request_body
from router.upstream.origin_pool import OriginAddress, OriginPool
from router.upstream.pool_connection import PoolConnection

AGENTS_PATH: Final = "/agents"
BELOW_AGENTS: Final = f"{AGENTS_PATH}/"
RETRY_AFTER_S: Final = 2
SOON: Final[Header] = (b"retry-after", b"%d" % RETRY_AFTER_S)
REQUEST_ID: Final = b"x-swapproof-request-id"
# A turn of an agent streams for as long as the agent works.
UNLIMITED_BYTES: Final = sys.maxsize
# A request with one of these headers came through a proxy, so its peer is not the client.
_FORWARDING: Final = frozenset({b"forwarded", b"via", b"x-real-ip"})
_FORWARDED_PREFIX: Final = b"x-forwarded-"
# The router writes these headers itself, or must not trust a client's.
_NOT_SENT_ON: Final = _FORWARDING | {
    b"content-encoding",  # `read_request_body` decodes it
    b"content-length",
    b"expect",
    b"host",
    AGENT_HEADER,
    PEER_HEADER,
    REQUEST_ID,
}
# The router writes these headers itself.
_NOT_SENT_BACK: Final = frozenset({b"date", b"server", PEER_HEADER})
_BODY_EXPECTED: Final = frozenset({"POST", "PUT", "PATCH"})
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(rb"/[\x21-\x7e]*")


class AgentsPassThrough:
    """Serves `/agents` for one worker. secret: signs the client's address.

    under_way: requests that are being passed on, for the metrics.
    """

    def __init__(
        self,
        agents: AgentSettings,
        settings: RouterSettings,
        secret: bytes,
        clock: Clock,
        counters: Counter[str],
        timers: Timers,
    ) -> None:
        self.under_way = 0
        self._max_under_way = settings.max_concurrent
        self._max_body_bytes = agents.max_message_bytes
        self._silence_s = agents.longest_silence_s + settings.connect_timeout_s
        self._proxies = parse_proxy_networks(settings.trusted_proxies)
        self._secret = secret
        self._clock = clock
        self._counters = counters
        self._timers = timers
        parts = urlsplit(agents.pass_through_url)
        self._authority = parts.netloc.encode()
        secure = parts.scheme == "https"
        self._origin = OriginPool(
            OriginAddress(
                parts.hostname or "",
                parts.port or (443 if secure else 80),
                ssl.create_default_context() if secure else None,
                settings.allow_addresses,
            ),
            # Equal to the limit of requests, so that no request waits for a connection.
            limit=self._max_under_way,
            connect_timeout_s=settings.connect_timeout_s,
        )

    def close(self) -> None:
        """Closes the connections to the agents process."""
        self._origin.close()

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: Header,
    ) -> Reply | None:
        """Returns a refusal, or None once the answer is sent. Raises ClientDisconnected."""
        self._counters["agents_requests"] += 1
        if self.under_way >= self._max_under_way:
            self._counters["agents_refused_when_full"] += 1
            message = "this worker has too many requests for agents: try again soon"
            return error_reply(503, message, "overloaded", headers=(SOON, CLOSE))
        self.under_way += 1
        try:
            return await self._pass_on(scope, receive, send, request_id)
        finally:
            self.under_way -= 1

    async def _pass_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: Header,
    ) -> Reply | None:
        body = await read_request_body(
            scope,
            receive,
            self._timers,
            self._max_body_bytes,
            any_type=True,  # the agents process refuses other types than JSON
            setting="agents.max_message_bytes",
        )
        if isinstance(body, Reply):
            return body
        head = self._write_head(scope, request_id, len(body))
        if isinstance(head, Reply):
            return head
        try:
            # The watch ends before the last bytes, after which a client may disconnect.
            with DisconnectWatch(receive, self._timers, scope.get(ON_LEAVING)):
                wire = await self._ask(head, body)
                try:
                    is_ended = await self._relay(wire, scope["method"], send, request_id)
                finally:
                    # Closing the request's own connection ends the agents' stream.
                    wire.abort()
                    self._origin.give_back(wire)
        except UpstreamFailed:
            self._counters["agents_unavailable"] += 1
            message = "agents are unavailable, but models are available: try again soon"
            return error_reply(503, message, "agents_unavailable", headers=(SOON,))
        except TimeoutError:
            self._counters["agents_unavailable"] += 1
            message = "the agents process did not answer in time: try again soon"
            return error_reply(504, message, "agents_timeout", headers=(SOON,))
        if is_ended:
            await send({"type": "http.response.body", "body": b""})
        else:
            # The answer has no proper end, so the client can see that it is incomplete.
            self._counters["agents_broke_off"] += 1
        return None

    def _write_head(
        self,
        scope: Scope,
        request_id: Header,
        body_bytes: int,
    ) -> bytes | Reply:
        """Writes the request's head for the agents process; returns a refusal if it is
        unsafe.

        A line break or a second Host in a head would let a client write headers of its own.
        """
        target = scope.get("raw_path") or quote(scope["path"]).encode()
        if query := scope.get("query_string"):
            target += b"?" + query
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        headers = [
            # The agents process compares the client's Host with its Origin.
            (b"host", hosts[0] if hosts else self._authority),
            *(
                header
                for header in drop_hop_by_hop(scope["headers"], _NOT_SENT_ON)
                if not header[0].startswith(_FORWARDED_PREFIX)
            ),
            (PEER_HEADER, self._sign_peer(scope)),
            request_id,
        ]
        if body_bytes or scope["method"] in _BODY_EXPECTED:
            headers.append((b"content-length", b"%d" % body_bytes))
        is_safe = (
            len(hosts) <= 1
            and _TARGET.fullmatch(target)
            and all(_TOKEN.fullmatch(name) and _VALUE.fullmatch(v) for name, v in headers)
        )
        if not is_safe:
            message = "the path, the Host or another header is invalid"
            return error_reply(400, message, "invalid_request", headers=(CLOSE,))
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (
            scope["method"].encode(),
            target,
            lines,
        )

    def _sign_peer(self, scope: Scope) -> bytes:
        """Signs the client's address. A client behind a proxy does not count as a loopback
        peer, even if the proxy runs on this machine.
        """
        client = scope.get("client")
        address = client[0] if client else ""
        names = {name for name, _ in scope["headers"]}
        if any(name in _FORWARDING or name.startswith(_FORWARDED_PREFIX) for name in names):
            forwarded = [v for name, v in scope["headers"] if name == b"x-forwarded-for"]
            address = client_address(address, forwarded, self._proxies)
            if is_loopback(address):
                address = UNKNOWN_ADDRESS
        return sign_peer_header(address, self._secret, self._clock.now().timestamp())

    async def _ask(self, head: bytes, body: bytes) -> PoolConnection:
        """Returns a connection whose answer has begun. Raises UpstreamFailed, TimeoutError."""
        # A kept connection may close at any time, and the router could not know whether the
        # agents process has handled the request.
        wire = await self._origin.lend(fresh=True)
        try:
            with self._timers.limit(wire.loop.time() + self._silence_s):
                await wire.ask(head, body, UNLIMITED_BYTES)
        except BaseException:
            self._origin.give_back(wire)
            raise
        return wire

    async def _relay(
        self,
        wire: PoolConnection,
        method: str,
        send: Send,
        request_id: Header,
    ) -> bool:
        """Sends the answer as it comes. Returns False if it broke off or fell silent."""
        headers = drop_hop_by_hop(wire.headers, _NOT_SENT_BACK)
        if REQUEST_ID not in dict(headers):
            headers.append(request_id)
        await send(
            {
                "type": "http.response.start",
                "status": wire.status,
                "headers": headers,
            }
        )
        data = b""
        try:
            while method != "HEAD":
                # Sends the head at once, because the first event may take as long as a model.
                await send(
                    {
                        "type": "http.response.body",
                        "body": data,
                        "more_body": True,
                    }
                )
                with self._timers.limit(wire.loop.time() + self._silence_s):
                    data = await wire.read()
                if not data:
                    break
        except (UpstreamFailed, TimeoutError):
            return False
        return True
