from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api.frame.access import read_bearer
from harness.control.proposals.four_eyes import load_key_creators
from harness.domain.errors import InputError
from harness.domain.operations.access import ApiKey, Role, key_hash
from harness.domain.operations.principals import check_principal_name, fold_name
from harness.store.transaction import Transaction
from tests.support.control.control_plane import SECRET

KEY = ApiKey("k", "n", "h", "h", Role.ADMIN, frozenset(), datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.req("F5")
@pytest.mark.parametrize("other", ["ops", "Ops", "OPS", "Ｏｐｓ", "ops ", " ops", "\u2003ops"])
def test_spelling_case_width_and_spaces_make_no_other_name(other: str) -> None:
    assert fold_name(other) == "ops"
    assert fold_name(f"night  {other}") == fold_name("Night ops")


@given(st.text())
def test_folding_again_changes_nothing(text: str) -> None:
    assert fold_name(fold_name(text)) == fold_name(text)
    assert fold_name(text.upper()) in (fold_name(text), fold_name(text.upper()))


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


def test_the_chain_of_creation_goes_back_to_its_first_key() -> None:
    first = replace(KEY, id="k1", created_by="ann")
    second = replace(KEY, id="k2", created_by="zoe", created_with="k1")
    third = replace(KEY, id="k3", created_by="kim", created_with="k2")
    keys = {key.id: key for key in (first, second, third)}

    def creators(key: str) -> frozenset[str]:
        tx = SimpleNamespace(keys=SimpleNamespace(find=keys.get))
        return load_key_creators(cast("Transaction", tx), key)

    assert creators("k3") == {"kim", "zoe", "ann"}
    assert creators("k1") == {"ann"}
    assert creators("unknown") == frozenset()
    keys["k1"] = replace(first, created_with="k3")
    assert creators("k3") == {"kim", "zoe", "ann"}


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
