"""Reads and writes principals, API keys, sign-ins to the dashboard, alerts (`Alerts`: new
ones are merged into the open one of their key) and the outbox of their messages
(`Deliveries`: what is due, sink by sink, in order).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from harness.domain.errors import Conflict, NotFound
from harness.domain.operations.access import ApiKey, OptOut
from harness.domain.operations.alert_record import AlertRecord, Notified, apply_alerts
from harness.domain.operations.alerts import ALERT_RULES, Alert, AlertKind
from harness.domain.operations.dashboard_session import DashboardSession
from harness.domain.operations.delivery import Delivery
from harness.domain.operations.principals import People, PersonLink, Principal, fold_name
from harness.domain.reliability.rate_limits import KeyLimits
from harness.store.refusals import no_such_alert, no_such_key, no_such_session, principal_taken
from harness.store.rules import check_key, is_same_principal
from harness.store.schema.operations import (
    alert,
    alert_from_row,
    alert_to_row,
    api_key,
    dashboard_session,
    dashboard_session_from_row,
    dashboard_session_to_row,
    delivery,
    delivery_from_row,
    delivery_to_row,
    key_from_row,
    key_to_row,
    limits_to_json,
    opt_outs_to_json,
    person_link,
    person_link_from_row,
    person_link_to_row,
    principal,
    principal_from_row,
    principal_to_row,
)
from harness.store.sql.preload import newest_key, rows_key
from harness.store.unit_of_work import Unit

PRINCIPALS = sa.select(principal)
PERSON_LINKS = sa.select(person_link).order_by(person_link.c.principal, person_link.c.number)
OPEN_SESSIONS = (
    sa.select(dashboard_session)
    .where(
        dashboard_session.c.cookie_hash.is_not(None),
        dashboard_session.c.ended_at.is_(None),
        dashboard_session.c.expires_at
        > sa.bindparam("now", type_=dashboard_session.c.expires_at.type),
    )
    .order_by(dashboard_session.c.opened_at.desc(), dashboard_session.c.id)
)
KEYS = sa.select(api_key).order_by(api_key.c.created_at, api_key.c.id)
ALERT_ROWS = sa.select(alert)
ALERTS = ALERT_ROWS.order_by(alert.c.last_seen.desc(), alert.c.id)
ALERT_OF_KEY = (
    sa.select(alert)
    .where(alert.c.key == sa.bindparam("of"))
    .order_by(alert.c.first_seen.desc(), alert.c.id)
    .limit(1)
)
_EVENTS = [kind.value for kind, rule in ALERT_RULES.items() if not rule.lasting]
# Named one by one: an index goes straight to these, and to no NOT IN.
_LASTING = [kind.value for kind, rule in ALERT_RULES.items() if rule.lasting]
UNSETTLED_ALERTS = ALERTS.where(
    sa.or_(
        alert.c.resolved_at.is_(None),
        sa.and_(alert.c.told == Notified.RAISED.value, alert.c.kind.in_(_LASTING)),
        sa.and_(alert.c.kind.in_(_EVENTS), alert.c.told.is_(None)),
    )
)
_earlier = delivery.alias("earlier")
DUE_DELIVERIES = (
    sa.select(delivery)
    .where(
        delivery.c.next_attempt_at <= sa.bindparam("now", type_=delivery.c.created_at.type),
        # Nobody hears that it is over before hearing of it.
        ~sa.exists().where(
            _earlier.c.alert == delivery.c.alert,
            _earlier.c.sink == delivery.c.sink,
            _earlier.c.number < delivery.c.number,
            _earlier.c.next_attempt_at.is_not(None),
        ),
    )
    .order_by(delivery.c.created_at, delivery.c.alert, delivery.c.number, delivery.c.sink)
)
DELIVERIES = (
    sa.select(delivery)
    .where(delivery.c.alert == sa.bindparam("of"))
    .order_by(delivery.c.number, delivery.c.sink)
)


class Principals:
    """Stores the people and services that act. The local operator is there from the start."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Principal) -> None:
        """Adds a principal. Raises Conflict when its id, its folded name, or issuer and subject
        are taken.
        """
        self._unit.serialize()
        for stored in self.all():
            if is_same_principal(stored, new):
                raise principal_taken(new, stored)
        self._unit.insert(principal, principal_to_row(new))

    def get(self, id_: str) -> Principal:
        row = self._unit.read(PRINCIPALS.where(principal.c.id == id_)).first()
        if row is None:
            raise NotFound(f"there is no principal {id_}")
        return principal_from_row(self._unit.checked(principal, [row])[0])

    def named(self, name: str) -> Principal | None:
        wanted = fold_name(name)
        return next((record for record in self.all() if record.folded == wanted), None)

    def signed_in(self, issuer: str, subject: str) -> Principal | None:
        pair = (issuer, subject)
        return next((r for r in self.all() if (r.issuer, r.subject) == pair), None)

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        found = self._unit.read(PRINCIPALS.where(principal.c.id.in_(sorted(ids))))
        return {row.id: principal_from_row(row) for row in self._unit.checked(principal, found)}

    def all(self) -> Sequence[Principal]:
        # Others look here as well, not by what they look for: somebody may have put another
        # name in its place.
        found = self._unit.checked(principal, self._unit.read(PRINCIPALS))
        return [principal_from_row(row) for row in found]


