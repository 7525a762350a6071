"""What raw SQL can change of the state that decides: refused, or found (A4).

Fourteen tables, three verbs: with the database's own rules in force, and by an owner without.
"""

# ruff: noqa: S608 - statements of this file's own words

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from harness.agents.records import AgentGrants, SwitchRequests
from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.app.store.tables import SIGNED
from harness.frame.people.access import OPERATOR, SYSTEM, Role
from harness.frame.records.columns import Json, UtcTime
from harness.frame.records.signed_tables import SignedTable
from harness.frame.records.transaction import Transaction
from harness.gate.offline.label_plan import LabelDesign
from harness.gate.suite_plan import Claim
from harness.operations import dashboard_sessions, integrity, keys
from harness.proposals import break_glass, decisions, fallback_chain
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.labels.labelling import (
    LabelChoice,
    LabelDraw,
    LabelledItem,
    Labelling,
    PairLabel,
)
from harness.proposals.labels.records import LabelDraws, Labellings, Labels
from harness.providers.credential import Credential
from harness.providers.force import Force, ForceKind, SwitchSource
from harness.providers.records import Credentials, Targets
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.control import freezes
from harness.routing.proposal import Proposal
from harness.routing.records.interventions import Shadows
from harness.routing.records.runs import EvalRuns
from harness.routing.records.shadow_scores import ShadowScores
from harness.routing.shadow import Shadow
from harness.routing.shadow_score import ScoreReason, ShadowScore
from router.snapshot.holder import SnapshotHolder
from tests.contract.test_store_shadows import SHADOW
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.counting_ids import CountingRandomIds
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.site.signing_keys import CONTROL, VERIFIER
from tests.support.store.agent_records import (
    ANSWERING,
    APPROVED,
    REQUEST,
    add_agent,
)
from tests.support.store.raw_rows import Database
from tests.support.store.records import NEW

if TYPE_CHECKING:
    from tests.support.store.postgres import Postgres

pytestmark = pytest.mark.req("F3", "F5")

Change = tuple[str, object]
Statement = tuple[str, dict[str, Any]]
NOW = ManualClock().now()
CREDENTIAL = Credential("sim", "first", "ciphertext", 0, NOW, NOW, "ada")
# By table: a column that an intruder would change, and to what.
TABLES: Mapping[str, Change] = {
    "route_version": ("settings", "{}"),
    "evidence": ("target", "t_other"),
    "verdict": ("expires_at", 9_000_000_000_000_000),
    "waiver": ("expires_at", 9_000_000_000_000_000),
    "approval": ("name", "somebody else"),
    "switch": ("lifted_at", 1),
    "break_glass": ("ended_at", 1),
    "api_key": ("role", 4),
    "person_link": ("person", "local"),
    "provider": ("api_base", "http://127.0.0.1:1/v1"),
    "proposal": ("approver", "eve"),
    "eval_run": ("target", "t_other"),
    "sample": ("strict", 0.5),
    "rollout": ("step", 2),
    "agent_grant": ("expires_at", 9_000_000_000_000_000),
}
# What a copy of a row needs besides another key, to be one that the schema takes.
COPIES: Mapping[str, Mapping[str, object]] = {
    "api_key": {"hash": "another", "role": 4},
    "person_link": {"number": 2},
    "proposal": {"phase": "cancelled"},
    "rollout": {"state": "rolled_back"},
    "switch": {"lifted_at": None, "lifted_by": None},
    "break_glass": {"route": "another"},
    "agent_grant": {
        "request": None,
        "kind": "change",
        "session": "",
    },
}


@dataclass(frozen=True, slots=True)
class Lived:
    """A database after `live`, which nobody is connected to, and the clock and ids of then."""

    url: str
    clock: ManualClock = field(default_factory=ManualClock)
    chance: CountingRandomIds = field(default_factory=CountingRandomIds)


@pytest.fixture(scope="module")
def lived_sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp("lived")
    file = shutil.copyfile(sqlite_template, folder / "lived.db")
    return lived_through(f"sqlite:///{file}", folder)


@pytest.fixture(scope="module")
def lived_postgres(
    postgres: "Postgres", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lived]:
    with postgres.migrated_database() as url:
        yield lived_through(url, tmp_path_factory.mktemp("lived"))


def lived_through(url: str, folder: Path) -> Lived:
    found = Lived(url)
    with closing(
        Store(
            url,
            secret=SECRET,
            clock=found.clock,
            signatures=CONTROL,
        )
    ) as store:
        live(installed(folder, store, found.clock, found.chance))
    return found


def installed(
    folder: Path,
    store: Store,
    clock: ManualClock,
    chance: CountingRandomIds,
) -> SmallInstallation:
    return SmallInstallation(
        folder,
        store,
        clock=clock,
        chance=chance,
        policy=approved(),
    )


