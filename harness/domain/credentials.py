"""Keys of providers: how they are stored, which ones are used, and who has none. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.domain.provider_kinds import PROVIDER_KINDS, KeyStyle
from harness.domain.targets import Provider

_OWN_HEADERS: Final = frozenset(style.value for style in KeyStyle)


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key as it is sent. name: what people and alerts call it, such as `OPENAI_API_KEY`."""

    name: str
    secret: str = field(repr=False)


# By provider's name, in the order in which they are tried.
ProviderKeySets = Mapping[str, Sequence[ProviderKey]]


def of_environment(provider: Provider, environ: Mapping[str, str]) -> tuple[ProviderKey, ...]:
    """Those of its variables that are set."""
    found = ((name, environ.get(name, "")) for name in provider.key_envs)
    return tuple(ProviderKey(name, secret) for name, secret in found if secret)


def lacks_key(
    provider: Provider, keys: Sequence[ProviderKey], *, stored_before: bool = False
) -> bool:
    """Whether it wants a key and has none, so that no request to it can succeed.

    It wants one when its kind does, when it names a variable, or when one was ever stored. A
    header of its own may stand in for the key.
    """
    if keys:
        return False
    kind = PROVIDER_KINDS.get(provider.kind)
    wants = (kind is not None and kind.needs_key) or bool(provider.key_envs) or stored_before
    return wants and _OWN_HEADERS.isdisjoint(name.lower() for name in provider.extra_headers)
