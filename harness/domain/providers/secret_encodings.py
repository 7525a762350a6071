"""Removes a secret from a text in every encoding in which a provider may repeat it: as it is,
hexadecimal, base64, or escaped as JSON, a URL or HTML does. Pure.
"""

import html
import re
from base64 import b64encode, urlsafe_b64encode
from functools import lru_cache
from typing import Final

HIDDEN_MARK: Final = b"[hidden]"
# Of a header's value: a shorter one is a word.
MIN_SECRET_LENGTH: Final = 8
# What an escape in JSON, in a URL or in HTML begins with.
_MARKS: Final = (b"\\", b"%", b"&", b"+")
# JSON in JSON in JSON.
_NESTED: Final = rb"\\{0,7}"
_SLASHES: Final = rb"\\{1,7}"
_SHORT: Final = {
    character: letter.encode()
    for character, letter in zip("\a\b\t\n\v\f\r\0", "abtnvfr0", strict=True)
}
_LAST_OF_LATIN_1: Final = 0xFF


def hide_secret(text: bytes, secret: str) -> bytes:
    """Returns the text without the secret in any spelling; short secrets are words and stay."""
    if len(secret) < MIN_SECRET_LENGTH:
        return text
    for spelling in _encoded(secret):
        text = text.replace(spelling, HIDDEN_MARK)
    if any(mark in text for mark in _MARKS):
        text = _escaped(secret).sub(HIDDEN_MARK, text)
    return text


@lru_cache(maxsize=512)
def _encoded(secret: str) -> tuple[bytes, ...]:
    """Returns the secret as it is, in hexadecimal, and in base64 at each offset of the encoded
    text.
    """
    raw = secret.encode("utf-8", "surrogatepass")
    latin_1 = secret.encode("latin-1", "replace")  # as many send a header
    found = [raw, latin_1, raw.hex().encode(), raw.hex().upper().encode()]
    for before in range(3):
        # A character of base64 at either end may hold bits of the unknown bytes beside the
        # secret: such characters are cut off.
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            inner = encode(bytes(before) + raw)[first:last]
            found += (inner, inner.replace(b"/", b"\\/"))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=512)
def _escaped(secret: str) -> re.Pattern[bytes]:
    """Matches the secret with each character as it is, or as JSON, a URL or HTML escapes it, in
    any mixture.
    """
    return re.compile(
        b"".join(b"(?:%s)" % b"|".join(_spelled(character)) for character in secret)
    )


def _spelled(character: str) -> list[bytes]:
    raw = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass").hex()
    number = ord(character)
    words = {html.escape(character), html.escape(character).replace("&#x27;", "&apos;")}
    found = [re.escape(raw)]
    if not character.isalnum():
        found = [_NESTED + re.escape(raw)]
    found += [re.escape(word.encode()) for word in sorted(words - {character})]
    if character == " ":
        found.append(rb"\+")
    percents = b"".join(b"%%(?:25)*%02x" % byte for byte in raw)
    unicodes = b"".join(
        _SLASHES + b"u" + units[at : at + 4].encode() for at in range(0, len(units), 4)
    )
    if character in _SHORT:
        found.append(_SLASHES + _SHORT[character])
    numeric = b"&#(?:0*%d|x0*%x);" % (number, number)
    # Python's own, of text and of bytes.
    python = [
        b"".join(_SLASHES + b"x%02x" % byte for byte in raw),
        _SLASHES + b"U%08x" % number,
    ]
    if number <= _LAST_OF_LATIN_1:
        python.append(_SLASHES + b"x%02x" % number)
    return [*found, *(b"(?i:%s)" % form for form in (percents, unicodes, numeric, *python))]
