"""`Routing` reads the routing table and routes' histories. It commits changes by
compare-and-swap, with their proof.

Only `commit` writes a version. `harness.routing.route_changes` decides the next version.
`harness.routing.records.evidence` writes the proof's rows, and
`harness.routing.records.versions` has the tables.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import (
    ProofRefused,
    RevisionConflict,
)
from harness.frame.records.columns import Row
from harness.frame.records.repository import newest_key, row_key
from harness.frame.records.signed_tables import stored_columns
from harness.frame.records.transaction import RowRefused, Transaction
from harness.providers.records import Targets
from harness.routing.evidence import RouteEvidence
from harness.routing.records.evidence import (
    FALLBACK_EVIDENCE,
    build_proof_columns,
    read_version_evidence,
    signed_chain,
    write_fallbacks,
)
from harness.routing.records.installation import meta
from harness.routing.records.interventions import break_glass
from harness.routing.records.preload import (
    CHAINS_OF,
    FIRST_AFTER,
    VERSIONS_OF,
    after_key,
)
from harness.routing.records.proposals import rollout
from harness.routing.records.versions import (
    IS_FALLBACK_OF_NEWEST,
    IS_NEWEST,
    NAMES,
    REVISION,
    record_from_row,
    route_fallback,
    route_from_row,
    route_to_row,
    route_version,
)
from harness.routing.route_changes import (
    CHANGE_KINDS,
    PromoteCanary,
    ServeByWaiver,
    StartCanary,
    TableChange,
    apply_change,
)
from harness.routing.table import Route, RouteRecord, RoutingTable

NEWEST_NAMES = sa.select(route_version.c.route).where(IS_NEWEST)
_OF_ROUTE = rollout.alias("of_route")
_OPEN_BREAK_GLASSES = sa.select(break_glass.c.route).where(break_glass.c.ended_at.is_(None))
ROUTE_HEADS = (
    sa.select(
        route_version.c.route.label("name"),
        *(route_version.c[name] for name in ("incumbent", "at")),
        # Reads both rows of a break-glass, so that an edit of one row cannot hide it.
        sa.or_(
            route_version.c.break_glass.is_not(None),
            route_version.c.route.in_(_OPEN_BREAK_GLASSES),
        ).label("break_glass"),
        rollout.c.id.label("rollout"),
        *(rollout.c[name] for name in ("state", "candidate", "updated_at")),
    )
    .select_from(route_version)
    .outerjoin(
        rollout,
        rollout.c.id
        == sa.select(_OF_ROUTE.c.id)
        .where(_OF_ROUTE.c.route == route_version.c.route)
        .order_by(_OF_ROUTE.c.started_at.desc(), _OF_ROUTE.c.id.desc())
        .limit(1)
        .correlate(route_version)
        .scalar_subquery(),
    )
    .where(IS_NEWEST)
    .order_by(route_version.c.route)
)
_SIGNED_CURRENT = (
    sa.select(*stored_columns(route_version)).where(IS_NEWEST).order_by(route_version.c.route)
)
CURRENT_OF = (
    sa.select(route_version)
    .where(route_version.c.route == sa.bindparam("name"))
    .order_by(route_version.c.version.desc())
    .limit(1)
)
CURRENT_FALLBACKS = (
    sa.select(route_fallback)
    .where(IS_FALLBACK_OF_NEWEST)
    .order_by(route_fallback.c.route, route_fallback.c.position)
)
FALLBACKS_OF = (
    sa.select(route_fallback)
    .where(route_fallback.c.route == sa.bindparam("name"))
    .order_by(route_fallback.c.version, route_fallback.c.position)
)
HISTORY = (
    sa.select(route_version)
    .where(route_version.c.route == sa.bindparam("name"))
    .order_by(route_version.c.version.desc())
)
HAS_ROLLOUT = sa.select(
    sa.exists().where(
        route_version.c.route == sa.bindparam("route"),
        route_version.c.rollout == sa.bindparam("rollout"),
    )
)
FLOOR = sa.select(meta.c.revision_floor)
_VERSION_CONSTRAINTS: Final = (
    "version_taken",
    "revision_follows",
    "pk_route_version",
    "route_version.route",
)


# A route's newest version and its chain, not yet verified.
VersionRows = tuple[Row | None, Sequence[Row]]


def read_current(
    tx: Transaction, names: Collection[str] | None = None
) -> Iterator[tuple[Row, Sequence[Row]]]:
    """Reads the newest version of each route with its chain, without verifying the rows.

    Args:
        names: at most a page of routes; None for all.
    """
    if names is None:
        query = _SIGNED_CURRENT
        parameters = None
        links = tx.read(CURRENT_FALLBACKS)
    else:
        query = VERSIONS_OF
        parameters = {"names": sorted(names)}
        links = tx.read(CHAINS_OF, parameters)
    chains: dict[str, list[Row]] = defaultdict(list)
    for link in links:
        chains[link.route].append(link)
    for row in tx.read_stored(route_version, query, parameters):
        yield row, chains[row.route]


class Routing:
    """Stores the routing table. Each change raises the table's revision and the route's version
    by one.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def table(self) -> RoutingTable:
        """Reads and verifies the whole table. Raises SignatureInvalid, SnapshotInvalid."""
        routes = {}
        for row, chain in read_current(self._tx):
            self._tx.checked(route_version, [row], fallbacks=signed_chain(chain))
            routes[row.route] = route_from_row(row, tuple(link.target for link in chain))
        target_ids = frozenset[str]().union(*(route.targets for route in routes.values()))
        return RoutingTable(self._revision(), routes, Targets(self._tx).among(target_ids))

    def _revision(self) -> int:
        return int(self._tx.read(REVISION).scalar_one())

    def route(self, name: str) -> Route | None:
        """Returns the newest version of a route; None without one. Raises SignatureInvalid."""
        row, chain = self._current(name)
        return route_from_row(row, tuple(link.target for link in chain)) if row else None

    def _current(self, name: str) -> VersionRows:
        """Returns a route's newest version with its chain. Raises SignatureInvalid."""
        return self._tx.once(row_key(route_version, name), lambda: self._verified(name))

    def _verified(self, name: str) -> VersionRows:
        """Reads and verifies the newest version with its chain."""
        key = newest_key(route_version, name)
        row, chain = self._tx.once(key, lambda: self._newest(name))
        if row is not None:
            self._tx.checked(route_version, [row], fallbacks=signed_chain(chain))
        return row, chain

    def _newest(self, name: str) -> VersionRows:
        row = self._tx.read(CURRENT_OF, {"name": name}).first()
        if row is None:
            return None, ()
        key = {"name": name, "version": row.version}
        return row, self._tx.read(FALLBACK_EVIDENCE, key).all()

    def _fallbacks(self, name: str) -> dict[int, tuple[str, ...]]:
        """Returns each version's fallbacks in order."""
        fallbacks_by_version: dict[int, tuple[str, ...]] = {}
        for row in self._tx.read(FALLBACKS_OF, {"name": name}):
            fallbacks_by_version[row.version] = (
                *fallbacks_by_version.get(row.version, ()),
                row.target,
            )
        return fallbacks_by_version

    def history(self, name: str) -> Sequence[RouteRecord]:
        """Lists all versions of a route, newest first, without verifying them."""
        fallbacks = self._fallbacks(name)
        return [
            record_from_row(row, fallbacks) for row in self._tx.read(HISTORY, {"name": name})
        ]

    def first_after(self, rollout_: str) -> RouteRecord | None:
        """Loads the version that last replaced a rollout's candidate, without its chain; None
        if the candidate serves.
        """
        names = {"names": [rollout_]}
        row = self._tx.once(
            after_key(rollout_),
            lambda: self._tx.read(FIRST_AFTER, names).first(),
        )
        return None if row is None else record_from_row(row, {})

    def has_had_rollout(self, route: str, rollout: str) -> bool:
        """Tells whether any version of the route, old or new, names the rollout."""
        return bool(
            self._tx.read(HAS_ROLLOUT, {"route": route, "rollout": rollout}).scalar_one()
        )

    def names(self) -> Sequence[str]:
        """Lists the names of all routes, in order."""
        return self._tx.read(NAMES).scalars().all()

    def changed_at(self, name: str) -> datetime | None:
        """Returns the time of the route's newest version; None without a route."""
        row, _ = self._current(name)
        return row.at if row is not None else None

    def evidence(self, name: str) -> RouteEvidence | None:
        """Returns the evidence of the route's newest version; None without a route."""
        row, _ = self._current(name)
        return read_version_evidence(self._tx, row) if row is not None else None

    def commit(
        self,
        change: TableChange,
        *,
        expected_version: int,
        actor: str,
        reason: str,
        now: datetime,
    ) -> int:
        """Writes the route's next version, and returns its revision.

        Args:
            expected_version: the version on which the caller's decision is based; 0 creates the
                route.
            now: the version's time. A version with proof gets the proof's time if that is
                later.

        Raises RevisionConflict if another writer was first, IllegalTransition if the change
        does not apply, ProofRefused if its proof does not suffice. After an error that the
        database raises, the caller's transaction can continue.
        """
        self._tx.serialize()
        row, _ = self._current(change.route)
        version = row.version if row is not None else 0
        if version != expected_version:
            raise RevisionConflict(
                f"route {change.route!r} is at version {version}, not {expected_version}: "
                "another writer was first; load it again, then decide"
            )
        after = apply_change(self.route(change.route), change)
        floor = int(self._tx.read(FLOOR).scalar_one())
        revision = max(self._revision(), floor) + 1
        values = route_to_row(after) | {
            "revision": revision,
            "kind": CHANGE_KINDS[type(change)],
            "at": _version_time(change, now, row.at if row is not None else None),
            "actor": actor,
            "reason": reason,
            "prev_signature": row.signature if row is not None else None,
        }
        try:
            with self._tx.attempt():
                proof = build_proof_columns(self._tx, change, row, now)
                chain = write_fallbacks(self._tx, change, after, row, now)
                new = self._tx.signed(route_version, values | proof, fallbacks=chain)
                self._tx.write(sa.insert(route_version), new)
        except RowRefused as error:
            raise _refusal(change, error) from error
        return revision


def _version_time(
    change: TableChange,
    now: datetime,
    previous_at: datetime | None,
) -> datetime:
    """Returns a new version's time. A version with proof is never earlier than its proof and
    the previous version, even if somebody set the clock back.
    """
    match change:
        case ServeByWaiver() if previous_at is not None:
            return max(now, previous_at)
        case StartCanary(proof=proof) | PromoteCanary(proof=proof) if previous_at is not None:
            return max(now, previous_at, proof.decided_at)
        case _:
            return now


def _refusal(change: TableChange, error: RowRefused) -> RevisionConflict | ProofRefused:
    """Turns a refusal of the database into the error that its constraint means."""
    if error.names(*_VERSION_CONSTRAINTS):
        return RevisionConflict(
            f"route {change.route!r}: another writer was first; load it again, then decide"
        )
    return ProofRefused(
        f"the database refuses this {CHANGE_KINDS[type(change)]} of route {change.route!r} "
        f"({error.database}): a target needs stored evidence, and a canary or "
        "promotion a passed verdict for exactly this route, incumbent and candidate"
    )
