"""A fail-over record says which target a request left, why, and which was asked next (B5); it
holds no content, and the user only as a keyed hash (`hash_user`).
"""

from dataclasses import dataclass
from datetime import datetime

from harness.domain.operations.access import key_hash


@dataclass(frozen=True, slots=True)
class Failover:
    """Records one target that a request left, and why."""

    # worker, number: the worker's own count, so that the same row sent twice is stored once.
    worker: str
    number: int
    at: datetime
    request: str
    route: str
    arm: str
    target: str
    provider: str
    failure: str  # a class of `reliability.failures`, or `circuit_open`
    status: int | None
    attempts: int
    latency_ms: float  # spent on this target
    endpoint: str
    stream: bool
    body_bytes: int  # body_bytes, messages, tools: sizes of the request
    messages: int
    tools: int
    user_hash: str  # HMAC of the sticky key
    next_target: str | None  # who was asked after it, None when nobody was


def hash_user(sticky_key: str, secret: bytes) -> str:
    """HMAC-SHA-256, hex, of a sticky key such as `user:alice`: who knows the key can search."""
    return key_hash(f"failover:{sticky_key}", secret)[:32]


def user_hashes(user: str, secret: bytes) -> tuple[str, ...]:
    """Hashes every sticky key that a user's id may have been, see
    `router.request.client_directives`, and `user` itself, where that is a whole sticky key.
    """
    # A header comes as bytes, and is read one character a byte.
    header = user.encode().decode("latin-1")
    kinds = ("user:", "prompt_cache_key:", "key:")
    keys = (user, f"header:{header}", *(f"{kind}{user}" for kind in kinds))
    return tuple(hash_user(key, secret) for key in keys)
