"""Copies of proposals that really lived, with all rows of their lives: other ids, another
route, another time, and signatures of their own. Promotions swap the two models to and fro.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.scale.house import House
from harness.store.schema import metadata
from harness.store.schema.signed_tables import SIGNED
from harness.store.signing.row_signatures import RowSignatures

Values = dict[str, Any]
PROMOTED_EVERY: Final = 10
CANARY_EVERY: Final = 20  # of which routes one has a live canary
WAITING_EVERY: Final = 10  # of which routes one has a proposal that waits for approval
YEAR: Final = timedelta(days=365)


@dataclass(frozen=True)
class Life:
    """The rows of one proposal, by table."""

    rows: Mapping[str, list[Values]]
    ids: tuple[str, ...]  # that a copy has others for
    began: datetime


@dataclass
class Route:
    """How far the copies of one route have come."""

    name: str
    version: int = 1
    signature: str | None = None  # of its newest version
    swapped: bool = False  # whether the second model serves
    evidence: str = ""


@dataclass
class Copies:
    """Makes the rows; `revision` counts over all routes."""

    now: datetime
    signatures: RowSignatures
    promoted: Life
    rejected: Life
    baseline: Life
    models: tuple[str, str]
    revision: int
    signed: dict[str, int] = field(default_factory=dict)

    def of_route(self, number: int, proposals: int) -> Iterator[tuple[str, Values]]:
        """Yields the rows of a route with all its proposals, by table."""
        route = Route(f"route-{number:04}")
        yield from self._begin(route)
        for place in range(proposals):
            at = self.now - YEAR * ((proposals - place) / proposals)
            last = place == proposals - 1
            promoted = place % PROMOTED_EVERY == PROMOTED_EVERY - 1
            if last and number % CANARY_EVERY == 0:
                yield from self._copy(self.promoted, route, f"{number}x{place}", at, "canary")
            elif last and number % WAITING_EVERY == 1:
                yield from self._copy(self.promoted, route, f"{number}x{place}", at, "waiting")
            elif promoted:
                yield from self._copy(self.promoted, route, f"{number}x{place}", at, "whole")
            else:
                yield from self._copy(self.rejected, route, f"{number}x{place}", at, "whole")

    def _begin(self, route: Route) -> Iterator[tuple[str, Values]]:
        names = {id_: f"{id_}-{route.name}" for id_ in self.baseline.ids}
        names["chat"] = route.name
        later = self.now - 2 * YEAR - self.baseline.began
        for table in ("evidence", "route_version"):
            for row in self.baseline.rows[table]:
                values = _renamed(row, names, later)
                if table == "route_version":
                    self.revision += 1
                    values |= {"revision": self.revision, "prev_signature": None}
                    route.evidence = values["incumbent_evidence"]
                yield table, self._sign(table, values, route)

    def _copy(
        self, life: Life, route: Route, mark: str, at: datetime, end: str
    ) -> Iterator[tuple[str, Values]]:
        names = {id_: f"{id_}-{mark}" for id_ in life.ids}
        names["chat"] = route.name
        first, second = self.models
        if route.swapped:
            names |= {first: second, second: first}
        later = at - life.began
        skipped = {"waiting": ("rollout", "block", "evidence", "route_version")}.get(end, ())
        for table, rows in life.rows.items():
            for row in () if table in skipped else rows:
                values = _renamed(row, names, later)
                if not _shorten(table, values, end):
                    continue
                if table == "route_version":
                    self._chain(values, route)
                yield table, self._sign(table, values, route)
        if end == "whole" and "route_version" in life.rows:
            route.swapped = not route.swapped

    def _chain(self, values: Values, route: Route) -> None:
        before = route.evidence
        self.revision += 1
        values |= {
            "version": route.version + 1,
            "prev_version": route.version,
            "revision": self.revision,
            "prev_signature": route.signature,
        }
        route.version += 1
        if values["kind"] == "promotion":
            route.evidence = values["incumbent_evidence"]
        else:
            values["incumbent_evidence"] = before

    def _sign(self, table: str, values: Values, route: Route) -> Values:
        if table not in SIGNED:
            return values
        more: Values = {"fallbacks": []} if table == "route_version" else {}
        values["signature"] = self.signatures.sign(metadata.tables[table], values, **more)
        self.signed[table] = self.signed.get(table, 0) + 1
        if table == "route_version":
            route.signature = values["signature"]
        return values


def _shorten(table: str, values: Values, end: str) -> bool:
    """Ends a life earlier, where it is to end so; whether the row is there then."""
    if end == "whole":
        return True
    if table == "proposal":
        phase = {"canary": "canary", "waiting": "awaiting_approval"}[end]
        values |= {"phase": phase, "closed_because": ""}
        if end == "waiting":
            values["rollout"] = None
    if table == "rollout":
        values |= {"state": "waiting", "step": 0, "ended_because": "", "bake_ends_at": None}
    if table == "route_version":
        return bool(values["kind"] == "canary")
    return table != "block"


def _renamed(row: Values, names: Mapping[str, str], later: timedelta) -> Values:
    return {column: _replaced(value, names, later) for column, value in row.items()}


def _replaced(value: Any, names: Mapping[str, str], later: timedelta) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, datetime):
        return value + later
    if isinstance(value, dict) and "incumbent" in str(value):
        return {key: _replaced(part, names, later) for key, part in value.items()}
    return value


def read_lives(db: sa.Connection, house: House) -> tuple[Life, Life, Life, tuple[str, str]]:
    """Reads the promoted life, the rejected one, and the route's baseline; and the models."""
    tables = metadata.tables

    def rows(name: str, **where: str) -> list[Values]:
        table = tables[name]
        query = sa.select(table).where(*(table.c[key] == value for key, value in where.items()))
        query = query.order_by(*table.primary_key.columns)
        return [dict(row) for row in db.execute(query).mappings()]

    def life(proposal: str) -> Life:
        [whole] = rows("proposal", id=proposal)
        runs = [run for pair in whole["runs"].values() for run in pair.values()]
        found = {"proposal": [whole], "verdict": rows("verdict", proposal=proposal)}
        found["eval_run"] = [row for run in runs for row in rows("eval_run", id=run)]
        ids = [proposal, whole["verdict"], *runs]
        if whole["rollout"]:
            found["rollout"] = rows("rollout", id=whole["rollout"])
            found["block"] = rows("block", rollout=whole["rollout"])
            found["evidence"] = rows("evidence", verdict_id=whole["verdict"])
            found["route_version"] = [r for r in rows("route_version") if r["version"] > 1]
            ids += [whole["rollout"], *(row["id"] for row in found["evidence"])]
        return Life(found, tuple(ids), whole["created_at"])

    first = [row for row in rows("route_version") if row["version"] == 1]
    evidence = rows("evidence", kind="baseline")
    baseline = Life(
        {"evidence": evidence, "route_version": first},
        tuple(row["id"] for row in evidence),
        first[0]["at"],
    )
    promoted = life(house.promoted)
    [whole] = promoted.rows["proposal"]
    models = (whole["incumbent"], whole["candidate"])
    return promoted, life(house.rejected), baseline, models
