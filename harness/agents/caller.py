"""Signed headers between the router and the agents process, and signed approval links. Pure.

In `x-swapproof-agent` the agents process names the key, agent and session of a model call. In
`x-swapproof-peer` the router names the client's address. A header grants access until it is
stale, so Swapproof must not log it, and must not send it to providers or clients. An approval
link shows one switch request with the agent's words, and contains no key.

Each purpose has its own key, which is derived from the installation's secret. So a value that
is signed for one purpose is `FORGED` for another.
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
AGENT_HEADER: Final = b"x-swapproof-agent"
PEER_HEADER: Final = b"x-swapproof-peer"
MAX_AGE_S: Final = 60  # a header's greatest age
CLOCK_TOLERANCE_S: Final = 5  # the clocks of two machines differ slightly
_AGENT_PURPOSE: Final = b"swapproof: agents process to router"
_PEER_PURPOSE: Final = b"swapproof: router to agents process"


class HeaderFault(StrEnum):
    FORGED = "forged"  # not signed with this installation's secret, or malformed
    STALE = "stale"  # older than `MAX_AGE_S`, or from the future


@dataclass(frozen=True, slots=True)
class AgentCaller:
    """The agent, session and permissions for which the agents process calls a model."""

    agent: str  # its id
    session: str  # the session's id
    key: str = ""  # id of the client key whose limits apply; empty for no key
    grant: str = ""  # id of the literal model's grant; empty for a route
    target: str = ""  # id of the route's target to call first; empty for the route's own order
    fallback: str = ""  # the model that the agents process calls next if this call fails


def sign_agent_header(
    caller: AgentCaller,
    secret: bytes,
    now: float,
) -> bytes:
    """Signs the value of `x-swapproof-agent`.

    Args:
        now: Unix seconds.
    """
    return _sign(asdict(caller), secret, _AGENT_PURPOSE, now)


def read_agent_header(
    value: bytes,
    secret: bytes,
    now: float,
) -> AgentCaller | HeaderFault:
    """Verifies and reads `x-swapproof-agent`.

    Args:
        now: Unix seconds.

    Returns the fault instead of raising it, because the router answers each fault differently.
    """
    values = _verify_and_parse(value, secret, _AGENT_PURPOSE, now)
    if isinstance(values, HeaderFault):
        return values
    try:
        return AgentCaller(**values)
    except TypeError:
        return HeaderFault.FORGED


def sign_peer_header(
    address: str,
    secret: bytes,
    now: float,
) -> bytes:
    """Signs the value of `x-swapproof-peer`.

    Args:
        address: the client's; empty if unknown.
    """
    return _sign({"peer": address}, secret, _PEER_PURPOSE, now)


def read_peer_header(
    value: bytes,
    secret: bytes,
    now: float,
) -> str | HeaderFault:
    """Verifies `x-swapproof-peer` and returns the client's address; empty if unknown.

    Args:
        now: Unix seconds.
    """
    values = _verify_and_parse(value, secret, _PEER_PURPOSE, now)
    if isinstance(values, HeaderFault):
        return values
    return values["peer"] if values.keys() == {"peer"} else HeaderFault.FORGED


def _sign(
    values: Mapping[str, str],
    secret: bytes,
    purpose: bytes,
    now: float,
) -> bytes:
    """Signs as `v1.PAYLOAD.MAC`: a JSON object in base64url, and a hexadecimal HMAC-SHA-256."""
    payload = json.dumps({**values, "at": int(now)}, separators=(",", ":")).encode()
    signed_part = b"%b.%b" % (
        _VERSION,
        base64.urlsafe_b64encode(payload).rstrip(b"="),
    )
    return b"%b.%b" % (signed_part, _compute_mac(signed_part, secret, purpose))


def _verify_and_parse(
    value: bytes,
    secret: bytes,
    purpose: bytes,
    now: float,
) -> dict[str, str] | HeaderFault:
    # The payload is parsed only after its signature is verified.
    text, _, mac = value.rpartition(b".")
    is_short = len(value) <= MAX_SIGNED_BYTES
    if not (is_short and hmac.compare_digest(mac, _compute_mac(text, secret, purpose))):
        return HeaderFault.FORGED
    version, _, payload = text.partition(b".")
    try:
        values = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        at = values.pop("at")
        is_well_formed = version == _VERSION and all(
            isinstance(t, str) for t in values.values()
        )
        is_fresh = -CLOCK_TOLERANCE_S <= now - at <= MAX_AGE_S
    except (AttributeError, KeyError, TypeError, ValueError):
        return HeaderFault.FORGED
    if not is_well_formed:
        return HeaderFault.FORGED
    return values if is_fresh else HeaderFault.STALE


def _compute_mac(
    signed: bytes,
    secret: bytes,
    purpose: bytes,
) -> bytes:
    """Computes a hexadecimal HMAC-SHA-256 with a key that is derived from the secret and the
    purpose.
    """
    key = hmac.digest(secret, purpose, "sha256")
    return hmac.digest(key, signed, "sha256").hex().encode()


APPROVAL_PATH: Final = "/agents/approvals/"
_LINK_PURPOSE: Final = b"swapproof: approval link"


@dataclass(frozen=True, slots=True)
class ApprovalLinks:
    """Links to switch requests. A link's signature covers everything that its request shows."""

    base_url: str  # address under which people reach `/agents`
    secret: bytes = field(repr=False)  # the installation's

    def link(self, request: ModelSwitchRequest) -> str:
        return f"{self.base_url.rstrip('/')}{APPROVAL_PATH}{self._build_token(request)}"

    def is_of(self, token: str, request: ModelSwitchRequest) -> bool:
        """Returns whether the link's token was signed for this request as it is now. The
        comparison takes constant time.
        """
        signed = token.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(signed, self._build_token(request).encode())

    def _build_token(self, request: ModelSwitchRequest) -> str:
        mac = _compute_mac(request.hash.encode(), self.secret, _LINK_PURPOSE)
        return f"{request.id}.{mac.decode()}"
