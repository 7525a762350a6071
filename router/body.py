"""What routing needs of a client's request; the rest stays bytes."""

from typing import NamedTuple

from harness.domain.capabilities import Endpoint
from harness.domain.errors import InputError
from router.jsonspan import Members, decode, read_object


class ClientRequest(NamedTuple):
    """A request as it came. wants_usage: a chat's client asked for usage in its stream."""

    text: str
    members: Members
    model: str
    stream: bool
    wants_usage: bool
    endpoint: Endpoint = Endpoint.CHAT

    def value(self, name: str) -> object:
        member = self.members.values.get(name)
        return member.value if member else None

    @property
    def serial_tools(self) -> bool:
        """The client itself asks for one tool call at a time."""
        choice = self.value("tool_choice")
        return self.value("parallel_tool_calls") is False or (
            isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True
        )


class FieldError(InputError):
    """param: the field of the body that is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


def read_request(body: bytes, endpoint: Endpoint) -> ClientRequest:
    """Raises InputError: not UTF-8, not JSON, too deep, no model, a name twice."""
    if endpoint is Endpoint.EMBEDDINGS:
        text, members, model = _read(body)
        return ClientRequest(text, members, model, False, False, endpoint)  # noqa: FBT003
    request = read_chat(body)
    return request if endpoint is Endpoint.CHAT else request._replace(endpoint=endpoint)


def read_chat(body: bytes) -> ClientRequest:
    """As `read_request`, for chat; also where `stream` is no boolean."""
    text, members, model = _read(body)
    stream = members.values.get("stream")
    streams = stream.value if stream else None
    if not isinstance(streams, bool | None):
        raise FieldError("stream", "`stream` must be true or false")
    options = members.values.get("stream_options")
    asked = options is not None and (
        isinstance(options.value, dict) and options.value.get("include_usage") is True
    )
    return ClientRequest(text, members, model, bool(streams), asked)


def _read(body: bytes) -> tuple[str, Members, str]:
    text = decode(body)
    members = read_object(text)
    model = members.values.get("model")
    if model is None or not isinstance(model.value, str) or not model.value:
        raise FieldError("model", "`model` must name a route; GET /v1/models lists yours")
    return text, members, model.value
