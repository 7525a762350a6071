"""Asks a model that takes tools beside reasoning only by Responses there, and not by chat.

The table of abilities names such models; others are learned from a refusal that names
`/v1/responses` as the way out. Where the provider has no such endpoint, the chat is sent with
the effort `none`. Both changes are named in `x-swapgate-degraded`. `transports` calls this
module for each chat with tools; `endpoint_translation` translates the chat.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from harness.frame.failures import CLIENT_FAILURES, FailureClass
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import Capabilities, Endpoint
from router.conversation.chat_fields import fit_chat
from router.conversation.chat_history import move_chat, with_client_names
from router.conversation.intake import INTAKES, TAKES_ALL, HistoryIntake
from router.frame.body import RESPONSES_PATH, to_json
from router.frame.failure import Untranslatable, error_object
from router.protocols.provider_failures import classify_status, refusal_row
from router.protocols.provider_refusals import GOOD_STATUSES
from router.upstream.endpoint_translation import translate_chat
from router.upstream.learned_ways import ModelPlace, ToolWays
from router.upstream.reply_reading import (
    BridgedReply,
    MovedReply,
    ReadReply,
    read_error_body,
)
from router.upstream.transport import ToolWay, UpstreamReply, UpstreamRequest

EFFORT: Final = "reasoning_effort"
NO_EFFORT: Final = "none"
_THINKING: Final = "thinking_blocks"
# The provider does not serve Responses, or not this model, or not to this key.
_NOT_THERE: Final = frozenset({FailureClass.ENDPOINT_MISSING, FailureClass.MODEL_UNKNOWN})
_NO_SCOPE: Final = b"api.responses."
Json = dict[str, Any]


class ToolsRefused(ReadReply):
    """A refusal of tools beside reasoning that names Responses as the way out."""


def refuses_tools(status: int, body: bytes) -> bool:
    """Returns whether a refusal says that only Responses takes the request. body: its JSON."""
    error = error_object(body)
    row = refusal_row(error, status) if error is not None else None
    return row is not None and row.instead is Endpoint.RESPONSES


class ToolTransport:
    """Sends the chats with tools of one kind. send: sends a request whose way is chosen."""

    def __init__(
        self,
        kind: str,
        ways: ToolWays,
        send: Callable[[UpstreamRequest], Awaitable[UpstreamReply]],
    ) -> None:
        self._ways = ways
        self._send = send
        self._speaks = Endpoint.RESPONSES in PROVIDER_KINDS[kind].speaks
        self._intake = _with_thinking(INTAKES.get(kind, TAKES_ALL))

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a chat with tools in the way that the model takes. Raises UpstreamFailed."""
        can = request.can or request.abilities()
        model = request.maker or str(json.loads(request.body).get("model"))
        place = (request.provider.name, model)
        refuses = can.tools_with_reasoning is False or self._ways.refuses_chat(place)
        if not (refuses and _is_refused(json.loads(request.body), can)):
            reply = await self._send(replace(request, tool_way=ToolWay.AS_SENT))
            if not isinstance(reply, ToolsRefused):
                return reply
            await reply.aclose()
            self._ways.note_refusal(place)
        # A target that declares no Responses has them translated into chats.
        declared = not (self._speaks and RESPONSES_PATH in (request.bridged or ()))
        if declared and self._ways.has_responses(place):
            found = await self._at_responses(request, place)
            if found is not None:
                return found
        return await self._without_effort(request)

    async def _at_responses(
        self, request: UpstreamRequest, place: ModelPlace
    ) -> UpstreamReply | None:
        """Asks by Responses; None if the request or the provider does not fit."""
        fitting, dropped = fit_chat(request.body, request.can or request.abilities())
        moved = move_chat(fitting, self._intake, request.maker)
        try:
            asked = translate_chat(
                moved.body, signs=bool(request.maker), thinking=request.thinking
            )
        except Untranslatable:
            return None
        reply = await self._send(
            replace(request, body=asked.body, path=RESPONSES_PATH, bridged=frozenset())
        )
        if reply.status in GOOD_STATUSES:
            names = moved.tool_names
            rewrite = partial(with_client_names, names=names) if names else None
            dropped = (*dropped, *moved.dropped)
            if rewrite is not None or dropped:
                reply = MovedReply(reply, dropped, (), rewrite)
            return BridgedReply(reply, asked, stream=request.stream)
        body = await read_error_body(reply)
        failure = classify_status(reply.status, body)
        # A refusal for the request may repeat a client's text, so it teaches nothing.
        lacks_scope = failure not in CLIENT_FAILURES and _NO_SCOPE in body
        if not (failure in _NOT_THERE or lacks_scope):
            return ReadReply(reply.status, reply.headers, body, local=reply.local, source=reply)
        await reply.aclose()
        model = json.loads(request.body).get("model")
        self._ways.note_absence(place, f"{request.provider.name}/{model}")
        return None

    async def _without_effort(self, request: UpstreamRequest) -> UpstreamReply:
        body = to_json({**json.loads(request.body), EFFORT: NO_EFFORT}).encode()
        reply = await self._send(replace(request, body=body, tool_way=ToolWay.LAST))
        return MovedReply(reply, (EFFORT,), (), None)


def _is_refused(chat: Json, can: Capabilities) -> bool:
    """Returns whether a model that refuses tools beside reasoning refuses this chat."""
    effort = chat.get(EFFORT)
    reasons = bool(effort) or can.reasons_by_default is not False
    return bool(chat.get("tools")) and reasons and effort != NO_EFFORT


def _with_thinking(intake: HistoryIntake) -> HistoryIntake:
    """Returns an intake that also takes thinking back: Responses takes its own."""
    return replace(intake, refused=tuple(name for name in intake.refused if name != _THINKING))
