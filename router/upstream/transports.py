"""Chooses the transport to a provider, and moves each request's conversation to its target."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from harness.frame.errors import ConfigError
from harness.providers.kinds import PROVIDER_KINDS, SERVED_KINDS
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import Provider
from harness.routing.settings import RouterSettings
from router.conversation.chat_history import mark_chat, move_chat, suits_chat, with_client_names
from router.conversation.intake import INTAKES, QUOTED_MARK, TAKES_ALL, MovedBody
from router.conversation.native_histories import (
    RESULT,
    SIGNED,
    mark_message,
    mark_response,
    move_message,
    move_response,
    suits_message,
    suits_response,
)
from router.frame.body import CHAT_PATH, MESSAGES_PATH, RESPONSES_PATH, to_json
from router.frame.failure import Untranslatable, refused_request
from router.protocols.endpoints import DIALECTS
from router.upstream.endpoint_translation import TRANSLATIONS, Translation
from router.upstream.learned_repairs import LearnedRepairs
from router.upstream.pool import UpstreamPool
from router.upstream.reply_reading import (
    BridgedReply,
    MovedReply,
    ReadReply,
    Rewrite,
    read_error_body,
)
from router.upstream.translate.transport import TranslatingTransport
from router.upstream.transport import BegunCall, Transport, UpstreamReply, UpstreamRequest

Marker = Callable[[dict[str, Any], str], bool]
_MARKERS: Final[Mapping[str, Marker]] = {
    CHAT_PATH: mark_chat,
    MESSAGES_PATH: mark_message,
    RESPONSES_PATH: mark_response,
}
# In a request whose answer may have something to mark, in that answer.
THINKS: Final = b'thinking"'  # or `redacted_thinking`
ENCRYPTED: Final = b"encrypted_content"
_ASKS: Final = {MESSAGES_PATH: THINKS, RESPONSES_PATH: ENCRYPTED}
_SIGNED: Final = (
    b'"signature',
    b'"redacted_thinking"',
    b'"encrypted_content"',
    b'"thought_signature"',
)
_DATA: Final = b"data:"
# Of the client's headers, what only its own protocol knows.
_OWN: Final = b"anthropic-"
_BRIDGES: Final[Mapping[str, Translation]] = {
    DIALECTS[endpoint].path: translation for endpoint, translation in TRANSLATIONS.items()
}


def _marked(mark: Marker, maker: str, data: bytes) -> bytes:
    if not any(name in data for name in _SIGNED):
        return data
    start = len(_DATA) if data.startswith(_DATA) else 0
    try:
        said = json.loads(data[start:])
    except (ValueError, RecursionError):
        return data  # the endpoint's own reader says what is wrong with it
    if not isinstance(said, dict) or not mark(said, maker):
        return data
    return data[:start] + (b" " if start else b"") + to_json(said).encode()


# What says something of a piece or a field.
STATUSES: Final = frozenset({400, 404, 415, 422, 500, 501})


class ConversationTransport(Transport):
    """Moves conversations to one kind. wire, chats: what sends, also in a chat; another's."""

    def __init__(
        self,
        kind: str,
        wire: Transport,
        repairs: LearnedRepairs,
        chats: Transport | None = None,
    ) -> None:
        served = PROVIDER_KINDS[kind]
        self._wire = wire
        self._repairs = repairs
        self._chats = chats or wire
        self._intake = INTAKES.get(kind, TAKES_ALL)
        # Only what a translation writes as a chat has signatures in it.
        self._signs_chats = Endpoint.CHAT in served.adapted
        # The paths that are translated where a request says nothing of it.
        self._bridged = frozenset(
            DIALECTS[endpoint].path
            for endpoint in TRANSLATIONS
            if endpoint in served.adapted and Endpoint.CHAT in served.serves
        )

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request. Raises UpstreamFailed, also for what cannot be translated (422)."""
        bridged = self._bridged if request.bridged is None else request.bridged
        if request.path not in bridged:
            return await self._send(request)
        try:
            said = _BRIDGES[request.path](request.body, request.provider.kind, request.maker)
        except Untranslatable as error:
            raise refused_request(error) from None
        headers = tuple(header for header in request.headers if not header[0].startswith(_OWN))
        asked = replace(request, body=said.body, path=CHAT_PATH, headers=headers)
        reply = await self._send(asked)
        if not 200 <= reply.status < 300:
            return reply  # an error is an error in any protocol
        return BridgedReply(reply, said, stream=request.stream)

    async def _send(self, request: UpstreamRequest) -> UpstreamReply:
        try:
            moved = self._move(request)
        except Untranslatable as error:
            raise refused_request(error) from None
        sent = request if moved.body is request.body else replace(request, body=moved.body)
        if self._repairs.any:
            sent, changed = self._repairs.apply(sent)
            moved = moved._replace(dropped=(*moved.dropped, *changed))
        return await self._settled(sent, await self._way(sent).send(sent), moved)

    def begin(self, request: UpstreamRequest) -> BegunCall | None:
        """Begins a call; None for what is translated, signed, or needs a learned repair."""
        path, body = request.path, request.body
        bridged = self._bridged if request.bridged is None else request.bridged
        if path in bridged or (self._repairs.any and self._repairs.knows(request)):
            return None
        if path == CHAT_PATH:
            takes_all = self._intake is TAKES_ALL and body.find(QUOTED_MARK) < 0
            suits = takes_all or suits_chat(body, self._intake)
        elif path == MESSAGES_PATH:
            plain = SIGNED not in body and RESULT not in body
            suits = THINKS not in body and (plain or suits_message(body))
        else:
            suits = path != RESPONSES_PATH or (ENCRYPTED not in body and suits_response(body))
        if not suits:
            return None
        return (self._chats if path == CHAT_PATH else self._wire).begin(request)

    async def settled(self, request: UpstreamRequest, reply: UpstreamReply) -> UpstreamReply:
        return await self._settled(request, reply, MovedBody(request.body))

    def _way(self, request: UpstreamRequest) -> Transport:
        return self._chats if request.path == CHAT_PATH else self._wire

    def _move(self, request: UpstreamRequest) -> MovedBody:
        # Also below an endpoint, as where tokens are counted, stands its history.
        if request.path.startswith(MESSAGES_PATH):
            return move_message(request.body, request.maker)
        if request.path.startswith(RESPONSES_PATH):
            return move_response(request.body, request.maker)
        if request.path == CHAT_PATH:
            return move_chat(request.body, self._intake, request.maker)
        return MovedBody(request.body)

    async def _settled(
        self, request: UpstreamRequest, reply: UpstreamReply, moved: MovedBody
    ) -> UpstreamReply:
        dropped = list(moved.dropped)
        refused: list[str] = []
        while reply.status in STATUSES:
            body = await read_error_body(reply)
            less = self._repairs.learn(request, reply.status, body, refused)
            if less is None:
                reply = ReadReply(
                    reply.status, reply.headers, body, local=reply.local, source=reply
                )
                break
            await reply.aclose()
            request = less.request
            dropped += less.changed
            refused.append(less.refused)
            reply = await self._way(request).send(request)
        rewrite = self._rewrite(request, moved) if reply.status < min(STATUSES) else None
        if rewrite is None and not (dropped or refused):
            return reply
        return MovedReply(reply, tuple(dict.fromkeys(dropped)), sorted({*refused}), rewrite)

    def _rewrite(self, request: UpstreamRequest, moved: MovedBody) -> Rewrite | None:
        asks = _ASKS.get(request.path)
        signs = asks is not None and asks in request.body
        if request.path == CHAT_PATH:
            signs = self._signs_chats
        found: list[Rewrite] = []
        if moved.tool_names:
            found.append(partial(with_client_names, names=moved.tool_names))
        if request.maker and signs:
            found.append(partial(_marked, _MARKERS[request.path], request.maker))
        return partial(_rewritten, found) if found else None


def _rewritten(rewrites: Sequence[Rewrite], data: bytes) -> bytes:
    for rewrite in rewrites:
        data = rewrite(data)
    return data


TRANSLATED: Final = frozenset(
    name for name, kind in PROVIDER_KINDS.items() if Endpoint.CHAT in kind.adapted
)


class Transports:
    """One transport per kind, over one wire. monotonic: seconds."""

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
            name: ConversationTransport(
                name, self._pool, self.repairs, self._translated.get(name)
            )
            for name in PROVIDER_KINDS
            if name in SERVED_KINDS
        }

    def __call__(self, provider: Provider) -> Transport:
        found = self._by_kind.get(provider.kind)
        if found is None:
            raise ConfigError(
                f"provider {provider.name!r} is of kind {provider.kind!r}; "
                f"this router speaks {', '.join(sorted(SERVED_KINDS))}"
            )
        return found

    def prepare(self, kinds: Iterable[str]) -> None:
        """Loads what these kinds need: seconds. Raises ConfigError."""
        for kind in sorted(TRANSLATED & set(kinds)):
            self._translated[kind].prepare()

    async def aclose(self) -> None:
        await self._pool.aclose()
