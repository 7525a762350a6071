"""Two signed headers join the router and the agents process: `x-swapgate-agent` says for whose
key, agent and session the agents process calls a model, and `x-swapgate-peer` who is connected
to the router whose request it passes through. A header holds no secret, but opens what it names
until it is stale: it is never logged, nor sent to a provider or a client.

An approval link shows one switch request, and lets a person with the role decide it, once. The
link carries no key. It shows the agent's words, so send it only to people who may read them.
Pure.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final

from harness.agents.switch_request import ModelSwitchRequest

MAX_SIGNED_BYTES: Final = 4096
_VERSION: Final = b"v1"
AGENT_HEADER: Final = b"x-swapgate-agent"
PEER_HEADER: Final = b"x-swapgate-peer"
# How old a header may be, and how far in the future: clocks of two machines differ a little.
FRESH_S: Final = 60
AHEAD_S: Final = 5
_AGENT_PURPOSE: Final = b"swapgate: agents process to router"
_PEER_PURPOSE: Final = b"swapgate: router to agents process"


class HeaderFault(StrEnum):
    FORGED = "forged"  # not signed with this installation's secret, or no such header
    STALE = "stale"  # older than `FRESH_S`, or of the future


@dataclass(frozen=True, slots=True)
class AgentCaller:
    agent: str  # its id
    session: str  # the session's id
    key: str = ""  # id of the data key that pays and limits; empty for nobody's
    grant: str = ""  # id of the grant that opens a literal model; empty for a route
    # Of the route's targets, the id of the one to ask first; empty for the route's own order.
    target: str = ""
    fallback: str = ""  # the agent's other model, which is asked where this one fails


def sign_agent_header(caller: AgentCaller, secret: bytes, now: float) -> bytes:
    """The value of `x-swapgate-agent`. secret: the installation's. now: Unix seconds."""
    return _sign(asdict(caller), secret, _AGENT_PURPOSE, now)


def read_agent_header(value: bytes, secret: bytes, now: float) -> AgentCaller | HeaderFault:
    values = _read(value, secret, _AGENT_PURPOSE, now)
    if isinstance(values, HeaderFault):
        return values
    try:
        return AgentCaller(**values)
    except TypeError:
        return HeaderFault.FORGED


def sign_peer_header(address: str, secret: bytes, now: float) -> bytes:
    """The value of `x-swapgate-peer`. address: the client's; empty where nobody knows."""
    return _sign({"peer": address}, secret, _PEER_PURPOSE, now)


def read_peer_header(value: bytes, secret: bytes, now: float) -> str | HeaderFault:
    values = _read(value, secret, _PEER_PURPOSE, now)
    if isinstance(values, HeaderFault):
        return values
    return values["peer"] if values.keys() == {"peer"} else HeaderFault.FORGED


def _sign(values: Mapping[str, str], secret: bytes, purpose: bytes, now: float) -> bytes:
    """`v1.PAYLOAD.MAC`: a JSON object in base64url, and the HMAC-SHA-256 over all before it, in
    hexadecimal digits. purpose: the one use of the signature.
    """
    payload = json.dumps({**values, "at": int(now)}, separators=(",", ":")).encode()
    signed = b"%b.%b" % (_VERSION, base64.urlsafe_b64encode(payload).rstrip(b"="))
    return b"%b.%b" % (signed, _mac(signed, secret, purpose))


def _read(
    value: bytes, secret: bytes, purpose: bytes, now: float
) -> dict[str, str] | HeaderFault:
    # Nothing is parsed before the signature holds.
    text, _, mac = value.rpartition(b".")
    is_short = len(value) <= MAX_SIGNED_BYTES
    if not (is_short and hmac.compare_digest(mac, _mac(text, secret, purpose))):
        return HeaderFault.FORGED
    version, _, payload = text.partition(b".")
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        at = values.pop("at")
        is_sound = version == _VERSION and all(isinstance(t, str) for t in values.values())
        is_fresh = -AHEAD_S <= now - at <= FRESH_S
    except (AttributeError, KeyError, TypeError, ValueError):
        return HeaderFault.FORGED
    if not is_sound:
        return HeaderFault.FORGED
    return values if is_fresh else HeaderFault.STALE


def _mac(signed: bytes, secret: bytes, purpose: bytes) -> bytes:
    key = hmac.digest(secret, purpose, "sha256")
    return hmac.digest(key, signed, "sha256").hex().encode()


APPROVAL_PATH: Final = "/agents/approvals/"
_LINK_PURPOSE: Final = b"swapgate: approval link"


@dataclass(frozen=True, slots=True)
class ApprovalLinks:
    """Makes links, bound to the digest of all that the request shows."""

    base_url: str  # where people reach `/agents`
    secret: bytes = field(repr=False)  # the installation's

    def link(self, request: ModelSwitchRequest) -> str:
        return f"{self.base_url.rstrip('/')}{APPROVAL_PATH}{self._token(request)}"

    def is_of(self, token: str, request: ModelSwitchRequest) -> bool:
        signed = token.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(signed, self._token(request).encode())

    def _token(self, request: ModelSwitchRequest) -> str:
        mac = _mac(request.hash.encode(), self.secret, _LINK_PURPOSE)
        return f"{request.id}.{mac.decode()}"
