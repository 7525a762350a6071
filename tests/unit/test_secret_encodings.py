import html
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.credential import (
    HIDDEN_MARK,
    MIN_SECRET_LENGTH,
    ProviderKey,
    hide_provider_secrets,
    hide_secret,
)
from harness.providers.target import Provider

pytestmark = pytest.mark.req("D4")

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON, slashes escaped": lambda s: json.dumps(s).replace("/", "\\/"),
    "JSON in JSON": lambda s: json.dumps(json.dumps(s).replace("/", "\\/")),
    "JSON, all escaped": lambda s: "".join(f"\\u{ord(letter):04X}" for letter in s),
    "URL": quote,
    "URL, slashes too": lambda s: quote(s, safe=""),
    "URL, lower case": lambda s: "".join(f"%{byte:02x}" for byte in s.encode()),
    "URL in a URL": lambda s: quote(quote(s, safe=""), safe=""),
    "form": quote_plus,
    "HTML": html.escape,
    "HTML, by numbers": lambda s: "".join(f"&#x{ord(letter):x};" for letter in s),
    "hexadecimal": lambda s: s.encode().hex(),
}
secrets = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E),
    min_size=8,
    max_size=60,
)


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
@given(secret=secrets, before=st.text(max_size=5), after=st.text(max_size=5))
def test_every_spelling_is_taken_out_whole(
    spelled: Callable[[str], str],
    secret: str,
    before: str,
    after: str,
) -> None:
    said = f"{before}<{spelled(secret)}>{after}".encode("utf-8", "surrogatepass")

    found = hide_secret(said, secret)

    assert HIDDEN_MARK in found
    inner = found.partition(b"<")[2].rpartition(b">")[0] if "<" not in before else found
    assert spelled(secret).strip('"').encode() not in inner


@pytest.mark.parametrize(
    "spelled",
    [
        json.dumps,
        repr,
        lambda s: repr(s.encode()),
        lambda s: repr(s.encode("latin-1")),
        lambda s: repr(repr(s.encode())),
    ],
    ids=[
        "JSON",
        "Python",
        "UTF-8 bytes",
        "Latin-1 bytes",
        "Python in Python",
    ],
)
@given(secret=st.text(st.characters(max_codepoint=0xFF), min_size=8, max_size=60))
def test_what_no_header_carries_is_taken_out_of_what_is_said_of_it(
    spelled: Callable[[str], str], secret: str
) -> None:
    found = hide_secret(f"Invalid header value {spelled(secret)}".encode(), secret)

    # At most its quotation marks are left.
    assert found.replace(HIDDEN_MARK, b"").strip(b"b\"'\\") == b"Invalid header value "
    assert HIDDEN_MARK in found


def test_a_header_that_was_sent_in_latin_1_may_come_back_so() -> None:
    assert hide_secret("clé-secrète".encode("latin-1"), "clé-secrète") == HIDDEN_MARK


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "B", "Be", "Bearer "])
@given(secret=secrets, after=st.sampled_from(["", ":", "::", "\n"]))
def test_base64_of_any_text_with_the_secret_shows_at_most_three_signs_of_it(
    encode: Callable[[bytes], bytes],
    before: str,
    secret: str,
    after: str,
) -> None:
    whole = encode(f"{before}{secret}{after}".encode())

    found = hide_secret(b'{"sent":"' + whole + b'"}', secret)

    assert HIDDEN_MARK in found
    shown = found.removeprefix(b'{"sent":"').removesuffix(b'"}').split(HIDDEN_MARK)
    assert sum(map(len, shown)) <= len(whole) - (len(secret) * 8 // 6 - 2)


def test_a_mixture_is_a_spelling_too() -> None:
    said = rb'{"error":"key sk\u002dab%2Fcd\\/ef is wrong"}'

    assert hide_secret(said, "sk-ab/cd/ef") == b'{"error":"key [hidden] is wrong"}'


@given(st.binary(max_size=300))
def test_what_holds_no_secret_stays_byte_for_byte(said: bytes) -> None:
    assert hide_secret(said, "a-secret-that-nobody-guesses") == said
    assert hide_secret(said, "short"[:MIN_SECRET_LENGTH]) == said


def test_a_header_that_proves_who_asks_is_a_secret_like_a_key() -> None:
    provider = Provider("up", "custom", "http://h", extra_headers={"x-token": "to/ken+one"})
    said = rb'{"a":"to\/ken+one","b":"to%2Fken%2Bone","c":"sk\/0123456"}'

    found = hide_provider_secrets(said, provider, ProviderKey("K", "sk/0123456"))

    assert found == b'{"a":"[hidden]","b":"[hidden]","c":"[hidden]"}'
