"""The keys of providers: their order, replacement, and rest after a failure. Pure.

Also hides secrets in providers' texts, because some providers repeat them in errors.
`harness.providers.registry.provider_secrets` encrypts and decrypts the keys. The router decides
when to try another key (`router.health.provider_keys`).
"""

import html
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeVar

from harness.frame.errors import InputError
from harness.frame.failures import FailureClass, Reach
from harness.frame.redaction import find_keys
from harness.providers.kinds import PROVIDER_KINDS, KeyStyle
from harness.providers.target import Provider

HIDDEN_MARK: Final = b"[hidden]"
# Shorter header values are common words rather than secrets.
MIN_SECRET_LENGTH: Final = 8
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
# The shortest keys of providers have more characters than any word of a variable's name.
_KEY_LENGTH: Final = 24
# First characters of escapes in JSON, URLs and HTML.
_ESCAPE_MARKS: Final = (b"\\", b"%", b"&", b"+")
# Backslashes in JSON that is encoded up to three times.
_NESTED: Final = rb"\\{0,7}"
_SLASHES: Final = rb"\\{1,7}"
_SHORT_ESCAPES: Final = {
    character: letter.encode()
    for character, letter in zip("\a\b\t\n\v\f\r\0", "abtnvfr0", strict=True)
}
_LAST_OF_LATIN_1: Final = 0xFF


def check_key_variable(name: str | None) -> None:
    """Checks the name of the environment variable that holds a key; None is valid.

    Raises InputError, which does not repeat the text: people write a key itself there.
    """
    if name is None or (_VARIABLE.fullmatch(name) and not _may_be_key(name)):
        return
    raise InputError(
        "the name of an environment variable belongs here, such as OPENAI_API_KEY. The text "
        "is not such a name, and may be a key. Put a key into `.env` as OPENAI_API_KEY=…, or "
        "store it with `swapproof provider key set`"
    )


def _may_be_key(name: str) -> bool:
    """Tells whether a valid name of a variable reads like a key: people separate words."""
    return next(find_keys(name), None) is not None or (
        len(name) >= _KEY_LENGTH and "_" not in name
    )


def hide_secret(text: bytes, secret: str) -> bytes:
    """Removes a secret in every encoding. Leaves values that are too short for a secret."""
    if len(secret) < MIN_SECRET_LENGTH:
        return text
    for spelling in _encoded_forms(secret):
        text = text.replace(spelling, HIDDEN_MARK)
    if any(mark in text for mark in _ESCAPE_MARKS):
        text = _escaped_pattern(secret).sub(HIDDEN_MARK, text)
    return text


