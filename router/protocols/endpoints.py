"""The dialects and paths that the router serves, and refusals of bodies at the wrong path.

`DIALECTS` is the one table from an endpoint to its protocol. Embeddings have their dialect
here. A new endpoint is a dialect in this table, and a path in `router.server.paths` comes
from it.
"""

import math
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
from router.protocols.vector_encoding import unpack

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

    def check_vectors(self, request: ClientRequest, members: ParsedObject) -> bool:
        """Checks vectors, because an index may accept wrong vectors. Raises UpstreamFailed.

        Returns whether the vectors are base64, and not numbers.

        There must be one finite vector for each input. All vectors must have one encoding,
        and the dimension that the request asks for. If the input consists of token numbers
        or is empty, the failure blames this form of input.
        """
        data = members.get("data")
        vectors = data if isinstance(data, list) else []
        if not vectors:
            raise _no_vectors_failure(request.value("input"))
        inputs = _count_inputs(request.value("input"))
        if inputs is not None and len(vectors) != inputs:
            raise _malformed_failure(f"{len(vectors)} vectors for {inputs} inputs")
        indices = set[int]()
        dimensions = set[int]()
        kinds = set[type]()
        for position, vector in enumerate(vectors):
            if not isinstance(vector, dict):
                raise _malformed_failure(f"vector {position} is not an object")
            # Some servers omit the index; then the order in the list counts.
            index = vector.get("index", position)
            if type(index) is not int:
                raise _malformed_failure(f"the index of vector {position} is not an integer")
            indices.add(index)
            dimensions.add(_check_vector(vector.get("embedding"), position))
            kinds.add(type(vector.get("embedding")))
        if indices != set(range(len(vectors))):
            raise _malformed_failure("the vectors' indices do not match the inputs one to one")
        if len(dimensions) != 1 or len(kinds) != 1:
            raise _malformed_failure("the vectors differ in dimension or encoding")
        required = request.value("dimensions")
        dimension = dimensions.pop()
        if type(required) is int and required != dimension:
            raise _malformed_failure(
                f"vectors of {dimension} dimensions; the request asked for {required}"
            )
        return str in kinds


def _no_vectors_failure(value: object) -> UpstreamFailed:
    """Builds the failure of an answer without vectors for an input.

    Servers that know only texts return no vectors for token numbers. LangChain sends token
    numbers by default.
    """
    form = _name_unusual_form(value)
    if not form:
        failed = _malformed_failure("an empty list of vectors")
        failed.reach = Reach.REQUEST
        return failed
    message = (
        f"the target returned no vector for {form}: send a text that is not empty (LangChain: "
        "check_embedding_ctx_length=False)"
    )
    body = error_body(message, "invalid_request_error", "no_vectors", param="input")
    failed = UpstreamFailed(FailureClass.BAD_REQUEST, message, status=422, body=body)
    failed.unable = True
    return failed


def _name_unusual_form(value: object) -> str:
    """Names a form of input that is not a text; empty for texts."""
    inputs = value if isinstance(value, list) else [value]
    if any(isinstance(item, int | list) for item in inputs):
        return "an input of token numbers"
    return "" if any(isinstance(item, str) and item for item in inputs) else "an empty input"


def _count_inputs(value: object) -> int | None:
    """Returns the number of inputs; None if the body does not show it."""
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        return None
    # A list of token numbers is one text.
    return 1 if type(value[0]) is int else len(value)


def _check_vector(vector: object, position: int) -> int:
    """Returns a vector's dimension. Raises UpstreamFailed for a value that is not finite.

    Args:
        vector: a list, or float32 numbers in base64.
        position: its index, for the error.
    """
    values: Sequence[float]
    if isinstance(vector, str):
        values = _unpack_base64(vector, position)
    elif isinstance(vector, list):
        values = vector
    else:
        raise _malformed_failure(f"vector {position} is neither a list nor base64")
    if not values:
        raise _malformed_failure(f"vector {position} is empty")
    # These calls run at native speed. They refuse true, which is an int in Python.
    finite = _NUMBERS.issuperset(map(type, values))
    try:
        # A sum of finite numbers may overflow.
        finite = finite and (math.isfinite(sum(values)) or all(map(math.isfinite, values)))
    except OverflowError:
        finite = False
    if not finite:
        raise _malformed_failure(
            f"vector {position} contains a value that is not a finite number"
        )
    return len(values)


