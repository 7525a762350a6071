"""The sticky key: who keeps the same arm. Never a constant."""

import json
from hashlib import blake2b

from router.protocols.endpoints import DIALECTS
from router.request.body import ClientRequest

HEADER = b"x-swapgate-sticky"


def sticky_key(request: ClientRequest, header: bytes | None, key_id: str) -> tuple[str, bool]:
    """The first that is there: header, whom the body names, the conversation, our key.

    The second is False when nothing but the API key told callers apart: all requests of that
    key are then on one arm, which the caller counts and warns about.
    """
    if header:
        return f"header:{header.decode('latin-1')}", True
    dialect = DIALECTS[request.endpoint]
    caller = dialect.caller(request)
    if caller:
        return caller, True
    opening = dialect.opening(request)
    if opening:
        digest = blake2b(json.dumps(opening).encode(), digest_size=16)
        return f"conversation:{digest.hexdigest()}", True
    return f"key:{key_id}", False