@pytest.fixture
def lived_in(
    database_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[SmallInstallation]:
    """A copy of what the product wrote once: a row in each of the tables."""
    if database_url.startswith("sqlite"):
        lived = request.getfixturevalue("lived_sqlite")
        shutil.copyfile(*(sa.make_url(url).database or "" for url in (lived.url, database_url)))
    else:
        lived = request.getfixturevalue("lived_postgres")
        request.getfixturevalue("postgres").overwrite(database_url, lived.url)
    clock = copy(lived.clock)
    with closing(
        Store(
            database_url,
            secret=SECRET,
            clock=clock,
            signatures=CONTROL,
        )
    ) as store:
        yield installed(tmp_path, store, clock, copy(lived.chance))


def live(world: SmallInstallation) -> None:
    world.set_up()
    ctx = world.context()
    targets.add_target(ctx, SYSTEM, Target("sim", "good"))
    waive = WaiverRequest("a test", timedelta(days=1))
    fallback_chain.add_fallback(
        ctx,
        SYSTEM,
        "chat",
        FallbackRequest("sim/good", waive=waive),
        reason="a second one",
    )
    keys.create_key(
        ctx,
        SYSTEM,
        "ops",
        secret=SECRET,
        role=Role.VIEWER,
    )
    keys.separate_people(ctx, OPERATOR, "ops", "a test")
    force = freezes.SwitchRequest(
        Force(ForceKind.PROVIDER, "sim"),
        "an outage",
        lasts=timedelta(hours=1),
    )
    freezes.set_switch(ctx, SYSTEM, force, source=SwitchSource.CLI)
    day = timedelta(days=1)
    break_glass.propose_break_glass(
        ctx,
        OPERATOR,
        "chat",
        "sim/worse",
        reason="an emergency",
        lasts=day,
    )
    proposal = world.decided("sim/better")
    decisions.approve_proposal(world.context(), BEN, proposal.id, "it is good")
    with world.store.write() as tx:
        Credentials(tx).put(replace(CREDENTIAL, created_at=world.clock.now()))
        Shadows(tx).add(shadow_of(proposal, world.clock.now()))
        ShadowScores(tx).add(SCORE)
        approve_switch(tx)
        add_label(tx, proposal)
    dashboard_sessions.create_link(ctx, OPERATOR, secret=SECRET)
    world.run_once()
    assert world.get(proposal.id).rollout


def approve_switch(tx: Transaction) -> None:
    Targets(tx).add(NEW)
    add_agent(tx)
    SwitchRequests(tx).add(REQUEST)
    AgentGrants(tx).add(ANSWERING)
    SwitchRequests(tx).decide(APPROVED)


SCORE = ShadowScore(
    series=SHADOW.id,
    number=1,
    shadow=SHADOW.id,
    pair="pair_1",
    caller="a caller",
    reason=ScoreReason.JUDGED,
    low=1.0,
    high=1.0,
    calls=2,
    cost_usd=None,
    at=SHADOW.started_at,
)


def add_label(tx: Transaction, proposal: Proposal) -> None:
    plan = proposal.plans[0]
    labelling = Labelling(
        id="lb_1",
        proposal=proposal.id,
        suite=plan.suite,
        suite_digest=plan.suite_digest,
        candidate=proposal.candidate,
        run=next(iter(EvalRuns(tx).of_targets({proposal.candidate}))).id,
        people=("ben",),
        design=LabelDesign(Claim.NON_INFERIOR, margin=0.1),
        items=(LabelledItem("red", 1.0, 0.5, 0),),
        seed="5eed",
        author="ben",
        created_at=proposal.updated_at,
    )
    Labellings(tx).add(labelling)
    LabelDraws(tx).add(LabelDraw("lb_1", 1, "red", ("ben",), {}, proposal.updated_at))
    Labels(tx).add(
        PairLabel("la_1", "lb_1", 1, "ben", LabelChoice.TIE, 0.5, 0.0, proposal.updated_at)
    )


def shadow_of(proposal: Proposal, now: datetime) -> Shadow:
    return replace(
        SHADOW,
        route="chat",
        incumbent=proposal.incumbent,
        candidate=Target("sim", "better"),
        data_class="",
        started_at=now,
        expires_at=now + timedelta(days=90),
    )


@pytest.fixture
def database(lived_in: SmallInstallation, database_url: str) -> Iterator[Database]:  # noqa: ARG001 - its database
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


def statement(
    database: Database,
    table: str,
    verb: str,
) -> tuple[str, dict[str, Any]]:
    row = row_of(database, table)
    key = key_of(database, table)
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
        copy |= {
            "prev_version": copy["version"] - 1,
            "prev_incumbent": copy["incumbent"],
        }
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


def run_unbound(
    database: Database,
    text: str,
    values: dict[str, Any],
) -> None:
    if database.dialect == "postgresql":
        database.run(text, values)
        return
    with (
        closing(sqlite3.connect(str(database.engine.url.database))) as raw,
        raw,
    ):
        raw.execute(text, values)


@pytest.mark.both_databases
def test_what_the_product_wrote_is_as_it_was_signed(lived_in: SmallInstallation) -> None:
    assert lived_in.store.signature_faults() == []


def names_of_faults(world: SmallInstallation) -> set[str]:
    return {fault.name for fault in world.store.signature_faults()}


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("tables", "verbs"),
    [
        *(([table], ("INSERT", "UPDATE")) for table in TABLES),
        ([*TABLES], ("DELETE",)),
    ],
    ids=str,
)
def test_a_change_by_a_role_with_dml_alone_is_refused_or_found(
    lived_in: SmallInstallation,
    database: Database,
    tables: Sequence[str],
    verbs: Sequence[str],
) -> None:
    """What the database lets through adds a fault of its own."""
    known = set[str]()
    for text, values in [statement(database, t, verb) for t in tables for verb in verbs]:
        try:
            database.run(text, values)
        except sa.exc.IntegrityError:
            continue
        found = names_of_faults(lived_in)
        assert found - known, text
        known = found


