"""A failover: a request that left a target, with the provider's redacted message.

It contains neither request nor answer, and only a hash of the user. `harness.routing.plan`
decides the next target. `harness.routing.records.failovers` stores failovers.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from harness.frame.formatting import format_quantity
from harness.frame.people.access import key_hash
from harness.frame.redaction import Redactor

# Digits of a hash that people see. They suffice to find the user.
SHOWN_HASH: Final = 12
_HASH: Final = re.compile(rf"[0-9a-f]{{{SHOWN_HASH},32}}")
# Characters of a provider's message that Swapproof reads, and that it keeps.
_MAX_READ: Final = 2000
MAX_SENTENCE: Final = 300
_QUOTED: Final = re.compile(r"(['\"`])(?:(?!\1).){41,}\1")
_REDACTOR: Final = Redactor()


@dataclass(frozen=True, slots=True)
class Failover:
    """One step of a request away from a target."""

    # The key (worker, number), so that the database stores a repeated row only once.
    worker: str
    number: int
    at: datetime
    request: str
    route: str
    arm: str
    target: str
    provider: str
    failure: str  # a FailureClass, or `circuit_open`
    status: int | None
    attempts: int
    latency_ms: float  # spent on this target
    endpoint: str
    stream: bool
    body_bytes: int  # body_bytes, messages, tools: size of the request
    messages: int
    tools: int
    user_hash: str  # HMACs of the users that the request names (`hash_callers`)
    next_target: str | None  # the target called next; None if there is no further call
    code: str = ""  # code of the provider's refusal, from a fixed list
    place: str = ""  # field of the request that the provider refuses: `tools[12]`
    sentence: str = ""  # the provider's message, redacted and cut

    @property
    def shape(self) -> str:
        """Describes the request without its content: `chat, stream, 1,234 bytes, 2 tools`."""
        stream = ", stream" if self.stream else ""
        size = f"{self.body_bytes:,} bytes"
        tools = format_quantity(self.tools, "tool")
        return f"{self.endpoint}{stream}, {size}, {tools}"

    @property
    def user(self) -> str:
        """The part of the user's hash that people see."""
        return self.user_hash[:SHOWN_HASH]


@dataclass(frozen=True, slots=True)
class FailoverCount:
    """Failovers of one route, target and reason."""

    route: str
    target: str
    failure: str
    times: int
    unanswered: int  # failovers after which the router called no other target
    last: datetime


@dataclass(frozen=True, slots=True)
class FailoverReason:
    """Failovers of one target and reason, over all routes."""

    target: str
    failure: str
    times: int
    unanswered: int  # failovers after which the router called no other target
    routes: Sequence[str]  # the most affected route first
    last: datetime


def sum_failovers(counts: Iterable[FailoverCount]) -> Sequence[FailoverReason]:
    """Sums counts over routes, the most frequent reason first.

    Routes keep the order of the counts.
    """
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
    """Returns the HMAC-SHA-256 (hex) of a sticky key such as `user:alice`, to search failovers
    by user.
    """
    return key_hash(f"failover:{sticky_key}", secret)[:32]


def hash_callers(keys: Iterable[str], secret: bytes) -> str:
    """Hashes every key that names a request's caller, and joins the hashes with spaces."""
    return " ".join(dict.fromkeys(hash_user(key, secret) for key in keys))


def user_hashes(user: str, secret: bytes) -> tuple[str, ...]:
    """Hashes `user`, and every sticky key that may contain it."""
    # The router decodes headers as latin-1.
    header = user.encode().decode("latin-1")
    kinds = ("user:", "prompt_cache_key:", "safety_identifier:", "key:")
    keys = (user, f"header:{header}", *(f"{kind}{user}" for kind in kinds))
    return tuple(hash_user(key, secret) for key in keys)


def search_hashes(user: str, secret: bytes) -> tuple[str, ...]:
    """Lists the hashes that find a user's rows.

    Args:
        user: an id, or the shown part of a hash.
    """
    as_hash = (user,) if _HASH.fullmatch(user) else ()
    return (*user_hashes(user, secret), *as_hash)


@lru_cache(maxsize=256)
def keep_sentence(message: str) -> str:
    """Redacts a provider's message, and cuts long quotations, which may be a client's text."""
    text = _QUOTED.sub(lambda quoted: f"{quoted[1]}…{quoted[1]}", message[:_MAX_READ])
    return str(_REDACTOR.redact(text).value)[:MAX_SENTENCE]
