"""Captured requests in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from harness.domain.privacy.capture import CapturedRequest, CaptureResult, day_start
from harness.store.memory.state import Unit
from harness.store.rules import check_captured, not_captured


class MemoryCaptures:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        check_captured(new)
        stored = self._unit.writing.captures
        if (old := stored.get(new.id)) is not None:
            stored[new.id] = replace(old, seen=old.seen + 1)
            return CaptureResult.REPEATED
        day = day_start(new.at)
        if sum(each.route == new.route and each.at >= day for each in stored.values()) >= (
            most_per_day
        ):
            return CaptureResult.FULL
        stored[new.id] = new
        return CaptureResult.STORED

    def get(self, id_: str) -> CapturedRequest:
        stored = self._unit.state.captures
        if id_ not in stored:
            raise not_captured(id_)
        return stored[id_]

    def list(
        self,
        *,
        route: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[CapturedRequest]:
        found = [
            each
            for each in self._unit.state.captures.values()
            if route in (None, each.route) and (since is None or each.at >= since)
        ]
        return sorted(found, key=lambda each: (-each.at.timestamp(), each.id))[:limit]

    def forget(self, now: datetime) -> int:
        return self._drop({i for i, each in self._all() if each.expires_at <= now})

    def purge(
        self, *, id_: str | None = None, route: str | None = None, users: Sequence[str] = ()
    ) -> int:
        return self._drop(
            {
                known
                for known, each in self._all()
                if id_ in (None, known)
                and route in (None, each.route)
                and (not users or each.user_hash in users)
            }
        )

    def _all(self) -> Sequence[tuple[str, CapturedRequest]]:
        return list(self._unit.state.captures.items())

    def _drop(self, ids: set[str]) -> int:
        stored = self._unit.writing.captures
        for each in ids:
            del stored[each]
        return len(ids)
