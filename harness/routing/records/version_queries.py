"""Queries for the newest versions of routes."""

from typing import Final

import sqlalchemy as sa

from harness.frame.records.signed_tables import stored_columns
from harness.routing.records.named_rows import among
from harness.routing.records.rollouts import rollout
from harness.routing.records.versions import route_fallback, route_version

_version = route_version.alias("named_version").c

_named = (
    sa.select(_version.route, sa.func.max(_version.version).label("version"))
    .where(among(_version.route))
    .group_by(_version.route)
    .cte("newest_version")
)

# The newest versions of named routes, and their chains.
VERSIONS_OF: Final = sa.select(*stored_columns(route_version)).where(
    *(route_version.c[column.name] == column for column in _named.c)
)

CHAINS_OF: Final = (
    sa.select(route_fallback)
    .where(*(route_fallback.c[column.name] == column for column in _named.c))
    .order_by(route_fallback.c.route, route_fallback.c.position)
)

_served = route_version.alias("served")

_LAST_SERVED: Final = (
    sa.select(sa.func.coalesce(sa.func.max(_served.c.version), 0))
    .where(
        _served.c.route == rollout.c.route,
        _served.c.incumbent == rollout.c.candidate,
    )
    .correlate(rollout)
    .scalar_subquery()
)

_later = route_version.alias("later")

# Rollout to the version that replaced its candidate after the candidate served last. A
# break-glass does not count, because the candidate returns at its end.
FIRST_AFTER: Final = sa.select(route_version, rollout.c.id.label("of_rollout")).where(
    among(rollout.c.id),
    route_version.c.route == rollout.c.route,
    route_version.c.version
    == sa.select(sa.func.min(_later.c.version))
    .where(
        _later.c.route == rollout.c.route,
        _later.c.version > _LAST_SERVED,
        _later.c.break_glass.is_(None),
    )
    .correlate(rollout)
    .scalar_subquery(),
)


def after_key(rollout_: str) -> tuple[str, ...]:
    return (route_version.name, "after", rollout_)
