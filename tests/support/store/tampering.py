"""Changes rows past Swapproof, by the database's owner or by DML alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from harness.app.store.store import Store
from harness.app.store.tables import metadata


@contextmanager
def written(store: Store) -> Iterator[sa.Connection]:
    """A connection that writes as Swapproof does: with DML alone."""
    with store._writing.begin() as db:
        yield db


@contextmanager
def owned(store: Store) -> Iterator[sa.Connection]:
    """A connection without the triggers, which stay away on SQLite."""
    with store._writing.begin() as db:
        if db.dialect.name == "sqlite":
            for (name,) in db.execute(
                sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).all():
                db.exec_driver_sql(f"DROP TRIGGER {name}")
            db.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        else:
            db.exec_driver_sql("SET LOCAL session_replication_role = replica")
        yield db


def row(
    db: sa.Connection,
    table: str,
    **key: object,
) -> dict[str, Any]:
    known = metadata.tables[table]
    query = sa.select(known).where(*(known.c[name] == value for name, value in key.items()))
    return dict(db.execute(query).one()._mapping)


def insert(
    db: sa.Connection,
    table: str,
    values: Mapping[str, object],
) -> None:
    db.execute(sa.insert(metadata.tables[table]).values(**values))


def forge(
    db: sa.Connection,
    route: str,
    candidate: str,
    **changes: object,
) -> None:
    """The three INSERTs: a passed verdict, its evidence, and a version that serves it."""
    versions = metadata.tables["route_version"]
    newest = sa.select(versions).where(versions.c.route == route)
    before = db.execute(newest.order_by(versions.c.version.desc())).first()
    assert before is not None
    proposals = metadata.tables["proposal"]
    proposal = db.execute(sa.select(proposals).where(proposals.c.route == route)).first()
    assert proposal is not None
    proof = {
        "id": "v_forged",
        "proposal": proposal.id,
        "route": route,
        "incumbent": before.incumbent,
        "candidate": candidate,
        "outcome": "passed",
        "reason": "12 of 100 better",
        "suites": [],
        "inputs": {},
        "decided_at": before.at,
        "expires_at": before.at,
    }
    insert(db, "verdict", proof)
    evidence = {
        "id": "e_forged",
        "route": route,
        "target": candidate,
        "kind": "verdict",
        "verdict_id": "v_forged",
        "verdict_incumbent": before.incumbent,
        "verdict_outcome": "passed",
        "created_at": before.at,
    }
    insert(db, "evidence", evidence)
    version = {
        **before._mapping,
        "version": before.version + 1,
        "revision": before.revision + 1,
        "kind": "promotion",
        "incumbent": candidate,
        "incumbent_evidence": "e_forged",
        "prev_version": before.version,
        "prev_incumbent": before.incumbent,
        "prev_signature": before.signature,
        "verdict_id": "v_forged",
        "verdict_candidate": candidate,
        "verdict_outcome": "passed",
    }
    insert(db, "route_version", version | changes)
