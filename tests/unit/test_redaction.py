import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.frame.redaction import IBAN_LENGTHS, RedactionRule, Redactor

pytestmark = pytest.mark.req("F9")

ALL = Redactor()
DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MIXED = LETTERS + LETTERS.upper() + DIGITS


def with_luhn(digits: str) -> str:
    total = sum(
        sum(divmod(int(digit) * 2, 10)) if place % 2 == 0 else int(digit)
        for place, digit in enumerate(reversed(digits))
    )
    return digits + str(-total % 10)


def grouped(number: str, mark: str) -> str:
    return mark.join(number[i : i + 4] for i in range(0, len(number), 4))


def iban(
    country: str,
    rest: str,
    mark: str,
) -> str:
    body = rest[: IBAN_LENGTHS[country] - 4]
    check = 98 - int("".join(str(int(letter, 36)) for letter in f"{body}{country}00")) % 97
    return grouped(f"{country}{check:02}{body}", mark)


EMAILS = st.builds(
    "{}@{}.{}".format,
    st.text(MIXED + "._+-", min_size=1, max_size=30).filter(lambda text: text[0] not in ".-_+"),
    st.text(LETTERS + DIGITS, min_size=1, max_size=20),
    st.sampled_from(["com", "de", "co.uk", "museum", "рф"]),
)
CARDS = st.builds(
    lambda digits, mark: grouped(with_luhn("4" + digits), mark),
    st.text(DIGITS, min_size=14, max_size=14),
    st.sampled_from(["", " ", "-"]),
)
IBANS = st.builds(
    iban,
    st.sampled_from(sorted(IBAN_LENGTHS)),
    st.text(DIGITS, min_size=30, max_size=30),
    st.sampled_from(["", " "]),
)
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str).filter(lambda address: sum(c != ":" for c in address) >= 4),
)
PHONES = st.one_of(
    st.builds(
        "{}{} {}{}{}".format,
        st.sampled_from(["+", "00"]),
        st.sampled_from(["1", "44", "49", "380"]),
        st.text("123456789", min_size=3, max_size=3),
        st.sampled_from(["", " ", "-", "/", "."]),
        st.text(DIGITS, min_size=5, max_size=7),
    ),
    st.from_regex(r"0[1-9][0-9]{8,10}", fullmatch=True),
    st.from_regex(r"0[1-9][0-9]{2}[ /-][1-9][0-9]{5,7}", fullmatch=True),
    st.from_regex(
        r"(\([2-9][0-9]{2}\) |[2-9][0-9]{2}-)[0-9]{3}-[0-9]{4}",
        fullmatch=True,
    ),
)
KEYS = st.builds(
    lambda head, tail: f"{head}{tail}7",
    st.sampled_from(
        [
            "sk-sg-",
            "sk-proj-",
            "sk-ant-api03-",
            "sk-or-v1-",
            "sg-mgmt-",
            "ghp_",
            "AIza",
            "hf_",
        ]
    ),
    st.text(MIXED, min_size=40, max_size=40),
)
SECRETS = st.one_of(EMAILS, CARDS, IBANS, ADDRESSES, PHONES, KEYS).filter(str.isprintable)
# What a person writes around it: another digit or letter would make it another thing.
EDGES = st.sampled_from(["", " ", "\n", ", ", "(", ") ", "“", "; "])
WORDS = st.text(LETTERS + " äöü.,!?\n", max_size=30)


def placed(
    secret: str,
    before: str,
    after: str,
    edge: str,
) -> str:
    return f"{before} {edge if edge != ') ' else ''}{secret}{edge or ' '}{after}"


TEXTS = st.builds(placed, st.shared(SECRETS, key="secret"), WORDS, WORDS, EDGES)


def within(texts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        texts,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.builds(
                lambda value, number: [number, None, value],
                inner,
                st.integers(0, 9),
            ),
            st.dictionaries(st.text(LETTERS, min_size=1, max_size=5), inner, min_size=1),
            st.builds(lambda value: json.dumps({"arguments": value}), inner),
            st.builds(lambda value: json.dumps(value, ensure_ascii=False), inner),
        ),
        max_leaves=4,
    )


ORDINARY = (
    "due 01.02.2025, at 12:30:45, 1,234,567 times",
    "a risk-averse-investment-plan in std::vector",
    "0.5107049635016924 of 12345678",
)


