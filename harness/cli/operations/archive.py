"""`swapgate archive` moves old rows of traffic and spend into Parquet files, lists and verifies
the files, and reads them.
"""

import json
from datetime import timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.control.privacy import archive as archives
from harness.domain.errors import InputError, SwapgateError
from harness.domain.operations.archive import ARCHIVED
from harness.ports import ArchiveFiles


@click.group()
def archive() -> None:
    """The archive: old traffic and spend, in Parquet files."""


def _files(session: Session) -> ArchiveFiles:
    files = session.installation.archive_files
    if files is None:
        raise InputError("there is no archive: name its folder as `archive.folder`")
    return files


@archive.command()
@pass_session
def run(session: Session) -> None:
    """Move what is older than `archive.after_days` now.

    The control process does the same by itself, with its housekeeping.
    """
    after = timedelta(days=session.installation.settings.archive.after_days)
    written = archives.archive_old_rows(
        session.context, _files(session), after, actor=session.deciding_actor
    )
    if session.json:
        output.document(written)
        return
    rows = sum(file.rows for file in written)
    click.echo(f"archived {rows:,} rows in {len(written):,} files")


@archive.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the files that were written, oldest first."""
    found = archives.list_archived_files(session.context)
    if session.json:
        output.document(found)
        return
    output.table(
        ["FILE", "ROWS", "FIRST", "LAST", "SHA-256"],
        [
            (file.name, f"{file.rows:,}", file.first, file.last, file.sha256[:16])
            for file in found
        ],
        empty="nothing was archived yet",
    )


@archive.command()
@pass_session
def verify(session: Session) -> None:
    """Compare the folder with the audit log; exit code 1 where a file is missing or changed."""
    faults = archives.verify_archive(session.context, _files(session))
    if session.json:
        output.document(faults)
    else:
        for fault in faults:
            click.echo(f"{fault.name}: {fault.text}")
    if faults:
        raise SwapgateError(f"{len(faults)} files of the archive are not as the log says")
    if not session.json:
        click.echo(f"all {len(archives.list_archived_files(session.context)):,} files hold")


@archive.command()
@click.argument("table", type=click.Choice(sorted(ARCHIVED)))
@click.option("--since", default="", help="Beginning of a time: 2026-03, or 2026-03-14.")
@click.option("--until", default="", help="The same; rows from then on are left out.")
@pass_session
def read(session: Session, table: str, since: str, until: str) -> None:
    """Print archived rows of TABLE, a JSON object each, oldest first."""
    rows = archives.read_archive(session.context, _files(session), table, since, until)
    if session.json:
        output.document(list(rows))
        return
    is_empty = True
    for row in rows:
        click.echo(json.dumps(row, default=str))
        is_empty = False
    if is_empty:
        output.note("no such row is archived; `swapgate archive list` shows what is")
