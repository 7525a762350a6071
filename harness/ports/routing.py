"""Protocols of what serves, as it is stored: the routing table with its history and evidence,
waivers, kill switches, freezes, shadows with their tallies, captured requests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from harness.domain.canary.rollout import Rollout
from harness.domain.pagination import MOST_LISTED
from harness.domain.privacy.capture import CapturedRequest, CaptureResult
from harness.domain.routing.evidence import BreakGlass, RouteEvidence, Waiver
from harness.domain.routing.freeze import Freeze, FreezeRecord
from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.routing.route_changes import TableChange
from harness.domain.routing.table import Route, RoutingTable
from harness.domain.routing.target import Target
from harness.domain.shadow.shadow import Shadow, ShadowTally


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


class Routing(Protocol):
    """Stores the routing table. Revisions rise by one over all routes; versions by one per
    route.
    """

    def table(self) -> RoutingTable: ...

    def names(self) -> Sequence[str]:
        """Lists the names of all routes, in order."""
        ...

    def route(self, name: str) -> Route | None: ...

    def history(self, name: str) -> Sequence[RouteRecord]:
        """Lists the versions of a route, newest first."""
        ...

    def later_versions(self, rollout: Rollout) -> Sequence[RouteRecord]:
        """Lists the versions of a route since a rollout's candidate last served it, newest
        first.
        """
        ...

    def last_swaps(self, names: Iterable[str]) -> Mapping[str, IncumbentSwap]:
        """Reads the last change of each route's incumbent; without those whose first still
        serves.
        """
        ...

    def changed_at(self, name: str) -> datetime | None:
        """Returns the time of the route's newest version; None without a route."""
        ...

    def evidence(self, name: str) -> RouteEvidence | None:
        """Why each target of the route's newest version may serve; None without a route."""
        ...

    def commit(
        self,
        change: TableChange,
        *,
        expected_version: int,
        actor: str,
        reason: str,
        now: datetime,
    ) -> int:
        """Writes the route's next version, and returns its revision. expected_version 0 creates
        the route.

        Raises RevisionConflict if another writer was first, IllegalTransition or ProofRefused
        if the change does not apply, ProofRefused when the database itself refuses.
        """
        ...

    def add_target(self, target: Target) -> str:
        """Adds a target, and returns its id. Adding the same content again changes nothing."""
        ...

    def targets(self) -> Mapping[str, Target]: ...

    def target(self, id_: str) -> Target | None:
        """Loads one target by its id; None for an unknown one."""
        ...


class Waivers(Protocol):
    def add(self, waiver: Waiver) -> None: ...

    def list(self, *, route: str | None = None) -> Sequence[Waiver]: ...


@dataclass(frozen=True, slots=True)
class SwitchRecord:
    """A kill switch as it is stored."""

    switch: KillSwitch
    lifted_at: datetime | None = None  # lifted_at, lifted_by: None until somebody lifts it
    lifted_by: str | None = None


class Switches(Protocol):
    """Kill switches of CLI and REST; those of the environment and the file are not stored."""

    def add(self, switch: KillSwitch) -> None:
        """Adds a kill switch. Raises InputError without a reason, Conflict when the id is
        stored already.
        """
        ...

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        """Lifts a kill switch; lifting it again changes nothing. Raises NotFound."""
        ...

    def get(self, id_: str) -> SwitchRecord:
        """Loads a kill switch by id. Raises NotFound."""
        ...

    def not_lifted(self) -> Sequence[KillSwitch]:
        """Lists the kill switches that nobody has lifted, newest first, with the expired
        ones.
        """
        ...


class Freezes(Protocol):
    """Freezes that people set; those of every week stand in the configuration file."""

    def add(self, freeze: Freeze) -> None: ...

    def lift(self, id_: str, *, actor: str, now: datetime) -> FreezeRecord:
        """Lifts a freeze; lifting it again changes nothing. Raises NotFound."""
        ...

    def get(self, id_: str) -> FreezeRecord:
        """Loads a freeze by id. Raises NotFound."""
        ...

    def overlapping(self, since: datetime) -> Sequence[FreezeRecord]:
        """Lists the freezes that end after a moment, with the lifted ones, by start."""
        ...


class BreakGlasses(Protocol):
    """Targets that serve without proof, by the word of two people."""

    def add(self, new: BreakGlass) -> None: ...

    def save(self, changed: BreakGlass) -> None:
        """Stores its confirmation or its end; nothing else of it changes."""
        ...

    def get(self, id_: str) -> BreakGlass:
        """Loads one by id. Raises NotFound."""
        ...

    def open(self) -> Sequence[BreakGlass]:
        """Lists those that have not ended, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """A shadow as it is stored."""

    shadow: Shadow
    ended_at: datetime | None = None  # ended_at, ended_by: None until it ends
    ended_by: str | None = None
    ended_because: str | None = None


class Shadows(Protocol):
    """Shadows (F8), and what workers added up of their pairs."""

    def add(self, new: Shadow) -> None:
        """Adds a shadow. Raises InputError for limits that make no sense, Conflict while the
        route has one.
        """
        ...

    def end(self, id_: str, *, actor: str, because: str, now: datetime) -> ShadowRecord:
        """Ends a shadow; ending it again changes nothing. Raises NotFound."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        proposal: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[ShadowRecord]:
        """Lists the shadows, newest first, `limit` at the most, with those that have ended."""
        ...

    def live(self) -> Sequence[Shadow]:
        """Lists the shadows that nobody has ended, with the expired ones."""
        ...

    def append(self, more: Iterable[ShadowTally]) -> None:
        """Add to what is stored of the same shadow, day and worker."""
        ...

    def tallies(
        self, shadows: Sequence[str], *, since: date | None = None
    ) -> Sequence[ShadowTally]:
        """Lists the tallies of these shadows by shadow, day and worker. since: the first day,
        None for all.
        """
        ...


class Captures(Protocol):
    """Requests with their answers, redacted before they come here (F9)."""

    def add(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        """One already stored (id) is counted. most_per_day: of its route, by UTC day."""
        ...

    def get(self, id_: str) -> CapturedRequest:
        """Loads a captured request by id. Raises NotFound."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[CapturedRequest]:
        """Lists the captured requests, newest first."""
        ...

    def forget(self, now: datetime) -> int:
        """Deletes the captured requests that have expired; returns how many."""
        ...

    def purge(
        self, *, id_: str | None = None, route: str | None = None, users: Sequence[str] = ()
    ) -> int:
        """Deletes the captured requests that match every given filter, all of them without one;
        returns how many.

        users: hashes, any of them.
        """
        ...
