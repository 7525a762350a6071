"""Backup and restore of a whole installation, on SQLite and PostgreSQL."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.control.operations import keys
from harness.domain.errors import InputError, LeadershipLost
from harness.domain.operations.principals import OPERATOR
from harness.runtime.clock import SystemClock
from harness.runtime.encrypted_archive import ArchiveWriter, read_archive
from harness.store.leader import leadership
from harness.store.table_copy import TableDigest, open_tables
from tests.integration.test_unusable_databases import run

pytestmark = [pytest.mark.req("G6"), pytest.mark.both_databases]
PASSPHRASE = "correct horse battery"  # noqa: S105 - it guards nothing
SUITE = '{"input": "2+2?", "target": "4"}\n'
BACKUP_VARIABLE = "SWAPGATE_BACKUP_PASSPHRASE"


def installation(folder: Path, url: str) -> Path:
    folder.mkdir()
    (folder / "sums.jsonl").write_text(SUITE)
    (folder / "swapgate.yaml").write_text(
        f"home: .swapgate\ndatabase_url: {url}\n"
        "suites: {sums: {path: sums.jsonl, scorer: exact}}\n"
    )
    made = open_installation(folder / "swapgate.yaml", create_secret=True)
    upgrade_database(made.settings)
    made.close()
    return folder


def add_keys(folder: Path, *names: str) -> None:
    made = open_installation(folder / "swapgate.yaml")
    for name in names:
        keys.create_key(made.context, OPERATOR, name, secret=made.secret)
    made.close()


def digests(url: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, TableDigest]:
    """Of all tables; `meanwhile` runs once the first one was read."""
    found: dict[str, TableDigest] = {}
    with open_tables(url) as database:
        for part in database.read():
            if not found:
                meanwhile()
            found[part.table] = found.get(part.table, TableDigest()).add(part.rows)
    return found


def test_a_backup_has_the_rows_of_one_moment_and_comes_back_in_place_and_elsewhere(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKUP_VARIABLE, PASSPHRASE)
    home = installation(tmp_path / "home", database_url)
    add_keys(home, "first", "second")
    first = digests(database_url)
    assert digests(database_url, lambda: add_keys(home, "meanwhile")) == first
    held_rows = digests(database_url)
    assert held_rows["api_key"].rows == first["api_key"].rows + 1
    backup = tmp_path / "one.backup"
    written = run(home, "backup", str(backup), "--json")
    assert written.exit_code == 0, written.stderr
    held = backup.read_bytes()
    assert (home / ".swapgate/secret.key").read_bytes().strip() not in held
    assert run(home, "backup", str(backup)).exit_code == 2  # none is overwritten

    # In place: what came after the backup is gone.
    assert run(home, "restore", str(backup)).exit_code == 6
    add_keys(home, "later")
    restored = run(home, "restore", str(backup), "--replace", "--yes")
    assert restored.exit_code == 0, restored.stderr
    assert digests(database_url) == held_rows
    assert run(home, "db", "accept-restore", "--reason", "a rehearsal").exit_code == 0
    assert "every row is as it was signed" in run(home, "db", "check").stdout

    # Elsewhere, with nothing but the file.
    (tmp_path / "home").rename(tmp_path / "lost")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    url = f"sqlite:///{elsewhere / 'sg.db'}"
    monkeypatch.setenv("SWAPGATE__DATABASE_URL", url)
    restored = run(elsewhere, "restore", str(backup))
    assert restored.exit_code == 0, restored.stderr
    assert run(elsewhere, "db", "check").exit_code == 0
    assert run(elsewhere, "audit", "verify").exit_code == 0
    assert (elsewhere / "sums.jsonl").read_text() == SUITE
    assert digests(url) == held_rows  # on SQLite, wherever it was before
    modes = {
        path.name: path.stat().st_mode & 0o77 for path in elsewhere.glob(".swapgate/*.key*")
    }
    assert modes
    assert set(modes.values()) == {0}


def test_a_restore_that_fails_at_the_database_leaves_the_keys_that_open_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKUP_VARIABLE, PASSPHRASE)
    home = installation(tmp_path / "home", database_url)
    add_keys(home, "mine")
    other = installation(tmp_path / "other", f"sqlite:///{tmp_path / 'other.db'}")
    made, backup = tmp_path / "made.backup", tmp_path / "newer.backup"
    assert run(other, "backup", str(made)).exit_code == 0
    with backup.open("wb") as out:
        archive = ArchiveWriter(out, PASSPHRASE)
        for line in read_archive(made, PASSPHRASE):
            archive.write(line.replace(b'"schema":"0.1', b'"schema":"9.9', 1))
        archive.close()
    before = {path.name: path.read_bytes() for path in (home / ".swapgate").glob("*.*")}

    refused = run(home, "restore", str(backup), "--replace", "--yes")

    assert "restore it with the version that made it" in refused.stderr
    assert {p.name: p.read_bytes() for p in (home / ".swapgate").glob("*.*")} == before
    assert run(home, "db", "check").exit_code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("SWAPGATE__DATABASE_URL", f"sqlite:///{empty / 'new.db'}")
    assert (
        "restore it with the version that made it" in run(empty, "restore", str(backup)).stderr
    )
    assert [path for path in empty.rglob("*") if path.is_file()] == []


def test_a_restore_makes_no_leader_of_an_earlier_term_the_leader_again(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKUP_VARIABLE, PASSPHRASE)
    home = installation(tmp_path / "home", postgres_url)
    backup = tmp_path / "first.backup"
    assert run(home, "backup", str(backup)).exit_code == 0
    with closing(leadership(sa.make_url(postgres_url), SystemClock())) as first:
        early = first.try_lead("first")
    with closing(leadership(sa.make_url(postgres_url), SystemClock())) as second:
        later = second.try_lead("second")
    assert early is not None
    assert later == early + 1

    assert run(home, "restore", str(backup), "--replace", "--yes").exit_code == 0

    made = open_installation(home / "swapgate.yaml")
    with closing(made), pytest.raises(LeadershipLost), made.store.write() as tx:
        tx.installation.require_term(early)


def test_a_backup_that_is_damaged_cut_or_anothers_is_refused_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.backup"
    # Of many chunks, also once they are compressed.
    lines = [hashlib.sha256(b"%d" % number).hexdigest().encode() for number in range(5000)]
    monkeypatch.setattr("harness.runtime.encrypted_archive.CHUNK_BYTES", 512)
    with file.open("wb") as out:
        archive = ArchiveWriter(out, PASSPHRASE)
        for line in lines:
            archive.write(line)
        archive.close()
    whole = file.read_bytes()

    assert list(read_archive(file, PASSPHRASE)) == lines
    with pytest.raises(InputError, match="the passphrase is another one"):
        list(read_archive(file, "incorrect horse battery"))
    for broken in (whole[:-1], whole[:600], whole[:900] + b"x" + whole[901:]):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="damaged or cut off"):
            list(read_archive(file, PASSPHRASE))
    body = whole[:-32]
    chunk = body[34 : 34 + 4 + 512 + 16]  # behind format and salt: length, content, tag
    for forged in (body[:-1] + b"x", body[: 34 + len(chunk) * 2], body + chunk):
        file.write_bytes(forged + hashlib.sha256(forged).digest())
        with pytest.raises(InputError, match="was changed after it was written: use another"):
            list(read_archive(file, PASSPHRASE))
    file.write_bytes(b"SQLite format 3\0")
    restored = run(tmp_path, "restore", str(file), "--passphrase-file", str(tmp_path / "none"))
    assert restored.exit_code == 2
    monkeypatch.setenv(BACKUP_VARIABLE, PASSPHRASE)
    assert "is no backup" in run(tmp_path, "restore", str(file)).stderr
    assert not (tmp_path / "swapgate.yaml").exists()