def strings(value: object) -> list[str]:
    match value:
        case str():
            try:
                inner = json.loads(value)
            except ValueError:
                inner = None
            return [
                value,
                *(strings(inner) if isinstance(inner, dict | list | str) else []),
            ]
        case dict():
            return [
                *map(str, value),
                *(s for part in value.values() for s in strings(part)),
            ]
        case list():
            return [s for item in value for s in strings(item)]
        case _:
            return [str(value)]


@given(secret=st.shared(SECRETS, key="secret"), value=within(TEXTS))
def test_no_secret_is_left_in_any_text_of_what_was_redacted(secret: str, value: object) -> None:
    redacted = ALL.redact(value)

    assert not [string for string in strings(redacted.value) if secret in string]
    assert sum(redacted.counts.values()) > 0


@given(
    value=st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.text(LETTERS + " .,!?{}[]\\\"'"),
            st.floats(0, 1),
        ),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(LETTERS), inner)),
    )
)
def test_what_holds_nothing_personal_stays_as_it_was(value: object) -> None:
    redacted = ALL.redact(value)

    assert redacted.value == value
    assert redacted.counts == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "to a.b@c.io, x@c.io, a.b@c.io",
            "to [EMAIL_1], [EMAIL_2], [EMAIL_1]",
        ),
        ("card 4111 1111 1111 1111!", "card [CARD_1]!"),
        ("amex 3782 822463 10005", "amex [CARD_1]"),
        ("no card 4111 1111 1111 1112", "no card 4111 1111 1111 1112"),
        (
            "IBAN DE89 3704 0044 0532 0130 00 is mine",
            "IBAN [IBAN_1] is mine",
        ),
        (
            "no IBAN GB82 WEST 1234 5698 7654 33 is",
            "no IBAN GB82 WEST 1234 5698 7654 33 is",
        ),
        ("from 10.0.0.1 and 2001:db8::7", "from [IP_1] and [IP_2]"),
        (
            "call +49 (0)170 1234567 or (555) 123-4567",
            "call [PHONE_1] or [PHONE_2]",
        ),
        ("key sk-sg-abcdefgh12345678 leaked", "key [KEY_1] leaked"),
        ('half {"to": "a\\u0040b.io', 'half {"to": "[EMAIL_1]'),
        *((same, same) for same in ORDINARY),
    ],
)
def test_each_kind_becomes_a_numbered_placeholder(text: str, expected: str) -> None:
    assert ALL.redact(text).value == expected


def test_a_number_and_a_name_of_a_field_are_looked_into_too() -> None:
    result = ALL.redact({"a@b.io": [4111111111111111, 42, True]})

    assert result.value == {"[EMAIL_1]": ["[CARD_1]", 42, True]}
    assert result.counts == {"email": 1, "card": 1}


def test_arguments_of_a_tool_stay_json_and_keep_their_form_where_nothing_is_found() -> None:
    as_written = '{"city":  "Oslo"}'
    value = ALL.redact([as_written, '{"to": "a@b.io", "n": 1}']).value

    assert value == [as_written, '{"to": "[EMAIL_1]", "n": 1}']


def test_rules_of_the_user_come_first_and_change_the_digest() -> None:
    rule = RedactionRule("order", r"ORD-\d+", "<order>")
    named = RedactionRule("customer", r"C\d{4}")
    own = Redactor((rule, named), off=("phone",))

    result = own.redact("ORD-77 of C1234, +49 170 1234567")

    assert result.value == "<order> of [CUSTOMER_1], +49 170 1234567"
    assert result.counts == {"order": 1, "customer": 1}
    assert own.digest != ALL.digest
    assert len(own.digest) == 64


@pytest.mark.parametrize(
    ("name", "pattern", "because"),
    [
        ("email", "x", "not"),
        ("Order", "x", "lower case"),
        ("order", "(", "missing"),
        ("order", "x*", "empty text"),
        ("order", "x" * 1001, "at most 1000 characters"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    name: str,
    pattern: str,
    because: str,
) -> None:
    with pytest.raises(InputError, match=because):
        RedactionRule(name, pattern)


def test_keys_are_always_taken_out_and_no_two_rules_share_a_name() -> None:
    with pytest.raises(InputError, match="cannot turn off 'key'"):
        Redactor(off=("key",))
    rule = RedactionRule("order", "x")
    with pytest.raises(InputError, match="two redaction rules"):
        Redactor((rule, rule))
