"""`swapproof db`: what is signed, what is not, and the ways out."""

import sqlite3
from contextlib import closing

import pytest

from harness.app.installation import open_installation
from harness.frame.alerts.records import Alerts
from harness.interfaces.api import app
from harness.operations import control_jobs, integrity
from tests.support.site.command_line import CommandLine
from tests.support.site.signing_keys import ENVIRONMENT

pytestmark = pytest.mark.req("F1")


def run_sql(
    cli: CommandLine,
    *statements: str,
    triggers: bool = True,
) -> None:
    with closing(sqlite3.connect(cli.folder / ".swapproof/swapproof.db")) as db:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        kept = [] if triggers else db.execute(query).fetchall()
        for name, _ in kept:
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
        for _, text in kept:
            db.execute(text)
        db.commit()


FORGED_KEY = (
    "INSERT INTO api_key (id, name, hash, hint, role, routes, created_at, principal)"
    " SELECT 'k_forged', 'mallory', 'abc', 'abcd', 4, '[]', 0, principal"
    " FROM api_key WHERE role = 4"
)


def test_a_forged_admins_key_is_named_refused_and_taken_out(cli: CommandLine) -> None:
    assert "the signature of every row is valid" in cli.text("db", "check")
    run_sql(cli, FORGED_KEY)

    assert "api_key k_forged: it has no signature" in cli.text("db", "check", exits=1)
    assert cli.json("db", "check", exits=1)["signed"] is False
    assert "api_key k_forged" in cli.text("audit", "verify", exits=1)
    assert "rows of api_key have no" in cli.error("key", "create", "another", exits=7)
    cli.run("db", "remove-forged", exits=2)
    cli.run("db", "remove-forged", "--reason", " ", exits=2)
    cli.run("db", "remove-forged", "--reason", "forged", exits=130)

    told = cli.text("db", "remove-forged", "--reason", "forged", "--yes")
    assert "removed 1 rows" in told
    assert "the signature of every row is valid" in cli.text("db", "check")
    assert "removed forged rows of" in cli.text("audit", "tail")
    cli.run("key", "create", "another")


def test_keys_are_rotated_and_retired(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In files: a key of the environment is not ours to change.
    assert "SWAPPROOF_SIGNING" in cli.error("db", "rotate-key", exits=2)
    home = cli.folder / ".swapproof"
    files = ("signing.key", "worker-signing.key", "signing.pub")
    for file, (name, value) in zip(files, ENVIRONMENT.items(), strict=True):
        (home / file).write_text(value)
        (home / file).chmod(0o600)
        monkeypatch.delenv(name)
    old = (home / "signing.pub").read_text().splitlines()[1].split()[0]
    assert "from now on, the control key" in cli.text("db", "rotate-key")
    cli.run("key", "create", "by the new key")
    assert "the signature of every row is valid" in cli.text("db", "check")

    told = cli.text("db", "retire-key", old, "--reason", "it leaked")
    assert f"the key {old} is retired" in told
    assert "the signature of every row is valid" in cli.text("db", "check")
    cli.run("route", "settings", "chat", "--description", "Talks")
    assert "retired " in cli.text("audit", "tail")
    cli.text("audit", "verify")
    with closing(open_installation(cli.folder / "swapproof.yaml")) as installation:
        assert control_jobs.reconcile(installation.context).failed == ()


def test_control_starts_beside_a_forged_row_and_tells(cli: CommandLine) -> None:
    """If it stopped, it would raise no alert and roll back no canary."""
    run_sql(
        cli,
        "INSERT INTO provider (name, kind, api_base, extra_headers, prices, updated_at,"
        " more_api_key_envs, models, extra_body, sealed_headers)"
        " VALUES ('evil', 'custom', 'http://127.0.0.1:1/v1', '{}', '{}', 0,"
        " '[]', '{}', '{}', '{}')",
    )
    with closing(open_installation(cli.folder / "swapproof.yaml")) as installation:
        app._apply_seed(installation)
        integrity.check_snapshot(installation.context)
        with installation.store.read() as tx:
            (alert,) = Alerts(tx).list(open_only=True)
    assert "provider" in alert.text


def test_the_verbs_of_signing_ask_for_an_admins_key(cli: CommandLine) -> None:
    key = cli.acting("ben", "approver")
    for words in (
        ("rotate-key",),
        ("retire-key", "0" * 16, "--reason", "x"),
        ("remove-forged", "--reason", "x", "--yes"),
    ):
        assert "this needs admin" in cli.error(*key, "db", *words, exits=7)
