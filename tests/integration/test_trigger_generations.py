"""Triggers of a newer version at the same revision of the schema: an older one's `db upgrade`,
which every control process does at its start, leaves them, and so does a backup that it brings
back; a step back of the schema that is signed ends that. Where the generation was taken away
by SQL, the older one refuses.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.store import migrate, schema_revisions, table_copy
from harness.store.guards import (
    GUARDS,
    Guard,
    trigger_generation,
    trigger_signatures,
    triggers,
)
from harness.store.schema.proposals import rollout
from tests.contract.conftest import open_store
from tests.integration.test_migrations import connected
from tests.support.site.command_line import installed
from tests.support.site.signing_keys import CONTROL, VERIFIER
from tests.support.store.records import seeded, start_canary

pytestmark = [pytest.mark.both_databases, pytest.mark.req("G6")]

NAME = "rollout_next"
GUARD = Guard(
    NAME, "rollout", "UPDATE", (("next: it is said by the newer version", "NEW.salt = 'x'"),)
)


def test_triggers_that_changed_are_of_a_new_generation() -> None:
    """Where this fails: add the digest to `DIGESTS`, and leave the lines before as they are."""
    assert triggers.digest() == trigger_generation.DIGESTS[-1]


def test_this_versions_triggers_are_among_those_that_it_knows() -> None:
    """Where this fails: add what it names to `known_triggers`, at the end of the lines."""
    made = list(triggers.on_any_database())
    assert len(made) > 200
    unknown = {
        triggers.digest_of(one)[:32] for one in made if not trigger_signatures.is_known(one)
    }
    assert unknown == set()


@contextmanager
def newer_version() -> Iterator[None]:
    """Has one trigger more, and one that refuses something else."""
    with pytest.MonkeyPatch.context() as patch:
        others = (
            Guard(guard.name, guard.table, guard.event, guard.rules[:1], guard.columns)
            if guard.name == "rollout_no_rewrite"
            else guard
            for guard in GUARDS
        )
        patch.setattr(triggers, "GUARDS", (*others, GUARD))
        patch.setattr(trigger_generation, "GENERATION", trigger_generation.GENERATION + 1)
        yield


def installed_triggers(url: str) -> dict[str, triggers.Trigger]:
    with connected(url) as db:
        return dict(triggers.present(db))


def upgraded_by_the_newer(url: str) -> dict[str, triggers.Trigger]:
    before = installed_triggers(url)
    with newer_version():
        migrate.upgrade(url, signatures=CONTROL)
    after = installed_triggers(url)
    assert after.keys() - before.keys() == {NAME}
    assert after["rollout_no_rewrite"] != before["rollout_no_rewrite"]
    return after


def test_an_older_versions_upgrade_leaves_a_newer_ones_triggers(database_url: str) -> None:
    newer = upgraded_by_the_newer(database_url)
    with newer_version():
        assert migrate.check(database_url) == []
    assert schema_revisions.is_current(database_url)  # nothing to do
    migrate.upgrade(database_url)
    assert installed_triggers(database_url) == newer
    state = migrate.state(database_url, VERIFIER)
    assert state.has_newer_triggers
    assert not state.unsigned_triggers
    assert state.differences == ()
    with closing(open_store(database_url)) as store:
        seeded(store)
        with store.write() as tx:
            start_canary(tx)
    with connected(database_url) as db, pytest.raises(sa.exc.IntegrityError, match="next: it"):
        db.execute(sa.update(rollout).values(salt="x"))


def test_the_newer_version_mends_its_own_triggers(database_url: str) -> None:
    newer = upgraded_by_the_newer(database_url)
    on = " ON rollout" if database_url.startswith("postgresql") else ""
    with connected(database_url) as db:
        db.execute(sa.text(f"DROP TRIGGER {NAME}{on}"))
    with newer_version():
        assert migrate.check(database_url) == [f"the trigger {NAME} is missing"]
        migrate.upgrade(database_url)
    assert installed_triggers(database_url) == newer


def test_triggers_of_which_nothing_was_written_down_are_written_down(database_url: str) -> None:
    """A version from before there were generations installed them."""
    with connected(database_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = NULL"))
    assert not schema_revisions.is_current(database_url)
    migrate.upgrade(database_url)
    assert schema_revisions.is_current(database_url)


def test_the_first_upgrade_of_a_database_that_nobody_signed_needs_no_flag(
    database_url: str,
) -> None:
    """The version before had the triggers of a generation that this one knows."""
    with connected(database_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = NULL"))
    upgraded_by_the_newer(database_url)
    state = migrate.state(database_url, VERIFIER)
    assert state.has_newer_triggers
    assert not state.unsigned_triggers


def test_a_generation_that_was_taken_away_lets_no_older_version_in(database_url: str) -> None:
    newer = upgraded_by_the_newer(database_url)
    for written in (None, 0, trigger_generation.GENERATION, -1):
        with connected(database_url) as db:
            db.execute(
                sa.text("UPDATE alembic_version SET triggers = :written"), {"written": written}
            )
        assert not schema_revisions.is_current(database_url)
        for signatures in (None, CONTROL):
            with pytest.raises(Conflict, match="does not know, and nothing says"):
                migrate.upgrade(database_url, signatures=signatures)
        assert installed_triggers(database_url) == newer
        state = migrate.state(database_url, VERIFIER)
        assert state.unsigned_triggers
        assert f"the trigger {NAME} of rollout is none of ours" in state.differences
        with connected(database_url) as db:
            db.execute(sa.text("UPDATE alembic_version SET triggers_signed = NULL"))
        with pytest.raises(Conflict, match="it has no signature"):
            migrate.upgrade(database_url, signatures=CONTROL)
        with newer_version():
            migrate.upgrade(database_url, signatures=CONTROL)
            assert not migrate.state(database_url, VERIFIER).unsigned_triggers
        assert migrate.state(database_url, VERIFIER).differences == ()


def test_one_more_trigger_alone_is_a_newer_versions_too(database_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triggers, "GUARDS", (*GUARDS, GUARD))
        patch.setattr(trigger_generation, "GENERATION", trigger_generation.GENERATION + 1)
        migrate.upgrade(database_url, signatures=CONTROL)
    with connected(database_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = NULL"))
    with pytest.raises(Conflict, match="does not know"):
        migrate.upgrade(database_url, signatures=CONTROL)
    with connected(database_url) as db:
        assert trigger_generation.recorded(db) == 0


def test_triggers_are_known_in_a_schema_of_another_name(empty_postgres_url: str) -> None:
    with connected(empty_postgres_url) as db:
        db.execute(sa.text('CREATE SCHEMA "Gate"'))
    there = sa.make_url(empty_postgres_url).update_query_dict(
        {"options": '-csearch_path="Gate"'}
    )
    url = there.render_as_string(hide_password=False)
    migrate.upgrade(url)
    with connected(url) as db:
        theirs = list(triggers.present(db).values())
        assert len(theirs) > 100
        assert all(trigger_signatures.is_known(triggers.in_public(db, one)) for one in theirs)


def test_a_restore_replaces_no_triggers_that_it_does_not_know(postgres_url: str) -> None:
    """On SQLite a restore writes a new file."""
    newer = upgraded_by_the_newer(postgres_url)
    with connected(postgres_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = NULL"))
    with pytest.raises(Conflict, match="does not know"):
        table_copy.replace_rows(postgres_url, migrate.head(), [], {})
    assert installed_triggers(postgres_url) == newer


def test_a_restore_by_the_older_version_leaves_a_newer_ones_triggers(database_url: str) -> None:
    with closing(open_store(database_url)) as store:
        seeded(store)
    newer = upgraded_by_the_newer(database_url)
    with table_copy.open_tables(database_url) as database:
        parts = list(database.read())
    expected: dict[str, table_copy.TableDigest] = {}
    for part in parts:
        digest = expected.get(part.table, table_copy.TableDigest())
        expected[part.table] = digest.add(part.rows)
    table_copy.replace_rows(database_url, migrate.head(), parts, expected)
    assert installed_triggers(database_url) == newer


def test_after_a_step_back_the_older_versions_triggers_are_installed(database_url: str) -> None:
    upgraded_by_the_newer(database_url)
    with newer_version():
        migrate.downgrade(database_url)
    migrate.upgrade(database_url)
    assert not migrate.state(database_url).has_newer_triggers
    found = installed_triggers(database_url)
    with connected(database_url) as db:
        assert triggers.shipped(db).items() <= found.items()


def test_only_a_step_back_that_is_signed_lets_the_older_version_in(database_url: str) -> None:
    """As the older version asks, whose newest schema is the one that was gone back to."""
    for signatures, is_signed in ((None, False), (VERIFIER, False), (CONTROL, True)):
        with newer_version():
            migrate.upgrade(database_url, signatures=CONTROL)
            found = migrate.downgrade(database_url, signatures=signatures)
        assert found.is_signed is is_signed
        with connected(database_url) as db:
            assert trigger_signatures.has_unknown(db)
            if is_signed:
                trigger_signatures.require_replaceable(db, VERIFIER)
            else:
                with pytest.raises(Conflict, match="it has no signature"):
                    trigger_signatures.require_replaceable(db, VERIFIER)


def test_a_generation_that_somebody_made_up_hides_no_missing_trigger(database_url: str) -> None:
    on = " ON rollout" if database_url.startswith("postgresql") else ""
    with connected(database_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = 999"))
        db.execute(sa.text(f"DROP TRIGGER rollout_no_rewrite{on}"))
    assert migrate.check(database_url) == ["the trigger rollout_no_rewrite is missing"]


def weaken(url: str) -> None:
    """Puts a trigger that refuses nothing in the place of one of ours, as raw SQL does."""
    with connected(url) as db:
        if db.dialect.name == "sqlite":
            db.exec_driver_sql("DROP TRIGGER rollout_no_rewrite")
            db.exec_driver_sql(
                "CREATE TRIGGER rollout_no_rewrite BEFORE UPDATE ON rollout BEGIN SELECT 1; END"
            )
        else:
            db.exec_driver_sql(
                "CREATE OR REPLACE FUNCTION rollout_no_rewrite() RETURNS trigger"
                " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
            )


def test_a_generation_that_somebody_made_up_hides_no_weakened_trigger(
    database_url: str,
) -> None:
    migrate.upgrade(database_url, signatures=CONTROL)
    weaken(database_url)
    with connected(database_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = 999"))
    for signatures in (None, VERIFIER):
        state = migrate.state(database_url, signatures)
        assert state.differences == ("the trigger rollout_no_rewrite is not this version's",)
        assert state.unsigned_triggers


def test_no_signature_can_be_made_up_either(database_url: str) -> None:
    upgraded_by_the_newer(database_url)
    weaken(database_url)
    for signed in (None, "{}", "[]", "no JSON", '{"triggers": {}, "signature": "k.c2ln"}'):
        with connected(database_url) as db:
            written = {"signed": signed}
            db.execute(sa.text("UPDATE alembic_version SET triggers_signed = :signed"), written)
        state = migrate.state(database_url, VERIFIER)
        assert "the trigger rollout_no_rewrite is not this version's" in state.differences
        assert state.unsigned_triggers


def test_a_newer_versions_trigger_that_was_weakened_is_named(database_url: str) -> None:
    upgraded_by_the_newer(database_url)
    weaken(database_url)
    on = " ON rollout" if database_url.startswith("postgresql") else ""
    with connected(database_url) as db:
        db.execute(sa.text(f"DROP TRIGGER {NAME}{on}"))
    assert migrate.state(database_url, VERIFIER).differences == (
        f"the trigger {NAME} is missing",
        "the trigger rollout_no_rewrite is not what a newer version signed",
    )


def test_only_triggers_that_no_newer_version_signed_are_replaced(database_url: str) -> None:
    newer = upgraded_by_the_newer(database_url)
    with pytest.raises(Conflict, match="a newer version signed the triggers"):
        migrate.upgrade(database_url, signatures=CONTROL, replace_triggers=True)
    assert installed_triggers(database_url) == newer
    with connected(database_url) as db:
        db.execute(sa.text("UPDATE alembic_version SET triggers = 999"))
    migrate.upgrade(database_url, signatures=CONTROL, replace_triggers=True)
    state = migrate.state(database_url, VERIFIER)
    assert state.differences == (f"the trigger {NAME} of rollout is none of ours",)
    assert not state.has_newer_triggers


def test_db_check_fails_where_a_made_up_generation_excuses_a_trigger(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, database_url, monkeypatch) as cli:
        file = tmp_path / ".swapgate/swapgate.db"
        url = f"sqlite:///{file}" if file.exists() else database_url
        weaken(url)
        with connected(url) as db:
            db.execute(sa.text("UPDATE alembic_version SET triggers = 999"))
        found = cli.run("db", "check", exits=1)
        assert "the trigger rollout_no_rewrite is not this version's" in found.stdout
        assert "nothing vouches for it" in found.stderr
        assert "rollout_no_rewrite is not" in cli.text("doctor", exits=1)
        cli.run("db", "upgrade", "--replace-triggers")
        cli.run("db", "check")


def test_who_runs_the_older_version_is_told_that_a_generation_was_taken_away(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, database_url, monkeypatch) as cli:
        file = tmp_path / ".swapgate/swapgate.db"
        url = f"sqlite:///{file}" if file.exists() else database_url
        newer = upgraded_by_the_newer(url)
        with connected(url) as db:
            db.execute(sa.text("UPDATE alembic_version SET triggers = NULL"))
        said = cli.run("db", "upgrade", exits=6).stderr
        assert "has triggers that this version does not know" in said
        found = cli.run("db", "check", exits=1)
        assert f"the trigger {NAME} of rollout is none of ours" in found.stdout
        assert "`swapgate db upgrade` leaves them and ends with an error" in found.stderr
        assert "run `swapgate db upgrade`\n" not in found.stderr
        assert installed_triggers(url) == newer
        cli.run("db", "upgrade", "--replace-triggers")
        assert "leaves them" not in cli.run("db", "check", exits=1).stderr
        on = " ON rollout" if database_url.startswith("postgresql") else ""
        with connected(url) as db:
            db.execute(sa.text(f"DROP TRIGGER {NAME}{on}"))
        cli.run("db", "check")


def test_who_runs_the_older_version_is_told(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        upgraded_by_the_newer(f"sqlite:///{tmp_path}/.swapgate/swapgate.db")
        said = cli.run("db", "check").stderr
        assert "a newer version installed its triggers, which stay" in said
        found = cli.text("doctor", exits=1)
        assert "has triggers of a newer version; this one goes on" in found
