"""A request in another protocol, and the way its answer comes back."""

import json
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from harness.domain.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.domain.routing.capabilities import Endpoint
from router.protocols.chat.answer_reader import answered
from router.protocols.chat.stream_reader import ChatEvents
from router.protocols.messages import message_request
from router.protocols.messages.answer_writer import MessageEvents, message
from router.protocols.responses import response_request
from router.protocols.responses.answer_writer import ResponseEvents, Shape
from router.request.body_patch import to_json
from router.request.json_spans import Members
from router.upstream.translate.request_screening import held as held_by_chat


class Translated(NamedTuple):
    """body: a chat's. whole, events: a chat's answer as the endpoint's own.

    They raise UpstreamFailed for what is no answer.
    """

    body: bytes
    whole: Callable[[Members], bytes]
    events: Callable[[], ChatEvents]


Translation = Callable[[bytes, str], Translated]
Held = Callable[[Callable[[str], object]], str]


def message_as_chat(body: bytes, kind: str) -> Translated:
    """body: of `/messages`. kind: the provider's. Raises Untranslatable."""
    asked = json.loads(body)
    thinking = message_request.wants_thinking(asked)
    return Translated(
        to_json(message_request.chat_body(asked, _limit_field(kind))).encode(),
        lambda members: message(answered(members, thinking=thinking)),
        lambda: ChatEvents(MessageEvents(), thinking=thinking),
    )


def response_as_chat(body: bytes, kind: str) -> Translated:
    """body: of `/responses`. kind: the provider's. Raises Untranslatable."""
    asked = json.loads(body)
    thinking = response_request.wants_thinking(asked)
    shape = Shape(asked)
    return Translated(
        to_json(response_request.chat_body(asked, _limit_field(kind))).encode(),
        lambda members: shape.whole(answered(members, thinking=thinking)),
        lambda: ChatEvents(ResponseEvents(shape), thinking=thinking),
    )


def _limit_field(kind: str) -> str:
    return PROVIDER_KINDS[kind].answer_limit or AnswerLimit.MAX_TOKENS


# Asked before a target is chosen: what no translation of the endpoint can say, if anything. Of
# an endpoint that is not here, everything can be said.
HELD: Final[Mapping[Endpoint, Held]] = {
    Endpoint.CHAT: held_by_chat,
    Endpoint.MESSAGES: message_request.held,
    Endpoint.RESPONSES: response_request.held,
}
# Through a chat, by the endpoint that is asked.
TRANSLATIONS: Final[Mapping[Endpoint, Translation]] = {
    Endpoint.MESSAGES: message_as_chat,
    Endpoint.RESPONSES: response_as_chat,
}
