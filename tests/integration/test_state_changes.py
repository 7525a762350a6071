"""What raw SQL can change of the state that decides: refused, or found (A4).

Twelve tables, three verbs: with the database's own rules in force, and by an owner without.
"""

# ruff: noqa: S608 - statements of this file's own words

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from harness.control import (
    audited_rows,
    chains,
    keys,
    propose,
    state_check,
    switches,
    targets,
)
from harness.control.chains import Wanted
from harness.control.proofs import Waive
from harness.domain.access import SYSTEM, Role
from harness.domain.alerts import AlertKind
from harness.domain.settings import TargetSeed
from harness.domain.switches import Force, ForceKind, Source
from harness.runtime.clock import ManualClock
from harness.store.sql import SqlStore
from tests.integration.raw_sql import WAIVER, Database, prepared
from tests.signing import CONTROL
from tests.world import BEN, SECRET, World, approved

pytestmark = pytest.mark.req("F3", "F5")

Change = tuple[str, object]
# By table: a column that an intruder would change, and to what.
TABLES: Mapping[str, Change] = {
    "route_version": ("settings", "{}"),
    "evidence": ("target", "t_other"),
    "verdict": ("expires_at", 9_000_000_000_000_000),
    "waiver": ("expires_at", 9_000_000_000_000_000),
    "approval": ("name", "somebody else"),
    "switch": ("lifted_at", 1),
    "api_key": ("role", 4),
    "provider": ("api_base", "http://127.0.0.1:1/v1"),
    "proposal": ("approver", "eve"),
    "eval_run": ("target", "t_other"),
    "sample": ("strict", 0.5),
    "rollout": ("step", 2),
}
VERBS = ("INSERT", "UPDATE", "DELETE")
CASES = [(table, verb) for table in TABLES for verb in VERBS]
# What a copy of a row needs besides another key, to be one that the schema takes.
COPIES: Mapping[str, Mapping[str, object]] = {
    "api_key": {"hash": "another", "role": 4},
    "proposal": {"phase": "cancelled"},
    "rollout": {"state": "rolled_back"},
    "switch": {"lifted_at": None, "lifted_by": None},
}


@pytest.fixture
def lived_in(sql_world: World) -> World:
    """With a row in each of the tables, all of them written by the product."""
    world = sql_world
    ctx = world.context()
    targets.add(ctx, SYSTEM, TargetSeed("sim", "good"))
    waive = Waive("a test", timedelta(days=1))
    chains.add(ctx, SYSTEM, "chat", Wanted("sim/good", waive=waive), reason="a second one")
    keys.create(ctx, SYSTEM, "ops", secret=SECRET, role=Role.VIEWER)
    force = switches.Wanted(
        Force(ForceKind.PROVIDER, "sim"), "an outage", lasts=timedelta(hours=1)
    )
    switches.throw(ctx, SYSTEM, force, source=Source.CLI)
    world.policy = approved()
    proposal = world.until_decided(world.propose("sim/better").id)
    propose.approve(world.context(), BEN, proposal.id, "it is good")
    world.turn()
    assert world.get(proposal.id).rollout
    return world


@pytest.fixture
def database(lived_in: World, database_url: str) -> Iterator[Database]:  # noqa: ARG001 - its database
    found = Database(database_url)
    yield found
    found.engine.dispose()


def row_of(database: Database, table: str) -> dict[str, Any]:
    """The newest by key; of samples, one that a verdict used."""
    shape = sa.Table(table, sa.MetaData(), autoload_with=database.engine)
    order = [column.asc() for column in shape.primary_key.columns]
    with database.engine.connect() as db:
        row = db.execute(sa.select(shape).order_by(*order).limit(1)).mappings().one()
    return dict(row)


def key_of(database: Database, table: str) -> list[str]:
    found = sa.inspect(database.engine).get_pk_constraint(table)["constrained_columns"]
    return list(found)


