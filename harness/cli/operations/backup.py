"""`swapgate backup` writes database, keys and configuration into one encrypted file, while
Swapgate serves; `swapgate restore` puts them back.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.domain.errors import InputError
from harness.domain.formatting import format_count
from harness.domain.operations.access import Role

if TYPE_CHECKING:
    from harness.app.backup import BackupContents

FILE = click.Path(dir_okay=False, path_type=Path)
passphrase_file = click.option(
    "--passphrase-file",
    type=FILE,
    help="File with the passphrase. [default: SWAPGATE_BACKUP_PASSPHRASE, else a prompt]",
)


@click.command()
@click.argument("file", type=FILE)
@passphrase_file
@pass_session
def backup(session: Session, file: Path, passphrase_file: Path | None) -> None:
    """Write database, keys and configuration into the new file FILE.

    Swapgate can go on serving: the backup has the rows of one moment. The file is encrypted
    with a passphrase of 12 characters or more, has a checksum, and is read back before it gets
    its name. Keep the passphrase apart from the file: without it nobody can read the file, and
    whoever has both can sign as this installation.
    """
    from harness.app.backup import write_backup  # noqa: PLC0415 - `--help` stays quick
    from harness.control.operations import backups  # noqa: PLC0415 - as above

    actor = session.deciding_actor
    actor.require(Role.ADMIN)
    passphrase = _passphrase(passphrase_file, is_new=True)
    written = write_backup(session.installation, file, passphrase)
    backups.record_backup(session.context, actor, file.name, written.sha256)
    if session.json:
        output.document(
            {
                "file": written.file,
                "size_bytes": written.size_bytes,
                "sha256": written.sha256,
                **_described(written.contents),
                "missing": written.missing,
            }
        )
        return
    output.facts(
        [
            ("file", written.file),
            ("size", f"{format_count(written.size_bytes)} bytes"),
            ("SHA-256", written.sha256),
            *_facts(written.contents),
        ]
    )
    for name in written.missing:
        output.note(f"not in the backup: {name}")
    output.note(
        "the backup was read back and is complete; keep the passphrase apart from the file"
    )


@click.command()
@click.argument("file", type=FILE)
@passphrase_file
@click.option(
    "--check", is_flag=True, help="Read the whole backup and describe it; change nothing."
)
@click.option(
    "--replace",
    is_flag=True,
    help="Replace a database that has data, and keys that differ from the backup's.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def restore(
    session: Session,
    file: Path,
    passphrase_file: Path | None,
    *,
    check: bool,
    replace: bool,
    yes: bool,
) -> None:
    """Restore the backup FILE.

    In an empty folder this restores configuration, keys and database; with a configuration,
    the database and the keys at the places that it names. --replace renames existing files, and
    replaces the rows of PostgreSQL in one transaction, as the tables' owner.

    Routers that run meanwhile go on serving. They refuse a database that is behind what they
    served, until `swapgate db accept-restore`.
    """
    from harness.app.backup import verify_backup  # noqa: PLC0415 - `--help` stays quick
    from harness.app.restore import restore_backup  # noqa: PLC0415 - as above

    passphrase = _passphrase(passphrase_file, is_new=False)
    if check:
        contents = verify_backup(file, passphrase)
        if session.json:
            output.document({"whole": True, **_described(contents)})
            return
        output.facts(_facts(contents))
        output.note("the backup is complete; nothing was changed")
        return
    if replace and not yes:
        click.confirm("Replace the existing database?", abort=True, err=True)
    restored = restore_backup(session.config, file, passphrase, replace=replace)
    if session.json:
        output.document(
            {
                "database": restored.database,
                "created": restored.created,
                "set_aside": restored.set_aside,
                **_described(restored.contents),
            }
        )
        return
    for name in restored.created:
        click.echo(f"created {name}")
    for name in restored.set_aside:
        click.echo(f"set aside {name}")
    click.echo(f"restored {restored.contents.rows} rows into {restored.database}")
    output.note(
        "next: `swapgate db check`; where the installation went on after the backup, "
        "`swapgate db accept-restore`; on PostgreSQL, `swapgate db grant` for the role of the "
        "processes"
    )


def _passphrase(file: Path | None, *, is_new: bool) -> str:
    from harness.app.backup import PASSPHRASE_VARIABLE  # noqa: PLC0415 - `--help` stays quick

    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the passphrase in {file} cannot be read: {error}") from None
        if not text:
            raise InputError(f"{file} is empty: it should hold the passphrase")
        return text
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given:
        return given
    return str(
        click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
    )


def _described(contents: "BackupContents") -> dict[str, object]:
    return {
        "made_at": contents.made_at,
        "swapgate": contents.swapgate,
        "schema": contents.schema,
        "tables": {name: table.rows for name, table in contents.tables.items()},
        "keys": sorted(contents.keys),
        "config": contents.config is not None,
        "suite_files": sorted(contents.suite_files),
    }


def _facts(contents: "BackupContents") -> list[tuple[str, object]]:
    return [
        ("made at", contents.made_at.isoformat(timespec="seconds")),
        ("by", f"Swapgate {contents.swapgate}, schema {contents.schema}"),
        ("rows", contents.rows),
        ("keys", ", ".join(sorted(contents.keys))),
        ("configuration", "yes" if contents.config is not None else "none"),
        ("files of suites", len(contents.suite_files)),
    ]
