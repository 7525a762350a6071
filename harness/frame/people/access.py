"""Principals are people, services and the operator of this machine. Client keys give access to
the router, and management keys have a role. Pure.

Names that readers could confuse count as the same name, so that one person cannot pose as two
by spelling. A person who uses both a key and single sign-on is two principals, until an admin
declares that they are one person.

Any sender can write `X-Forwarded-For`, and only the operator's proxies append to it truthfully.
So `client_address` reads it from its end while the addresses belong to these proxies.

A dashboard session determines the actor of a browser. Link and cookie are 256 random bits each,
stored as hashes. A session acts with one management key and that key's current role. The local
operator's session needs no key, as on the command line.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from hashlib import sha256
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final
from unicodedata import category, name, normalize
from urllib.parse import urlsplit

from harness.frame.errors import Conflict, InputError, NotAllowed
from harness.frame.formatting import INVISIBLE_CHARACTERS
from harness.frame.people.limits import KeyLimits

DATA_KEY_PREFIX = "sk-sg-"
MANAGEMENT_KEY_PREFIX = "sg-mgmt-"


class Role(IntEnum):
    """Each role includes the rights of the lower roles."""

    VIEWER = 1
    PROPOSER = 2
    APPROVER = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Identifies a person or service that acts through CLI, REST or dashboard."""

    name: str
    role: Role
    principal: str  # the actor's permanent id
    key: str | None = None  # the id of the management key; None for the local operator

    def require(self, role: Role) -> None:
        """Refuses an actor with a lower role by NotAllowed."""
        if self.role < role:
            raise NotAllowed(
                f"{self.name} has the role {self.role.name.lower()}; this needs "
                f"{role.name.lower()}. Ask an admin for a key with that role"
            )


SYSTEM = Actor("swapproof", Role.ADMIN, "swapproof")


class OptOut(StrEnum):
    """Opt-outs of a client's key.

    CANARY: requests always go to the route's incumbent, and never count as evidence.
    SHADOW: the router sends no copy to a candidate or judge.
    CAPTURE: the router stores no copy, and sends no copy to a judge.
    """

    CANARY = "canary"
    SHADOW = "shadow"
    CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key, without its secret. role: None for a client key."""

    id: str
    name: str
    hash: str  # HMAC-SHA-256 of the key under the server's secret, hex
    hint: str  # its last four characters, for people
    role: Role | None
    routes: frozenset[str]  # empty means all
    created_at: datetime
    revoked_at: datetime | None = None
    limits: KeyLimits | None = None  # a client key's limits; None without limits
    principal: str | None = None  # the owner of a management key
    created_by: str | None = None  # the creator's principal; None if unknown
    created_with: str | None = None  # the creator's management key; None if unknown or unused
    opt_outs: frozenset[OptOut] = frozenset()  # a client key's opt-outs


def key_hash(key: str, secret: bytes) -> str:
    return hmac.new(secret, key.encode("utf-8", "surrogatepass"), sha256).hexdigest()


Network = IPv4Network | IPv6Network

UNKNOWN_ADDRESS: Final = "unknown"
# A provider gives each customer a /64 network, in which a client can choose any address.
IPV6_PREFIX: Final = 64


def parse_proxy_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Parses addresses and networks of trusted proxies. Raises InputError."""
    return tuple(_parse_network(entry) for entry in entries)


def check_origin(text: str) -> None:
    """Checks a page's origin in the form that browsers send. Raises InputError."""
    parts = urlsplit(text)
    if text not in ("*", f"{parts.scheme}://{parts.netloc}"):
        raise InputError(f"{text!r} is neither an origin (https://chat.example.com) nor `*`")


def _parse_network(entry: str) -> Network:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        raise InputError(
            f"{entry!r} is neither an address nor a network such as 10.0.0.0/8"
        ) from None


def is_loopback(address: str) -> bool:
    """Returns whether a text is a loopback address. False for a name, which may resolve to any
    address.
    """
    try:
        parsed = ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


