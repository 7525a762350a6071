import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import openai
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from evals.sim import server as sim
from harness.app.database import (
    require_database,
    schema_state,
    upgrade_database,
)
from harness.app.installation import load_settings, open_installation
from harness.app.store import schema_revisions
from harness.app.store.schema_revisions import REVISION
from harness.frame.database import engine
from harness.frame.errors import DatabaseUnusable
from harness.frame.people.access import SYSTEM
from harness.frame.signing.audit_log import AuditLog
from harness.interfaces.cli.program import program
from harness.operations import keys
from tests.contract.conftest import open_store
from tests.integration.test_migrations import connected, set_revision
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ask, eventually, routed
from tests.support.site.processes import site
from tests.support.store.pgbouncer import pgbouncer
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

pytestmark = pytest.mark.req("G6")


@pytest.fixture(scope="module")
def node() -> Iterator[PostgresNode]:
    with postgres_node() as running:
        yield running


@pytest.mark.postgres
def test_a_pooler_in_transaction_mode_is_refused_by_whatever_uses_the_database(
    node: PostgresNode, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.yaml"
    with pgbouncer(node, "transaction") as url:
        file.write_text(f"database_url: {url}\n")
        settings = load_settings(file)
        for use in (require_database, schema_state, upgrade_database):
            with pytest.raises(DatabaseUnusable, match="in transaction mode"):
                use(settings)


@pytest.mark.postgres
@pytest.mark.verify
@pytest.mark.parametrize(
    ("mode", "settings", "said"),
    [
        (
            "transaction",
            {},
            "in transaction mode.*`pool_mode = session`.*serve router",
        ),
        ("transaction", {"server_round_robin": 1}, "in transaction mode"),
        ("transaction", {"default_pool_size": 1}, "in transaction mode"),
        ("statement", {}, "in statement mode.*`pool_mode = session`"),
        (
            "session",
            {"ignore_startup_parameters": ""},
            "`ignore_startup_parameters = ",
        ),
    ],
)
def test_a_control_plane_runs_behind_pgbouncer_in_session_mode_alone(
    node: PostgresNode,
    tmp_path: Path,
    mode: str,
    settings: dict[str, object],
    said: str,
) -> None:
    with (
        pgbouncer(node, mode, settings=settings) as url,
        site(tmp_path, {"database_url": url}) as place,
    ):
        for words in ("init", "db check", "doctor", "serve control"):
            done = place.run(*words.split(), expect=1)
            assert re.search(said, " ".join(f"{done.stdout}{done.stderr}".split())), done


@pytest.mark.postgres
@pytest.mark.verify
def test_a_router_serves_and_records_behind_pgbouncer_in_transaction_mode(
    node: PostgresNode, tmp_path: Path
) -> None:
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as provider,
        pgbouncer(node, "session") as url,
        routed(tmp_path, provider, url) as world,
        pgbouncer(node, "transaction", database=url.rpartition("/")[2]) as pooled,
    ):
        world.place.start("control", "serve", "control", wait_for="/readyz")
        world.place.environment["router"] = {"SWAPPROOF__DATABASE_URL": pooled}
        world.start()
        installation = world.installation
        for number in range(3):
            key = keys.create_key(
                installation.context,
                SYSTEM,
                f"{number}",
                secret=installation.secret,
            )[1]
            with world.client(key) as client:
                eventually(lambda client=client: _is_answered(client))
        eventually(lambda: world.recorded() >= 3)


@pytest.mark.postgres
@pytest.mark.verify
def test_clients_of_pgbouncer_in_transaction_mode_leave_no_prepared_statement_to_each_other(
    node: PostgresNode,
) -> None:
    with (
        pgbouncer(node, "transaction") as url,
        engine.temporary(url) as first,
        engine.temporary(url) as second,
    ):
        for client in (first, second):
            with client.begin() as db:
                # psycopg would prepare a statement that it sends for the sixth time.
                assert {db.execute(sa.text("SELECT 1")).scalar_one() for _ in range(10)} == {1}


def _is_answered(client: openai.OpenAI) -> bool:
    with suppress(openai.AuthenticationError):
        return bool(ask(client))
    time.sleep(0.5)  # the router refuses an address that tries many unknown keys
    return False


def test_a_store_neither_reads_nor_writes_a_database_of_another_schema(
    database_url: str,
) -> None:
    set_revision(database_url, "0023")
    why = r"from before 0.1.0 \(schema revision 0023"
    store = open_store(database_url)
    for use in (store.snapshot, store.etag):
        with pytest.raises(DatabaseUnusable, match=why):
            use()
    with pytest.raises(DatabaseUnusable, match=why), store.write() as tx:
        AuditLog(tx).append(SYSTEM, "b", "c", {})
    store.close()


UNFINISHED = (
    "UPDATE alembic_version SET version_num = '0023'",
    "DELETE FROM alembic_version",
    "DROP TRIGGER switch_no_delete",
)


