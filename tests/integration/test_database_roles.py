import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from harness.app.store import database_roles, migrate
from harness.app.store.guards import KEPT_UNTIL_END
from harness.app.store.store import Store
from harness.app.store.tables import APPEND_ONLY
from harness.canary import operations
from harness.frame.errors import DatabaseUnusable, InputError, NotFound
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutSignal
from harness.interfaces.cli.program import program
from harness.proposals import decisions
from harness.routing.proposal import ProposalPhase
from harness.routing.records.exposures import Exposures
from tests.contract.conftest import SECRET, open_store
from tests.contract.test_store_exposures import COUNT, ENDED, EXPOSURE
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import approved
from tests.support.site.signing_keys import CONTROL
from tests.support.store.raw_rows import REFUSED, Database, prepared
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("F1", "G5")


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    name = f"runtime_{secrets.token_hex(4)}"
    owner = Database(postgres_url)
    owner.run(f"CREATE ROLE {name} LOGIN")
    yield name
    owner.run(f"DROP OWNED BY {name}")
    owner.run(f"DROP ROLE {name}")
    owner.engine.dispose()


def as_role(url: str, role: str) -> str:
    return sa.make_url(url).set(username=role).render_as_string(hide_password=False)


def test_all_of_the_product_runs_under_the_runtime_s_role(
    postgres_url: str,
    role: str,
    tmp_path: Path,
) -> None:
    database_roles.grant(postgres_url, role)
    url = as_role(postgres_url, role)
    # What control does at its start finds nothing to do.
    migrate.upgrade(url)
    assert migrate.list_differences(url) == []

    def opened() -> Store:
        return Store(
            url,
            secret=SECRET,
            clock=SystemClock(),
            signatures=CONTROL,
        )

    with (
        closing(opened()) as store,
        closing(opened()) as router,
        closing(opened()) as other,
    ):
        assert store.try_lead("control-1")
        assert not other.try_lead("control-2")
        world = SmallInstallation(tmp_path, store, policy=approved())
        world.set_up()
        assert router.snapshot().table.revision == 1
        router.wait_for_change(0)

        proposal = world.propose("sim/better")
        waiting = world.until_decided(proposal.id)
        assert waiting.phase is ProposalPhase.AWAITING_APPROVAL
        decisions.approve_proposal(world.context(), BEN, proposal.id)
        world.run_once()
        assert world.get(proposal.id).phase is ProposalPhase.CANARY
        while not router.wait_for_change(30):
            pass
        canary = router.snapshot().table.routes["chat"].canary
        assert canary is not None
        operations.operate(
            world.context(),
            BEN,
            "chat",
            RolloutSignal.PROMOTE,
            "a demo at noon",
        )
        assert router.snapshot().table.routes["chat"].incumbent == canary.target
        with store.read() as tx:
            assert AuditLog(tx).first_break() is None


FORBIDDEN = [
    "DROP TRIGGER verdict_no_update ON verdict",
    "ALTER TABLE verdict DISABLE TRIGGER ALL",
    (
        "CREATE OR REPLACE FUNCTION verdict_no_update() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END'"
    ),
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE public.mine (x int)",
    "CREATE TRIGGER mine BEFORE INSERT ON verdict FOR EACH ROW EXECUTE FUNCTION no_truncate()",
    "SET session_replication_role = replica",
    "UPDATE alembic_version SET version_num = '0001'",
    "UPDATE sample SET strict = 1.0",
    "DELETE FROM proposal",
    "DELETE FROM rollout",
    "DELETE FROM api_key",
    "UPDATE exposure SET canary = NOT canary",
    "UPDATE exposure_event SET outcome = 'answered'",
    *(f"TRUNCATE {table}" for table in KEPT_UNTIL_END),
    "DROP VIEW canary_exposures",
    *(f"UPDATE {t.name} SET {t.columns[0].name} = NULL" for t in APPEND_ONLY),  # noqa: S608
    *(f"DELETE FROM {t.name}" for t in APPEND_ONLY),  # noqa: S608
    *(f"TRUNCATE {t.name} CASCADE" for t in APPEND_ONLY),
]


def test_the_runtime_s_role_changes_no_table_and_nothing_that_only_grows(
    postgres_url: str, role: str
) -> None:
    database_roles.grant(postgres_url, role)
    runtime = Database(as_role(postgres_url, role))
    for statement in FORBIDDEN:
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
            runtime.run(statement)
    runtime.engine.dispose()


def test_the_runtime_s_role_adds_exposures_and_deletes_those_of_ended_canaries(
    postgres_url: str, role: str
) -> None:
    database_roles.grant(postgres_url, role)
    with (
        prepared(postgres_url) as owner,
        closing(open_store(as_role(postgres_url, role))) as store,
    ):
        with store.write() as tx:
            # The rollout of `prepared` is live.
            Exposures(tx).append([EXPOSURE], [ENDED])
            Exposures(tx).append([], [ENDED])
            Exposures(tx).add_counts([COUNT, COUNT])
            Exposures(tx).note_file("w", "router", 1, NOW)
            Exposures(tx).note_file("w", "router", 2, NOW)
            Exposures(tx).forget_files(["w"])
        runtime = Database(as_role(postgres_url, role))
        assert runtime.count("canary_exposures") == 1
        for table in KEPT_UNTIL_END:
            with pytest.raises(REFUSED, match="only after the end"):
                runtime.run(f"DELETE FROM {table}")  # noqa: S608 - constants
        end = "UPDATE rollout SET state = 'rolled_back', version = version + 1"
        owner.run(end)
        for table in KEPT_UNTIL_END:
            runtime.run(f"DELETE FROM {table}")  # noqa: S608 - constants
            assert runtime.count(table) == 0
        runtime.engine.dispose()