class PersonLinks:
    """Stores who was declared to be one person; declarations are only ever added."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: PersonLink) -> None:
        """Adds a declaration. Nobody else adds one until the end of the unit of work."""
        self._unit.serialize()
        self._unit.insert(person_link, person_link_to_row(new))

    def people(self, *, lock: bool = False) -> People:
        """Loads who is who now, by the newest declarations. lock: in a `write()`, nobody else
        declares anything until the end of the unit of work.
        """
        if lock:
            self._unit.serialize()
        rows = self._unit.checked(person_link, self._unit.read(PERSON_LINKS))
        # All of them, in order: the last one of a principal stays.
        newest = {row.principal: person_link_from_row(row) for row in rows}
        return People(newest.values())


class ApiKeys:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, key: ApiKey) -> None:
        """Adds a key. Raises Conflict when its id or hash is stored, InputError without its
        principal.
        """
        check_key(key)
        self._unit.serialize()
        same = KEYS.where(sa.or_(api_key.c.id == key.id, api_key.c.hash == key.hash))
        if self._unit.read(same).first() is not None:
            raise Conflict(f"the key {key.id} ({key.name}) is stored already: create another")
        self._unit.insert(api_key, key_to_row(key))

    def get(self, key: str) -> ApiKey | None:
        """Loads a key by id, a revoked one too: look at revoked_at."""
        row = self._unit.read(KEYS.where(api_key.c.id == key)).first()
        return None if row is None else key_from_row(self._unit.checked(api_key, [row])[0])

    def by_hash(self, hash_: str) -> ApiKey | None:
        """Finds a key by its hash, a revoked one too: look at revoked_at."""
        row = self._unit.read(KEYS.where(api_key.c.hash == hash_)).first()
        if row is not None and row.role is not None:
            # A key that was revoked may have been put back as it was signed before.
            self._unit.check_manifest()
        return None if row is None else key_from_row(self._unit.checked(api_key, [row])[0])

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        found = self._unit.read(KEYS.where(api_key.c.principal == principal))
        return [key_from_row(row) for row in self._unit.checked(api_key, found)]

    def data_key_names(self) -> Mapping[str, str]:
        """Loads the names of the data keys that are not revoked, by id; their rows' signatures
        are not checked.
        """
        live = sa.and_(api_key.c.role.is_(None), api_key.c.revoked_at.is_(None))
        names = sa.select(api_key.c.id, api_key.c.name).where(live)
        return {row.id: row.name for row in self._unit.read(names)}

    def revoke(self, key: str, now: datetime) -> None:
        """Revokes a key from `now` on. Raises NotFound."""
        self._unit.serialize()
        open_ = sa.and_(api_key.c.id == key, api_key.c.revoked_at.is_(None))
        if self._unit.amend(api_key, open_, {"revoked_at": now}):
            return
        if self._unit.read(KEYS.where(api_key.c.id == key)).first() is None:
            raise no_such_key(key)

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        """Replaces the limits of a key. Raises NotFound."""
        self._unit.serialize()
        changes = {"limits": limits_to_json(limits)}
        if not self._unit.amend(api_key, api_key.c.id == key, changes):
            raise no_such_key(key)
        return key_from_row(self._unit.read(KEYS.where(api_key.c.id == key)).one())

    def opt_out(self, key: str, opt_outs: Iterable[OptOut]) -> ApiKey:
        """Replaces what a key opts out of. Raises NotFound."""
        self._unit.serialize()
        changes = {"opt_outs": opt_outs_to_json(opt_outs)}
        if not self._unit.amend(api_key, api_key.c.id == key, changes):
            raise no_such_key(key)
        return key_from_row(self._unit.read(KEYS.where(api_key.c.id == key)).one())


class DashboardSessions:
    """Stores sign-ins to the dashboard: links that wait, sessions that go on or ended."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: DashboardSession) -> None:
        self._unit.insert(dashboard_session, dashboard_session_to_row(new))

    def by_link(self, hash_: str) -> DashboardSession | None:
        """Finds the sign-in of a link by the link's hash, a used one too. In a `write()`,
        nobody else changes it until the end of the unit of work.
        """
        self._unit.serialize()
        return self._find(dashboard_session.c.link_hash == hash_)

    def by_cookie(self, hash_: str, *, lock: bool = False) -> DashboardSession | None:
        """Finds the session of a cookie by the cookie's hash, an ended one too. lock: in a
        `write()`, nobody else changes it until the end of the unit of work.
        """
        if lock:
            self._unit.serialize()
        return self._find(dashboard_session.c.cookie_hash == hash_)

    def save(self, changed: DashboardSession) -> None:
        """Saves a session that was opened or ended. Raises NotFound."""
        same = dashboard_session.c.id == changed.id
        names = ("cookie_hash", "opened_at", "expires_at", "ended_at")
        changes = {name: getattr(changed, name) for name in names}
        if not self._unit.amend(dashboard_session, same, changes):
            raise no_such_session(changed.id)

    def get(self, session: str) -> DashboardSession:
        """Loads a sign-in by its id; in a `write()`, nobody else changes it until the end of
        the unit of work. Raises NotFound.
        """
        self._unit.serialize()
        found = self._find(dashboard_session.c.id == session)
        if found is None:
            raise no_such_session(session)
        return found

    def open_at(self, now: datetime) -> Sequence[DashboardSession]:
        rows = self._unit.read(OPEN_SESSIONS, {"now": now})
        found = self._unit.checked(dashboard_session, rows)
        return [dashboard_session_from_row(row) for row in found]

    def forget(self, before: datetime) -> int:
        old = dashboard_session.c.created_at < before
        return self._unit.write(sa.delete(dashboard_session).where(old))

    def _find(self, condition: sa.ColumnElement[bool]) -> DashboardSession | None:
        row = self._unit.read(sa.select(dashboard_session).where(condition)).first()
        if row is None:
            return None
        return dashboard_session_from_row(self._unit.checked(dashboard_session, [row])[0])


