"""The endpoint bridge is a transport that sends a Messages or Responses request as a chat to a
provider that speaks only chat, and translates the answer back, whole or streamed.
"""

from collections.abc import Mapping
from dataclasses import replace

from router.protocols.endpoint_translation import Translation
from router.protocols.untranslatable import Untranslatable
from router.upstream.bridged_reply import BridgedReply
from router.upstream.failure import refused_request
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
