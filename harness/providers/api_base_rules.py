"""Refuses an `api_base` that leads to a metadata service, because such a service gives out the
machine's credentials. Swapproof checks the URL when a person sets it, and each address before
it connects. Pure.

Names and addresses have many spellings, so all checks compare plain forms (`plain_host`), and
look for IPv4 addresses inside IPv6 addresses. Private networks are allowed, because people run
their own servers there. The connections themselves are in `calls.guarded_http` and
`router.upstream`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Final
from urllib.parse import urlsplit

from harness.frame.errors import InputError

# By kind: the pattern of its `api_base`, and an example.
_API_BASES: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "bedrock": (
        re.compile(r"(?!.*/v1/?$).+"),  # the URL of Bedrock's other API ends in /v1
        "https://bedrock-runtime.REGION.amazonaws.com",
    ),
    "vertex": (
        re.compile(r".*/projects/[^/]+/locations/[^/]+/publishers/google/?"),
        (
            "https://REGION-aiplatform.googleapis.com/v1/"
            "projects/PROJECT/locations/REGION/publishers/google"
        ),
    ),
}


def api_base_example(kind: str) -> str:
    """Returns an example of a kind's api_base; empty for a kind without a form of its own."""
    return _API_BASES[kind][1] if kind in _API_BASES else ""


def check_api_base_path(kind: str, url: str) -> None:
    """Checks that an api_base fits its kind's paths. Raises InputError."""
    if not url:
        example = api_base_example(kind) or "https://HOST/v1"
        raise InputError(f"a provider of kind {kind!r} needs an api_base: {example}")
    if kind not in _API_BASES:
        return
    pattern, example = _API_BASES[kind]
    if not pattern.fullmatch(url):
        raise InputError(
            f"api_base of a provider of kind {kind!r} must have the form {example}"
        )


Address = IPv4Address | IPv6Address

# Metadata services: link-local addresses (most clouds), then Amazon's and Google's over IPv6,
# Alibaba's, Oracle's, and Azure's WireServer.
CLOSED_NETWORKS: Final = tuple(
    ip_network(network_text)
    for network_text in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/64",
        "fd20:ce::254/128",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "168.63.129.16/32",
    )
)
CLOSED_NAMES: Final = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
# Networks whose last 32 bits are an IPv4 address: mapped, compatible, translated (RFC 6052, and
# RFC 2765's `::ffff:0:a.b.c.d`).
_EMBEDDING_NETWORKS: Final = tuple(
    IPv6Network(network_text)
    for network_text in (
        "::ffff:0:0/96",
        "::/96",
        "64:ff9b::/96",
        "::ffff:0:0:0/96",
    )
)
# RFC 5214 (ISATAP): these bytes stand between any prefix and an IPv4 address. Two of their bits
# vary: they mark unique addresses and group addresses.
_ISATAP: Final = b"\x00\x00\x5e\xfe"
_ISATAP_FREE_BITS: Final = 0x03
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")  # an IPv4 address follows the first 16 bits
# Local-use translation (RFC 8215). The length of its prefix (RFC 6052) determines the positions
# of the IPv4 address's four bytes. Byte 8 is always 0.
_OWN_TRANSLATION: Final = IPv6Network("64:ff9b:1::/48")
_TRANSLATED_BYTES: Final = (
    (6, 7, 9, 10),
    (7, 9, 10, 11),
    (9, 10, 11, 12),
    (12, 13, 14, 15),
)
# RFC 4380: contains the server's IPv4 address, and the client's with all bits inverted.
_TEREDO: Final = IPv6Network("2001::/32")
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61", "...")


def check_api_base(url: str, allowed: Collection[str] = ()) -> None:
    """Checks an address, without resolving its name.

    Args:
        allowed: entries of `router.allow_addresses`, which may name closed hosts and networks.

    Raises InputError, which omits the URL, because it may contain a secret.
    """
    host = _parse_host(url)
    if not _is_open(host, allowed):
        raise InputError(
            f"api_base names {host}, but Swapproof calls no link-local addresses and no "
            "metadata services of clouds. If a provider has this address, add it to "
            "`router.allow_addresses`"
        )


def may_connect(
    host: str,
    address: str,
    allowed: Collection[str] = (),
) -> bool:
    """Tells whether Swapproof may connect to an address to which a host's name resolved.

    A name in `allowed` may resolve to any address. False for a broken host or address.
    """
    try:
        return plain_host(host) in _allowed_hosts(allowed) or _is_open(
            plain_host(address), allowed
        )
    except ValueError:
        return False


def is_internal_host(host: str) -> bool:
    """Tells whether a host is a link-local address or a cloud's metadata service."""
    try:
        return not _is_open(plain_host(host), ())
    except ValueError:
        return False


def _allowed_hosts(allowed: Collection[str]) -> set[str]:
    """Returns the allowed hosts in their plain form, without networks."""
    return {plain_host(name) for name in allowed if "/" not in name}