def listens_on_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a server that listens on this host.

    `localhost` is always a loopback address (RFC 6761, section 6.3).
    """
    return host.lower() == "localhost" or is_loopback(host)


def client_address(
    peer: str | None,
    forwarded_for: Sequence[bytes],
    proxies: Sequence[Network],
) -> str:
    """Returns an IPv4 address, or the /64 network of an IPv6 address; UNKNOWN_ADDRESS without
    a peer address.

    Args:
        peer: the address of the connection.
        forwarded_for: the values of `X-Forwarded-For`, in their order.
        proxies: the operator's proxies.

    If a proxy appended a malformed address, the proxy itself counts as the client.
    """
    address = _parse_address(peer or "")
    if address is None:
        return UNKNOWN_ADDRESS
    hops = b",".join(forwarded_for).split(b",") if forwarded_for and proxies else []
    while hops and any(address in network for network in proxies):
        hop = _parse_address(hops.pop().decode("latin-1"))
        if hop is None:
            break
        address = hop
    if isinstance(address, IPv6Address):
        return str(ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parses an address with an optional port. Unwraps an IPv4 address mapped into IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


LINK_PREFIX: Final = "sg-link-"
COOKIE_PREFIX: Final = "sg-session-"
SIGN_IN_PATH: Final = "/sign-in"
LINK_LASTS: Final = timedelta(minutes=15)
# The link of `swapproof init` lasts longer, because a new user must first start the dashboard.
FIRST_LINK_LASTS: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DashboardSession:
    """A sign-in to the dashboard. It is first a link, then a browser's session, then ended."""

    id: str
    principal: str  # the session's actor
    key: str | None  # the actor's management key; None for the local operator
    created_at: datetime
    created_by: str  # the principal who created the link
    created_with: str | None = None  # the management key that created the link
    link_hash: str | None = None  # link_hash, link_expires_at: None without a link
    link_expires_at: datetime | None = None
    cookie_hash: str | None = (
        None  # cookie_hash, opened_at, expires_at: None before the session
    )
    opened_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None

    def require_link(self, now: datetime) -> None:
        """Refuses a link that was used or has expired by NotAllowed."""
        if self.opened_at is not None:
            raise NotAllowed(
                f"this link was used at {self.opened_at:%Y-%m-%d %H:%M} UTC, and works only "
                "once"
            )
        if self.link_expires_at is None or now >= self.link_expires_at or self.ended_at:
            raise NotAllowed("this link has expired")

    def require_open(self, now: datetime) -> None:
        """Refuses a session that is not open by NotAllowed."""
        if self.opened_at is None or self.expires_at is None:
            raise NotAllowed("this session was never opened: sign in")
        if self.ended_at is not None:
            raise NotAllowed("You signed out. If you did not, an admin ended your session.")
        if now >= self.expires_at:
            raise NotAllowed("Your session has expired: sign in again.")


def sign_in_url(base_url: str, link: str) -> str:
    """Returns the sign-in address. Browsers do not send the part after `#`, so the link appears
    in no log or Referer.
    """
    return f"{base_url.rstrip('/')}{SIGN_IN_PATH}#{link}"


def require_link_right(
    *,
    for_key: str,
    creator: str,
    creator_key: str | None,
    key_creators: frozenset[str],
) -> None:
    """Checks that a sign-in link's creator uses the link's key or took part in creating the
    key. Otherwise one person could act as two. Raises NotAllowed.

    Args:
        key_creators: the principals of `four_eyes.load_key_creators`.
    """
    if creator_key != for_key and creator not in key_creators:
        raise NotAllowed(
            f"you neither act with the key {for_key} nor took part in creating it: its owner "
            "prints the link with `swapproof key sign-in-link --key-file FILE`"
        )


def check_lifetime(lasts: timedelta) -> timedelta:
    """Returns the lifetime. Raises InputError unless it is between a minute and a day."""
    if not timedelta(minutes=1) <= lasts <= timedelta(days=1):
        raise InputError("a sign-in link lasts between a minute and a day")
    return lasts


