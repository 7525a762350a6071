"""Credentials are the keys of providers: how they are stored, ordered and replaced, which one
is used, how long one rests after a failure, and which provider has none. Pure.

Also checks a key's name and value, and hides keys that a provider repeats in its answers.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from harness.domain.errors import InputError
from harness.domain.providers.kinds import PROVIDER_KINDS, KeyStyle
from harness.domain.providers.secret_encodings import hide_secret
from harness.domain.reliability.failures import FAILURE_RULES, FailureClass
from harness.domain.routing.target import Provider

Key = TypeVar("Key", bound=Hashable)
# A key that was refused is seldom mended at once; and one try in so long costs nothing.
REFUSED_S: Final = 300.0
# Of a limit without Retry-After.
LIMITED_S: Final = 5.0
MAX_REST_S: Final = 900.0


def key_rest_s(failure: FailureClass, retry_after_s: float | None) -> float | None:
    """How long a key is left alone after this failure; None when it is not about the key.

    retry_after_s: what the provider asked for (`retry.retry_after_s`).
    """
    if not FAILURE_RULES[failure].other_key:
        return None
    if failure is FailureClass.RATE_LIMITED:
        return min(retry_after_s or LIMITED_S, MAX_REST_S)
    return min(max(retry_after_s or 0.0, REFUSED_S), MAX_REST_S)


def rested_keys(
    keys: Sequence[Key], resting_until: Mapping[Key, float], now: float
) -> tuple[Key, ...]:
    """Returns the keys that may be used, in order."""
    return tuple(key for key in keys if resting_until.get(key, now) <= now)


def choose_key(keys: Sequence[Key], resting_until: Mapping[Key, float], now: float) -> Key:
    """The key to use; when all rest, the one that is back soonest. keys: at least one."""
    able = rested_keys(keys, resting_until, now)
    return able[0] if able else min(keys, key=lambda key: resting_until[key])


MAX_VALUE_LENGTH: Final = 8192
REPLACED_KEY_SUFFIX: Final = ".old"
_SENDABLE: Final = re.compile(r"[\x21-\x7e]+")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_OWN_HEADERS: Final = frozenset(style.value for style in KeyStyle)


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key as it is sent."""

    name: str  # what people and alerts call it, such as `OPENAI_API_KEY`
    secret: str = field(repr=False)


# By provider's name, in the order in which they are tried.
ProviderKeySets = Mapping[str, Sequence[ProviderKey]]


def keys_from_environment(
    provider: Provider, environ: Mapping[str, str]
) -> tuple[ProviderKey, ...]:
    """Returns the keys whose environment variables are set."""
    found = ((name, environ.get(name, "")) for name in provider.key_envs)
    return tuple(ProviderKey(name, secret) for name, secret in found if secret)


def hide_provider_secrets(answer: bytes, provider: Provider, key: ProviderKey | None) -> bytes:
    """What a provider said, without what it was sent to prove who asks: some repeat it, as it
    is, escaped or encoded.
    """
    return hide_secrets(answer, (key.secret if key else "", *provider.extra_headers.values()))


def hide_secrets(text: bytes, secrets: Iterable[str]) -> bytes:
    """Removes secrets, the longest first, so that of one that holds another no end is left."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = hide_secret(text, secret)
    return text


def lacks_key(
    provider: Provider, keys: Sequence[ProviderKey], *, stored_before: bool = False
) -> bool:
    """Whether a provider wants a key and has none, so that no request to it can succeed.

    It wants one when its kind does, when it names a variable, or when one was ever stored. A
    header of its own may stand in for the key.
    """
    if keys:
        return False
    kind = PROVIDER_KINDS.get(provider.kind)
    wants = (kind is not None and kind.needs_key) or bool(provider.key_envs) or stored_before
    return wants and _OWN_HEADERS.isdisjoint(name.lower() for name in provider.header_names)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key of a provider as a router gets it."""

    provider: str
    name: str
    ciphertext: str = field(repr=False)  # empty once it was taken away


@dataclass(frozen=True, slots=True)
class Credential(StoredKey):
    """Holds a stored key with its place, its author and its times."""

    position: int  # the lowest is tried first
    created_at: datetime
    updated_at: datetime
    created_by: str
    expires_at: datetime | None = None  # when it is taken away by itself; None for never

    def live(self, now: datetime) -> bool:
        return bool(self.ciphertext) and (self.expires_at is None or now < self.expires_at)


def keys_for_routers(stored: Iterable[Credential], now: datetime) -> tuple[StoredKey, ...]:
    """Returns the keys that a snapshot carries: also those taken away, without a value."""
    return tuple(
        StoredKey(
            credential.provider,
            credential.name,
            credential.ciphertext if credential.live(now) else "",
        )
        for credential in stored
    )


def check_key_value(value: str) -> str:
    """Strips white space around a key. Raises InputError for one that no header carries."""
    found = value.strip()
    if not found or len(found) > MAX_VALUE_LENGTH or not _SENDABLE.fullmatch(found):
        raise InputError(
            f"a key is 1 to {MAX_VALUE_LENGTH} printable ASCII characters without spaces; "
            "the value given is not"
        )
    return found


def check_key_name(name: str) -> str:
    """Returns the name of a provider's key unless a person could not type it: then raises
    InputError.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a key: take a-z, 0-9, `-`, `_` and `.`")
    return name


def place_new_key(
    stored: Sequence[Credential], new: Credential, *, first: bool, keep_until: datetime | None
) -> list[Credential]:
    """What is to be written when `new` is set: itself, and perhaps the one it replaces.

    stored: of that provider. first: before all others; else it keeps the place of the one of
    its name, or comes last. keep_until: till then the replaced one stays, right behind.
    """
    before = next((credential for credential in stored if credential.name == new.name), None)
    places = [credential.position for credential in stored]
    replaced = before is not None and before.ciphertext
    # Steps of two leave a place behind each for the one that it replaces.
    last = max(places, default=-2) + 2
    place = before.position if before is not None and replaced else last
    if first:
        place = min(places, default=0) - 2
    written = [replace(new, position=place)]
    if before is not None and replaced and keep_until is not None:
        written.append(
            replace(
                before,
                name=f"{before.name}{REPLACED_KEY_SUFFIX}",
                position=place + 1,
                expires_at=keep_until,
            )
        )
    return written
