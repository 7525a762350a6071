"""The sticky key: who keeps the same arm. Never a constant."""

import json
from hashlib import blake2b

from router.body import ClientRequest

HEADER = b"x-swapgate-sticky"


def sticky_key(request: ClientRequest, header: bytes | None, key_id: str) -> tuple[str, bool]:
    """The first that is there: header, `user`, `prompt_cache_key`, the conversation, our key.

    The second is False when nothing but the API key told callers apart: all requests of that
    key are then on one arm, which the caller counts and warns about.
    """
    if header:
        return f"header:{header.decode('latin-1')}", True
    for field in ("user", "prompt_cache_key"):
        value = request.value(field)
        if isinstance(value, str) and value:
            return f"{field}:{value}", True
    conversation = _conversation(request.value("messages"))
    if conversation:
        return f"conversation:{conversation}", True
    return f"key:{key_id}", False


def _conversation(messages: object) -> str:
    """A hash of the system message and the first user message: later turns keep it."""
    if not isinstance(messages, list):
        return ""
    opening: list[object] = []
    for message in messages:
        if not isinstance(message, dict):
            return ""
        role = message.get("role")
        if role in ("system", "developer", "user"):
            opening.append((role, message.get("content")))
        if role == "user":
            data = json.dumps(opening).encode()
            return blake2b(data, digest_size=16).hexdigest()
    return ""
