"""The dialects and paths that the router serves, and refusals of bodies at the wrong path.

`DIALECTS` is the one table from an endpoint to its protocol. Embeddings have their dialect
here. A new endpoint is a dialect in this table, and a path in `router.server.paths` comes
from it.
"""

import base64
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from harness.frame.failures import FailureClass, Reach
from harness.providers.models.capabilities import Endpoint
from harness.providers.target import RequestTarget
from router.frame.body import (
    ClientRequest,
    first_object,
    iter_objects,
    model_edit,
)
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject, apply_edits
from router.frame.replies import Reply, error_body, error_reply
from router.protocols.answers import TokenUsage, read_usage
from router.protocols.chat.dialect import CHAT, ChatDialect
from router.protocols.event_stream import Irregularity
from router.protocols.messages.dialect import MESSAGES
from router.protocols.responses.dialect import RESPONSES

_NUMBERS: Final = frozenset({int, float})


class EmbeddingsDialect(ChatDialect):
    """The protocol of embeddings, which has no streams and no conversations."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.EMBEDDINGS
        self.path = "/embeddings"

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:  # noqa: ARG002 - no conversation
        return []

    def patched(
        self,
        request: ClientRequest,
        target: RequestTarget,
        *,
        serialize_tools: bool = False,  # noqa: ARG002 - no tools
    ) -> bytes:
        """Replaces the model only: a target's parameters and patch do not apply to
        embeddings.
        """
        return apply_edits(request.text, [model_edit(request, target)])

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:  # noqa: ARG002 - a Dialect
        """Returns the usage. Raises UpstreamFailed without a list of vectors; `check_vectors`
        checks each one, and an empty list.
        """
        if members.get("data") != []:
            first_object(members, "data")
        return read_usage(members.get("usage"), members.get("service_tier"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:  # noqa: ARG002 - a Dialect
        return None

    def check_vectors(self, request: ClientRequest, members: ParsedObject) -> None:
        """Checks vectors, because an index may accept wrong vectors. Raises UpstreamFailed.

        There must be one finite vector for each input, all of one dimension and encoding,
        and of the dimension that the request asks for. No vector for an input of token
        numbers, or for an empty input, is the fault of that form of input.
        """
        data = members.get("data")
        vectors = data if isinstance(data, list) else []
        if not vectors:
            raise _no_vectors(request.value("input"))
        inputs = _inputs(request.value("input"))
        if inputs is not None and len(vectors) != inputs:
            raise _malformed(f"{len(vectors)} vectors for {inputs} inputs")
        places = set[int]()
        dimensions = set[int]()
        kinds = set[type]()
        for at, vector in enumerate(vectors):
            if not isinstance(vector, dict):
                raise _malformed(f"vector {at} is not an object")
            # Some servers omit the index; then the order in the list counts.
            place = vector.get("index", at)
            if type(place) is not int:
                raise _malformed(f"the index of vector {at} is not an integer")
            places.add(place)
            dimensions.add(_dimension(vector.get("embedding"), at))
            kinds.add(type(vector.get("embedding")))
        if places != set(range(len(vectors))):
            raise _malformed("the vectors' indices do not match the inputs one to one")
        if len(dimensions) != 1 or len(kinds) != 1:
            raise _malformed("the vectors differ in dimension or encoding")
        required = request.value("dimensions")
        found = dimensions.pop()
        if type(required) is int and required != found:
            raise _malformed(f"vectors of {found} dimensions; the request asked for {required}")


def _no_vectors(value: object) -> UpstreamFailed:
    """Builds the failure of an answer without vectors for an input.

    Servers that know texts only answer token numbers so, which LangChain sends by default.
    """
    what = _unusual_form(value)
    if not what:
        failed = _malformed("an empty list of vectors")
        failed.reach = Reach.REQUEST
        return failed
    message = (
        f"the target returned no vector for {what}: send a text that is not empty (LangChain: "
        "check_embedding_ctx_length=False)"
    )
    body = error_body(message, "invalid_request_error", "no_vectors", param="input")
    failed = UpstreamFailed(FailureClass.BAD_REQUEST, message, status=422, body=body)
    failed.unable = True
    return failed


def _unusual_form(value: object) -> str:
    """Names a form of input that is not a text; empty for texts."""
    inputs = value if isinstance(value, list) else [value]
    if any(isinstance(item, int | list) for item in inputs):
        return "an input of token numbers"
    return "" if any(isinstance(item, str) and item for item in inputs) else "an empty input"


def _inputs(value: object) -> int | None:
    """Returns the number of inputs; None if the body does not show it."""
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        return None
    # A list of token numbers is one text.
    return 1 if type(value[0]) is int else len(value)


def _dimension(vector: object, at: int) -> int:
    """Returns a vector's dimension. Raises UpstreamFailed if a value is not a finite
    number.

    vector: a list, or float32 numbers in base64. at: its index, for the error.
    """
    values: Sequence[float]
    if isinstance(vector, str):
        values = _unpacked(vector, at)
    elif isinstance(vector, list):
        values = vector
    else:
        raise _malformed(f"vector {at} is neither a list nor base64")
    if not values:
        raise _malformed(f"vector {at} is empty")
    # These calls run at native speed. They refuse true, which is an int in Python.
    finite = _NUMBERS.issuperset(map(type, values))
    try:
        # A sum of finite numbers may overflow.
        finite = finite and (math.isfinite(sum(values)) or all(map(math.isfinite, values)))
    except OverflowError:
        finite = False
    if not finite:
        raise _malformed(f"vector {at} contains a value that is not a finite number")
    return len(values)


def _unpacked(text: str, at: int) -> Sequence[float]:
    try:
        found = array("f", base64.b64decode(text, validate=True))
    except ValueError:
        raise _malformed(f"vector {at} is not base64 of float32 numbers") from None
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _malformed(why: str) -> UpstreamFailed:
    return UpstreamFailed(FailureClass.MALFORMED, why)


EMBEDDINGS: Final = EmbeddingsDialect()


DIALECTS: Final[Mapping[Endpoint, ChatDialect]] = {
    dialect.endpoint: dialect for dialect in (CHAT, EMBEDDINGS, RESPONSES, MESSAGES)
}
# The router's paths; a provider's paths begin with its api_base.
ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    f"/v1{dialect.path}": endpoint for endpoint, dialect in DIALECTS.items()
}


COMPLETIONS: Final = "/v1/completions"  # the router translates its requests into chats
# The field with the content that the model answers.
CONTENT: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "messages",
    Endpoint.EMBEDDINGS: "input",
    Endpoint.MESSAGES: "messages",
    Endpoint.RESPONSES: "input",
}
# The path that a content field belongs to.
_PATHS_BY_CONTENT: Final[Mapping[str, str]] = {
    "messages": f"/v1{DIALECTS[Endpoint.CHAT].path}",
    "input": f"/v1{DIALECTS[Endpoint.RESPONSES].path}",
    "prompt": COMPLETIONS,
    "contents": "Google's own API",
}
# Fields that refer to content at the provider, for a body without content.
_KEPT_CONTENT: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    Endpoint.RESPONSES: ("previous_response_id", "conversation", "prompt")
}
_TOOLS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "a `function` with its `parameters`",
    Endpoint.MESSAGES: "a `name` with its `input_schema`",
    Endpoint.RESPONSES: "a `type`, a `name` and `parameters`",
}
THREAD_UNSUPPORTED: Final = "thread_unsupported_request"


def misfit_reply(request: ClientRequest) -> Reply | None:
    """Refuses a body that belongs to another path, or has no content; None for any other
    body.

    The reply names the path that the body is for.
    """
    endpoint = request.endpoint
    get = request.members.get
    if endpoint is Endpoint.MESSAGES and get("thread"):
        return _no_thread()
    required = CONTENT[endpoint]
    if required not in request.members:
        for other, path in _PATHS_BY_CONTENT.items():
            given = get(other)
            if given and not (other == "prompt" and isinstance(given, Mapping)):
                message = f"a body with `{other}` and no `{required}` is one for {path}"
                return error_reply(400, message, "wrong_endpoint", param=other)
        if not any(map(get, _KEPT_CONTENT.get(endpoint, ()))):
            message = f"a body for /v1{DIALECTS[endpoint].path} needs `{required}`"
            return error_reply(400, message, "missing_required_parameter", param=required)
    for number, tool in enumerate(iter_objects(get("tools"))):
        meant = _meant_for(tool)
        if meant is not None and meant is not endpoint:
            path = f"/v1{DIALECTS[meant].path}"
            message = f"`tools[{number}]` is one for {path}: here a tool has {_TOOLS[endpoint]}"
            return error_reply(400, message, "wrong_endpoint", param=f"tools[{number}]")
    return None


def _meant_for(tool: Mapping[str, object]) -> Endpoint | None:
    """Returns the endpoint whose form a tool has; None if the form does not tell."""
    if isinstance(tool.get("function"), Mapping):
        return Endpoint.CHAT
    if isinstance(tool.get("input_schema"), Mapping):
        return Endpoint.MESSAGES
    is_flat = tool.get("type") == "function" and isinstance(tool.get("name"), str)
    return Endpoint.RESPONSES if is_flat else None


def _no_thread() -> Reply:
    """On this error, Anthropic's SDKs send the whole conversation without a thread."""
    message = (
        "`thread`: the router keeps no conversations, because a route's target may change; "
        "send the whole conversation without `thread`"
    )
    details = {"error_code": THREAD_UNSUPPORTED, "unsupported": ["router"]}
    return error_reply(
        400,
        message,
        THREAD_UNSUPPORTED,
        param="thread",
        details=details,
    )
