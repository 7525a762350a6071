import json
from base64 import urlsafe_b64encode
from hmac import digest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agents.caller import (
    CLOCK_TOLERANCE_S,
    MAX_AGE_S,
    MAX_SIGNED_BYTES,
    AgentCaller,
    HeaderFault,
    read_agent_header,
    read_peer_header,
    sign_agent_header,
    sign_peer_header,
)
from harness.frame.people.access import is_loopback, listens_on_loopback

pytestmark = pytest.mark.req("E1", "E2")

SECRET = b"the installation's secret"
NOW = 1_800_000_000.25
CALLER = AgentCaller("ag_1", "se_1", "k_1", "gr_1", "t_1")
names = st.text(max_size=60)
callers = st.builds(AgentCaller, names, names, names, names, names)
secrets = st.binary(max_size=64)


@given(callers, secrets)
def test_a_caller_is_read_as_it_was_signed(caller: AgentCaller, secret: bytes) -> None:
    header = sign_agent_header(caller, secret, NOW)
    assert read_agent_header(header, secret, NOW) == caller


@given(st.data())
def test_a_header_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    header = sign_agent_header(data.draw(callers), SECRET, NOW)
    place = data.draw(st.integers(0, len(header) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != header[place]))
    more = data.draw(st.binary(min_size=1, max_size=5))
    before = header[:place]
    after = header[place:]

    for changed in (
        before,
        before + more + after,
        header + more,
        before + bytes([other]) + after[1:],
    ):
        assert read_agent_header(changed, SECRET, NOW) is HeaderFault.FORGED


@given(
    callers,
    secrets.filter(lambda secret: secret.rstrip(b"\0") != SECRET),
    st.binary(max_size=300),
)
def test_what_this_installation_did_not_sign_for_the_purpose_is_refused(
    caller: AgentCaller,
    secret: bytes,
    value: bytes,
) -> None:
    too_long = sign_agent_header(AgentCaller("a" * MAX_SIGNED_BYTES, "s"), SECRET, NOW)
    anothers = sign_agent_header(caller, secret, NOW)
    of_a_peer = sign_peer_header("127.0.0.1", SECRET, NOW)
    for header in (value, anothers, too_long, of_a_peer):
        assert read_agent_header(header, SECRET, NOW) is HeaderFault.FORGED
    for header in (value, sign_agent_header(caller, SECRET, NOW)):
        assert read_peer_header(header, SECRET, NOW) is HeaderFault.FORGED


@given(st.floats(-CLOCK_TOLERANCE_S, MAX_AGE_S - 1))
def test_a_header_is_fresh_for_a_minute(age_s: float) -> None:
    header = sign_agent_header(CALLER, SECRET, NOW)
    assert read_agent_header(header, SECRET, int(NOW) + age_s) == CALLER


@given(st.one_of(st.floats(MAX_AGE_S + 0.01, 1e12), st.floats(-1e9, -CLOCK_TOLERANCE_S - 0.01)))
def test_an_older_header_and_one_of_the_future_are_stale(age_s: float) -> None:
    header = sign_agent_header(CALLER, SECRET, NOW)
    assert read_agent_header(header, SECRET, int(NOW) + age_s) is HeaderFault.STALE
    peer = sign_peer_header("127.0.0.1", SECRET, NOW)
    assert read_peer_header(peer, SECRET, int(NOW) + age_s) is HeaderFault.STALE


@pytest.mark.parametrize(
    "payload",
    [
        {
            "agent": "a",
            "session": "s",
            "key": "",
            "grant": "",
        },
        {
            "agent": "a",
            "session": "s",
            "key": "",
            "grant": "",
            "at": "now",
        },
        {
            "agent": "a",
            "session": "s",
            "key": "",
            "grant": 3,
            "at": NOW,
        },
        {
            "agent": "a",
            "session": "s",
            "role": "admin",
            "at": NOW,
        },
        {"agent": "a", "at": NOW},
        ["agent", "session"],
        None,
    ],
)
def test_what_is_signed_and_is_no_caller_is_refused(payload: object) -> None:
    """As another version might sign it."""
    derived = digest(SECRET, b"swapproof: agents process to router", "sha256")
    signed = b"v1." + urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=")
    header = signed + b"." + digest(derived, signed, "sha256").hex().encode()

    assert read_agent_header(header, SECRET, NOW) is HeaderFault.FORGED


@pytest.mark.parametrize(
    ("addresses", "is_own"),
    [
        (
            ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"),
            True,
        ),
        (
            (
                "",
                "0.0.0.0",  # noqa: S104
                "::",
                "10.0.0.1",
                "::/64",
                "127.0.0.1.example",
                "unknown",
            ),
            False,
        ),
        (("127.1", "0"), False),
    ],
)
def test_a_machines_own_addresses_alone_are_loopback(
    addresses: tuple[str, ...], *, is_own: bool
) -> None:
    for address in addresses:
        assert is_loopback(address) is is_own
        assert listens_on_loopback(address) is is_own
    # By its name a server may listen, and no peer has it.
    assert listens_on_loopback("LocalHost")
    assert not is_loopback("localhost")
