"""Restores a backup (`restore_backup`): first reads it whole, then puts back the configuration
where there is none, the keys, and the database. What it replaces is set aside, and never lost;
on PostgreSQL the rows are replaced in one transaction.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from harness import config
from harness.app.backup import (
    BackupContents,
    present_key,
    read_rows,
    set_in_environment,
    verify_backup,
)
from harness.app.installation import config_file, load_settings
from harness.domain.errors import ConfigError, Conflict, InputError
from harness.domain.settings import Settings
from harness.runtime import encryption, secret_files, signing_keys
from harness.runtime.clock import SystemClock
from harness.store import migrate, table_copy
from harness.store.restored_database import replace_database

PUBLIC_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class RestoredBackup:
    """Says what `restore_backup` did."""

    contents: BackupContents
    database: str  # SQLite's file; of PostgreSQL the database's name
    created: tuple[str, ...]  # files
    set_aside: tuple[str, ...]  # files, by their new names


def restore_backup(
    given: Path | None, file: Path, passphrase: str, *, replace: bool
) -> RestoredBackup:
    """Restore a backup into the installation that the configuration file names; without one,
    the backup's own is written to where it was asked for.

    replace: also where there is data, or another key. Raises InputError for a file that is no
    whole backup, Conflict where there is data and `replace` is False, ConfigError where the
    environment sets another key. Nothing is changed before all of that is known, and keys and
    configuration are put back where the database cannot be replaced.
    """
    contents = verify_backup(file, passphrase)
    wanted = config_file(given, os.environ) or Path.cwd() / config.FILE_NAME
    created, aside = _write_configuration(contents, wanted), list[Path]()
    suffix = f".replaced-{SystemClock().now():%Y%m%dT%H%M%SZ}"
    try:
        settings = load_settings(given)
        _check_place(settings, contents, replace=replace)
        secret_files.writable_home(settings)
        _write_keys(settings, contents, suffix, created, aside)
        database = replace_database(
            settings.database_url,
            contents.schema,
            read_rows(file, passphrase),
            contents.tables,
            suffix=suffix,
        )
    except BaseException:
        # The keys of one installation beside the database of another one open nothing.
        for path in created:
            path.unlink(missing_ok=True)
        for path in aside:
            path.replace(path.with_name(path.name.removesuffix(suffix)))
        raise
    migrate.upgrade(settings.database_url)
    set_aside = tuple(str(path) for path in (*aside, *database.set_aside))
    return RestoredBackup(
        contents, database.name, tuple(str(path) for path in created), set_aside
    )


def _write_configuration(contents: BackupContents, wanted: Path) -> list[Path]:
    """Writes the files that are missing; one that exists is left alone."""
    if wanted.exists() or contents.config is None:
        return []
    texts = {wanted: contents.config}
    for name, text in contents.suite_files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"the backup has a file outside its folder: {name}")
        texts[wanted.parent / path] = text
    written = []
    for place, text in texts.items():
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
            written.append(place)
    return written


def _check_place(settings: Settings, contents: BackupContents, *, replace: bool) -> None:
    if not replace and table_copy.has_data(settings.database_url):
        raise Conflict(
            "the database has data: restore elsewhere, or replace it with --replace (this "
            "renames SQLite's file, and deletes PostgreSQL's rows, so back those up first)"
        )
    for name, text in contents.keys.items():
        if not _is_other(settings, name, text):
            continue
        if set_in_environment(name):
            raise ConfigError(
                f"the environment sets another {name} than the backup has: unset the variable, "
                "or set it to the value of the installation that was backed up"
            )
        if not replace:
            raise Conflict(
                f"{settings.home / name} differs from the backup's: move it away, or let "
                "--replace rename it"
            )


def _is_other(settings: Settings, name: str, text: str) -> bool:
    """Whether another key than the backup's is in use here, or a file that cannot be used."""
    try:
        return present_key(settings, name) != text
    except ConfigError:
        return (settings.home / name).exists() or set_in_environment(name)


def _write_keys(
    settings: Settings,
    contents: BackupContents,
    suffix: str,
    created: list[Path],
    aside: list[Path],
) -> None:
    """Writes the keys that are not in use here; adds those files to `created`, and what had
    their names to `aside`.
    """
    for name, text in contents.keys.items():
        place = settings.home / name
        if _is_other(settings, name, text):
            aside.append(place.replace(place.with_name(f"{name}{suffix}")))
        elif place.exists() or set_in_environment(name):
            continue
        created.append(place)
        encryption.write_key_file(place, text.splitlines())
        if name == signing_keys.KEYRING_FILE:
            place.chmod(PUBLIC_MODE)
