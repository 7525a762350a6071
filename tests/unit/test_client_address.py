"""Whose address a request came from: what may be believed of `X-Forwarded-For`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.errors import InputError
from harness.domain.operations.access import (
    UNKNOWN_ADDRESS,
    client_address,
    parse_proxy_networks,
)

pytestmark = pytest.mark.req("G5")

OURS = parse_proxy_networks(["10.0.0.0/8", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", [b"1.1.1.1"], "192.0.2.1"),  # no proxy of ours
        ("10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1", b"203.0.113.9"], "203.0.113.9"),  # in two headers
        ("10.0.0.1", [b"203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", [b"[2001:db8:2::5]:80"], "2001:db8:2::/64"),
        ("10.0.0.1", [b"1.1.1.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"\xff"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("2001:db8:1::7", [b"::ffff:203.0.113.9"], "203.0.113.9"),
        ("2001:db8:9:8:7:6:5:4", [], "2001:db8:9:8::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        (None, [b"203.0.113.9"], UNKNOWN_ADDRESS),
        ("", [], UNKNOWN_ADDRESS),  # a Unix socket
    ],
)
def test_the_last_address_that_is_no_proxy_of_ours_is_the_clients(
    peer: str | None, forwarded: list[bytes], address: str
) -> None:
    assert client_address(peer, forwarded, OURS) == address


@given(st.lists(st.binary(max_size=30), max_size=5), st.text(max_size=20))
def test_any_header_has_an_answer(forwarded: list[bytes], peer: str) -> None:
    assert client_address("10.0.0.1", forwarded, OURS)
    assert client_address(peer, forwarded, OURS)


@given(st.lists(st.sampled_from([b"1.1.1.1", b"10.0.0.3", b"x"]), max_size=5))
def test_what_a_client_writes_in_front_changes_nothing(invented: list[bytes]) -> None:
    true = [*invented, b"203.0.113.9"]

    assert client_address("10.0.0.1", true, OURS) == "203.0.113.9"


@pytest.mark.parametrize("entry", ["", "proxy.test", "10.0.0.0/99"])
def test_a_proxy_is_an_address_or_a_network(entry: str) -> None:
    with pytest.raises(InputError, match="no network"):
        parse_proxy_networks([entry])
