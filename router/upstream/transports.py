"""Chooses the transport to a provider by its kind: plain HTTP, a translation to its protocol,
what its conversations lose, and an endpoint bridge for what it does not speak. All
share one pool.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from harness.domain.errors import ConfigError
from harness.domain.providers.kinds import PROVIDER_KINDS, SERVED_KINDS, ProviderKind
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Provider
from harness.domain.settings import RouterSettings
from router.conversation.learned_repairs import LearnedRepairs
from router.conversation.transport import ConversationTransport
from router.protocols.endpoint_translation import TRANSLATIONS
from router.protocols.endpoints import DIALECTS
from router.upstream.endpoint_bridge import EndpointBridge
from router.upstream.pool import UpstreamPool
from router.upstream.translate.transport import TranslatingTransport
from router.upstream.transport import (
    Transport,
)

TRANSLATED: Final = frozenset(
    name for name, kind in PROVIDER_KINDS.items() if Endpoint.CHAT in kind.adapted
)


class Transports:
    """Holds one transport per protocol, shared by all its providers. wire: carries them all; by
    default HTTP connections of its own. monotonic: seconds.
    """

    def __init__(
        self,
        settings: RouterSettings,
        wire: Transport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = wire or UpstreamPool(settings)
        self.repairs = LearnedRepairs(monotonic)
        self._translated = {kind: TranslatingTransport(kind, self._pool) for kind in TRANSLATED}
        self._by_kind: Final[Mapping[str, Transport]] = {
            name: _bridged(
                kind,
                ConversationTransport(
                    name, self._pool, self.repairs, self._translated.get(name)
                ),
            )
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

    def prepare(self, kinds: Iterable[str]) -> None:
        """Load what providers of these kinds need: seconds, so never where somebody waits.

        Raises ConfigError where a library is missing.
        """
        for kind in sorted(TRANSLATED & set(kinds)):
            self._translated[kind].prepare()

    async def aclose(self) -> None:
        await self._pool.aclose()


def _bridged(kind: ProviderKind, chats: Transport) -> Transport:
    """What the kind answers by translation goes over `chats`, and so does the rest."""
    if Endpoint.CHAT not in kind.serves:
        return chats
    ways = {DIALECTS[endpoint].path: way for endpoint, way in TRANSLATIONS.items()}
    usual = {DIALECTS[endpoint].path for endpoint in TRANSLATIONS if endpoint in kind.adapted}
    return EndpointBridge(chats, ways, frozenset(usual))
