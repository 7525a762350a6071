"""`ConversationTransport` moves each request's conversation to its target: it leaves out what
the target cannot read, marks what the answer signs, and asks once more without a piece or field
that the provider refuses, before anything is counted. Everyone who asks a provider asks through
it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import Endpoint
from router.conversation.chat_history import mark_chat, move_chat, suits_chat
from router.conversation.intake import INTAKES, TAKES_ALL
from router.conversation.learned_repairs import LearnedRepairs
from router.conversation.makers import QUOTED_MARK
from router.conversation.message_history import (
    RESULT,
    SIGNED,
    mark_message,
    move_message,
    suits_message,
)
from router.conversation.moved_reply import MovedBody, MovedReply, Rewrite
from router.conversation.refusals import (
    MESSAGES_PATH,
    RESPONSES_PATH,
)
from router.conversation.response_history import mark_response, move_response, suits_response
from router.conversation.tool_names import with_client_names
from router.protocols.untranslatable import Untranslatable
from router.request.body_patch import to_json
from router.upstream.failure import refused_request
from router.upstream.reply_reading import ReadReply, read_error_body
from router.upstream.transport import (
    CHAT_PATH,
    BegunCall,
    Transport,
    UpstreamReply,
    UpstreamRequest,
)

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


def may_sign(path: str, body: bytes) -> bool:
    """Tells whether the answer to a request may have something to mark."""
    asks = _ASKS.get(path)
    return asks is not None and asks in body


def answer_marker(path: str, maker: str) -> Rewrite:
    """What marks the answers of a maker. path: of the endpoint."""
    return partial(_marked, _MARKERS[path], maker)


def _marked(mark: Marker, maker: str, data: bytes) -> bytes:
    """data: a whole body, or a line of a stream."""
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
    """Carries the conversations of one kind's requests. wire: what sends them; chats: what
    sends those in a chat, where that is another. Both are another's to close.
    """

    def __init__(
        self,
        kind: str,
        wire: Transport,
        repairs: LearnedRepairs,
        chats: Transport | None = None,
    ) -> None:
        self._wire = wire
        self._repairs = repairs
        self._chats = chats or wire
        self._intake = INTAKES.get(kind, TAKES_ALL)
        # Only what a translation writes as a chat has signatures in it.
        self._signs_chats = Endpoint.CHAT in PROVIDER_KINDS[kind].adapted

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request as its target takes it. Raises UpstreamFailed, also for what the
        target cannot know (422).
        """
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
        """Begins a call; None for a conversation that carries a piece, or a target of which
        something was learned. Where its answer is a refusal, `settled` asks once more.
        """
        path, body = request.path, request.body
        if self._repairs.any and self._repairs.knows(request):
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
        """Returns the reply to a begun request, or that of one more try without the piece or
        field that it refuses.
        """
        return await self._settled(request, reply, MovedBody(request.body))

    def _way(self, request: UpstreamRequest) -> Transport:
        return self._chats if request.path == CHAT_PATH else self._wire

    def _move(self, request: UpstreamRequest) -> MovedBody:
        """Raises Untranslatable."""
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
        """What an answer is written anew by; None for one that stays."""
        signs = may_sign(request.path, request.body)
        if request.path == CHAT_PATH:
            signs = self._signs_chats
        found: list[Rewrite] = []
        if moved.tool_names:
            found.append(partial(with_client_names, names=moved.tool_names))
        if request.maker and signs:
            found.append(answer_marker(request.path, request.maker))
        return partial(_rewritten, found) if found else None


def _rewritten(rewrites: Sequence[Rewrite], data: bytes) -> bytes:
    for rewrite in rewrites:
        data = rewrite(data)
    return data
