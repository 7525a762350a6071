"""The dialects and paths that the router serves, and refusals of bodies at the wrong one."""

from collections.abc import Mapping
from typing import Final

from harness.domain.routing.capabilities import Endpoint
from router.frame.body import ClientRequest
from router.frame.object_lists import iter_objects
from router.frame.replies import Reply, error_reply
from router.protocols.chat.dialect import CHAT, ChatDialect
from router.protocols.embeddings import EMBEDDINGS
from router.protocols.messages.dialect import MESSAGES
from router.protocols.responses.dialect import RESPONSES

DIALECTS: Final[Mapping[Endpoint, ChatDialect]] = {
    dialect.endpoint: dialect for dialect in (CHAT, EMBEDDINGS, RESPONSES, MESSAGES)
}
# Ours; a provider's begin with its api_base.
ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    f"/v1{dialect.path}": endpoint for endpoint, dialect in DIALECTS.items()
}


COMPLETIONS: Final = "/v1/completions"  # which is answered by a chat
# What the model is to answer to.
CONTENT: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "messages",
    Endpoint.EMBEDDINGS: "input",
    Endpoint.MESSAGES: "messages",
    Endpoint.RESPONSES: "input",
}
# By a field, the paths of the bodies that have it.
_PATHS_BY_CONTENT: Final[Mapping[str, str]] = {
    "messages": f"/v1{DIALECTS[Endpoint.CHAT].path}",
    "input": f"/v1{DIALECTS[Endpoint.RESPONSES].path}",
    "prompt": COMPLETIONS,
    "contents": "Google's own API",
}
# What the provider is to take the content from, where the body has none.
_KEPT_CONTENT: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    Endpoint.RESPONSES: ("previous_response_id", "conversation", "prompt"),
}
_TOOLS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "a `function` with its `parameters`",
    Endpoint.MESSAGES: "a `name` with its `input_schema`",
    Endpoint.RESPONSES: "a `type`, a `name` and `parameters`",
}
THREAD_UNSUPPORTED: Final = "thread_unsupported_request"


def misfit_reply(request: ClientRequest) -> Reply | None:
    endpoint, get = request.endpoint, request.members.get
    if endpoint is Endpoint.MESSAGES and get("thread"):
        return _no_thread()
    wanted = CONTENT[endpoint]
    if wanted not in request.members:
        for other, path in _PATHS_BY_CONTENT.items():
            given = get(other)
            if given and not (other == "prompt" and isinstance(given, Mapping)):
                message = f"a body with `{other}` and no `{wanted}` is one for {path}"
                return error_reply(400, message, "wrong_endpoint", param=other)
        if not any(map(get, _KEPT_CONTENT.get(endpoint, ()))):
            message = f"a body for /v1{DIALECTS[endpoint].path} needs `{wanted}`"
            return error_reply(400, message, "missing_required_parameter", param=wanted)
    for number, tool in enumerate(iter_objects(get("tools"))):
        meant = _meant_for(tool)
        if meant is not None and meant is not endpoint:
            path = f"/v1{DIALECTS[meant].path}"
            message = f"`tools[{number}]` is one for {path}: here a tool has {_TOOLS[endpoint]}"
            return error_reply(400, message, "wrong_endpoint", param=f"tools[{number}]")
    return None


def _meant_for(tool: Mapping[str, object]) -> Endpoint | None:
    if isinstance(tool.get("function"), Mapping):
        return Endpoint.CHAT
    if isinstance(tool.get("input_schema"), Mapping):
        return Endpoint.MESSAGES
    is_flat = tool.get("type") == "function" and isinstance(tool.get("name"), str)
    return Endpoint.RESPONSES if is_flat else None


def _no_thread() -> Reply:
    """In the words on which Anthropic's SDKs send the whole conversation, without a thread."""
    message = (
        "`thread`: no conversation is kept for a route, whose target may change: send the "
        "whole conversation without `thread`"
    )
    details = {"error_code": THREAD_UNSUPPORTED, "unsupported": ["router"]}
    return error_reply(400, message, THREAD_UNSUPPORTED, param="thread", details=details)
