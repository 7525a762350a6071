"""Access rights decide who may do what: data keys open the router, management keys have a role.
Pure.

`X-Forwarded-For` is written by whoever sends the request. Only a proxy of the operator's own
appends to it truthfully: so it is read from its end, as long as the addresses are such
proxies'.

A dashboard session says as whom a browser acts. Link and cookie are 256 random bits each, and
stored as hashes. A session acts with one management key, with the role that the key has at that
moment; the local operator's needs none, as on the command line.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from harness.frame.errors import InputError, NotAllowed
from harness.frame.people.limits import KeyLimits

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
    """Parses addresses and networks of trusted proxies. Raises InputError."""
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
    """Parses an address, maybe with a port; IPv4 mapped into IPv6 is the IPv4 address."""
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


LINK_PREFIX: Final = "sg-link-"
COOKIE_PREFIX: Final = "sg-session-"
SIGN_IN_PATH: Final = "/sign-in"
LINK_LASTS: Final = timedelta(minutes=15)
# Of the link that `swapgate init` prints: a newcomer starts the dashboard first.
FIRST_LINK_LASTS: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DashboardSession:
    """One sign-in to the dashboard: waits as a link, is open in one browser, ends."""

    id: str
    principal: str  # who acts
    key: str | None  # with which management key; None for the local operator
    created_at: datetime
    # created_by, created_with: the principal, and his management key, who made the link.
    created_by: str
    created_with: str | None = None
    link_hash: str | None = None  # link_hash, link_expires_at: None without a link
    link_expires_at: datetime | None = None
    cookie_hash: str | None = None  # cookie_hash, opened_at, expires_at: None for a link
    opened_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None

    def require_link(self, now: datetime) -> None:
        """Requires an unused link whose time is not over. Raises NotAllowed."""
        if self.opened_at is not None:
            raise NotAllowed(
                f"this link was used at {self.opened_at:%Y-%m-%d %H:%M} UTC, and works once"
            )
        if self.link_expires_at is None or now >= self.link_expires_at or self.ended_at:
            raise NotAllowed("this link is over: nobody used it in time")

    def require_open(self, now: datetime) -> None:
        """Requires a session that goes on. Raises NotAllowed."""
        if self.opened_at is None or self.expires_at is None:
            raise NotAllowed("this session was never opened: sign in")
        if self.ended_at is not None:
            raise NotAllowed("You signed out. If you did not, an admin ended your session.")
        if now >= self.expires_at:
            raise NotAllowed("Your session is over: sign in again.")


def sign_in_url(base_url: str, link: str) -> str:
    """Writes the address. No browser sends what stands behind `#`: no log or Referer has it."""
    return f"{base_url.rstrip('/')}{SIGN_IN_PATH}#{link}"


def require_makeable(
    *, for_key: str, maker: str, maker_key: str | None, known_to: frozenset[str]
) -> None:
    """Requires that the person who makes a link acts with that key, or may know it: who created
    it, or the key before it. Else a link would make two people of one. Raises NotAllowed.

    known_to: the principals that `four_eyes.load_key_creators` names.
    """
    if maker_key != for_key and maker not in known_to:
        raise NotAllowed(
            f"you neither act with the key {for_key} nor had a hand in creating it: its owner "
            "prints the link with `swapgate key sign-in-link --key-file FILE`"
        )


def check_lifetime(lasts: timedelta) -> timedelta:
    """Requires a link's lifetime between a minute and a day. Raises InputError."""
    if not timedelta(minutes=1) <= lasts <= timedelta(days=1):
        raise InputError("a sign-in link lasts between a minute and a day")
    return lasts
