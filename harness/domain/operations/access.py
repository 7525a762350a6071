"""Access rights decide who may do what: data keys open the router, management keys have a role.

`Role` and `Actor` say whether an act is allowed; `ApiKey` is a key as it is stored, with its
hash (`key_hash`), routes and limits.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from hashlib import sha256

from harness.domain.errors import NotAllowed
from harness.domain.reliability.rate_limits import KeyLimits

DATA_KEY_PREFIX = "sk-sg-"
MANAGEMENT_KEY_PREFIX = "sg-mgmt-"


class Role(IntEnum):
    """Each role may do what the ones below it may."""

    VIEWER = 1
    PROPOSER = 2
    APPROVER = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True)
class Actor:
    """Identifies a person or service that acts through CLI, REST or dashboard."""

    name: str
    role: Role
    principal: str  # whose id it is, whatever he is called
    # The id of the management key that he acts with; None for the local operator.
    key: str | None = None

    def require(self, role: Role) -> None:
        """Requires at least this role of the actor; else raises NotAllowed."""
        if self.role < role:
            raise NotAllowed(
                f"{self.name} is {self.role.name.lower()}; this needs {role.name.lower()}. "
                "Ask an admin for a key with that role"
            )


SYSTEM = Actor("swapgate", Role.ADMIN, "swapgate")


class OptOut(StrEnum):
    """Names what a client's key keeps its requests out of.

    CANARY: no canary, holdback or practice: they go to the route's own model, and are evidence
    of nothing. SHADOW: they are mirrored to no candidate, and shown to no judge. CAPTURE: no
    copy is kept, and no judge sees them.
    """

    CANARY = "canary"
    SHADOW = "shadow"
    CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: never the secret itself. role None: a data key."""

    id: str
    name: str
    hash: str  # HMAC-SHA-256 of the key under the server's secret, hex
    hint: str  # its last four characters, for people
    role: Role | None
    routes: frozenset[str]  # empty means all
    created_at: datetime
    revoked_at: datetime | None = None
    limits: KeyLimits | None = None  # of a data key, None for none
    principal: str | None = None  # whose management key it is
    # created_by, created_with: the principal who created it, and the id of the management key
    # that was used; None where that is not known, or none.
    created_by: str | None = None
    created_with: str | None = None
    opt_outs: frozenset[OptOut] = frozenset()  # of a data key


def key_hash(key: str, secret: bytes) -> str:
    return hmac.new(secret, key.encode("utf-8", "surrogatepass"), sha256).hexdigest()
