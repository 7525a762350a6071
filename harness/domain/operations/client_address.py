"""A client's address is read from the connection and from trusted proxies' headers. Pure.

`X-Forwarded-For` is written by whoever sends the request. Only a proxy of the operator's own
appends to it truthfully: so it is read from its end, as long as the addresses are such
proxies'.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from harness.domain.errors import InputError

Network = IPv4Network | IPv6Network

UNKNOWN_ADDRESS: Final = "unknown"
# One customer's network, from which any number of addresses can be taken.
IPV6_PREFIX: Final = 64


def parse_proxy_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Parses the addresses and networks of trusted proxies. Raises InputError for what is
    neither.
    """
    return tuple(_network(entry) for entry in entries)


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
