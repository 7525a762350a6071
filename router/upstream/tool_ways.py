"""Sends chats with tools to Responses if the model accepts tools beside reasoning only there.

The table of abilities names such models. The router learns other models from a refusal that
names `/v1/responses`. If the provider has no such endpoint, the router sends the chat with the
effort `none`. `x-swapproof-degraded` names both changes. `transports` calls this module for
each chat with tools; `endpoint_translation` translates the chat.
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
_THINKING_BLOCKS: Final = "thinking_blocks"
# The provider does not serve Responses, or not this model, or not to this key.
_ABSENCE_CLASSES: Final = frozenset({FailureClass.ENDPOINT_MISSING, FailureClass.MODEL_UNKNOWN})
_SCOPE_PREFIX: Final = b"api.responses."
Json = dict[str, Any]


class ToolsRefused(ReadReply):
    """A refusal of tools beside reasoning. It says that Responses accepts them."""


def refuses_tools(status: int, body: bytes) -> bool:
    """Returns whether a refusal says that only Responses accepts the request.

    Args:
        body: the refusal's JSON.
    """
    error = error_object(body)
    row = refusal_row(error, status) if error is not None else None
    return row is not None and row.instead is Endpoint.RESPONSES


class ToolTransport:
    """Sends the chats with tools to one kind of target.

    send: sends a request with a `tool_way`.
    """

    def __init__(
        self,
        kind: str,
        ways: ToolWays,
        send: Callable[[UpstreamRequest], Awaitable[UpstreamReply]],
    ) -> None:
        self._ways = ways
        self._send = send
        self._kind_has_responses = Endpoint.RESPONSES in PROVIDER_KINDS[kind].speaks
        self._intake = _accept_thinking(INTAKES.get(kind, TAKES_ALL))

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a chat with tools to the endpoint that accepts it. Raises UpstreamFailed."""
        can = request.can or request.abilities()
        model = request.maker or str(json.loads(request.body).get("model"))
        place = (request.provider.name, model)
        refuses_chat = can.tools_with_reasoning is False or self._ways.refuses_chat(place)
        if not (refuses_chat and _is_refused_chat(json.loads(request.body), can)):
            reply = await self._send(replace(request, tool_way=ToolWay.AS_SENT))
            if not isinstance(reply, ToolsRefused):
                return reply
            await reply.aclose()
            self._ways.note_refusal(place)
        # For a target that declares no Responses, the router translates them into chats.
        declares_responses = not (
            self._kind_has_responses and RESPONSES_PATH in (request.bridged or ())
        )
        if declares_responses and self._ways.has_responses(place):
            reply_by_responses = await self._send_by_responses(request, place)
            if reply_by_responses is not None:
                return reply_by_responses
        return await self._send_without_effort(request)

    async def _send_by_responses(
        self, request: UpstreamRequest, place: ModelPlace
    ) -> UpstreamReply | None:
        """Asks by Responses; None if the request or the provider does not fit."""
        fitted_body, dropped = fit_chat(request.body, request.can or request.abilities())
        moved_chat = move_chat(fitted_body, self._intake, request.maker)
        try:
            translated = translate_chat(
                moved_chat.body, signs=bool(request.maker), thinking=request.thinking
            )
        except Untranslatable:
            return None
        reply = await self._send(
            replace(request, body=translated.body, path=RESPONSES_PATH, bridged=frozenset())
        )
        if reply.status in GOOD_STATUSES:
            names = moved_chat.tool_names
            rewrite = partial(with_client_names, names=names) if names else None
            dropped = (*dropped, *moved_chat.dropped)
            if rewrite is not None or dropped:
                reply = MovedReply(reply, dropped, (), rewrite)
            return BridgedReply(reply, translated, stream=request.stream)
        body = await read_error_body(reply)
        failure = classify_status(reply.status, body)
        # A refusal that blames the request may repeat a client's text, so it proves nothing.
        lacks_scope = failure not in CLIENT_FAILURES and _SCOPE_PREFIX in body
        if not (failure in _ABSENCE_CLASSES or lacks_scope):
            return ReadReply(reply.status, reply.headers, body, local=reply.local, source=reply)
        await reply.aclose()
        model = json.loads(request.body).get("model")
        self._ways.note_absence(place, f"{request.provider.name}/{model}")
        return None

    async def _send_without_effort(self, request: UpstreamRequest) -> UpstreamReply:
        body = to_json({**json.loads(request.body), EFFORT: NO_EFFORT}).encode()
        reply = await self._send(replace(request, body=body, tool_way=ToolWay.LAST))
        return MovedReply(reply, (EFFORT,), (), None)


def _is_refused_chat(chat: Json, can: Capabilities) -> bool:
    """Returns whether a model that refuses tools beside reasoning refuses this chat."""
    effort = chat.get(EFFORT)
    reasons = bool(effort) or can.reasons_by_default is not False
    return bool(chat.get("tools")) and reasons and effort != NO_EFFORT


def _accept_thinking(history_intake: HistoryIntake) -> HistoryIntake:
    """Returns an intake that keeps thinking, because Responses accepts its own reasoning."""
    return replace(
        history_intake,
        refused=tuple(name for name in history_intake.refused if name != _THINKING_BLOCKS),
    )
