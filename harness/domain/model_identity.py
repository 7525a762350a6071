"""Which model a target is, whatever it is called and however it is set. Pure."""

import unicodedata
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from socket import inet_aton, inet_ntoa
from typing import Final
from urllib.parse import urlsplit

from harness.domain.pins import Sighting
from harness.domain.targets import Provider, Target

LOOPBACK_6: Final = IPv6Address("::1")


def host(provider: Provider | None) -> str:
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
    """An address has many, such as `127.1`, `2130706433` and `::ffff:127.0.0.1`."""
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        found = ip_address(name)
    except ValueError:
        try:
            # As the system's resolver reads numbers; a name is none.
            return inet_ntoa(inet_aton(name))
        except (OSError, UnicodeError):
            return name
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return "127.0.0.1" if found == LOOPBACK_6 else str(mapped or found)


def model(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def names(target: Target, served: Iterable[Sighting]) -> frozenset[str]:
    """What it is called, and what its provider's answers call it."""
    told = (each.served.model for each in served)
    return frozenset(model(name) for name in (target.model, *told) if name)


def same_host(one: str, other: str) -> bool:
    """What is not known any more may be the same."""
    return not one or not other or one == other
