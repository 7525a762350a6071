"""Two signed headers join the router and the agents process: `x-swapgate-agent` says for whose
key, agent and session the agents process calls a model, and `x-swapgate-peer` who is connected
to the router whose request it passes through. Pure.

A header holds no secret, but opens what it names until it is stale: it is never logged, nor
sent to a provider or a client.

Signed values are a few values of JSON with an HMAC, which this installation alone can write:
`v1.PAYLOAD.MAC`, a JSON object in base64url, and the HMAC-SHA-256 over all that stands before
it, in hexadecimal digits. Pure.

An approval link shows one switch request to its holder, until the request expires, and
lets a person with the role decide it, once. Pure.

The link is no right to decide: it carries no key. It is nothing to show around all the same,
since it shows what an agent wrote.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.errors import NotFound

MAX_SIGNED_BYTES: Final = 4096
_VERSION: Final = b"v1"


def sign_values(values: Mapping[str, object], secret: bytes, purpose: bytes) -> bytes:
    """Signs values as one compact text. secret: the installation's. purpose: what they are
    signed for, and good for alone.
    """
    payload = json.dumps(values, separators=(",", ":")).encode()
    signed = b"%b.%b" % (_VERSION, base64.urlsafe_b64encode(payload).rstrip(b"="))
    return b"%b.%b" % (signed, _mac(signed, secret, purpose))


def open_values(signed: bytes, secret: bytes, purpose: bytes) -> dict[str, Any] | None:
    """What was signed; None for what was not, for this purpose. Nothing is parsed before the
    signature holds.
    """
    text, _, mac = signed.rpartition(b".")
    is_short = len(signed) <= MAX_SIGNED_BYTES
    if not (is_short and hmac.compare_digest(mac, _mac(text, secret, purpose))):
        return None
    version, _, payload = text.partition(b".")
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        return None
    return values if version == _VERSION and isinstance(values, dict) else None


def _mac(signed: bytes, secret: bytes, purpose: bytes) -> bytes:
    key = hmac.digest(secret, purpose, "sha256")
    return hmac.digest(key, signed, "sha256").hex().encode()


AGENT_HEADER: Final = b"x-swapgate-agent"
PEER_HEADER: Final = b"x-swapgate-peer"
# How old a header may be, and how far in the future: clocks of two machines differ a little.
FRESH_S: Final = 60
AHEAD_S: Final = 5
_AGENT_PURPOSE: Final = b"swapgate: agents process to router"
_PEER_PURPOSE: Final = b"swapgate: router to agents process"


class HeaderFault(StrEnum):
    """FORGED: not signed with this installation's secret, or no such header. STALE: older than
    `FRESH_S`, or of the future.
    """

    FORGED = "forged"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class AgentCaller:
    """Names the agent and the session for which the agents process calls a model."""

    agent: str  # its id
    session: str  # the session's id
    key: str = ""  # id of the data key that pays and limits; empty for nobody's
    grant: str = ""  # id of the grant that opens a literal model; empty for a route
    # Of the route's targets, the id of the one to ask first; empty for the route's own order.
    target: str = ""


def sign_agent_header(caller: AgentCaller, secret: bytes, now: float) -> bytes:
    """The value of `x-swapgate-agent`. secret: the installation's. now: Unix seconds."""
    return _sign(asdict(caller), secret, _AGENT_PURPOSE, now)


def read_agent_header(value: bytes, secret: bytes, now: float) -> AgentCaller | HeaderFault:
    """Who calls, or why the header is not believed."""
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
    """The address of the router's client, or why the header is not believed."""
    values = _read(value, secret, _PEER_PURPOSE, now)
    if isinstance(values, HeaderFault):
        return values
    return values["peer"] if values.keys() == {"peer"} else HeaderFault.FORGED


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own. False for what is no address, a name too: it
    may lead anywhere.
    """
    try:
        parsed = ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


def listens_on_loopback(host: str) -> bool:
    """Whether a server that listens on this host can be reached from its own machine alone.

    By RFC 6761, section 6.3, `localhost` is a loopback address, whatever a resolver says.
    """
    return host.lower() == "localhost" or is_loopback(host)


def _sign(values: Mapping[str, str], secret: bytes, purpose: bytes, now: float) -> bytes:
    return sign_values({**values, "at": int(now)}, secret, purpose)


def _read(
    value: bytes, secret: bytes, purpose: bytes, now: float
) -> dict[str, str] | HeaderFault:
    """What was signed, without its time."""
    values = open_values(value, secret, purpose)
    if values is None:
        return HeaderFault.FORGED
    try:
        at = values.pop("at")
        if not all(isinstance(text, str) for text in values.values()):
            return HeaderFault.FORGED
        is_fresh = -AHEAD_S <= now - at <= FRESH_S
    except (KeyError, TypeError):
        return HeaderFault.FORGED
    return values if is_fresh else HeaderFault.STALE


APPROVAL_PATH: Final = "/agents/approvals/"
_PURPOSE: Final = b"swapgate: approval link"


@dataclass(frozen=True, slots=True)
class ApprovalLinks:
    """Makes links and reads them."""

    base_url: str  # where people reach `/agents`
    secret: bytes = field(repr=False)  # the installation's

    def link(self, request: ModelSwitchRequest) -> str:
        values = {
            "request": request.id,
            "hash": request.hash,
            "until": request.expires_at.timestamp(),
        }
        token = sign_values(values, self.secret, _PURPOSE).decode()
        return f"{self.base_url.rstrip('/')}{APPROVAL_PATH}{token}"

    def read(self, token: str, now: datetime) -> tuple[str, str]:
        """The request's id, and its hash when the link was made. Raises NotFound for a token
        that was not made here, and one whose time is over.
        """
        signed = token.encode("utf-8", "surrogatepass")
        values = open_values(signed, self.secret, _PURPOSE)
        if values is None:
            raise NotFound("this is no approval link of this installation")
        if now.timestamp() >= values["until"]:
            raise NotFound("the link is over: nobody decided about the switch in time")
        return values["request"], values["hash"]
