"""`CrossOrigins` lets pages of listed origins call the router from a browser (CORS of the
Fetch standard). Without a listed origin, the refusal of a preflight names the setting.
"""

from collections.abc import Awaitable
from typing import Final

from harness.domain.settings import CorsSettings
from router.server.asgi import Message, Scope, Send, header
from router.server.headers import Header
from router.server.replies import Reply, error_reply

ANY: Final = "*"
SETTING: Final = "router.cors.origins"
LASTS: Final[Header] = (b"access-control-max-age", b"600")
VARY: Final[Header] = (b"vary", b"origin")
EXPOSED: Final[Header] = (b"access-control-expose-headers", b"*")


class CrossOrigins:
    """Answers preflights, and adds to an answer's head what lets a page read it."""

    def __init__(self, settings: CorsSettings) -> None:
        self._origins = frozenset(settings.origins)

    def concern(self, scope: Scope) -> bool:
        """Whether a request comes from a page whose origin is listed."""
        return self._allowed(scope) is not None

    def _allowed(self, scope: Scope) -> bytes | None:
        origin = header(scope, b"origin") if self._origins else None
        if origin is None:
            return None
        is_listed = ANY in self._origins or origin.decode("latin-1") in self._origins
        return origin if is_listed else None

    def answer_preflight(self, scope: Scope, methods: str) -> Reply:
        """Answers OPTIONS, which browsers ask without a key. methods: of the path."""
        wanted = header(scope, b"access-control-request-headers")
        origin = header(scope, b"origin")
        if self._allowed(scope) is not None:
            allowed = [(b"access-control-allow-methods", methods.encode()), LASTS]
            if wanted is not None:
                allowed.append((b"access-control-allow-headers", wanted))
            return Reply(204, tuple(allowed), b"")
        about = f" from {origin.decode('latin-1')[:200]!r}" if origin else ""
        message = f"only {methods} works here; for pages{about}, add their origin to {SETTING}"
        allow = (b"allow", methods.encode())
        return error_reply(405, message, "method_not_allowed", headers=(allow,))

    def marked(self, scope: Scope, send: Send) -> Send:
        """Makes a `send` that adds the headers for the page; the same for other requests."""
        origin = self._allowed(scope)
        if origin is None:
            return send
        added = [(b"access-control-allow-origin", origin), VARY, EXPOSED]

        def marking(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            return send(message)

        return marking
