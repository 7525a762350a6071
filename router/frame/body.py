"""Reads a client's JSON body as far as routing needs; the rest stays as it came."""

from dataclasses import dataclass, replace
from typing import Final

from mypy_extensions import mypyc_attr

from harness.frame.errors import InputError
from harness.providers.kinds import PROVIDER_KINDS, AnswerLimit
from harness.providers.models.capabilities import Endpoint
from router.frame.json_spans import ParsedObject, parse_object

# Below a provider's `api_base`, which ends in `/v1`.
CHAT_PATH: Final = "/chat/completions"
MESSAGES_PATH: Final = "/messages"
RESPONSES_PATH: Final = "/responses"
# Up to Python 3.11, to find a member in its class takes ten times as long.
_CHAT: Final = Endpoint.CHAT
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS


@dataclass(slots=True)
class ClientRequest:
    text: str
    members: ParsedObject
    model: str
    stream: bool
    wants_usage: bool  # a chat's client asked for usage in its stream
    endpoint: Endpoint = _CHAT

    def value(self, name: str) -> object:
        return self.members.get(name)

    def for_kind(self, kind: str) -> "ClientRequest":
        """Names a chat's limit as the kind knows it; two names go on as they are."""
        limit = PROVIDER_KINDS[kind].answer_limit
        if limit is None or self.endpoint is not _CHAT or limit.value in self.members:
            return self
        for other in AnswerLimit:
            if other.value in self.members:
                members = self.members.renamed(other.value, limit.value)
                return replace(self, text=members.text, members=members)
        return self

    @property
    def serial_tools(self) -> bool:
        choice = self.value("tool_choice")
        return self.value("parallel_tool_calls") is False or (
            isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True
        )


@mypyc_attr(native_class=False)
class FieldError(InputError):
    """Raised for a field that is wrong. param: the field of the body that is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


def read_request(body: bytes, endpoint: Endpoint) -> ClientRequest:
    """Reads it. Raises InputError: no JSON, no model, a name twice, no boolean `stream`."""
    members = parse_object(body)
    get = members.get
    model = get("model")
    if not isinstance(model, str) or not model:
        raise FieldError("model", "`model` must name a route; GET /v1/models lists yours")
    if endpoint is _EMBEDDINGS:
        return ClientRequest(members.text, members, model, False, False, endpoint)  # noqa: FBT003
    streams, options = get("stream"), get("stream_options")
    if not isinstance(streams, bool | None):
        raise FieldError("stream", "`stream` must be true or false")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    return ClientRequest(members.text, members, model, bool(streams), asked, endpoint)
