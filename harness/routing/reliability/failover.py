"""A record of a target that a request left (B5). The provider's sentence is redacted."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from harness.frame.formatting import format_quantity
from harness.frame.people.access import key_hash
from harness.frame.redaction import Redactor

# So much of a hash is shown, and finds its user.
SHOWN_HASH: Final = 12
_HASH: Final = re.compile(rf"[0-9a-f]{{{SHOWN_HASH},32}}")
# Of a provider's sentence, what is read and what is kept.
_READ: Final = 2000
MAX_SENTENCE: Final = 300
_QUOTED: Final = re.compile(r"(['\"`])(?:(?!\1).){41,}\1")
_REDACTOR: Final = Redactor()


@dataclass(frozen=True, slots=True)
class Failover:
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
    user_hash: str  # HMACs of whoever the request names (`hash_callers`)
    next_target: str | None  # who was asked after it, None when nobody was
    code: str = ""  # of the provider's refusal, in fixed words
    place: str = ""  # in the request, where the provider finds fault: `tools[12]`
    sentence: str = ""  # the provider's, redacted and cut

    @property
    def shape(self) -> str:
        """Describes the request without its content: `chat, stream, 1,234 bytes, 2 tools`."""
        stream = ", stream" if self.stream else ""
        size, tools = f"{self.body_bytes:,} bytes", format_quantity(self.tools, "tool")
        return f"{self.endpoint}{stream}, {size}, {tools}"

    @property
    def user(self) -> str:
        return self.user_hash[:SHOWN_HASH]


@dataclass(frozen=True, slots=True)
class FailoverCount:
    route: str
    target: str
    failure: str
    times: int
    unanswered: int  # of them, those after which no other target was asked
    last: datetime


@dataclass(frozen=True, slots=True)
class FailoverReason:
    target: str
    failure: str
    times: int
    unanswered: int  # of them, those after which no other target was asked
    routes: Sequence[str]  # the one where it happened most often first
    last: datetime


def sum_failovers(counts: Iterable[FailoverCount]) -> Sequence[FailoverReason]:
    grouped: dict[tuple[str, str], list[FailoverCount]] = {}
    for count in counts:
        grouped.setdefault((count.target, count.failure), []).append(count)
    reasons = [
        FailoverReason(
            target=target,
            failure=failure,
            times=sum(count.times for count in group),
            unanswered=sum(count.unanswered for count in group),
            routes=[count.route for count in group],
            last=max(count.last for count in group),
        )
        for (target, failure), group in grouped.items()
    ]
    return sorted(reasons, key=lambda reason: -reason.times)


def hash_user(sticky_key: str, secret: bytes) -> str:
    """HMAC-SHA-256, hex, of a sticky key such as `user:alice`: who knows the key can search."""
    return key_hash(f"failover:{sticky_key}", secret)[:32]


def hash_callers(keys: Iterable[str], secret: bytes) -> str:
    """Hashes every key that names a request's caller, divided by spaces."""
    return " ".join(dict.fromkeys(hash_user(key, secret) for key in keys))


def user_hashes(user: str, secret: bytes) -> tuple[str, ...]:
    """Hashes every key that a user's id may have been, and `user` itself as a whole key."""
    # A header comes as bytes, and is read one character a byte.
    header = user.encode().decode("latin-1")
    kinds = ("user:", "prompt_cache_key:", "safety_identifier:", "key:")
    keys = (user, f"header:{header}", *(f"{kind}{user}" for kind in kinds))
    return tuple(hash_user(key, secret) for key in keys)


def search_hashes(user: str, secret: bytes) -> tuple[str, ...]:
    """Lists what finds a user's rows. user: the id, or a part of its hash as a row shows it."""
    as_hash = (user,) if _HASH.fullmatch(user) else ()
    return (*user_hashes(user, secret), *as_hash)


@lru_cache(maxsize=256)
def keep_sentence(message: str) -> str:
    """Redacts a provider's sentence, and cuts its long quotations: they may be a client's."""
    text = _QUOTED.sub(lambda quoted: f"{quoted[1]}…{quoted[1]}", message[:_READ])
    return str(_REDACTOR.redact(text).value)[:MAX_SENTENCE]
