"""The table of the paths that the router serves, each with its method, and what it says of any
other: that the base URL is wrong, or who serves such a thing.
"""

from collections.abc import Mapping
from typing import Final

from router.access.keys import MODELS
from router.observers.feedback import FEEDBACK_PATH
from router.protocols.endpoints import ENDPOINTS
from router.protocols.messages.dialect import VERSION
from router.request.token_count import COUNT_PATHS
from router.server.asgi import Scope, header
from router.server.completions import COMPLETIONS
from router.server.replies import Reply, error_reply

METRICS: Final = "/metrics"
# What asks a model, or about one request to it.
ASKED: Final = frozenset((*ENDPOINTS, *COUNT_PATHS, COMPLETIONS))
METHODS: Final[Mapping[str, str]] = {
    **dict.fromkeys((*ASKED, FEEDBACK_PATH), "POST"),
    **dict.fromkeys((MODELS, METRICS), "GET"),
}
AGENTS_METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
_MESSAGES: Final = "/v1/messages"
_VERSION: Final = "/v1"
# By how a path begins, the longest first: why it is not served here.
_ELSEWHERE: Final[tuple[tuple[str, str], ...]] = (
    (
        "/v1/responses/",
        "Swapgate stores no answers: send the whole history as `input`, with `store: false`",
    ),
    ("/v1/conversations", "Swapgate stores no conversations: send the history as `input`"),
    ("/v1/messages/batches", "Swapgate takes no batches: send the requests one by one"),
    ("/v1/batches", "Swapgate takes no batches: send the requests one by one"),
    *(
        (path, "Swapgate takes chats, messages, responses and embeddings: ask the provider")
        for path in (
            "/v1/assistants",
            "/v1/audio",
            "/v1/containers",
            "/v1/files",
            "/v1/fine_tuning",
            "/v1/images",
            "/v1/moderations",
            "/v1/realtime",
            "/v1/rerank",
            "/v1/threads",
            "/v1/uploads",
            "/v1/vector_stores",
            "/v1/videos",
        )
    ),
)


def method_of(path: str) -> str | None:
    """The method of a path; None for one that is not served."""
    return METHODS.get(path, "GET" if path.startswith(f"{MODELS}/") else None)


def nothing_at(method: str, path: str) -> Reply:
    """Refuses a path that is not served, and says what to do instead."""
    message = f"there is nothing at {method} {path[:200]}{_advice(path)}"
    return error_reply(404, message, "unknown_url")


def not_allowed(method: str) -> Reply:
    """Refuses another method of a path. method: the one that works."""
    allow = (b"allow", method.encode())
    return error_reply(405, f"only {method} works here", "method_not_allowed", headers=(allow,))


def is_anthropics(scope: Scope) -> bool:
    """Whether it is Anthropic's client that asks."""
    path = scope["path"]
    return path in (_MESSAGES, f"{_MESSAGES}/count_tokens") or (
        path not in ENDPOINTS and header(scope, VERSION) is not None
    )


def _advice(path: str) -> str:
    plain = "/" + "/".join(step for step in path.split("/") if step)
    for beginning, advice in _ELSEWHERE:
        if plain.startswith(beginning):
            return f". {advice}"
    for known in sorted(METHODS, key=len, reverse=True):
        if plain == known.removeprefix(_VERSION):
            return f": the client's base URL must end in {_VERSION}; this is at {known}"
        if plain.endswith(_VERSION + known):
            return f": the client's base URL must not end in {_VERSION}; this is at {known}"
        if plain.endswith(known.removeprefix(_VERSION)) and known != METRICS:
            return f": this is at {known}, below the router's own address"
    return ""