# Taken out, a sign-in is over; housekeeping takes old ones out as well.
MAY_GO: Final = frozenset({"dashboard_session"})


def cases(database: Database, signed: SignedTable) -> Iterator[tuple[Statement, Statement]]:
    """What somebody does to a row of the table, and what undoes it: he takes it out, changes a
    column, also to what nobody can read, and puts a copy beside it.
    """
    name = signed.table.name
    key = signed.key
    row = row_of(database, name)
    where = " AND ".join(f"{column} = :key_{column}" for column in key)
    at = {f"key_{column}": row[column] for column in key}
    names = ", ".join(row)
    values = ", ".join(f":{column}" for column in row)
    insert = f"INSERT INTO {name} ({names}) VALUES ({values})"
    delete = f"DELETE FROM {name} WHERE {where}"
    if name not in MAY_GO:
        yield (delete, at), (insert, row)
    for column in signed.covered:
        if column.name in key or not isinstance(column.type, UtcTime | Json):
            continue
        update = f"UPDATE {name} SET {column.name} = :value WHERE {where}"
        value = 9 * 10**18 if isinstance(column.type, UtcTime) else '{"a": NaN}'
        yield (
            (update, at | {"value": value}),
            (update, at | {"value": row[column.name]}),
        )
    if name in TABLES:
        changed, values_at = statement(
            database,
            name,
            "UPDATE",
        )
        before = at | {"value": row[TABLES[name][0]]}
        yield (
            (changed, values_at),
            (changed.replace("'eve'", "NULL"), before),
        )
    _, copy = statement(
        database,
        name,
        "INSERT",
    )
    yield (
        (insert, copy),
        (delete, {f"key_{column}": copy[column] for column in key}),
    )


def try_unbound(
    database: Database,
    text: str,
    values: dict[str, Any],
) -> bool:
    try:
        run_unbound(database, text, values)
    except (sqlite3.IntegrityError, sa.exc.IntegrityError):
        return False
    return True


@pytest.mark.parametrize("name", [*SIGNED])
def test_no_row_of_a_signed_table_stops_control_or_a_router_and_each_forged_one_is_named(
    lived_in: SmallInstallation,
    database: Database,
    database_url: str,
    tmp_path: Path,
    name: str,
) -> None:
    """Taken out, made unreadable or copied, with no rule of the database left."""
    world = lived_in
    ctx = lived_in.context()
    store = Store(
        database_url,
        secret=SECRET,
        clock=world.clock,
        signatures=VERIFIER,
    )
    router = SnapshotHolder(RouterStore(store), tmp_path / "snapshot.json")
    served = router.boot().snapshot.table.routes["chat"].incumbent
    without_rules(database)
    tried = 0
    for done, undone in list(cases(database, SIGNED[name])):
        if not try_unbound(database, *done):
            continue
        tried += 1
        is_deleted = done[0].startswith("DELETE")
        assert is_deleted or world.store.signature_faults(), done
        integrity.check_snapshot(ctx)
        failed = world.run_once(ctx).failed
        assert all("Error" not in words or "Signature" in words for words in failed), failed
        router.refresh()
        assert router.current is not None
        assert router.current.snapshot.table.routes["chat"].incumbent == served
        run_unbound(database, *undone)
    store.close()
    assert tried > 1
    assert world.store.signature_faults() == []
