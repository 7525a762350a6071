"""A route's past as it is stored: a version with its proof (`RouteRecord`), the newest version
beside the newest rollout (`RouteHead`), and the last change of an incumbent (`IncumbentSwap`).
"""

from dataclasses import dataclass
from datetime import datetime

from harness.domain.routing.table import Route


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """Records one stored version of a route: what changed, by whom, with which proof."""

    route: Route
    revision: int
    kind: str
    at: datetime
    actor: str
    reason: str
    verdict: str | None
    # The break-glass whose end this version is; filled where versions are listed.
    ended_break_glass: str | None = None


@dataclass(frozen=True, slots=True)
class RouteHead:
    """What a route's newest version and its newest rollout say, without their proof: to put
    routes in order. Who shows or uses more of a route reads it with its signature.
    """

    name: str
    incumbent: str
    at: datetime  # of the version
    break_glass: bool  # one serves there, or waits for a second person
    # rollout: the newest, its id. It and what follows are None for a route that had none.
    rollout: str | None
    state: str | None
    candidate: str | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class IncumbentSwap:
    """Records a change of a route's incumbent; both by their targets' ids."""

    former: str
    incumbent: str
    kind: str
    at: datetime
