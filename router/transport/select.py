"""The transport of a provider, by its kind."""

from collections.abc import Mapping
from typing import Final

from harness.domain.errors import ConfigError
from harness.domain.provider_kinds import PROVIDER_KINDS, SERVED_KINDS, ProviderKind
from harness.domain.settings import RouterSettings
from harness.domain.targets import Provider
from router.bridges.translation import TRANSLATIONS, Translation
from router.dialects.table import DIALECTS
from router.ports import Transport
from router.transport.bridge import Bridge
from router.transport.pool import Pool


class Transports:
    """One transport per protocol, shared by all its providers."""

    def __init__(self, settings: RouterSettings) -> None:
        self._pool = Pool(settings)
        self._by_kind: Final[Mapping[str, Transport]] = {
            name: _bridged(kind, self._pool)
            for name, kind in PROVIDER_KINDS.items()
            if name in SERVED_KINDS
        }

    def __call__(self, provider: Provider) -> Transport:
        """Raises ConfigError for a kind that this router does not speak."""
        found = self._by_kind.get(provider.kind)
        if found is None:
            raise ConfigError(
                f"provider {provider.name!r} is of kind {provider.kind!r}; "
                f"this router speaks {', '.join(sorted(SERVED_KINDS))}"
            )
        return found

    async def aclose(self) -> None:
        await self._pool.aclose()


def _bridged(kind: ProviderKind, chats: Transport) -> Transport:
    """What the kind answers by translation goes over `chats`, and so does the rest."""
    ways: dict[str, Translation] = {
        DIALECTS[endpoint].path: way
        for endpoint, way in TRANSLATIONS.items()
        if endpoint in kind.adapted
    }
    return Bridge(chats, ways) if ways else chats