class Alerts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def fold(self, alerts: Iterable[Alert]) -> None:
        told = list(alerts)
        # In one order for all writers: two of them never wait for each other.
        keys = sorted({message.key for message in told})
        known = {key: found for key in keys if (found := self.newest(key)) is not None}
        stored = {record.id for record in known.values()}
        for record in apply_alerts(known, told).values():
            if record.id in stored:
                self.save(record)
            else:
                self._unit.write(sa.insert(alert), alert_to_row(record))

    def get(self, id_: str) -> AlertRecord:
        row = self._unit.read(ALERTS.where(alert.c.id == id_)).first()
        if row is None:
            raise no_such_alert(id_)
        return alert_from_row(row)

    def newest(self, key: str) -> AlertRecord | None:
        """Finds the newest alert with this key. In a `write()`, nobody else changes it until
        the end of the unit of work.
        """
        self._unit.serialize_by(f"alert {key}")
        row = self._unit.once(
            newest_key(alert, key), lambda: self._unit.read(ALERT_OF_KEY, {"of": key}).first()
        )
        return None if row is None else alert_from_row(row)

    def save(self, record: AlertRecord) -> None:
        """Saves a changed alert. Raises NotFound."""
        same = sa.update(alert).where(alert.c.id == record.id)
        if self._unit.write(same.values(alert_to_row(record))) != 1:
            raise no_such_alert(record.id)

    def list(
        self, *, open_only: bool = False, kind: AlertKind | None = None, limit: int = 100
    ) -> Sequence[AlertRecord]:
        """Lists the alerts, the one heard of last first. kind: None for all."""
        query = ALERTS.where(alert.c.resolved_at.is_(None)) if open_only else ALERTS
        if kind is not None:
            query = query.where(alert.c.kind == kind.value)
        return [alert_from_row(row) for row in self._unit.read(query.limit(limit))]

    def unsettled(self) -> Sequence[AlertRecord]:
        return [alert_from_row(row) for row in self._unit.read(UNSETTLED_ALERTS)]

    def forget(self, before: datetime) -> int:
        """Deletes the alerts that ended before a time, and returns how many. Their deliveries
        go with them.
        """
        return self._unit.write(sa.delete(alert).where(alert.c.resolved_at < before))


class Deliveries:
    """Holds the outbox of alerts: one row per message and sink."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Delivery) -> None:
        """Adds a message; one that another process added stays as it is."""
        self._unit.write_new(delivery, delivery_to_row(new))

    def due(self, now: datetime, *, limit: int = 100) -> Sequence[Delivery]:
        """Lists the messages to send now, oldest first; none before an earlier one of the same
        alert and sink is over.
        """
        found = self._unit.read(DUE_DELIVERIES.limit(limit), {"now": now})
        return [delivery_from_row(row) for row in found]

    def replace(self, before: Delivery, after: Delivery) -> bool:
        """Stores `after` where the message is as `before` says; returns whether it was."""
        same = (
            delivery.c.alert == before.alert,
            delivery.c.number == before.number,
            delivery.c.sink == before.sink,
            delivery.c.attempts == before.attempts,
            delivery.c.next_attempt_at.is_not_distinct_from(before.next_attempt_at),
        )
        changed = sa.update(delivery).where(*same).values(delivery_to_row(after))
        return self._unit.write(changed) > 0

    def for_alert(self, alert: str) -> Sequence[Delivery]:
        rows = self._unit.once(
            rows_key(delivery, alert), lambda: self._unit.read(DELIVERIES, {"of": alert}).all()
        )
        return [delivery_from_row(row) for row in rows]
