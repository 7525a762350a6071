"""Stores captured requests up to a number per route and day, counts repeats, lists them,
forgets those past their end, and purges by id, route or user.
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from harness.domain.privacy.capture import CapturedRequest, CaptureResult, day_start
from harness.store.rules import check_captured, not_captured
from harness.store.schema.observations import captured
from harness.store.unit_of_work import Unit

CAPTURES = sa.select(captured).order_by(captured.c.at.desc(), captured.c.id)
CAPTURES_OF_DAY = (
    sa.select(sa.func.count())
    .select_from(captured)
    .where(captured.c.route == sa.bindparam("of_route"), captured.c.at >= sa.bindparam("day"))
)


class SqlCaptures:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        check_captured(new)
        # Several routers may be at the day's last place.
        self._unit.serialize_by(f"capture:{new.route}")
        again = sa.update(captured).where(captured.c.id == new.id)
        if self._unit.write(again.values(seen=captured.c.seen + 1)):
            return CaptureResult.REPEATED
        today = {"of_route": new.route, "day": day_start(new.at)}
        if self._unit.read(CAPTURES_OF_DAY, today).scalar_one() >= most_per_day:
            return CaptureResult.FULL
        values = {name: getattr(new, name) for name in new.__dataclass_fields__}
        self._unit.write(sa.insert(captured).values(values))
        return CaptureResult.STORED

    def get(self, id_: str) -> CapturedRequest:
        row = self._unit.read(sa.select(captured).where(captured.c.id == id_)).one_or_none()
        if row is None:
            raise not_captured(id_)
        return CapturedRequest(**row._asdict())

    def list(
        self,
        *,
        route: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[CapturedRequest]:
        query = CAPTURES.limit(limit)
        if route is not None:
            query = query.where(captured.c.route == route)
        if since is not None:
            query = query.where(captured.c.at >= since)
        return [CapturedRequest(**row._asdict()) for row in self._unit.read(query)]

    def forget(self, now: datetime) -> int:
        return self._unit.write(sa.delete(captured).where(captured.c.expires_at <= now))

    def purge(
        self, *, id_: str | None = None, route: str | None = None, users: Sequence[str] = ()
    ) -> int:
        query = sa.delete(captured)
        if id_ is not None:
            query = query.where(captured.c.id == id_)
        if route is not None:
            query = query.where(captured.c.route == route)
        if users:
            query = query.where(captured.c.user_hash.in_(users))
        return self._unit.write(query)
