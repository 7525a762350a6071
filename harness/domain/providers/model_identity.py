"""Which model a target is, whatever it is called and however it is set. Pure."""

import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import inet_aton
from typing import Final
from urllib.parse import urlsplit

from harness.domain.evals.pins import Sighting
from harness.domain.routing.target import Provider, Target

LOOPBACK: Final = "127.0.0.1"
LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})
NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052


def provider_host(provider: Provider | None) -> str:
    """Of its API, with a port where one is given. Empty for a provider that is gone."""
    if provider is None:
        return ""
    try:
        place = urlsplit(provider.api_base)
        name, port = (place.hostname or "").rstrip("."), place.port
    except ValueError:
        return provider.api_base.casefold()
    standard = {"http": 80, "https": 443}.get(place.scheme)
    one = _one_spelling(name.casefold())
    return one if port in (None, standard) else f"{one}:{port}"


def _one_spelling(name: str) -> str:
    """An address has many, such as `127.1`, `2130706433` and `::ffff:127.0.0.1`; so has a name
    with letters beyond ASCII. All of this machine's own are one.
    """
    with suppress(UnicodeError):
        name = unicodedata.normalize("NFKC", name).encode("idna").decode().casefold()
    if name in LOOPBACK_NAMES or name.endswith(".localhost"):
        return LOOPBACK
    address = _address(name)
    if address is None:
        return name
    return LOOPBACK if address.is_loopback or address.is_unspecified else str(address)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(name)
    except ValueError:
        try:
            # As the system's resolver reads numbers; a name is none.
            return IPv4Address(inet_aton(name))
        except (OSError, UnicodeError):
            return None
    if not isinstance(found, IPv6Address):
        return found
    carried = IPv4Address(found.packed[-4:]) if found in NAT64 else found.ipv4_mapped
    return carried or found


def normalize_model_name(name: str) -> str:
    """One for all spellings that look the same: case, width, dashes, what nobody sees."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = (char for char in folded if unicodedata.category(char) != "Cf")
    return "".join("-" if unicodedata.category(char) == "Pd" else char for char in seen).strip()


def known_model_names(target: Target, served: Iterable[Sighting]) -> frozenset[str]:
    """What it is called, and what its provider's answers call it."""
    told = (each.served.model for each in served)
    return frozenset(normalize_model_name(name) for name in (target.model, *told) if name)


def same_host(one: str, other: str) -> bool:
    """What is not known any more may be the same."""
    return not one or not other or one == other
