"""Makes a chat of a Messages or Responses request, and names what cannot be translated."""

import json
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from harness.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.providers.models.capabilities import Endpoint
from router.conversation.intake import INTAKES, TAKES_ALL
from router.frame.body import to_json
from router.frame.json_spans import ParsedObject
from router.protocols.chat.answer_reader import ChatStreamReader, read_chat_answer
from router.protocols.chat_way import ChatWay, name_hosted
from router.protocols.messages import message_request
from router.protocols.messages.answer_writer import MessageEventWriter, write_message
from router.protocols.responses import response_request
from router.protocols.responses.answer_writer import ResponseEventWriter, ResponseShape
from router.protocols.responses.response_request import ResponseTools
from router.upstream.translate import request_screening


class TranslatedRequest(NamedTuple):
    body: bytes  # the chat's
    # whole, events: make a chat's answer the endpoint's own; they raise UpstreamFailed for what
    # is no answer.
    whole: Callable[[ParsedObject], bytes]
    events: Callable[[], ChatStreamReader]
    dropped: tuple[str, ...]  # names of what was left out, or said otherwise


Translation = Callable[[bytes, str, str], TranslatedRequest]
FieldCheck = Callable[[Callable[[str], object]], str]


def translate_message(body: bytes, kind: str, maker: str = "") -> TranslatedRequest:
    """Translates a message. maker: who answers. Raises Untranslatable."""
    asked = json.loads(body)
    thinking = message_request.wants_thinking(asked)
    way = _chat_way(kind, maker)
    return TranslatedRequest(
        to_json(message_request.chat_body(asked, way)).encode(),
        lambda members: write_message(read_chat_answer(members, thinking=thinking), way.maker),
        lambda: ChatStreamReader(MessageEventWriter(way.maker), thinking=thinking),
        tuple(way.dropped),
    )


def translate_response(body: bytes, kind: str, maker: str = "") -> TranslatedRequest:
    """Translates a response. maker: who answers. Raises Untranslatable."""
    asked = json.loads(body)
    thinking = response_request.wants_thinking(asked)
    way = _chat_way(kind, maker)
    tools = ResponseTools(asked, way)
    shape = ResponseShape(asked, tools, way.maker)
    return TranslatedRequest(
        to_json(response_request.chat_body(asked, tools, way)).encode(),
        lambda members: shape.whole(read_chat_answer(members, thinking=thinking)),
        lambda: ChatStreamReader(ResponseEventWriter(shape), thinking=thinking),
        tuple(way.dropped),
    )


def _chat_way(kind: str, maker: str) -> ChatWay:
    limit = PROVIDER_KINDS[kind].answer_limit or AnswerLimit.MAX_TOKENS
    returns = INTAKES.get(kind, TAKES_ALL).returns_reasoning
    return ChatWay(limit, maker if returns else "")


# Asked before a target is chosen: what no translation of the endpoint can say, if anything. Of
# an endpoint that is not here, everything can be said.
UNTRANSLATABLE_FIELDS: Final[Mapping[Endpoint, FieldCheck]] = {
    Endpoint.CHAT: request_screening.untranslatable_field,
    Endpoint.MESSAGES: message_request.untranslatable_field,
    Endpoint.RESPONSES: response_request.untranslatable_field,
}
# Through a chat, by the endpoint that is asked.
TRANSLATIONS: Final[Mapping[Endpoint, Translation]] = {
    Endpoint.MESSAGES: translate_message,
    Endpoint.RESPONSES: translate_response,
}
# A request with none of these fields has no native need but a reference to an item.
NATIVE_HINTS: Final = frozenset(
    {
        "tools",
        *request_screening.NATIVE_FIELDS,
        *message_request.NATIVE_FIELDS,
        *response_request.NATIVE_FIELDS,
    }
)


def native_need(endpoint: Endpoint, value: Callable[[str], object]) -> str:
    """Names by a closed list what no translation can say; empty for nothing."""
    check = UNTRANSLATABLE_FIELDS.get(endpoint)
    held = check(value) if check is not None else ""
    if not held:
        return ""
    is_tool = held.startswith("a tool ")
    return f"{endpoint.value}:{name_hosted(held) if is_tool else held.strip('`')}"
