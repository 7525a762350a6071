"""Access rights decide who may do what: data keys open the router, management keys have a role.

`Role` and `Actor` say whether an act is allowed; `ApiKey` is a key as it is stored, with its
hash (`key_hash`), routes and limits.

A client's address is read from the connection and from trusted proxies' headers. Pure.

`X-Forwarded-For` is written by whoever sends the request. Only a proxy of the operator's own
appends to it truthfully: so it is read from its end, as long as the addresses are such
proxies'.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from harness.domain.errors import InputError, NotAllowed
from harness.domain.reliability.rate_limits import KeyLimits

DATA_KEY_PREFIX = "sk-sg-"
MANAGEMENT_KEY_PREFIX = "sg-mgmt-"


class Role(IntEnum):
    """Each role may do what the ones below it may."""

    VIEWER = 1
    PROPOSER = 2
    APPROVER = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Identifies a person or service that acts through CLI, REST or dashboard."""

    name: str
    role: Role
    principal: str  # whose id it is, whatever he is called
    # The id of the management key that he acts with; None for the local operator.
    key: str | None = None

    def require(self, role: Role) -> None:
        """Requires at least this role of the actor; else raises NotAllowed."""
        if self.role < role:
            raise NotAllowed(
                f"{self.name} is {self.role.name.lower()}; this needs {role.name.lower()}. "
                "Ask an admin for a key with that role"
            )


SYSTEM = Actor("swapgate", Role.ADMIN, "swapgate")


class OptOut(StrEnum):
    """Names what a client's key keeps its requests out of.

    CANARY: no canary, holdback or practice: they go to the route's own model, and are evidence
    of nothing. SHADOW: they are mirrored to no candidate, and shown to no judge. CAPTURE: no
    copy is kept, and no judge sees them.
    """

    CANARY = "canary"
    SHADOW = "shadow"
    CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: never the secret itself. role None: a data key."""

    id: str
    name: str
    hash: str  # HMAC-SHA-256 of the key under the server's secret, hex
    hint: str  # its last four characters, for people
    role: Role | None
    routes: frozenset[str]  # empty means all
    created_at: datetime
    revoked_at: datetime | None = None
    limits: KeyLimits | None = None  # of a data key, None for none
    principal: str | None = None  # whose management key it is
    # created_by, created_with: the principal who created it, and the id of the management key
    # that was used; None where that is not known, or none.
    created_by: str | None = None
    created_with: str | None = None
    opt_outs: frozenset[OptOut] = frozenset()  # of a data key


def key_hash(key: str, secret: bytes) -> str:
    return hmac.new(secret, key.encode("utf-8", "surrogatepass"), sha256).hexdigest()


Network = IPv4Network | IPv6Network

UNKNOWN_ADDRESS: Final = "unknown"
# One customer's network, from which any number of addresses can be taken.
IPV6_PREFIX: Final = 64


def parse_proxy_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Parses the addresses and networks of trusted proxies. Raises InputError for what is
    neither.
    """
    return tuple(_network(entry) for entry in entries)


def check_origin(text: str) -> None:
    """Checks the origin of a page, as browsers write it. Raises InputError."""
    parts = urlsplit(text)
    if text not in ("*", f"{parts.scheme}://{parts.netloc}"):
        raise InputError(f"{text!r} is no origin such as https://chat.example.com, and not `*`")


def _network(entry: str) -> Network:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        raise InputError(f"{entry!r} is no address and no network such as 10.0.0.0/8") from None


def client_address(
    peer: str | None, forwarded_for: Sequence[bytes], proxies: Sequence[Network]
) -> str:
    """An IPv4 address, or the /64 network of an IPv6 address; UNKNOWN where there is none.

    peer: who is connected. forwarded_for: the values of `X-Forwarded-For`, in their order.
    proxies: the operator's own. What such a one appended and is no address is not believed:
    then the proxy itself is the client.
    """
    address = _parsed(peer or "")
    if address is None:
        return UNKNOWN_ADDRESS
    hops = b",".join(forwarded_for).split(b",") if forwarded_for and proxies else []
    while hops and any(address in network for network in proxies):
        hop = _parsed(hops.pop().decode("latin-1"))
        if hop is None:
            break
        address = hop
    if isinstance(address, IPv6Address):
        return str(ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Parses an address with or without a port; an IPv4 address mapped into IPv6 is the IPv4
    address.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
