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
ASKED: Final = frozenset((*ENDPOINTS, *COUNT_PATHS, COMPLETIONS))
METHODS: Final[Mapping[str, str]] = {
    **dict.fromkeys((*ASKED, FEEDBACK_PATH, TRACES_PATH, FLAGS_PATH), "POST"),
    **dict.fromkeys((MODELS, METRICS), "GET"),
}
AGENTS_METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
_VERSION: Final = "/v1"
# Beginnings of paths that the router does not serve, the longest first, with the reason.
_ELSEWHERE: Final[tuple[tuple[str, str], ...]] = (
    (
        "/v1/responses/",
        f"Swapgate returns no stored answers: {SEND_ALL}",
    ),
    (
        "/v1/conversations",
        "Swapgate stores no conversations: send the history as `input`",
    ),
    (
        "/v1/messages/batches",
        "Swapgate takes no batches: send the requests one by one",
    ),
    (
        "/v1/batches",
        "Swapgate takes no batches: send the requests one by one",
    ),
    *(
        (
            path,
            "Swapgate takes chats, messages, responses and embeddings: ask the provider",
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


def method_of(path: str) -> str | None:
    """Returns the method of a path; None if the router does not serve the path."""
    if path.startswith(FLAG_PREFIX):
        return "POST"
    return METHODS.get(path, "GET" if path.startswith(f"{MODELS}/") else None)


def nothing_at(method: str, path: str) -> Reply:
    """Refuses an unknown path, with advice if the path is a known mistake."""
    message = f"there is nothing at {method} {path[:200]}{_advice(path)}"
    return error_reply(404, message, "unknown_url")


def not_allowed(method: str) -> Reply:
    """Refuses a method. method: the allowed one, or several with commas."""
    allow = (b"allow", method.encode())
    return error_reply(
        405,
        f"only {method} works here",
        "method_not_allowed",
        headers=(allow,),
    )


def takes_no_websocket(scope: Scope) -> Reply | None:
    """Refuses a WebSocket at a model's path with 426; None for another request.

    Codex opens a WebSocket first, and sends a POST at once only after a 426; after any other
    refusal it tries again for some seconds (github.com/openai/codex, `core/src/client.rs`).
    """
    upgrade = header(scope, b"upgrade") if scope["path"] in ASKED else None
    if upgrade is None or upgrade.lower() != b"websocket":
        return None
    message = "the router takes no WebSockets: send a POST, with `stream: true` for events"
    return error_reply(426, message, "websocket_not_supported", headers=(CLOSE,))


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


ANY: Final = "*"
SETTING: Final = "router.cors.origins"
LASTS: Final[Header] = (b"access-control-max-age", b"600")
VARY: Final[Header] = (b"vary", b"origin")
EXPOSED: Final[Header] = (b"access-control-expose-headers", b"*")


class CrossOrigins:
    """Answers preflights, and adds the headers that let a web page read an answer."""

    def __init__(self, settings: CorsSettings) -> None:
        self.origins = frozenset(settings.origins)

    def concern(self, scope: Scope) -> bool:
        """Returns whether the request comes from a page of a listed origin."""
        return bool(self.origins) and self._allowed(scope) is not None

    def _allowed(self, scope: Scope) -> bytes | None:
        origin = header(scope, b"origin")
        if origin is None:
            return None
        is_listed = ANY in self.origins or origin.decode("latin-1") in self.origins
        return origin if is_listed else None

    def answer_preflight(self, scope: Scope, methods: str) -> Reply:
        """Answers a page's question before its request. methods: the path's allowed
        methods.
        """
        requested = header(scope, b"access-control-request-headers")
        origin = header(scope, b"origin")
        if self.concern(scope):
            allowed = [
                (b"access-control-allow-methods", methods.encode()),
                LASTS,
            ]
            if requested is not None:
                allowed.append((b"access-control-allow-headers", requested))
            return Reply(204, tuple(allowed), b"")
        about = f" from {origin.decode('latin-1')[:200]!r}" if origin else ""
        message = f"only {methods} works here; for pages{about}, add their origin to {SETTING}"
        allow = (b"allow", methods.encode())
        return error_reply(405, message, "method_not_allowed", headers=(allow,))

    def marked(self, scope: Scope, send: Send) -> Send:
        """Returns a `send` that adds the headers for pages of the listed origins."""
        added: list[Header] = [VARY]  # a cache must not give a refused page's answer to others
        if (origin := self._allowed(scope)) is not None:
            added += [(b"access-control-allow-origin", origin), EXPOSED]

        def marking(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            return send(message)

        return marking