def statement(database: Database, table: str, verb: str) -> tuple[str, dict[str, Any]]:
    row, key = row_of(database, table), key_of(database, table)
    where = " AND ".join(f"{name} = :key_{name}" for name in key)
    at = {f"key_{name}": row[name] for name in key}
    if verb == "DELETE":
        return f"DELETE FROM {table} WHERE {where}", at
    if verb == "UPDATE":
        column, value = TABLES[table]
        more = ", lifted_by = 'eve'" if column == "lifted_at" else ""
        changed = f"UPDATE {table} SET {column} = :value{more} WHERE {where}"
        return changed, at | {"value": value}
    last = key[-1]
    copy = row | {last: f"{row[last]}9" if isinstance(row[last], str) else row[last] + 90}
    if table == "route_version":
        copy |= {"revision": 99, "kind": "settings"}
        copy |= {"prev_version": copy["version"] - 1, "prev_incumbent": copy["incumbent"]}
    copy |= COPIES.get(table, {})
    names = ", ".join(copy)
    values = ", ".join(f":{name}" for name in copy)
    return f"INSERT INTO {table} ({names}) VALUES ({values})", copy


def without_rules(database: Database) -> None:
    """As the owner of the tables, who drops the triggers first."""
    with database.engine.begin() as db:
        if database.dialect == "postgresql":
            for table in sa.inspect(db).get_table_names():
                db.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
            return
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for name in db.execute(sa.text(query)).scalars().all():
            db.execute(sa.text(f"DROP TRIGGER {name}"))


def run_unbound(database: Database, text: str, values: dict[str, Any]) -> None:
    """Without foreign keys either."""
    if database.dialect == "postgresql":
        database.run(text, values)
        return
    with closing(sqlite3.connect(str(database.engine.url.database))) as raw, raw:
        raw.execute(text, values)


def alerted(world: World) -> list[str]:
    ctx = world.context()
    for _ in range(8):
        audited_rows.turn(ctx)
    with world.store.read() as tx:
        found = tx.alerts.list(open_only=True, limit=1000)
    return [each.key for each in found if each.kind is AlertKind.STATE_UNRECORDED]


def test_what_the_product_wrote_agrees_with_its_log(lived_in: World) -> None:
    assert state_check.differences(lived_in.context()) == []
    assert alerted(lived_in) == []


@pytest.mark.parametrize(("table", "verb"), CASES)
def test_a_change_by_a_role_with_dml_alone_is_refused_or_found(
    lived_in: World, database: Database, table: str, verb: str
) -> None:
    text, values = statement(database, table, verb)
    try:
        database.run(text, values)
    except sa.exc.IntegrityError:
        return

    assert state_check.differences(lived_in.context())


@pytest.mark.parametrize(("table", "verb"), CASES)
def test_a_change_by_an_owner_without_any_rule_is_found(
    lived_in: World, database: Database, table: str, verb: str
) -> None:
    text, values = statement(database, table, verb)
    without_rules(database)
    run_unbound(database, text, values)

    assert state_check.differences(lived_in.context())
    assert alerted(lived_in)


def test_what_was_there_before_rows_were_recorded_is_taken_over_once(
    database_url: str, tmp_path: Path
) -> None:
    clock = ManualClock()
    store = SqlStore(database_url, secret=SECRET, clock=clock, signatures=CONTROL)
    ctx = World(tmp_path, store, clock=clock).context()
    with prepared(database_url) as older:
        assert len(audited_rows.whole(ctx)) > 10

        with store.write() as tx:
            assert tx.audited.take_over(clock.now()) > 10
        assert audited_rows.whole(ctx) == []

        older.insert("waiver", WAIVER | {"reason": "r", "author": "eve"})
        with store.write() as tx:
            assert tx.audited.take_over(clock.now()) == 0
        assert [each.row for each in audited_rows.whole(ctx)] == ["waiver:w_1"]
    store.close()
