"""Observations, the audit log and API keys."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from harness.domain.canary.observation import ObservationBlock, TrafficMinute, TrafficTotal
from harness.domain.errors import Conflict, NotFound
from harness.domain.operations.access import Actor, ApiKey
from harness.domain.operations.audit import GENESIS, AuditEvent, AuditPosition, find_chain_break
from harness.domain.operations.principals import Principal, fold_name
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.reliability.spend import KeySpend
from harness.store import rules
from harness.store.audit import chained
from harness.store.memory.state import Unit, need


class MemoryObservations:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def append(
        self,
        blocks: Iterable[ObservationBlock],
        traffic: Iterable[TrafficMinute],
        spends: Iterable[KeySpend] = (),
    ) -> None:
        for block in blocks:
            self._append_block(block)
        for minute in traffic:
            self._add_traffic(minute)
        for spend in spends:
            self._add_spend(spend)

    def _append_block(self, new: ObservationBlock) -> None:
        rules.check_block(new)
        state = self._unit.writing
        stored = state.blocks.get(new.rollout, ())
        if (new.worker, new.sequence) not in {(b.worker, b.sequence) for b in stored}:
            numbered = replace(new, number=len(stored) + 1)
            state.blocks[new.rollout] = (*stored, numbered)

    def _add_traffic(self, more: TrafficMinute) -> None:
        rules.check_traffic(more)
        stored = self._unit.writing.traffic
        key = tuple(getattr(more, name) for name in rules.TRAFFIC_KEY)
        known = stored.get(key)
        if known is None:
            stored[key] = more
            return
        bounds = {*known.latency_ms, *more.latency_ms}
        latency = {b: known.latency_ms.get(b, 0) + more.latency_ms.get(b, 0) for b in bounds}
        sums = {n: getattr(known, n) + getattr(more, n) for n in rules.TRAFFIC_SUMS}
        stored[key] = replace(known, **sums, latency_ms=latency)

    def _add_spend(self, more: KeySpend) -> None:
        rules.check_spend(more)
        stored = self._unit.writing.spends
        where = tuple(getattr(more, name) for name in rules.SPEND_KEY)
        known = stored.get(where)
        if known is not None:
            sums = {n: getattr(known, n) + getattr(more, n) for n in rules.SPEND_SUMS}
            more = replace(more, **sums)
        stored[where] = more

    def blocks(self, rollout: str, *, after: int = 0) -> Sequence[ObservationBlock]:
        return self._unit.state.blocks.get(rollout, ())[after:]

    def traffic(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficMinute]:
        stored = self._unit.state.traffic.values()
        found = [t for t in stored if t.minute >= since and route in (None, t.route)]
        return sorted(
            found, key=lambda t: (t.minute, *(getattr(t, name) for name in rules.TRAFFIC_KEY))
        )

    def totals(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficTotal]:
        found: dict[tuple[str, ...], list[TrafficMinute]] = {}
        for minute in self.traffic(since=since, route=route):
            key = tuple(getattr(minute, name) for name in rules.TOTAL_KEY)
            found.setdefault(key, []).append(minute)
        return [_total(found[key]) for key in sorted(found)]

    def spends(self, *, since: date, keys: Collection[str] | None = None) -> Sequence[KeySpend]:
        found = [
            spend
            for spend in self._unit.state.spends.values()
            if spend.day >= since and (keys is None or spend.key in keys)
        ]
        return sorted(found, key=lambda s: (s.key, s.day, s.worker))


def _total(minutes: Sequence[TrafficMinute]) -> TrafficTotal:
    sums = {name: sum(getattr(each, name) for each in minutes) for name in rules.TRAFFIC_SUMS}
    key = {name: getattr(minutes[0], name) for name in rules.TOTAL_KEY}
    return TrafficTotal(**key, first=minutes[0].minute, last=minutes[-1].minute, **sums)


class MemoryAuditLog:
    def __init__(self, unit: Unit, secret: bytes) -> None:
        self._unit = unit
        self._secret = secret

    def append(
        self,
        *,
        at: datetime,
        actor: Actor,
        action: str,
        subject: str,
        details: Mapping[str, object],
    ) -> AuditEvent:
        state = self._unit.writing
        event = chained(
            AuditEvent(
                number=len(state.events) + 1,
                at=at,
                actor=actor.name,
                action=action,
                subject=subject,
                details=details,
                previous=state.events[-1].mac if state.events else GENESIS,
                mac="",
                principal=actor.principal,
                key=actor.key,
            ),
            self._secret,
        )
        state.events = (*state.events, event)
        return event

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        return self._unit.state.events[::-1][:limit]

    def all(self) -> Iterable[AuditEvent]:
        return iter(self._unit.state.events)

    def get(self, number: int) -> AuditEvent | None:
        events = self._unit.state.events
        return events[number - 1] if 0 < number <= len(events) else None

    def of(self, subject: str, *, since: datetime, limit: int) -> Sequence[AuditEvent]:
        newest = reversed(self._unit.state.events)
        return [e for e in newest if e.subject == subject and e.at >= since][:limit]

    def after(self, number: int, limit: int = 500) -> Sequence[AuditEvent]:
        return self._unit.state.events[number : number + limit]

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        return find_chain_break(events, self._secret, mark.number, mark.mac)

    def first_break(self) -> int | None:
        return find_chain_break(self.all(), self._secret)


class MemoryPrincipals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Principal) -> None:
        state = self._unit.writing
        for each in state.principals.values():
            if rules.is_same_principal(each, new):
                raise rules.principal_taken(new, each)
        state.principals[new.id] = new

    def get(self, principal: str) -> Principal:
        try:
            return self._unit.state.principals[principal]
        except KeyError:
            raise NotFound(f"there is no principal {principal}") from None

    def named(self, name: str) -> Principal | None:
        wanted = fold_name(name)
        found = (p for p in self._unit.state.principals.values() if p.folded == wanted)
        return next(found, None)

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        return {id_: p for id_, p in self._unit.state.principals.items() if id_ in ids}


class MemoryApiKeys:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, key: ApiKey) -> None:
        state = self._unit.writing
        rules.check_key(key)
        if key.principal is not None:
            need(state.principals, "principal", key.principal)
        if key.id in state.keys or self.by_hash(key.hash) is not None:
            raise Conflict(f"the key {key.id} ({key.name}) is stored already: create another")
        state.keys[key.id] = key
        state.serving_changes += 1

    def get(self, key: str) -> ApiKey | None:
        return self._unit.state.keys.get(key)

    def by_hash(self, hash_: str) -> ApiKey | None:
        return next((key for key in self._unit.state.keys.values() if key.hash == hash_), None)

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        found = [key for key in self._unit.state.keys.values() if key.principal == principal]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    def revoke(self, key: str, now: datetime) -> None:
        state = self._unit.writing
        if key not in state.keys:
            raise rules.no_such_key(key)
        if state.keys[key].revoked_at is None:
            state.keys[key] = replace(state.keys[key], revoked_at=now)
            state.serving_changes += 1

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        state = self._unit.writing
        if key not in state.keys:
            raise rules.no_such_key(key)
        state.keys[key] = replace(state.keys[key], limits=limits)
        state.serving_changes += 1
        return state.keys[key]
