"""Stores people, keys, sign-ins to the dashboard, alerts and the outbox of their messages."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.domain.operations.access import ApiKey, DashboardSession, OptOut
from harness.domain.operations.alert_record import AlertRecord, Notified, apply_alerts
from harness.domain.operations.alerts import ALERT_RULES, Alert, AlertKind
from harness.domain.operations.delivery import Delivery
from harness.domain.operations.idempotent_request import IdempotentRequest
from harness.domain.operations.principals import People, PersonLink, Principal, fold_name
from harness.domain.reliability.rate_limits import KeyLimits
from harness.store.schema.operations import (
    ALERT,
    API_KEY,
    DASHBOARD_SESSION,
    DELIVERY,
    IDEMPOTENT_REQUEST,
    PERSON_LINK,
    PRINCIPAL,
    alert,
    api_key,
    dashboard_session,
    delivery,
    idempotent_request,
    person_link,
    principal,
)
from harness.store.sql.pages import given
from harness.store.sql.preload import newest_key, rows_key
from harness.store.sql.records import Records

_EVENTS = [kind.value for kind, rule in ALERT_RULES.items() if not rule.lasting]
# Named one by one: an index goes straight to these, and to no NOT IN.
_LASTING = [kind.value for kind, rule in ALERT_RULES.items() if rule.lasting]
IS_UNSETTLED = sa.or_(
    alert.c.resolved_at.is_(None),
    sa.and_(alert.c.notified == Notified.RAISED.value, alert.c.kind.in_(_LASTING)),
    sa.and_(alert.c.kind.in_(_EVENTS), alert.c.notified.is_(None)),
)
_earlier = delivery.alias("earlier")
# A sink gets the message of an alert's end after the message of its start.
FOLLOWS_ANOTHER = sa.exists().where(
    _earlier.c.alert == delivery.c.alert,
    _earlier.c.sink == delivery.c.sink,
    _earlier.c.number < delivery.c.number,
    _earlier.c.next_attempt_at.is_not(None),
)


class Principals(Records[Principal]):
    record = PRINCIPAL
    missing = "there is no principal {}"

    def add(self, new: Principal) -> None:
        """Adds a principal. Raises Conflict when its id, its name or its sign-in is taken."""
        self._tx.serialize()
        for stored in self.all():
            if _is_same_principal(stored, new):
                raise Conflict(
                    f"the name {new.name!r} belongs to {stored.name!r} ({stored.id}) already: "
                    "spelling, case and spaces do not make another person"
                )
        super().add(new)

    # Searches by name read all rows: a forged row may have another name in its place.
    def named(self, name: str) -> Principal | None:
        wanted = fold_name(name)
        return next((record for record in self.all() if record.folded == wanted), None)

    def signed_in(self, issuer: str, subject: str) -> Principal | None:
        pair = (issuer, subject)
        return next((r for r in self.all() if (r.issuer, r.subject) == pair), None)

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        found = self._all(self._select(principal.c.id.in_(sorted(ids))))
        return {stored.id: stored for stored in found}


def _is_same_principal(one: Principal, other: Principal) -> bool:
    signs_in = one.issuer is not None and (one.issuer, one.subject) == (
        other.issuer,
        other.subject,
    )
    return one.id == other.id or one.folded == other.folded or signs_in


class PersonLinks(Records[PersonLink]):
    record = PERSON_LINK
    order = (person_link.c.principal, person_link.c.number)

    def people(self, *, lock: bool = False) -> People:
        """Loads the newest declarations. lock: another `write()` waits with its own."""
        if lock:
            self._tx.serialize()
        # All of them, in order: the last one of a principal stays.
        newest = {link.principal: link for link in self._all(self._select())}
        return People(newest.values())


class ApiKeys(Records[ApiKey]):
    """Data and management keys, revoked ones too: look at `revoked_at`."""

    record = API_KEY
    order = (api_key.c.created_at, api_key.c.id)
    missing = "there is no key {}; `swapgate key list` shows them"

    def find(self, key: str) -> ApiKey | None:
        return self._first(self._select(self._is(key)))

    def by_hash(self, hash_: str) -> ApiKey | None:
        row = self._tx.read(self._select(api_key.c.hash == hash_)).first()
        if row is not None and row.role is not None:
            # A key that was revoked may have been put back as it was signed before.
            self._tx.check_manifest()
        return None if row is None else self._verified([row])[0]

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        return self._all(self._select(api_key.c.principal == principal))

    def data_key_names(self) -> Mapping[str, str]:
        """Names the data keys that are not revoked, by id; signatures are not checked."""
        live = sa.and_(api_key.c.role.is_(None), api_key.c.revoked_at.is_(None))
        names = sa.select(api_key.c.id, api_key.c.name).where(live)
        return {row.id: row.name for row in self._tx.read(names)}

    def revoke(self, key: str, now: datetime) -> None:
        self._tx.serialize()
        live = sa.and_(self._is(key), api_key.c.revoked_at.is_(None))
        if self._tx.amend(api_key, live, {"revoked_at": now}):
            return
        if self._tx.read(self._select(self._is(key))).first() is None:
            raise self._missing(key)

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        return self._amend(key, limits=limits)

    def opt_out(self, key: str, opt_outs: Iterable[OptOut]) -> ApiKey:
        return self._amend(key, opt_outs=frozenset(opt_outs))

    def _amend(self, key: str, **changes: Any) -> ApiKey:
        self._tx.serialize()
        changed = replace(self.get(key), **changes)
        self._tx.amend(api_key, self._is(key), self.record.only(changed, *changes))
        return changed


class DashboardSessions(Records[DashboardSession]):
    record = DASHBOARD_SESSION
    missing = "there is no dashboard session {}: `swapgate person sessions` shows the open ones"

    def by_link(self, hash_: str) -> DashboardSession | None:
        """Finds the sign-in of a link, a used one too. A `write()` locks it until its end."""
        self._tx.serialize()
        return self._first(self._select(dashboard_session.c.link_hash == hash_))

    def by_cookie(self, hash_: str, *, lock: bool = False) -> DashboardSession | None:
        """Finds the session of a cookie, an ended one too. lock: a `write()` locks it."""
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
        is_open = (row.cookie_hash.is_not(None), row.ended_at.is_(None), row.expires_at > now)
        return self._all(self._select(*is_open).order_by(row.opened_at.desc(), row.id))

    def forget(self, before: datetime) -> int:
        return self._delete(dashboard_session.c.created_at < before)


class Alerts(Records[AlertRecord]):
    record = ALERT
    order = (alert.c.last_seen.desc(), alert.c.id)
    missing = "there is no alert {}; `swapgate alert list` shows them"

    def fold(self, alerts: Iterable[Alert]) -> None:
        told = list(alerts)
        # In one order for all writers: two of them never wait for each other.
        keys = sorted({message.key for message in told})
        known = {key: found for key in keys if (found := self.newest(key)) is not None}
        stored = {record.id for record in known.values()}
        for changed in apply_alerts(known, told).values():
            if changed.id in stored:
                self.save(changed)
            else:
                self.add(changed)

    def newest(self, key: str) -> AlertRecord | None:
        """Finds the newest alert with this key. A `write()` locks it until its end."""
        self._tx.serialize_by(f"alert {key}")
        query = sa.select(alert).where(alert.c.key == key).limit(1)
        query = query.order_by(alert.c.first_seen.desc(), alert.c.id)
        row = self._tx.once(newest_key(alert, key), lambda: self._tx.read(query).first())
        return None if row is None else self.record.read(row)

    def save(self, record: AlertRecord) -> None:
        if self._change(self._is(record.id), **self.record.write(record)) != 1:
            raise self._missing(record.id)

    def list(
        self, *, open_only: bool = False, kind: AlertKind | None = None, limit: int = 100
    ) -> Sequence[AlertRecord]:
        open_ = alert.c.resolved_at.is_(None) if open_only else None
        return self._all(self._select(open_, given(alert.c.kind, kind)).limit(limit))

    def unsettled(self) -> Sequence[AlertRecord]:
        """Lists the alerts that are open or may still have a due message."""
        return self._all(self._select(IS_UNSETTLED))

    def forget(self, before: datetime) -> int:
        return self._delete(alert.c.resolved_at < before)


class Deliveries(Records[Delivery]):
    record = DELIVERY

    def add(self, new: Delivery) -> None:
        """Adds a message. Leaves it as it is where another process added it first."""
        self._tx.write_new(delivery, self.record.write(new))

    def due(self, now: datetime, *, limit: int = 100) -> Sequence[Delivery]:
        row = delivery.c
        query = self._select(row.next_attempt_at <= now, ~FOLLOWS_ANOTHER)
        query = query.order_by(row.created_at, row.alert, row.number, row.sink)
        return self._all(query.limit(limit))

    def replace(self, before: Delivery, after: Delivery) -> bool:
        same = (
            delivery.c.alert == before.alert,
            delivery.c.number == before.number,
            delivery.c.sink == before.sink,
            delivery.c.attempts == before.attempts,
            delivery.c.next_attempt_at.is_not_distinct_from(before.next_attempt_at),
        )
        return self._change(*same, **self.record.write(after)) > 0

    def for_alert(self, alert: str) -> Sequence[Delivery]:
        query = self._select(delivery.c.alert == alert)
        query = query.order_by(delivery.c.number, delivery.c.sink)
        rows = self._tx.once(rows_key(delivery, alert), lambda: self._tx.read(query).all())
        return [self.record.read(row) for row in rows]


class IdempotentRequests(Records[IdempotentRequest]):
    record = IDEMPOTENT_REQUEST

    def find(self, scope: str, key: str) -> IdempotentRequest | None:
        columns = idempotent_request.c
        return self._first(self._select(columns.scope == scope, columns.key == key))

    def add_new(self, new: IdempotentRequest) -> bool:
        """Adds a request; False where its key is taken."""
        return self._tx.write_new(idempotent_request, self.record.write(new))

    def forget(self, until: datetime) -> int:
        return self._delete(idempotent_request.c.sent_at <= until)
