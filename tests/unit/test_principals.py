from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.frame.people.access import (
    LOCAL_PRINCIPAL,
    UNKNOWN_ADDRESS,
    ApiKey,
    Role,
    check_principal_name,
    client_address,
    fold_name,
    key_hash,
    parse_proxy_networks,
)
from harness.frame.people.four_eyes import (
    SEPARATE_AFTER,
    find_common_creators,
    load_key_creators,
)
from harness.frame.people.records import ApiKeys
from harness.frame.records.transaction import Transaction
from harness.interfaces.api.frame.access import read_bearer
from tests.support.control.known_secrets import SECRET

KEY = ApiKey(
    "k",
    "n",
    "h",
    "h",
    Role.ADMIN,
    frozenset(),
    datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.mark.req("F5")
@pytest.mark.parametrize("other", ["ops", "Ops", "OPS", "Ｏｐｓ", "ops ", " ops", "\u2003ops"])
def test_spelling_case_width_and_spaces_make_no_other_name(other: str) -> None:
    assert fold_name(other) == "ops"
    assert fold_name(f"night  {other}") == fold_name("Night ops")


@given(st.text())
def test_folding_again_changes_nothing(text: str) -> None:
    assert fold_name(fold_name(text)) == fold_name(text)
    assert fold_name(text.upper()) in (
        fold_name(text),
        fold_name(text.upper()),
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "op\u200bs",  # zero width space
        "op\u00adS",  # soft hyphen
        "ops\u3164",  # Hangul filler
        "night\u00a0ops",  # no-break space
        "night\tops",
        "ops\ufe0f",  # variation selector
        "ор\u0455s",  # Cyrillic and Latin in one word
        "x" * 201,
    ],
)
def test_a_name_that_could_pass_for_another_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        check_principal_name(name)


@pytest.mark.parametrize("name", ["Ops", "Zoë Ångström", "Оля", "研究 team", "ci-bot 2"])
def test_names_of_people_are_taken_as_they_are(name: str) -> None:
    assert check_principal_name(f" {name} ") == name


def test_the_chain_of_creation_goes_back_to_its_first_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = replace(KEY, id="k1", created_by="ann")
    second = replace(
        KEY,
        id="k2",
        created_by="zoe",
        created_with="k1",
    )
    third = replace(
        KEY,
        id="k3",
        created_by="kim",
        created_with="k2",
    )
    keys = {key.id: key for key in (first, second, third)}
    monkeypatch.setattr(ApiKeys, "find", lambda _, id_: keys.get(id_))

    def creators(key: str) -> frozenset[str]:
        return load_key_creators(cast("Transaction", None), key)

    assert creators("k3") == {"kim", "zoe", "ann"}
    assert creators("k1") == {"ann"}
    assert creators("unknown") == frozenset()
    keys["k1"] = replace(first, created_with="k3")
    assert creators("k3") == {"kim", "zoe", "ann"}


AT = datetime(2026, 3, 1, tzinfo=UTC)
PARTICIPATIONS = st.dictionaries(
    st.sampled_from([LOCAL_PRINCIPAL.id, "ann", "zoe", "kim"]),
    st.timedeltas(timedelta(), timedelta(days=90)).map(AT.__add__),
)


@pytest.mark.req("F5")
@given(
    first=PARTICIPATIONS,
    second=PARTICIPATIONS,
    now=st.timedeltas(timedelta(), timedelta(days=150)).map(AT.__add__),
)
def test_a_creator_of_both_keys_counts_while_both_parts_are_younger_than_30_days(
    first: dict[str, datetime],
    second: dict[str, datetime],
    now: datetime,
) -> None:
    common = find_common_creators(first, second)
    assert common == find_common_creators(second, first)
    assert set(common) == (set(first) & set(second)) - {LOCAL_PRINCIPAL.id}
    for person, separate_at in common.items():
        parts = (first[person], second[person])
        is_recent = all(now - part < SEPARATE_AFTER for part in parts)
        assert (now < separate_at) is is_recent


@pytest.mark.req("F5")
def test_the_operator_may_create_all_first_keys() -> None:
    by_local = {LOCAL_PRINCIPAL.id: AT}
    assert find_common_creators(by_local, by_local) == {}
    by_zoe = {**by_local, "zoe": AT}
    assert find_common_creators(by_zoe, by_zoe) == {"zoe": AT + timedelta(days=30)}
    assert find_common_creators(by_zoe, by_local) == {}


def test_a_key_is_stored_as_its_hmac_of_sha_256() -> None:
    # RFC 4231, test case 1.
    assert key_hash("Hi There", b"\x0b" * 20) == (
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )


def test_a_text_that_is_no_unicode_is_hashed_all_the_same() -> None:
    assert len(key_hash("sg-mgmt-\udce9", SECRET)) == 64


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer k", "k"),
        ("bearer  k ", "k"),
        ("Basic k", ""),
        ("k", ""),
        ("Bearer", ""),
        ("", ""),
    ],
)
def test_a_key_is_read_from_a_bearer_header_alone(header: str, token: str) -> None:
    assert read_bearer(header) == token


OURS = parse_proxy_networks(["10.0.0.0/8", "2001:db8:1::/48"])


@pytest.mark.req("G5")
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
    peer: str | None,
    forwarded: list[bytes],
    address: str,
) -> None:
    assert client_address(peer, forwarded, OURS) == address


@pytest.mark.req("G5")
@given(st.lists(st.binary(max_size=30), max_size=5), st.text(max_size=20))
def test_any_header_has_an_answer(forwarded: list[bytes], peer: str) -> None:
    assert client_address("10.0.0.1", forwarded, OURS)
    assert client_address(peer, forwarded, OURS)


@pytest.mark.req("G5")
@given(st.lists(st.sampled_from([b"1.1.1.1", b"10.0.0.3", b"x"]), max_size=5))
def test_what_a_client_writes_in_front_changes_nothing(invented: list[bytes]) -> None:
    true = [*invented, b"203.0.113.9"]

    assert client_address("10.0.0.1", true, OURS) == "203.0.113.9"


@pytest.mark.req("G5")
@pytest.mark.parametrize("entry", ["", "proxy.test", "10.0.0.0/99"])
def test_a_proxy_is_an_address_or_a_network(entry: str) -> None:
    with pytest.raises(InputError, match="neither an address nor a network"):
        parse_proxy_networks([entry])
