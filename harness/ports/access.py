"""Protocols of who may act, as it is stored: principals and who is one person, API keys, and
sign-ins to the dashboard.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from harness.domain.operations.access import ApiKey, OptOut
from harness.domain.operations.dashboard_session import DashboardSession
from harness.domain.operations.principals import People, PersonLink, Principal
from harness.domain.reliability.rate_limits import KeyLimits


class Principals(Protocol):
    """Stores the people and services that act. The local operator is there from the start."""

    def add(self, new: Principal) -> None:
        """Adds a principal. Raises Conflict when its id, its folded name, or issuer and subject
        are taken.
        """
        ...

    def get(self, principal: str) -> Principal:
        """Loads a principal by id. Raises NotFound."""
        ...

    def named(self, name: str) -> Principal | None:
        """Finds the principal with this name, both folded."""
        ...

    def signed_in(self, issuer: str, subject: str) -> Principal | None:
        """Finds the principal of who signs in by OpenID Connect."""
        ...

    def all(self) -> Sequence[Principal]:
        """Loads all principals."""
        ...

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        """Loads the stored principals among these ids, by id."""
        ...


class PersonLinks(Protocol):
    """Stores who was declared to be one person; declarations are only ever added."""

    def add(self, new: PersonLink) -> None:
        """Adds a declaration. Nobody else adds one until the end of the unit of work."""
        ...

    def people(self, *, lock: bool = False) -> People:
        """Loads who is who now, by the newest declarations. lock: in a `write()`, nobody else
        declares anything until the end of the unit of work.
        """
        ...


class ApiKeys(Protocol):
    def add(self, key: ApiKey) -> None:
        """Adds a key. Raises Conflict when its id or hash is stored, InputError without its
        principal.
        """
        ...

    def get(self, key: str) -> ApiKey | None:
        """Loads a key by id, a revoked one too: look at revoked_at."""
        ...

    def by_hash(self, hash_: str) -> ApiKey | None:
        """Finds a key by its hash, a revoked one too: look at revoked_at."""
        ...

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        """Lists the keys of a principal, oldest first, with the revoked ones."""
        ...

    def data_key_names(self) -> Mapping[str, str]:
        """Loads the names of the data keys that are not revoked, by id; their rows' signatures
        are not checked.
        """
        ...

    def revoke(self, key: str, now: datetime) -> None:
        """Revokes a key from `now` on. Raises NotFound."""
        ...

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        """Replaces the limits of a key. Raises NotFound."""
        ...

    def opt_out(self, key: str, opt_outs: Iterable[OptOut]) -> ApiKey:
        """Replaces what a key opts out of. Raises NotFound."""
        ...


class DashboardSessions(Protocol):
    """Stores sign-ins to the dashboard: links that wait, sessions that go on or ended."""

    def add(self, new: DashboardSession) -> None: ...

    def by_link(self, hash_: str) -> DashboardSession | None:
        """Finds the sign-in of a link by the link's hash, a used one too. In a `write()`,
        nobody else changes it until the end of the unit of work.
        """
        ...

    def by_cookie(self, hash_: str, *, lock: bool = False) -> DashboardSession | None:
        """Finds the session of a cookie by the cookie's hash, an ended one too. lock: in a
        `write()`, nobody else changes it until the end of the unit of work.
        """
        ...

    def save(self, changed: DashboardSession) -> None:
        """Saves a session that was opened or ended. Raises NotFound."""
        ...

    def get(self, session: str) -> DashboardSession:
        """Loads a sign-in by its id; in a `write()`, nobody else changes it until the end of
        the unit of work. Raises NotFound.
        """
        ...

    def open_at(self, now: datetime) -> Sequence[DashboardSession]:
        """Lists the sessions that go on, the one opened last first."""
        ...

    def forget(self, before: datetime) -> int:
        """Deletes the sign-ins created before a time, and returns how many."""
        ...