def _unpack_base64(text: str, position: int) -> Sequence[float]:
    try:
        return unpack(text)
    except ValueError:
        raise _malformed_failure(
            f"vector {position} is not base64 of float32 numbers"
        ) from None


def _malformed_failure(why: str) -> UpstreamFailed:
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
_STORED_CONTENT_FIELDS: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    Endpoint.RESPONSES: ("previous_response_id", "conversation")
}
_TOOL_FORMS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "a `function` with its `parameters`",
    Endpoint.MESSAGES: "a `name` with its `input_schema`",
    Endpoint.RESPONSES: "a `type`, a `name` and `parameters`",
}
THREAD_UNSUPPORTED: Final = "thread_unsupported_request"
STORED_PROMPT: Final = "stored_prompt_not_supported"


def misfit_reply(request: ClientRequest) -> Reply | None:
    """Refuses a body that belongs to another path or has no content.

    Returns None for all other bodies. The reply names the path that the body belongs to.
    """
    endpoint = request.endpoint
    get = request.members.get
    if endpoint is Endpoint.MESSAGES and get("thread"):
        return _refuse_thread()
    if endpoint is Endpoint.RESPONSES and isinstance(prompt := get("prompt"), Mapping):
        return _refuse_stored_prompt(prompt)
    required = CONTENT[endpoint]
    if required not in request.members:
        for other, path in _PATHS_BY_CONTENT.items():
            content = get(other)
            if content and not (other == "prompt" and isinstance(content, Mapping)):
                message = f"a body with `{other}` and no `{required}` belongs to {path}"
                return error_reply(400, message, "wrong_endpoint", param=other)
        if not any(map(get, _STORED_CONTENT_FIELDS.get(endpoint, ()))):
            message = f"a body for /v1{DIALECTS[endpoint].path} needs `{required}`"
            return error_reply(400, message, "missing_required_parameter", param=required)
    for number, tool in enumerate(iter_objects(get("tools"))):
        tool_endpoint = _find_endpoint(tool)
        if tool_endpoint is not None and tool_endpoint is not endpoint:
            path = f"/v1{DIALECTS[tool_endpoint].path}"
            form = _TOOL_FORMS[endpoint]
            message = f"`tools[{number}]` belongs to {path}: a tool of this path has {form}"
            return error_reply(400, message, "wrong_endpoint", param=f"tools[{number}]")
    return None


def _find_endpoint(tool: Mapping[str, object]) -> Endpoint | None:
    """Returns the endpoint whose form a tool has; None if the form does not tell."""
    if isinstance(tool.get("function"), Mapping):
        return Endpoint.CHAT
    if isinstance(tool.get("input_schema"), Mapping):
        return Endpoint.MESSAGES
    is_flat = tool.get("type") == "function" and isinstance(tool.get("name"), str)
    return Endpoint.RESPONSES if is_flat else None


def _refuse_stored_prompt(prompt: Mapping[str, object]) -> Reply:
    """Refuses a reference to a prompt that OpenAI stored, `{id, version, variables}`."""
    name = f" {prompt['id']!r}" if isinstance(prompt.get("id"), str) else ""
    message = (
        f"`prompt`: the router cannot read the stored prompt{name}, because /v1/prompts ended "
        "on 30 November 2026. Put the prompt's text into `instructions` or "
        "`input`, with its variables filled in, and send the request without `prompt`"
    )
    return error_reply(422, message, STORED_PROMPT, param="prompt")


def _refuse_thread() -> Reply:
    """Refuses a thread. Anthropic's SDKs then send the whole conversation without it."""
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