@lru_cache(maxsize=512)
def _encoded_forms(secret: str) -> tuple[bytes, ...]:
    """Returns the secret's spellings as bytes: raw, hexadecimal, and base64 at each of three
    offsets.
    """
    raw = secret.encode("utf-8", "surrogatepass")
    latin_1 = secret.encode("latin-1", "replace")  # many clients encode headers in Latin-1
    forms = [raw, latin_1, raw.hex().encode(), raw.hex().upper().encode()]
    for offset in range(3):
        # The first and the last base64 character may contain bits of the neighbouring bytes, so
        # the code cuts them off.
        first = -(-offset * 8 // 6)
        last = (offset + len(raw)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            inner = encode(bytes(offset) + raw)[first:last]
            forms += (inner, inner.replace(b"/", b"\\/"))
    return tuple(dict.fromkeys(forms))


@lru_cache(maxsize=512)
def _escaped_pattern(secret: str) -> re.Pattern[bytes]:
    """Returns a pattern of the secret in which each character may be escaped in its own way."""
    return re.compile(
        b"".join(b"(?:%s)" % b"|".join(_escape_patterns(character)) for character in secret)
    )


def _escape_patterns(character: str) -> list[bytes]:
    """Lists patterns of a character's escapes: JSON, URL, HTML and Python."""
    raw = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass").hex()
    number = ord(character)
    html_words = {
        html.escape(character),
        html.escape(character).replace("&#x27;", "&apos;"),
    }
    patterns = [re.escape(raw)]
    if not character.isalnum():
        patterns = [_NESTED + re.escape(raw)]
    patterns += [re.escape(word.encode()) for word in sorted(html_words - {character})]
    if character == " ":
        patterns.append(rb"\+")
    url_escape = b"".join(b"%%(?:25)*%02x" % byte for byte in raw)
    unicode_escape = b"".join(
        _SLASHES + b"u" + units[at : at + 4].encode() for at in range(0, len(units), 4)
    )
    if character in _SHORT_ESCAPES:
        patterns.append(_SLASHES + _SHORT_ESCAPES[character])
    numeric = b"&#(?:0*%d|x0*%x);" % (number, number)
    # Python's escapes of text and bytes.
    python = [
        b"".join(_SLASHES + b"x%02x" % byte for byte in raw),
        _SLASHES + b"U%08x" % number,
    ]
    if number <= _LAST_OF_LATIN_1:
        python.append(_SLASHES + b"x%02x" % number)
    return [
        *patterns,
        *(b"(?i:%s)" % form for form in (url_escape, unicode_escape, numeric, *python)),
    ]


Key = TypeVar("Key", bound=Hashable)
# How long a refused key rests. One attempt in this time costs nothing, because providers do not
# bill refused requests.
REFUSED_S: Final = 300.0
# How long a key rests after a rate limit without Retry-After.
LIMITED_S: Final = 5.0
MAX_REST_S: Final = 900.0


def key_rest_s(
    failure: FailureClass, reach: Reach, retry_after_s: float | None
) -> float | None:
    """Returns how long a key rests after a failure, in seconds; None if another key would not
    help.

    A rate limit lets a key rest for `retry_after_s`, another failure for REFUSED_S or longer.
    No rest is longer than MAX_REST_S.

    Args:
        retry_after_s: from the provider's header; None without one.
    """
    if not reach.is_of_key:
        return None
    if failure is FailureClass.RATE_LIMITED:
        return min(retry_after_s or LIMITED_S, MAX_REST_S)
    return min(max(retry_after_s or 0.0, REFUSED_S), MAX_REST_S)


def rested_keys(
    keys: Sequence[Key],
    resting_until: Mapping[Key, float],
    now: float,
) -> tuple[Key, ...]:
    """Returns the keys that do not rest now, in order.

    Args:
        resting_until: monotonic seconds of the clock of `now`.
        now: monotonic seconds.
    """
    return tuple(key for key in keys if resting_until.get(key, now) <= now)


def choose_key(
    keys: Sequence[Key],
    resting_until: Mapping[Key, float],
    now: float,
) -> Key:
    """Chooses the first key that does not rest, or else the key that rests for the shortest
    time.

    Even if all keys rest, the router so tries the request.

    Args:
        keys: at least one.
    """
    available = rested_keys(keys, resting_until, now)
    return available[0] if available else min(keys, key=lambda key: resting_until[key])


MAX_VALUE_LENGTH: Final = 8192
REPLACED_KEY_SUFFIX: Final = ".old"
_SENDABLE: Final = re.compile(r"[\x21-\x7e]+")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_OWN_HEADERS: Final = frozenset(style.value for style in KeyStyle)


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A clear key in the memory of a process that calls providers."""

    name: str  # its name for people and alerts, such as `OPENAI_API_KEY`
    secret: str = field(repr=False)


# By provider: its keys, in the order in which the router tries them.
ProviderKeySets = Mapping[str, Sequence[ProviderKey]]


def keys_from_environment(
    provider: Provider, environ: Mapping[str, str]
) -> tuple[ProviderKey, ...]:
    """Returns the keys in a provider's environment variables, in order, without empty ones."""
    named_secrets = ((name, environ.get(name, "")) for name in provider.key_envs)
    return tuple(ProviderKey(name, secret) for name, secret in named_secrets if secret)


def hide_provider_secrets(
    answer: bytes,
    provider: Provider,
    key: ProviderKey | None,
) -> bytes:
    """Removes the request's credentials from an answer, because some providers repeat them."""
    return hide_secrets(answer, (key.secret if key else "", *provider.extra_headers.values()))


def hide_secrets(text: bytes, secrets: Iterable[str]) -> bytes:
    """Removes secrets, longest first, so that no part of a longer secret remains."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = hide_secret(text, secret)
    return text


def lacks_key(
    provider: Provider,
    keys: Sequence[ProviderKey],
    *,
    stored_before: bool = False,
) -> bool:
    """Tells whether a provider needs a key but has neither a key nor a header with credentials.

    A provider needs a key if its kind does, if it names a variable, or if it ever had a stored
    key: after a person removes the key, the router must not call without one.

    Args:
        stored_before: whether it ever had a stored key.
    """
    if keys:
        return False
    kind = PROVIDER_KINDS.get(provider.kind)
    needs_key = (
        (kind is not None and kind.needs_key) or bool(provider.key_envs) or stored_before
    )
    return needs_key and _OWN_HEADERS.isdisjoint(name.lower() for name in provider.header_names)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as routers get it, encrypted."""

    provider: str
    name: str
    ciphertext: str = field(repr=False)  # empty once the key is removed


@dataclass(frozen=True, slots=True)
class Credential(StoredKey):
    """A key as it is stored, with its history."""

    position: int  # the router tries the lowest first
    created_at: datetime
    updated_at: datetime
    created_by: str
    expires_at: datetime | None = None  # when Swapproof removes it; None for never

    def live(self, now: datetime) -> bool:
        return bool(self.ciphertext) and (self.expires_at is None or now < self.expires_at)


def keys_for_routers(stored: Iterable[Credential], now: datetime) -> tuple[StoredKey, ...]:
    """Returns the keys for the routers' snapshot; an expired key has an empty ciphertext.

    Empty keys stay in it, because they show that the provider needs a key (`lacks_key`).
    """
    return tuple(
        StoredKey(key.provider, key.name, key.ciphertext if key.live(now) else "")
        for key in stored
    )


def check_key_value(value: str) -> str:
    """Strips white space around a key. Raises InputError if a header cannot carry it.

    The message does not repeat the value.
    """
    stripped = value.strip()
    if not stripped or len(stripped) > MAX_VALUE_LENGTH or not _SENDABLE.fullmatch(stripped):
        raise InputError(
            f"a key is 1 to {MAX_VALUE_LENGTH} printable ASCII characters without spaces; "
            "the value given is not"
        )
    return stripped


def check_key_name(name: str) -> str:
    """Returns a key's name. Raises InputError for a name that is hard to type."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a key name: use a-z, 0-9, `-`, `_` and `.`")
    return name


def place_new_key(
    stored: Sequence[Credential],
    new: Credential,
    *,
    first: bool,
    keep_until: datetime | None,
) -> list[Credential]:
    """Returns the keys to store for a new key.

    Args:
        keep_until: until when the router tries the replaced key as well, after the new key;
            None drops it at once.
    """
    same_name = next(
        (credential for credential in stored if credential.name == new.name),
        None,
    )
    positions = [credential.position for credential in stored]
    replaced = same_name is not None and same_name.ciphertext
    # Positions rise by two, so that a replaced key fits between two keys.
    last = max(positions, default=-2) + 2
    position = same_name.position if same_name is not None and replaced else last
    if first:
        position = min(positions, default=0) - 2
    written = [replace(new, position=position)]
    if same_name is not None and replaced and keep_until is not None:
        old_name = f"{same_name.name}{REPLACED_KEY_SUFFIX}"
        old_key = replace(
            same_name,
            name=old_name,
            position=position + 1,
            expires_at=keep_until,
        )
        written.append(old_key)
    return written