@pytest.mark.both_databases
@pytest.mark.parametrize("change", UNFINISHED)
def test_only_what_an_upgrade_would_leave_as_it_is_is_current(
    database_url: str, change: str
) -> None:
    assert schema_revisions.is_current(database_url)
    if database_url.startswith("postgresql") and "TRIGGER" in change:
        change += " ON switch"

    with connected(database_url) as db:
        db.execute(sa.text(change))

    assert not schema_revisions.is_current(database_url)


@pytest.mark.both_databases
def test_a_database_without_tables_is_not_current(empty_database_url: str) -> None:
    assert not schema_revisions.is_current(empty_database_url)


@pytest.mark.both_databases
def test_a_router_waits_for_the_tables_that_the_control_plane_beside_it_makes(
    empty_database_url: str, tmp_path: Path
) -> None:
    parsed = engine.parse(empty_database_url)
    if parsed.get_backend_name() == "sqlite":
        engine.file_of(parsed).touch()
    with site(tmp_path, {"database_url": empty_database_url}) as place:
        installation = open_installation(place.config, create_secret=True)
        installation.close()
        place.start("router", "serve", "router", "--beside-control")
        eventually(lambda: "waits_for_tables" in place.log("router"))

        upgrade_database(installation.settings)

        place.answers("router", "/readyz")
        assert place.terminate("router") == 0
        assert "the router cannot start" not in place.log("router")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "swapproof.yaml").write_text(
        f"home: {tmp_path / 'home'}\ndatabase_url: sqlite:///{tmp_path / 'home' / 'sg.db'}\n"
    )
    return tmp_path


def run(place: Path, *words: str) -> Result:
    return CliRunner().invoke(
        program,
        ["--config", str(place / "swapproof.yaml"), *words],
        standalone_mode=False,
    )


def initialised(place: Path) -> Path:
    installation = open_installation(place / "swapproof.yaml", create_secret=True)
    upgrade_database(installation.settings)
    installation.close()
    return place / "home" / "sg.db"


VERBS = (
    ["proposal", "list"],
    ["db", "check"],
    ["route", "list"],
)


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        (VERBS, ("backup",)),
        (
            (["serve", "control"], ["serve", "all"]),
            ("there is no database at", "swapproof init"),
        ),
    ],
    ids=["reading", "serving"],
)
def test_a_database_that_is_away_is_said_in_a_sentence_and_not_made_anew(
    place: Path,
    commands: tuple[list[str], ...],
    said: tuple[str, ...],
) -> None:
    initialised(place).unlink()
    for words in commands:
        done = run(place, *words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert all(part in done.stderr for part in said)
        assert not (place / "home" / "sg.db").exists()


def test_where_nothing_is_the_database_is_what_is_missing(place: Path) -> None:
    for words in VERBS:
        done = run(place, *words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert "no installation here" in done.stderr or "no database at" in done.stderr
        assert "swapproof init" in done.stderr
        assert not (place / "home" / "sg.db").exists()


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "damaged"])
def test_a_router_without_database_and_snapshot_says_so_before_it_starts_a_worker(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    missing: bool,
) -> None:
    async def start(*_: object) -> int:
        raise AssertionError("it began to start workers")

    monkeypatch.setattr("router.workers.parent.WorkerParent.run", start)
    file = initialised(place)
    file.write_bytes(b"not a database " * 400)
    if missing:
        file.unlink()

    done = run(place, "serve", "router")

    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert ("is missing" if missing else "is damaged") in done.stderr
    assert "backup" in done.stderr


def test_the_doctor_has_one_next_step_for_a_damaged_file(place: Path) -> None:
    initialised(place).write_bytes(b"not a database " * 400)

    checks = json.loads(run(place, "doctor", "--json").stdout)["checks"]

    (found,) = (check for check in checks if check["subject"] == "database")
    assert found["status"] == "fail"
    assert found["found"].startswith("the database's file is damaged")
    assert found["next_step"].startswith("stop every process")


@pytest.mark.parametrize("content", [b"not a database " * 400, b"cut"], ids=["other", "cut"])
def test_a_damaged_database_is_said_in_a_sentence(place: Path, content: bytes) -> None:
    file = initialised(place)
    whole = file.read_bytes()
    damaged = whole[: len(whole) // 3] if content == b"cut" else content
    file.write_bytes(damaged)
    for words in (
        *VERBS,
        ["db", "upgrade"],
        ["doctor"],
    ):
        for beside in place.glob("home/sg.db-*"):
            beside.unlink()
        done = run(place, *words)
        assert done.exit_code == 1, words
        said = done.stderr + done.stdout
        assert "is damaged" in said, words
        assert "backup" in said, words
        assert "unexpected" not in said, words
        assert file.read_bytes() == damaged, words


def test_the_check_says_which_revision_is_needed(place: Path) -> None:
    initialised(place)
    found = json.loads(run(place, "db", "check", "--json").stdout)
    assert found == {
        "same": True,
        "differences": [],
        "signed": True,
        "rows": [],
        "needed": REVISION,
        "found": REVISION,
    }