MAX_NAME_LENGTH: Final = 200
CONFUSABLE_ALPHABETS: Final = frozenset(
    {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"}
)


class PrincipalKind(StrEnum):
    LOCAL = "local"  # the operator of this machine, on the command line
    PERSON = "person"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    """Identifies a person or service that acts, by an id that never changes."""

    id: str
    kind: PrincipalKind
    name: str
    created_at: datetime
    # issuer, subject: the person's OpenID Connect identity; None without single sign-on.
    issuer: str | None = None
    subject: str | None = None

    @property
    def folded(self) -> str:
        return fold_name(self.name)


LOCAL_PRINCIPAL: Final = Principal(
    "local", PrincipalKind.LOCAL, "local", datetime(1970, 1, 1, tzinfo=UTC)
)

OPERATOR: Final = Actor(LOCAL_PRINCIPAL.name, Role.ADMIN, LOCAL_PRINCIPAL.id)


def fold_name(text: str) -> str:
    """Normalizes `Ops`, `ops`, `Ｏｐｓ` and `ops ` to one text: NFKC, case folded,
    one space.
    """
    return " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())


def check_principal_name(text: str) -> str:
    """Returns the name without surrounding spaces. Raises InputError for a name that readers
    could confuse with another: a name with invisible characters, or with a word that mixes
    alphabets of similar letters.
    """
    name_text = text.strip(" ")
    if not fold_name(name_text) or len(name_text) > MAX_NAME_LENGTH:
        raise InputError(f"a name must have 1 to {MAX_NAME_LENGTH} visible characters")
    for character in name_text:
        kind = category(character)
        is_invisible = (
            character in INVISIBLE_CHARACTERS
            or kind[0] == "C"
            or "VARIATION SELECTOR" in _find_unicode_name(character)
        )
        if is_invisible or (kind[0] == "Z" and character != " "):
            raise InputError(
                f"the name {name_text!r} contains U+{ord(character):04X}, which is invisible "
                "or looks like a space: remove it"
            )
    for word in fold_name(name_text).split():
        alphabets = {
            _find_unicode_name(c).split(" ")[0] for c in word if category(c)[0] == "L"
        } & CONFUSABLE_ALPHABETS
        if len(alphabets) > 1:
            raise InputError(
                f"the name {name_text!r} mixes letters of {' and '.join(sorted(alphabets))}, "
                "which look alike: write it in one alphabet"
            )
    return name_text


def _find_unicode_name(character: str) -> str:
    return name(character, "")


@dataclass(frozen=True, slots=True)
class PersonLink:
    """Declares which person a principal is. The newest declaration of a principal applies."""

    id: str
    principal: str
    number: int  # counts the declarations of this principal, from 1
    person: str  # the principal of the same person; `principal` itself for a separate person
    reason: str
    created_at: datetime
    created_by: str  # the principal who declared it
    created_with: str | None = None  # the management key of the declaration; None without a key

    @property
    def alone(self) -> bool:
        return self.person == self.principal


class People:
    """Answers which principals are one person, by their newest declarations."""

    def __init__(self, newest: Iterable[PersonLink]) -> None:
        self._links = {link.principal: link for link in newest}

    def person(self, principal: str) -> str:
        """Returns the principal that identifies the person. All principals of one person have
        the same.
        """
        link = self._links.get(principal)
        return link.person if link is not None else principal

    def link(self, principal: str) -> PersonLink | None:
        """Returns a principal's newest declaration; None without a declaration."""
        return self._links.get(principal)

    def others(self, principal: str) -> tuple[str, ...]:
        """Lists the other principals that declarations link to this principal."""
        return tuple(
            link.principal
            for link in self._links.values()
            if link.person == principal and not link.alone
        )

    def require_linkable(self, principal: Principal, person: Principal) -> None:
        """Refuses a declaration that would chain two links. Raises InputError, Conflict."""
        if principal.id == LOCAL_PRINCIPAL.id:
            raise InputError(
                "this machine's operator cannot be the first argument: give the other "
                f"principal first, and {LOCAL_PRINCIPAL.name!r} as its person"
            )
        if principal.id == person.id:
            return
        if self.others(principal.id):
            raise Conflict(
                f"other principals are already declared to be {principal.name}: swap the "
                f"arguments, with {person.name!r} first"
            )
        linked_person = self.person(person.id)
        if linked_person != person.id:
            raise Conflict(
                f"{person.name} is already declared to be another principal "
                f"({linked_person}): give that principal as the person"
            )
