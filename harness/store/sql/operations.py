"""Reads and writes observations (canary blocks, traffic by minute, keys' spend), providers,
principals and API keys.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime

import sqlalchemy as sa

from harness.domain.canary.observation import ObservationBlock, TrafficMinute, TrafficTotal
from harness.domain.errors import Conflict, NotFound
from harness.domain.operations.access import ApiKey
from harness.domain.operations.principals import Principal, fold_name
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.reliability.spend import KeySpend
from harness.domain.routing.target import Provider
from harness.store.rules import (
    SPEND_KEY,
    SPEND_SUMS,
    TOTAL_KEY,
    TRAFFIC_KEY,
    TRAFFIC_SUMS,
    check_block,
    check_key,
    check_spend,
    check_traffic,
    is_same_principal,
    no_such_key,
    principal_taken,
)
from harness.store.schema.columns import Values
from harness.store.schema.observations import (
    block,
    block_from_row,
    block_to_row,
    key_spend,
    spend_from_row,
    spend_to_row,
    total_from_row,
    traffic,
    traffic_from_row,
    traffic_to_row,
)
from harness.store.schema.operations import (
    api_key,
    key_from_row,
    key_to_row,
    limits_to_json,
    principal,
    principal_from_row,
    principal_to_row,
)
from harness.store.schema.providers import provider, provider_from_row, provider_to_row
from harness.store.unit_of_work import Unit, in_project

BLOCKS = (
    sa.select(block)
    .where(block.c.rollout == sa.bindparam("of"), block.c.number > sa.bindparam("after"))
    .order_by(block.c.number)
)
IS_SAME_TRAFFIC = sa.and_(
    *(traffic.c[name] == sa.bindparam(f"key_{name}") for name in TRAFFIC_KEY)
)
LATENCY = sa.select(traffic.c.latency_ms).where(IS_SAME_TRAFFIC).with_for_update()
ADD_TRAFFIC = (
    sa.update(traffic)
    .where(IS_SAME_TRAFFIC)
    .values(
        {name: traffic.c[name] + sa.bindparam(f"more_{name}") for name in TRAFFIC_SUMS}
        | {"latency_ms": sa.bindparam("histogram", type_=traffic.c.latency_ms.type)}
    )
)
IS_SAME_SPEND = sa.and_(
    *(key_spend.c[name] == sa.bindparam(f"key_{name}") for name in SPEND_KEY)
)
ADD_SPEND = (
    sa.update(key_spend)
    .where(IS_SAME_SPEND)
    .values({name: key_spend.c[name] + sa.bindparam(f"more_{name}") for name in SPEND_SUMS})
)
SPENDS = (
    sa.select(key_spend)
    .where(in_project(key_spend), key_spend.c.day >= sa.bindparam("since"))
    .order_by(*key_spend.primary_key.columns)
)
SPENDS_OF = SPENDS.where(key_spend.c.key.in_(sa.bindparam("keys", expanding=True)))
OLDEST_TRAFFIC = sa.select(traffic).order_by(traffic.c.minute, *traffic.primary_key.columns)
_TOTAL_OF = [traffic.c[name] for name in TOTAL_KEY]
TOTALS = (
    sa.select(
        *_TOTAL_OF,
        sa.func.min(traffic.c.minute, type_=traffic.c.minute.type).label("first"),
        sa.func.max(traffic.c.minute, type_=traffic.c.minute.type).label("last"),
        *(sa.func.sum(traffic.c[name]).label(name) for name in TRAFFIC_SUMS),
    )
    .where(traffic.c.minute >= sa.bindparam("since", type_=traffic.c.minute.type))
    .group_by(*_TOTAL_OF)
    .order_by(*_TOTAL_OF)
)
TOTALS_OF_ROUTE = TOTALS.where(traffic.c.route == sa.bindparam("of"))
PROVIDERS = sa.select(provider).where(provider.c.removed_at.is_(None)).order_by(provider.c.name)
PROVIDER_ROW = sa.select(provider.c.name).where(provider.c.name == sa.bindparam("known"))
PRINCIPALS = sa.select(principal)
KEYS = (
    sa.select(api_key).where(in_project(api_key)).order_by(api_key.c.created_at, api_key.c.id)
)


class SqlObservations:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def append(
        self,
        blocks: Iterable[ObservationBlock],
        traffic: Iterable[TrafficMinute],
        spends: Iterable[KeySpend] = (),
    ) -> None:
        # In one order for all writers: two of them never wait for each other.
        for observation_block in sorted(blocks, key=lambda b: b.rollout):
            self._append_block(observation_block)
        for minute in sorted(traffic, key=lambda t: [str(getattr(t, k)) for k in TRAFFIC_KEY]):
            self._add_traffic(minute)
        for spend in sorted(spends, key=lambda s: (s.key, s.day, s.worker)):
            self._add_spend(spend)

    def _append_block(self, new: ObservationBlock) -> None:
        check_block(new)
        # The number's order must be the order of commits: a reader sees no block slip in.
        self._unit.serialize_by(new.rollout)
        last = sa.select(sa.func.coalesce(sa.func.max(block.c.number), 0)).where(
            block.c.rollout == new.rollout
        )
        number = last.scalar_subquery() + 1
        self._unit.write_new(block, block_to_row(new) | {"number": number})

    def _add_traffic(self, more: TrafficMinute) -> None:
        check_traffic(more)
        values = traffic_to_row(more)
        key: Values = {f"key_{name}": values[name] for name in TRAFFIC_KEY}
        if self._unit.write_new(traffic, values):
            return
        before: Mapping[str, int] = self._unit.read(LATENCY, key).scalar_one()
        histogram = dict(before)
        for bound, n in more.latency_ms.items():
            histogram[str(bound)] = histogram.get(str(bound), 0) + n
        sums = {f"more_{name}": values[name] for name in TRAFFIC_SUMS}
        self._unit.write(ADD_TRAFFIC, {**key, **sums, "histogram": histogram})

    def _add_spend(self, more: KeySpend) -> None:
        check_spend(more)
        values = spend_to_row(more)
        if not self._unit.write_new(key_spend, values):
            key: Values = {f"key_{name}": values[name] for name in SPEND_KEY}
            sums = {f"more_{name}": values[name] for name in SPEND_SUMS}
            self._unit.write(ADD_SPEND, {**key, **sums})

    def blocks(self, rollout: str, *, after: int = 0) -> Sequence[ObservationBlock]:
        wanted: Values = {"of": rollout, "after": after}
        return [block_from_row(row) for row in self._unit.read(BLOCKS, wanted)]

    def traffic(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficMinute]:
        query = OLDEST_TRAFFIC.where(traffic.c.minute >= since)
        if route is not None:
            query = query.where(traffic.c.route == route)
        return [traffic_from_row(row) for row in self._unit.read(query)]

    def totals(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficTotal]:
        if route is None:
            found = self._unit.read(TOTALS, {"since": since})
        else:
            found = self._unit.read(TOTALS_OF_ROUTE, {"since": since, "of": route})
        return [total_from_row(row) for row in found]

    def spends(self, *, since: date, keys: Collection[str] | None = None) -> Sequence[KeySpend]:
        if keys is None:
            found = self._unit.read(SPENDS, {"since": since})
        else:
            found = self._unit.read(SPENDS_OF, {"since": since, "keys": sorted(keys)})
        return [spend_from_row(row) for row in found]


class SqlProviders:
    def __init__(self, unit: Unit, now: datetime) -> None:
        self._unit = unit
        self._now = now

    def put(self, new: Provider) -> None:
        self._unit.serialize()
        values = provider_to_row(new) | {"updated_at": self._now}
        if self._unit.read(PROVIDER_ROW, {"known": new.name}).first() is None:
            self._unit.insert(provider, values)
        elif self.all().get(new.name) != new:
            # An equal one is left alone: routers need not load anything.
            same = provider.c.name == new.name
            self._unit.write(
                sa.update(provider).where(same).values(self._unit.signed(provider, values))
            )

    def remove(self, name: str) -> None:
        self._unit.serialize()
        known = sa.and_(provider.c.name == name, provider.c.removed_at.is_(None))
        gone = {"removed_at": self._now, "extra_headers": {}, "sealed_headers": {}}
        if not self._unit.amend(provider, known, gone):
            raise NotFound(f"there is no provider {name!r}")

    def all(self) -> Mapping[str, Provider]:
        found = self._unit.checked(provider, self._unit.read(PROVIDERS))
        return {row.name: provider_from_row(row) for row in found}


class SqlPrincipals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Principal) -> None:
        self._unit.serialize()
        for stored in self._all():
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
        return next((record for record in self._all() if record.folded == wanted), None)

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        found = self._unit.read(PRINCIPALS.where(principal.c.id.in_(sorted(ids))))
        return {row.id: principal_from_row(row) for row in self._unit.checked(principal, found)}

    def _all(self) -> Sequence[Principal]:
        """Not by what is looked for: somebody may have put another name in its place."""
        found = self._unit.checked(principal, self._unit.read(PRINCIPALS))
        return [principal_from_row(row) for row in found]


class SqlApiKeys:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, key: ApiKey) -> None:
        check_key(key)
        self._unit.serialize()
        same = KEYS.where(sa.or_(api_key.c.id == key.id, api_key.c.hash == key.hash))
        if self._unit.read(same).first() is not None:
            raise Conflict(f"the key {key.id} ({key.name}) is stored already: create another")
        self._unit.insert(api_key, key_to_row(key))

    def get(self, key: str) -> ApiKey | None:
        row = self._unit.read(KEYS.where(api_key.c.id == key)).first()
        return None if row is None else key_from_row(self._unit.checked(api_key, [row])[0])

    def by_hash(self, hash_: str) -> ApiKey | None:
        row = self._unit.read(KEYS.where(api_key.c.hash == hash_)).first()
        if row is not None and row.role is not None:
            # A key that was revoked may have been put back as it was signed before.
            self._unit.check_manifest()
        return None if row is None else key_from_row(self._unit.checked(api_key, [row])[0])

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        found = self._unit.read(KEYS.where(api_key.c.principal == principal))
        return [key_from_row(row) for row in self._unit.checked(api_key, found)]

    def revoke(self, key: str, now: datetime) -> None:
        self._unit.serialize()
        open_ = sa.and_(api_key.c.id == key, api_key.c.revoked_at.is_(None))
        if self._unit.amend(api_key, open_, {"revoked_at": now}):
            return
        if self._unit.read(KEYS.where(api_key.c.id == key)).first() is None:
            raise no_such_key(key)

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        self._unit.serialize()
        changes = {"limits": limits_to_json(limits)}
        if not self._unit.amend(api_key, api_key.c.id == key, changes):
            raise no_such_key(key)
        return key_from_row(self._unit.read(KEYS.where(api_key.c.id == key)).one())
