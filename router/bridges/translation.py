"""A request in another protocol, and the way its answer comes back."""

import json
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from harness.domain.capabilities import Endpoint
from router.bridges.chat_answer import answered
from router.bridges.chat_stream import ChatEvents
from router.bridges.messages_answer import MessageEvents, message
from router.bridges.messages_request import chat_body, held, wants_thinking
from router.jsonspan import Members
from router.patching import to_json

# Their newer models refuse `max_tokens`, which is all that many others know.
_COMPLETION_TOKENS: Final = frozenset({"openai", "azure_openai"})


class Translated(NamedTuple):
    """body: a chat's. whole, events: a chat's answer as the endpoint's own.

    They raise UpstreamFailed for what is no answer.
    """

    body: bytes
    whole: Callable[[Members], bytes]
    events: Callable[[], ChatEvents]


Translation = Callable[[bytes, str], Translated]


def message_as_chat(body: bytes, kind: str) -> Translated:
    """body: of `/messages`. kind: the provider's. Raises Untranslatable."""
    asked = json.loads(body)
    thinking = wants_thinking(asked)
    limit = "max_completion_tokens" if kind in _COMPLETION_TOKENS else "max_tokens"

    def whole(members: Members) -> bytes:
        return message(answered(members, thinking=thinking))

    return Translated(
        to_json(chat_body(asked, limit)).encode(),
        whole,
        lambda: ChatEvents(MessageEvents(), thinking=thinking),
    )


Held = Callable[[Callable[[str], object]], str]
# Asked before a target is chosen: what no translation of the endpoint can say, if anything.
HELD: Final[Mapping[Endpoint, Held]] = {Endpoint.MESSAGES: held}
# Through a chat, by the endpoint that is asked.
TRANSLATIONS: Final[Mapping[Endpoint, Translation]] = {Endpoint.MESSAGES: message_as_chat}