_ENDPOINT_PATHS: Final = ("/chat/completions", "/messages", "/responses", "/embeddings")


def _parse_host(url: str) -> str:
    """Returns the URL's host in its plain form. Raises InputError."""
    if any(character <= " " or character in "\\\x7f" for character in url):
        raise InputError("api_base contains a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port
    except ValueError:
        host = None
        port = None
    if not host or parts.scheme not in ("http", "https") or port == 0:
        raise InputError("api_base does not have the form http(s)://host[:port]/path")
    if "@" in parts.netloc:
        raise InputError(
            "api_base contains a user or a password, which Swapproof would show and log: give "
            "the key by `api_key_env` or `swapproof provider key set`"
        )
    if parts.query or parts.fragment:
        raise InputError(
            "api_base has a query or a fragment: remove it, because Swapproof appends paths"
        )
    if parts.path.rstrip("/").endswith(_ENDPOINT_PATHS):
        raise InputError(
            "api_base has the path of an endpoint: end it before that path, usually with /v1, "
            "because Swapproof appends paths"
        )
    try:
        return plain_host(host)
    except ValueError:
        raise InputError("the host of api_base is neither a name nor an address") from None


def plain_host(host: str) -> str:
    """Returns a name in its DNS form, or an address in its usual form. Raises ValueError."""
    text = unicodedata.normalize("NFKC", host.translate(_DOTS)).lower().rstrip(".")
    address = _parse_address(text)
    if address is not None:
        return str(address)
    name = text.encode("idna").decode()
    if not _NAME.fullmatch(name):
        raise ValueError(host)
    return name


def _parse_address(text: str) -> Address | None:
    """Parses an address; None for a name. Raises ValueError for a broken IPv6 address."""
    if ":" in text:
        return IPv6Address(text.partition("%")[0])
    return _parse_ipv4(text)


def _parse_ipv4(text: str) -> IPv4Address | None:
    """Parses an IPv4 address like inet_aton: one to four parts, decimal, 0x or octal."""
    try:
        *leading, last = [_parse_number(part) for part in text.split(".")]
    except ValueError:
        return None
    if (
        len(leading) > 3
        or any(first > 255 for first in leading)
        or last >= 256 ** (4 - len(leading))
    ):
        return None
    return IPv4Address(int.from_bytes([*leading, *last.to_bytes(4 - len(leading))]))


def _parse_number(part: str) -> int:
    """Parses a part of an IPv4 address: decimal, hexadecimal or octal. Raises ValueError."""
    if not re.fullmatch(r"0x[0-9a-f]*|[0-9]+", part):
        raise ValueError(part)
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _is_open(host: str, allowed: Collection[str]) -> bool:
    """Tells whether Swapproof may call a host.

    Args:
        host: a name or an address in its plain form.
    """
    address = _parse_address(host)
    if address is None:
        return host not in CLOSED_NAMES or host in _allowed_hosts(allowed)
    closed = [
        candidate
        for candidate in _possible_addresses(address)
        if any(candidate in network for network in CLOSED_NETWORKS)
    ]
    return not closed or any(_contains_any(name, address, *closed) for name in allowed)


def _possible_addresses(address: Address) -> Iterator[Address]:
    """Yields an address, and each IPv4 address that an IPv6 address may stand for."""
    yield address
    if isinstance(address, IPv6Address):
        if _is_isatap(address) or any(address in network for network in _EMBEDDING_NETWORKS):
            yield IPv4Address(address.packed[12:])
        if address in _SIX_TO_FOUR:
            yield IPv4Address(address.packed[2:6])
        elif address in _OWN_TRANSLATION:
            for places in _TRANSLATED_BYTES:
                yield IPv4Address(bytes(address.packed[place] for place in places))
        elif address in _TEREDO:
            yield IPv4Address(address.packed[4:8])
            yield IPv4Address(bytes(octet ^ 0xFF for octet in address.packed[12:]))


def _is_isatap(address: IPv6Address) -> bool:
    """Tells whether an address has the form of ISATAP (RFC 5214)."""
    first, *rest = address.packed[8:12]
    return bytes([first & ~_ISATAP_FREE_BITS, *rest]) == _ISATAP


def _contains_any(allowed: str, *addresses: Address) -> bool:
    """Tells whether an allowed entry contains one of the addresses; False for an entry that is
    a name.
    """
    try:
        network = ip_network(allowed, strict=False)
    except ValueError:
        return False
    return any(address in network for address in addresses)


def check_allowed_address(entry: str) -> None:
    """Checks an entry of `router.allow_addresses`. Raises InputError."""
    try:
        if "/" in entry:
            ip_network(entry, strict=False)
        else:
            plain_host(entry)
    except ValueError:
        raise InputError(f"{entry!r} is not a host name, address or network") from None
