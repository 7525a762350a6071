"""Chooses the transport to a provider by its kind: plain HTTP, a translation to its protocol,
what its conversations lose, and an endpoint bridge, which sends a message or response as a chat
to a provider that speaks only chat. All share one pool.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from harness.domain.errors import ConfigError
from harness.domain.providers.kinds import PROVIDER_KINDS, SERVED_KINDS, ProviderKind
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Provider
from harness.domain.settings import RouterSettings
from router.conversation.learned_repairs import LearnedRepairs
from router.conversation.transport import ConversationTransport
from router.protocols.endpoint_translation import TRANSLATIONS, Translation
from router.protocols.endpoints import DIALECTS
from router.protocols.untranslatable import Untranslatable
from router.upstream.bridged_reply import BridgedReply
from router.upstream.failure import refused_request
from router.upstream.pool import UpstreamPool
from router.upstream.translate.transport import TranslatingTransport
from router.upstream.transport import (
    CHAT_PATH,
    BegunCall,
    Transport,
    UpstreamReply,
    UpstreamRequest,
)

# Of the client's headers, what only its own protocol knows.
_OWN = b"anthropic-"


class EndpointBridge(Transport):
    """Translates requests into chats, and sends them through `beneath`. translations: by path.
    usual: the paths that are translated where a request says nothing of it; any other is sent
    as it is.
    """

    def __init__(
        self,
        beneath: Transport,
        translations: Mapping[str, Translation],
        usual: frozenset[str],
    ) -> None:
        self._usual = usual
        self._beneath = beneath
        self._translations = translations

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request, translated into a chat where its path has a translation. Raises
        UpstreamFailed, also for what cannot be translated (422).
        """
        bridged = self._usual if request.bridged is None else request.bridged
        if request.path not in bridged:
            return await self._beneath.send(request)
        translation = self._translations[request.path]
        try:
            said = translation(request.body, request.provider.kind, request.maker)
        except Untranslatable as error:
            raise refused_request(error) from None
        headers = tuple(header for header in request.headers if not header[0].startswith(_OWN))
        asked = replace(request, body=said.body, path=CHAT_PATH, headers=headers)
        reply = await self._beneath.send(asked)
        if not 200 <= reply.status < 300:
            return reply  # an error is an error in any protocol
        return BridgedReply(reply, said, stream=request.stream)

    def begin(self, request: UpstreamRequest) -> BegunCall | None:
        """Begins a call; None for a request that is translated."""
        bridged = self._usual if request.bridged is None else request.bridged
        return None if request.path in bridged else self._beneath.begin(request)

    async def settled(self, request: UpstreamRequest, reply: UpstreamReply) -> UpstreamReply:
        return await self._beneath.settled(request, reply)

    async def aclose(self) -> None:
        await self._beneath.aclose()


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
