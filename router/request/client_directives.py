"""Client directives are what a client asks of the router for one request, by header."""

import math
from collections.abc import Mapping
from typing import Final

from harness.domain.routing.overrides import RequestKind
from harness.domain.settings import RouterSettings
from router.request.body import ClientRequest
from router.server.asgi import Scope, header
from router.server.replies import Reply, error_reply
from router.snapshot.compiled import Header

KIND: Final = b"x-swapgate-kind"
TIMEOUT: Final = b"x-swapgate-timeout"
HEARTBEAT: Final = b"x-swapgate-heartbeat"
KINDS: Final = {kind.value.encode(): kind for kind in RequestKind}


def declared_kind(scope: Scope) -> RequestKind | Reply | None:
    """What the client says that its request is; a refusal for a word that is no kind."""
    given = header(scope, KIND)
    if given is None:
        return None
    kind = KINDS.get(given)
    if kind is not None:
        return kind
    said = given[:40].decode("latin-1")
    return error_reply(
        400,
        f"{KIND.decode()} is one of {', '.join(RequestKind)}, not {said!r}",
        "invalid_header",
    )


def requested_timeout_s(scope: Scope) -> float | Reply:
    """Seconds for the whole request, infinite unless asked; a refusal for no number."""
    given = header(scope, TIMEOUT)
    if given is None:
        return math.inf
    try:
        # float() alone would take "1_0".
        wished_s = math.nan if b"_" in given else float(given)
    except ValueError:
        wished_s = math.nan
    if not 0 < wished_s < math.inf:
        said = given[:40].decode("latin-1")
        return error_reply(
            400,
            f"{TIMEOUT.decode()} is a number of seconds above 0, not {said!r}",
            "invalid_header",
        )
    return wished_s


def heartbeat_s(scope: Scope, request: ClientRequest, settings: RouterSettings) -> float:
    """Of this answer; 0 for none: whole answers have none, and a client may wish for none."""
    if not request.stream or not settings.heartbeat_s:
        return 0.0
    return 0.0 if header(scope, HEARTBEAT) == b"off" else settings.heartbeat_s


def client_headers(scope: Scope, defaults: Mapping[bytes, bytes]) -> tuple[Header, ...]:
    """The client's own headers that go to the provider, or what stands in for them.

    defaults: by name; empty for none. A value that no header should have is as good as none: it
    must not spoil the request, whose failure would be the provider's.
    """
    if not defaults:
        return ()
    given = ((name, header(scope, name), default) for name, default in defaults.items())
    chosen = ((name, v if v and _is_printable(v) else default) for name, v, default in given)
    return tuple((name, value) for name, value in chosen if value)


def _is_printable(value: bytes) -> bool:
    return value.isascii() and value.decode().isprintable()