def test_a_grant_again_changes_nothing_and_takes_back_what_is_too_much(
    postgres_url: str, role: str
) -> None:
    first = database_roles.grant(postgres_url, role)
    owner = Database(postgres_url)
    owner.run(f"GRANT UPDATE, DELETE ON verdict TO {role}")
    owner.engine.dispose()

    assert (
        database_roles.grant(postgres_url, role)
        == first
        == database_roles.grant(postgres_url, role)
    )
    runtime = Database(as_role(postgres_url, role))
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        runtime.run("DELETE FROM verdict")
    runtime.engine.dispose()


def test_rights_are_granted_in_a_schema_whose_name_needs_quotes(
    postgres_url: str, role: str
) -> None:
    owner = Database(postgres_url)
    owner.run('ALTER SCHEMA public RENAME TO "Gate"')
    owner.engine.dispose()
    there = sa.make_url(postgres_url).update_query_dict({"options": '-csearch_path="Gate"'})
    url = there.render_as_string(hide_password=False)
    granted = database_roles.grant(url, role)

    assert any('"Gate"' in statement for statement in granted)
    again = Database(url)
    with again.engine.begin() as db:
        database_roles.grant_new_tables(db)
    again.engine.dispose()
    runtime = Database(as_role(url, role))
    assert runtime.count("approval") == 0
    runtime.engine.dispose()


def test_who_owns_the_tables_does_both_and_is_granted_nothing(
    postgres_url: str, role: str
) -> None:
    owner = database_roles.find_owning_role(postgres_url)
    assert owner is not None
    with pytest.raises(InputError, match="owns the tables"):
        database_roles.grant(postgres_url, owner)
    with pytest.raises(NotFound, match="CREATE ROLE"):
        database_roles.grant(postgres_url, "nobody_there")
    database_roles.grant(postgres_url, role)
    assert database_roles.find_owning_role(as_role(postgres_url, role)) is None


def test_a_check_by_a_role_without_temporary_tables_says_which_role_to_use(
    postgres_url: str, role: str
) -> None:
    database_roles.grant(postgres_url, role)
    owner = Database(postgres_url)
    name = sa.make_url(postgres_url).database
    owner.run(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
    owner.engine.dispose()

    with pytest.raises(DatabaseUnusable, match=f"role {role} may not .* the tables' owner"):
        migrate.compare_schema(as_role(postgres_url, role))
    assert migrate.compare_schema(postgres_url).differences == ()


def test_sqlite_has_no_roles(sqlite_url: str) -> None:
    with pytest.raises(InputError, match="SQLite has no roles"):
        database_roles.grant(sqlite_url, "runtime")
    assert database_roles.find_owning_role(sqlite_url) is None


def test_the_command_grants_and_the_doctor_says_when_one_role_does_both(
    postgres_url: str,
    role: str,
    tmp_path: Path,
) -> None:
    def run(url: str, *words: str) -> str:
        file = tmp_path / "swapproof.yaml"
        file.write_text(f"home: {tmp_path / 'home'}\ndatabase_url: {url}\n")
        return CliRunner().invoke(program, ["--config", str(file), *words]).stdout

    def role_check(url: str) -> str:
        checks = json.loads(run(url, "doctor", "--json"))["checks"]
        (found,) = (check for check in checks if check["subject"] == "database role")
        return f"{found['status']}: {found['next_step']}"

    secret = tmp_path / "home" / "secret.key"
    secret.parent.mkdir()
    secret.write_text("a secret of the installation")
    step = "run Swapproof with a second role: `swapproof db grant ROLE`"
    assert role_check(postgres_url) == f"warn: {step}"
    printed = run(postgres_url, "db", "grant", role, "--print")
    assert f'GRANT SELECT, INSERT ON public."verdict" TO "{role}";' in printed
    assert database_roles.find_owning_role(as_role(postgres_url, role)) is None
    run(postgres_url, "db", "grant", role)
    assert role_check(as_role(postgres_url, role)) == "ok: "


def test_the_runtime_s_role_is_told_who_upgrades(postgres_url: str, role: str) -> None:
    database_roles.grant(postgres_url, role)
    migrate.upgrade(as_role(postgres_url, role))  # nothing is left to do
    owner = Database(postgres_url)
    owner.run("DROP TRIGGER verdict_no_update ON verdict")
    owner.engine.dispose()
    with pytest.raises(
        DatabaseUnusable,
        match="may not upgrade the database, which stays as",
    ):
        migrate.upgrade(as_role(postgres_url, role))
