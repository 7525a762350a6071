"""`read_request_body` reads a request's body whole and undoes its codings, or says why it is
refused: it is too large, too slow, or in a coding that the router does not take.
"""

from typing import Final

from router.server.asgi import (
    BodyTooLarge,
    Receive,
    Scope,
    buffered_body,
    header,
    read_body,
)
from router.server.body_coding import (
    TAKEN_CODINGS,
    BodyCut,
    CodingUnknown,
    body_codings,
    decode_body,
)
from router.server.headers import Header
from router.server.replies import Reply, error_reply
from router.server.timers import Timers

CLOSE: Final[Header] = (b"connection", b"close")
ACCEPTED: Final[Header] = (b"accept-encoding", TAKEN_CODINGS.encode())


def is_json(scope: Scope) -> bool:
    """Whether a request says that its body is JSON, or does not say."""
    kind = header(scope, b"content-type") or b"application/json"
    return kind.split(b";", 1)[0].strip().lower() == b"application/json"


async def read_request_body(
    scope: Scope,
    receive: Receive,
    timers: Timers,
    limit: int,
    *,
    any_type: bool = False,
    setting: str = "",
) -> bytes | Reply:
    """Reads all of the body, or says why it is refused. any_type: not JSON alone. setting: what
    the limit is called in the file.

    Raises ClientDisconnected.
    """
    if not (any_type or is_json(scope)):
        return error_reply(415, "send application/json", "unsupported_media_type")
    try:
        body = buffered_body(scope, limit)
        body = await read_body(receive, limit, timers) if body is None else body
        return decode_body(body, body_codings(scope), limit)
    except CodingUnknown as error:
        message = f"the body is not taken in the coding {error}: send one of {TAKEN_CODINGS}"
        return error_reply(415, message, "unsupported_content_encoding", headers=(ACCEPTED,))
    except BodyCut as error:
        return error_reply(400, f"the body's {error} coding ends too early", "body_cut")
    except BodyTooLarge:
        named = f" ({setting})" if setting else ""
        message = f"the body is larger than {limit} bytes{named}"
        return error_reply(413, message, "request_too_large", headers=(CLOSE,))
    except TimeoutError:
        message = "the body did not arrive in time"
        return error_reply(408, message, "request_timeout", headers=(CLOSE,))
