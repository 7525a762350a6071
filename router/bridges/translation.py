"""A request in another protocol, and the way its answer comes back."""

import json
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from harness.domain.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.domain.routing.capabilities import Endpoint
from router.bridges import messages_request, responses_request
from router.bridges.chat_answer import answered
from router.bridges.chat_stream import ChatEvents
from router.bridges.messages_answer import MessageEvents, message
from router.bridges.responses_answer import ResponseEvents, Shape
from router.jsonspan import Members
from router.patching import to_json
from router.transport.asked import held as held_by_chat


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
    thinking = messages_request.wants_thinking(asked)
    return Translated(
        to_json(messages_request.chat_body(asked, _limit_field(kind))).encode(),
        lambda members: message(answered(members, thinking=thinking)),
        lambda: ChatEvents(MessageEvents(), thinking=thinking),
    )


def response_as_chat(body: bytes, kind: str) -> Translated:
    """body: of `/responses`. kind: the provider's. Raises Untranslatable."""
    asked = json.loads(body)
    thinking = responses_request.wants_thinking(asked)
    shape = Shape(asked)
    return Translated(
        to_json(responses_request.chat_body(asked, _limit_field(kind))).encode(),
        lambda members: shape.whole(answered(members, thinking=thinking)),
        lambda: ChatEvents(ResponseEvents(shape), thinking=thinking),
    )


def _limit_field(kind: str) -> str:
    return PROVIDER_KINDS[kind].answer_limit or AnswerLimit.MAX_TOKENS


# Asked before a target is chosen: what no translation of the endpoint can say, if anything. Of
# an endpoint that is not here, everything can be said.
HELD: Final[Mapping[Endpoint, Held]] = {
    Endpoint.CHAT: held_by_chat,
    Endpoint.MESSAGES: messages_request.held,
    Endpoint.RESPONSES: responses_request.held,
}
# Through a chat, by the endpoint that is asked.
TRANSLATIONS: Final[Mapping[Endpoint, Translation]] = {
    Endpoint.MESSAGES: message_as_chat,
    Endpoint.RESPONSES: response_as_chat,
}
