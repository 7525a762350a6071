"""Records of people, keys and sign-ins to the dashboard."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import Conflict
from harness.frame.people.access import (
    LOCAL_PRINCIPAL,
    ApiKey,
    DashboardSession,
    OptOut,
    People,
    PersonLink,
    Principal,
    PrincipalKind,
    fold_name,
)
from harness.frame.people.limits import KeyLimits
from harness.frame.records.columns import (
    at_least,
    json_value,
    not_blank,
    one_of,
    text,
)
from harness.frame.records.record import record
from harness.frame.records.repository import Records
from harness.frame.records.signed_tables import sign_rows_of

# The column `folded` has the name in the form of `Principal.folded`. `issuer` and `subject`
# come from OpenID Connect.
PRINCIPAL: Final = record(
    Principal,
    "principal",
    text("folded"),
    sa.UniqueConstraint("folded"),
    sa.UniqueConstraint("issuer", "subject", name="uq_principal_signed_in"),
    one_of("kind", PrincipalKind),
    not_blank("id"),
    not_blank("name"),
    not_blank("folded"),
    sa.CheckConstraint("(issuer IS NULL) = (subject IS NULL)", name="signed_in_whole"),
    signed=True,
    also=lambda one: {"folded": one.folded},
)

# A migration writes the local operator's row without a signature, because it has no key. The
# row is valid if it equals `LOCAL_PRINCIPAL`.
principal = sign_rows_of(
    PRINCIPAL.table,
    live=PRINCIPAL.table.c.id != LOCAL_PRINCIPAL.id,
    unsigned=PRINCIPAL.write(LOCAL_PRINCIPAL),
)

# The four-eyes rule reads created_by and created_with of each key in a chain of creation.
API_KEY: Final = record(
    ApiKey,
    "api_key",
    json_value("opt_outs", nullable=True),
    sa.UniqueConstraint("hash"),
    sa.CheckConstraint("role BETWEEN 1 AND 4", name="role_known"),
    sa.Index("ix_api_key_created_at", "created_at", "id"),
    sa.Index("ix_api_key_principal", "principal"),
    refers={"principal": principal},
    signed=True,
)

api_key = sign_rows_of(API_KEY.table, live=API_KEY.table.c.revoked_at.is_(None))

# Append-only. Of a principal's rows, the row with the highest number applies. The four-eyes
# rule depends on it.
PERSON_LINK: Final = record(
    PersonLink,
    "person_link",
    sa.UniqueConstraint("principal", "number"),
    at_least("number", 1),
    not_blank("reason"),
    refers={"principal": principal, "person": principal},
    signed=True,
)

person_link = PERSON_LINK.table

# A waiting link, an open session or an ended session. Triggers let each step happen once.
DASHBOARD_SESSION: Final = record(
    DashboardSession,
    "dashboard_session",
    sa.UniqueConstraint("link_hash"),
    sa.UniqueConstraint("cookie_hash"),
    sa.CheckConstraint("(link_hash IS NULL) = (link_expires_at IS NULL)", name="link_whole"),
    sa.CheckConstraint(
        "(cookie_hash IS NULL) = (opened_at IS NULL)"
        " AND (cookie_hash IS NULL) = (expires_at IS NULL)",
        name="cookie_whole",
    ),
    sa.CheckConstraint("link_hash IS NOT NULL OR cookie_hash IS NOT NULL", name="has_a_text"),
    sa.CheckConstraint("link_expires_at > created_at", name="link_expires_later"),
    sa.CheckConstraint("expires_at > opened_at", name="expires_later"),
    sa.Index("ix_dashboard_session_created_at", "created_at"),
    sa.Index("ix_dashboard_session_expires_at", "expires_at"),
    refers={"principal": principal, "key": api_key},
    signed=True,
)

dashboard_session = sign_rows_of(DASHBOARD_SESSION.table, decides=False)


class Principals(Records[Principal]):
    record = PRINCIPAL
    missing = "there is no principal {}"

    def add(self, new: Principal) -> None:
        """Adds a principal. Raises Conflict when its id, its name or its sign-in is taken."""
        self._tx.serialize()
        for stored in self.all():
            if _is_same_principal(stored, new):
                raise Conflict(
                    f"the name {new.name!r} already belongs to {stored.name!r} ({stored.id}): "
                    "other case, spaces or Unicode forms do not make a new name"
                )
        super().add(new)

    # Reads all rows, because a forged row with this name must not hide the genuine row.
    def named(self, name: str) -> Principal | None:
        folded_name = fold_name(name)
        return next(
            (record for record in self.all() if record.folded == folded_name),
            None,
        )

    def signed_in(self, issuer: str, subject: str) -> Principal | None:
        pair = (issuer, subject)
        return next((r for r in self.all() if (r.issuer, r.subject) == pair), None)

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        principals = self._all(self._select(principal.c.id.in_(sorted(ids))))
        return {stored.id: stored for stored in principals}


def _is_same_principal(first: Principal, second: Principal) -> bool:
    signs_in = first.issuer is not None and (first.issuer, first.subject) == (
        second.issuer,
        second.subject,
    )
    return first.id == second.id or first.folded == second.folded or signs_in


class PersonLinks(Records[PersonLink]):
    record = PERSON_LINK
    order = (person_link.c.principal, person_link.c.number)

    def people(self, *, lock: bool = False) -> People:
        """Loads the newest declarations.

        Args:
            lock: whether other `write()`s wait until this one ends.
        """
        if lock:
            self._tx.serialize()
        # In this order, the last declaration of a principal replaces the earlier ones.
        newest = {link.principal: link for link in self._all(self._select())}
        return People(newest.values())


class ApiKeys(Records[ApiKey]):
    """Client keys and management keys, including revoked keys (`revoked_at`)."""

    record = API_KEY
    order = (api_key.c.created_at, api_key.c.id)
    missing = "there is no key {}; `swapproof key list` shows them"

    def find(self, key: str) -> ApiKey | None:
        return self._first(self._select(self._is(key)))

    def by_hash(self, hash_: str) -> ApiKey | None:
        row = self._tx.read(self._select(api_key.c.hash == hash_)).first()
        if row is not None and row.role is not None:
            # Otherwise somebody could undo a revocation by writing the key's earlier row, whose
            # signature is valid.
            self._tx.check_manifest()
        return None if row is None else self._verified([row])[0]

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        return self._all(self._select(api_key.c.principal == principal))

    def data_key_names(self) -> Mapping[str, str]:
        """Returns the names of the client keys that are not revoked, by id. Does not check
        signatures.
        """
        live = sa.and_(api_key.c.role.is_(None), api_key.c.revoked_at.is_(None))
        names = sa.select(api_key.c.id, api_key.c.name).where(live)
        return {row.id: row.name for row in self._tx.read(names)}

    def revoke(self, key: str, now: datetime) -> bool:
        """Returns False if the key was already revoked. Raises NotFound."""
        self._tx.serialize()
        live = sa.and_(self._is(key), api_key.c.revoked_at.is_(None))
        if self._tx.amend(api_key, live, {"revoked_at": now}):
            return True
        if self._tx.read(self._select(self._is(key))).first() is None:
            raise self._missing(key)
        return False

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        return self._amend(key, limits=limits)

    def opt_out(self, key: str, opt_outs: Iterable[OptOut]) -> ApiKey:
        return self._amend(key, opt_outs=frozenset(opt_outs))

    def _amend(self, key: str, **changes: Any) -> ApiKey:
        self._tx.serialize()
        new = replace(self.get(key), **changes)
        self._tx.amend(api_key, self._is(key), self.record.only(new, *changes))
        return new


class DashboardSessions(Records[DashboardSession]):
    record = DASHBOARD_SESSION
    missing = (
        "there is no dashboard session {}: `swapproof person sessions` shows the open ones"
    )

    def by_link(self, hash_: str) -> DashboardSession | None:
        """Finds the sign-in of a link, also of a used link. A `write()` locks it
        until its end.
        """
        self._tx.serialize()
        return self._first(self._select(dashboard_session.c.link_hash == hash_))

    def by_cookie(self, hash_: str, *, lock: bool = False) -> DashboardSession | None:
        """Finds the session of a cookie, also an ended session.

        Args:
            lock: whether a `write()` locks it.
        """
        if lock:
            self._tx.serialize()
        return self._first(self._select(dashboard_session.c.cookie_hash == hash_))

    def save(self, changed: DashboardSession) -> None:
        names = ("cookie_hash", "opened_at", "expires_at", "ended_at")
        changes = self.record.only(changed, *names)
        if not self._tx.amend(dashboard_session, self._is(changed.id), changes):
            raise self._missing(changed.id)

    def get(self, id_: str) -> DashboardSession:
        """Loads a sign-in. A `write()` locks it until its end. Raises NotFound."""
        self._tx.serialize()
        return super().get(id_)

    def open_at(self, now: datetime) -> Sequence[DashboardSession]:
        row = dashboard_session.c
        is_open = (
            row.cookie_hash.is_not(None),
            row.ended_at.is_(None),
            row.expires_at > now,
        )
        return self._all(self._select(*is_open).order_by(row.opened_at.desc(), row.id))

    def forget(self, before: datetime) -> int:
        return self._delete(dashboard_session.c.created_at < before)
