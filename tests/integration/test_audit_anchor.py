"""An audit log that ends earlier than it did is found (A4)."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.control.context import Context
from harness.control.operations import alerts, integrity, queries, state_audit
from harness.domain.errors import SignatureInvalid
from harness.domain.operations.alerts import AlertKind
from harness.runtime.audit_checkpoint import AuditCheckpointFile
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.signing_keys import CONTROL
from tests.support.store.raw_rows import Database

pytestmark = pytest.mark.req("F5")


@pytest.fixture
def ctx(world: SmallInstallation, tmp_path: Path) -> Context:
    found = replace(
        world.context(), anchor=AuditCheckpointFile(tmp_path / "audit.checkpoint", CONTROL)
    )
    state_audit.run_once(found)
    return found


def cut(url: str, events: int) -> None:
    """The last events of the log, taken out by the tables' owner."""
    database = Database(url)
    if database.dialect == "postgresql":
        database.run("ALTER TABLE audit_event DISABLE TRIGGER ALL")
    else:
        database.run("DROP TRIGGER audit_event_no_delete")
    database.run(
        "DELETE FROM audit_event WHERE number > (SELECT max(number) FROM audit_event) - :n",
        {"n": events},
    )
    database.engine.dispose()


def test_a_log_whose_end_was_cut_off_is_found_though_its_chain_is_whole(
    ctx: Context, database_url: str
) -> None:
    assert queries.find_audit_break(ctx) is None
    with ctx.store.read() as tx:
        [last] = tx.audit.tail(1)

    cut(database_url, 2)

    with ctx.store.read() as tx:
        assert tx.audit.first_break() is None
    assert queries.find_audit_break(ctx) == last.number
    assert f"the audit log is broken at event {last.number}" in state_audit.check_database(ctx)
    state_audit.run_once(ctx)
    assert alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log")
    assert integrity.check_audit_chain(ctx) == last.number


def test_the_kept_end_moves_on_with_the_log_and_never_back(
    ctx: Context, world: SmallInstallation, database_url: str
) -> None:
    assert ctx.anchor is not None
    before = ctx.anchor.read()
    world.propose()
    state_audit.run_once(ctx)
    after = ctx.anchor.read()
    assert before is not None
    assert after is not None
    assert after.number > before.number

    cut(database_url, 1)
    state_audit.run_once(ctx)

    assert ctx.anchor.read() == after


def test_a_kept_end_that_control_did_not_sign_is_refused(ctx: Context, tmp_path: Path) -> None:
    file = tmp_path / "audit.checkpoint"
    file.write_text(file.read_text().replace('"number":', '"number":1'))

    with pytest.raises(SignatureInvalid):
        queries.find_audit_break(ctx)
