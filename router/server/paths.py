"""The paths that the router serves, and its advice about other paths.

A client with a wrong base URL gets the right one in the error. `app` answers the paths;
`CrossOrigins` lets web pages of listed origins use them.
"""

from collections.abc import Awaitable, Mapping
from typing import Final

from harness.routing.settings import CorsSettings
from router.access.front_door import FLAGS_PATH, MODELS
from router.frame.asgi import Message, Scope, Send, header
from router.frame.failure import SEND_ALL
from router.frame.replies import CLOSE, Header, Reply, error_reply
from router.observers.feedback import FEEDBACK_PATH
from router.observers.otlp_outcomes import TRACES_PATH
from router.protocols.endpoints import COMPLETIONS, ENDPOINTS
from router.request.needs import COUNT_PATHS
from router.server.flags import FLAG_PREFIX

METRICS: Final = "/metrics"
# Paths that ask a model, or count the tokens of a request to it.
MODEL_PATHS: Final = frozenset((*ENDPOINTS, *COUNT_PATHS, COMPLETIONS))
METHODS: Final[Mapping[str, str]] = {
    **dict.fromkeys((*MODEL_PATHS, FEEDBACK_PATH, TRACES_PATH, FLAGS_PATH), "POST"),
    **dict.fromkeys((MODELS, METRICS), "GET"),
}
AGENTS_METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
_VERSION: Final = "/v1"
# Beginnings of paths that the router does not serve, the longest first, with the reason.
_UNSERVED_PATHS: Final[tuple[tuple[str, str], ...]] = (
    (
        "/v1/responses/",
        f"Swapproof returns no stored answers: {SEND_ALL}",
    ),
    (
        "/v1/conversations",
        "Swapproof stores no conversations: send the history as `input`",
    ),
    (
        "/v1/messages/batches",
        "Swapproof takes no batches: send the requests one by one",
    ),
    (
        "/v1/batches",
        "Swapproof takes no batches: send the requests one by one",
    ),
    *(
        (
            path,
            "Swapproof takes chats, messages, responses and embeddings: ask the provider",
        )
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


def find_method(path: str) -> str | None:
    """Returns the method that a path allows; None if the router does not serve the path."""
    if path.startswith(FLAG_PREFIX):
        return "POST"
    return METHODS.get(path, "GET" if path.startswith(f"{MODELS}/") else None)


def refuse_unknown_path(method: str, path: str) -> Reply:
    """Refuses an unknown path, with advice if the path is a known mistake."""
    message = f"there is nothing at {method} {path[:200]}{_advise(path)}"
    return error_reply(404, message, "unknown_url")


def refuse_method(method: str) -> Reply:
    """Refuses a method.

    Args:
        method: the allowed one, or several with commas.
    """
    allow = (b"allow", method.encode())
    return error_reply(
        405,
        f"only {method} works here",
        "method_not_allowed",
        headers=(allow,),
    )


def refuse_websocket(scope: Scope) -> Reply | None:
    """Refuses a WebSocket at a model's path with 426; None for another request.

    Codex opens a WebSocket first, and sends a POST at once only after a 426; after any other
    refusal it tries again for some seconds (github.com/openai/codex, `core/src/client.rs`).
    """
    upgrade = header(scope, b"upgrade") if scope["path"] in MODEL_PATHS else None
    if upgrade is None or upgrade.lower() != b"websocket":
        return None
    message = "the router takes no WebSockets: send a POST, with `stream: true` for events"
    return error_reply(426, message, "websocket_not_supported", headers=(CLOSE,))


def _advise(path: str) -> str:
    clean_path = "/" + "/".join(step for step in path.split("/") if step)
    for beginning, advice in _UNSERVED_PATHS:
        if clean_path.startswith(beginning):
            return f". {advice}"
    for known_path in sorted(METHODS, key=len, reverse=True):
        if clean_path == known_path.removeprefix(_VERSION):
            return f": the client's base URL must end in {_VERSION}; this is at {known_path}"
        if clean_path.endswith(_VERSION + known_path):
            return (
                f": the path has {_VERSION} twice, so remove one from the client's base URL; "
                f"this is at {known_path}"
            )
        if clean_path.endswith(known_path.removeprefix(_VERSION)) and known_path != METRICS:
            return f": this is at {known_path}, below the router's own address"
    return ""


ANY: Final = "*"
SETTING: Final = "router.cors.origins"
PREFLIGHT_MAX_AGE: Final[Header] = (b"access-control-max-age", b"600")
VARY: Final[Header] = (b"vary", b"origin")
EXPOSED: Final[Header] = (b"access-control-expose-headers", b"*")


class CrossOrigins:
    """Answers preflights, and adds the headers that let a web page read an answer."""

    def __init__(self, settings: CorsSettings) -> None:
        self.origins = frozenset(settings.origins)

    def is_from_listed_page(self, scope: Scope) -> bool:
        """Returns whether the request comes from a page of a listed origin."""
        return bool(self.origins) and self._find_origin(scope) is not None

    def _find_origin(self, scope: Scope) -> bytes | None:
        origin = header(scope, b"origin")
        if origin is None:
            return None
        is_listed = ANY in self.origins or origin.decode("latin-1") in self.origins
        return origin if is_listed else None

    def answer_preflight(self, scope: Scope, methods: str) -> Reply:
        """Answers a page's question before its request.

        Args:
            methods: the path's allowed methods.
        """
        requested = header(scope, b"access-control-request-headers")
        origin = header(scope, b"origin")
        if self.is_from_listed_page(scope):
            headers = [
                (b"access-control-allow-methods", methods.encode()),
                PREFLIGHT_MAX_AGE,
            ]
            if requested is not None:
                headers.append((b"access-control-allow-headers", requested))
            return Reply(204, tuple(headers), b"")
        origin_text = f" from {origin.decode('latin-1')[:200]!r}" if origin else ""
        message = (
            f"only {methods} works here; for pages{origin_text}, add their origin to {SETTING}"
        )
        allow = (b"allow", methods.encode())
        return error_reply(405, message, "method_not_allowed", headers=(allow,))

    def add_headers(self, scope: Scope, send: Send) -> Send:
        """Returns a `send` that adds the headers for pages of the listed origins."""
        cors_headers: list[Header] = [
            VARY
        ]  # a cache must not give a refused page's answer to others
        if (origin := self._find_origin(scope)) is not None:
            cors_headers += [(b"access-control-allow-origin", origin), EXPOSED]

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *cors_headers]
            return send(message)

        return send_with_headers
