"""Translates Messages and Responses requests into chats, and names untranslatable parts.

The translations are in `router.protocols.messages` and `.responses`; this module joins a
request's translation with that of its answer. `transports` uses it for a target without the
client's protocol. `translate` then translates the chat into a provider's own protocol. A chat
becomes a response if the model accepts the request only by Responses (`tool_ways`).
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from harness.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.providers.models.abilities import find_abilities
from harness.providers.models.capabilities import (
    Endpoint,
    StrictSchema,
    ThinkingForm,
)
from router.conversation.field_forms import fit_thinking
from router.conversation.hosted_tools import ChatTranslation, short_tool_name
from router.conversation.intake import INTAKES, TAKES_ALL
from router.conversation.prefill_forms import is_open_answer
from router.frame.body import to_json
from router.frame.json_spans import ParsedObject
from router.protocols.chat.answer_reader import (
    ChatStreamReader,
    read_chat_answer,
)
from router.protocols.chat.answer_writer import ChatChunkWriter, write_chat
from router.protocols.chat.dialect import CHAT, ChatDialect
from router.protocols.messages import message_request
from router.protocols.messages.answer_writer import (
    MessageEventWriter,
    write_message,
)
from router.protocols.responses import chat_request, response_request
from router.protocols.responses.answer_reader import (
    ResponseStreamReader,
    read_response_answer,
)
from router.protocols.responses.answer_writer import (
    ResponseEventWriter,
    ResponseShape,
)
from router.protocols.responses.dialect import RESPONSES
from router.protocols.responses.response_request import ResponseTools
from router.upstream.translate import request_screening


class TranslatedRequest(NamedTuple):
    """A request in another protocol, mostly a chat, and the translators of its answer."""

    body: bytes  # in the other protocol
    # whole, events: translate the answer for the endpoint. They raise UpstreamFailed.
    whole: Callable[[ParsedObject], bytes]
    events: Callable[[], ChatStreamReader | ResponseStreamReader]
    dropped: tuple[str, ...]  # names of omitted or rewritten parts
    thinking: bool = False  # the client wants to see the thinking
    dialect: ChatDialect = CHAT  # of the other protocol
    prefill: bool = False  # the answer continues the last turn


Translation = Callable[[bytes, str, str, StrictSchema], TranslatedRequest]
_BYTES_PER_TOKEN: Final = 4
# A picture or a document in base64, or a signature: a long string without spaces or escapes.
# The search begins only at a quote, so that its time is in proportion to the body's length.
_FILE_DATA: Final = re.compile(rb'"[!#-\[\]-~]{400,}')
# In `x-swapproof-degraded`: the router asked another endpoint of the provider.
AT_RESPONSES: Final = "endpoint.responses"
FieldCheck = Callable[[Callable[[str], object]], str]


def translate_message(
    body: bytes,
    kind: str,
    maker: str = "",
    strict: StrictSchema = StrictSchema.UNKNOWN,
) -> TranslatedRequest:
    """Translates a message. Raises Untranslatable.

    Args:
        body: JSON of the client's request.
        kind: the provider's.
        maker: the target's name as a maker.
        strict: the target's demands on strict schemas.
    """
    request = json.loads(body)
    thinking = message_request.wants_thinking(request)
    translation = _chat_translation(kind, maker, strict)
    turns = request.get("messages")
    can = find_abilities(kind, str(request.get("model")))
    # The translation of a chat into the vendor's protocol keeps Claude's own form of thinking.
    keeps_thinking_form = (
        bool(PROVIDER_KINDS[kind].translated) and can.thinking is not ThinkingForm.UNKNOWN
    )
    if keeps_thinking_form:
        translation.dropped |= dict.fromkeys(
            fit_thinking(request, can, request.get("max_tokens"))
        )
    chat = message_request.chat_body(request, translation)
    if keeps_thinking_form:
        chat |= message_request.own_thinking(request)
    return TranslatedRequest(
        to_json(chat).encode(),
        lambda members: write_message(
            read_chat_answer(members, thinking=thinking), translation.maker
        ),
        lambda: ChatStreamReader(
            MessageEventWriter(translation.maker, estimate_input(body)), thinking=thinking
        ),
        tuple(translation.dropped),
        thinking,
        prefill=bool(turns) and isinstance(turns, list) and is_open_answer(turns[-1]),
    )


def estimate_input(body: bytes) -> int:
    """Estimates a request's tokens: four bytes are one token. Files count nothing."""
    return max(1, len(_FILE_DATA.sub(b"", body)) // _BYTES_PER_TOKEN)


def translate_response(
    body: bytes,
    kind: str,
    maker: str = "",
    strict: StrictSchema = StrictSchema.UNKNOWN,
) -> TranslatedRequest:
    """Translates a response. Raises Untranslatable.

    Args:
        body: JSON of the client's request.
        kind: the provider's.
        maker: the target's name as a maker.
        strict: the target's demands on strict schemas.
    """
    request = json.loads(body)
    thinking = response_request.wants_thinking(request)
    translation = _chat_translation(kind, maker, strict)
    tools = ResponseTools(request, translation)
    shape = ResponseShape(request, tools, translation.maker)
    return TranslatedRequest(
        to_json(response_request.chat_body(request, tools, translation)).encode(),
        lambda members: shape.whole(read_chat_answer(members, thinking=thinking)),
        lambda: ChatStreamReader(ResponseEventWriter(shape), thinking=thinking),
        tuple(translation.dropped),
        thinking,
    )


def translate_chat(body: bytes, *, signs: bool, thinking: bool) -> TranslatedRequest:
    """Translates a chat into a response. Raises Untranslatable.

    Args:
        body: JSON of the chat.
        signs: the target must return encrypted reasoning, so that the client can send it back.
        thinking: the client wants to see the thinking.
    """
    chat = json.loads(body)
    dropped: dict[str, None] = {AT_RESPONSES: None}
    custom_names = chat_request.custom_tools(chat)
    response_request_body = chat_request.response_body(
        chat, dropped, signs=signs, thinking=thinking
    )
    return TranslatedRequest(
        to_json(response_request_body).encode(),
        lambda members: write_chat(read_response_answer(members), custom_names),
        lambda: ResponseStreamReader(ChatChunkWriter(custom_names)),
        tuple(dropped),
        dialect=RESPONSES,
    )


def _chat_translation(kind: str, maker: str, strict: StrictSchema) -> ChatTranslation:
    """Returns the options of a translation.

    The maker is empty for a kind that does not accept its own reasoning again.
    """
    limit_field = PROVIDER_KINDS[kind].answer_limit or AnswerLimit.MAX_TOKENS
    returns_reasoning = INTAKES.get(kind, TAKES_ALL).returns_reasoning
    rules = request_screening.RULES.get(kind)
    return ChatTranslation(
        limit_field,
        maker if returns_reasoning else "",
        strict,
        rules.urls if rules else (),
    )


# By endpoint, the check for parts that no translation supports, before the router chooses a
# target. Requests to other endpoints need no check.
UNTRANSLATABLE_FIELDS: Final[Mapping[Endpoint, FieldCheck]] = {
    Endpoint.CHAT: request_screening.untranslatable_field,
    Endpoint.MESSAGES: message_request.untranslatable_field,
    Endpoint.RESPONSES: response_request.untranslatable_field,
}
# The translation into a chat, by endpoint.
TRANSLATIONS: Final[Mapping[Endpoint, Translation]] = {
    Endpoint.MESSAGES: translate_message,
    Endpoint.RESPONSES: translate_response,
}
# Without these fields, only a reference to an item can need a target without translation.
NATIVE_HINTS: Final = frozenset(
    {
        "tools",
        *request_screening.NATIVE_FIELDS,
        *message_request.NATIVE_FIELDS,
        *response_request.NATIVE_FIELDS,
    }
)


def native_need(endpoint: Endpoint, value: Callable[[str], object]) -> str:
    """Names a part that no translation supports; empty without one.

    The names form a closed list, because metrics use them.
    """
    check = UNTRANSLATABLE_FIELDS.get(endpoint)
    part = check(value) if check is not None else ""
    if not part:
        return ""
    is_tool = part.startswith("a tool ")
    return f"{endpoint.value}:{short_tool_name(part) if is_tool else part.strip('`')}"
