"""Writes a backup of an installation: the rows of its database, its keys, its configuration and
its suites' files, in one encrypted file (`write_backup`); reads one and verifies it whole
(`verify_backup`).

The file's lines are JSON: one `start`, a `file` each, the `rows` of the tables in the order of
their references, and an `end` with each table's number of rows and digest.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from harness import package_data
from harness.app.installation import Installation
from harness.domain.errors import ConfigError, InputError, StoreUnavailable
from harness.domain.operations.row_signatures import KeyPurpose, format_keyring
from harness.domain.settings import Settings
from harness.runtime import secret_files, signing_keys
from harness.runtime.encrypted_archive import ArchiveWriter, read_archive
from harness.store.table_copy import TableDigest, TableRows, open_tables

PASSPHRASE_VARIABLE: Final = "SWAPGATE_BACKUP_PASSPHRASE"  # noqa: S105 - a name, not a secret
# Without these, nothing of a database can be verified, or decided again.
NEEDED_KEYS: Final = frozenset(
    {
        secret_files.SECRET_FILE,
        signing_keys.KEYRING_FILE,
        signing_keys.PRIVATE_FILES[KeyPurpose.CONTROL],
    }
)
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupContents:
    """Describes a backup that was read from its first byte to its last."""

    made_at: datetime
    swapgate: str  # the version that wrote it
    schema: str
    tables: Mapping[str, TableDigest]
    keys: Mapping[str, str]  # by file name in `home`
    config: str | None  # None where there was no file
    suite_files: Mapping[str, str]  # by path below the configuration's folder

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())


@dataclass(frozen=True, slots=True)
class WrittenBackup:
    """Says what `write_backup` wrote, and what it has no copy of."""

    file: str
    size_bytes: int
    sha256: str
    contents: BackupContents
    missing: tuple[str, ...]  # a sentence each


def write_backup(installation: Installation, file: Path, passphrase: str) -> WrittenBackup:
    """Writes a backup to a new file, and reads it back before it gets its name.

    Whoever serves goes on meanwhile: the rows are those of one moment. Raises InputError for a
    file that exists or cannot be written, ConfigError for a key that is missing,
    StoreUnavailable.
    """
    if file.exists():
        raise InputError(f"{file} exists: name another file, since a backup overwrites none")
    settings = installation.settings
    keys, missing = _present_keys(settings)
    config, suite_files, left_out = _configuration(settings)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        try:
            out = os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            with out:
                archive = ArchiveWriter(out, passphrase)
                lines = _lines(installation, keys, config, suite_files)
                for line in lines:
                    archive.write(json.dumps(line, separators=(",", ":")).encode())
                archive.close()
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise InputError(f"{file} cannot be written: {error.strerror}") from None
        contents = verify_backup(draft, passphrase)
        digest, size = _sha256(draft), draft.stat().st_size
        # Unlike a rename, it fails where somebody made the file meanwhile.
        os.link(draft, file)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    outside = _name_archive(settings)
    return WrittenBackup(str(file), size, digest, contents, (*missing, *left_out, *outside))


def _name_archive(settings: Settings) -> tuple[str, ...]:
    folder = settings.archive.folder
    return (f"{folder}: the archive's files; copy the folder",) if folder else ()


def verify_backup(file: Path, passphrase: str) -> BackupContents:
    """Reads a backup to its end. Raises InputError for a wrong passphrase, and for a file that
    is damaged, cut off, incomplete or none.
    """
    start: dict[str, Any] = {}
    end: dict[str, Any] = {}
    tables: dict[str, TableDigest] = {}
    files: dict[str, dict[str, str]] = {"key": {}, "config": {}, "suite": {}}
    for line in _parsed(file, passphrase):
        match line["kind"]:
            case "start":
                start = line
            case "file":
                files[line["of"]][line["name"]] = line["text"]
            case "rows":
                table = tables.get(line["table"], TableDigest())
                tables[line["table"]] = table.add(line["rows"])
            case "end":
                end = line["tables"]
            case other:
                raise InputError(
                    f"{file} was written by a newer version of Swapgate, which this one cannot "
                    f"read ({other!r}): use that version"
                )
    found = {name: [digest.rows, digest.hexdigest()] for name, digest in tables.items()}
    if not start or not end or found != end:
        raise InputError(
            f"{file} is incomplete: its tables differ from those that its last line lists; use "
            "another backup"
        )
    return BackupContents(
        datetime.fromisoformat(start["made_at"]),
        start["swapgate"],
        start["schema"],
        tables,
        files["key"],
        next(iter(files["config"].values()), None),
        files["suite"],
    )


def read_rows(file: Path, passphrase: str) -> Iterator[TableRows]:
    """Reads the rows of a backup, table after table."""
    for line in _parsed(file, passphrase):
        if line["kind"] == "rows":
            yield TableRows(line["table"], tuple(line["columns"]), line["rows"])


def present_key(settings: Settings, name: str) -> str:
    """Returns the key in use that belongs into the file `name` of `home`, also where it is in
    the environment. Raises ConfigError where there is none.
    """
    return _KEY_READERS[name](settings).strip()


def set_in_environment(name: str) -> bool:
    """Tells whether a variable sets the key of the file `name`, or names a file of its own."""
    return any(os.environ.get(variable) for variable in _KEY_VARIABLES[name])


def _lines(
    installation: Installation,
    keys: Mapping[str, str],
    config: tuple[str, str] | None,
    suite_files: Mapping[str, str],
) -> Iterator[Mapping[str, object]]:
    files = [
        *(("key", *item) for item in keys.items()),
        *([("config", *config)] if config else ()),
        *(("suite", *item) for item in suite_files.items()),
    ]
    tables: dict[str, TableDigest] = {}
    with open_tables(installation.settings.database_url) as database:
        yield {
            "kind": "start",
            "made_at": installation.clock.now().isoformat(),
            "swapgate": metadata.version("swapgate"),
            "schema": database.schema,
        }
        for kind, name, text in files:
            yield {"kind": "file", "of": kind, "name": name, "text": text}
        for part in database.read():
            tables[part.table] = tables.get(part.table, TableDigest()).add(part.rows)
            yield {
                "kind": "rows",
                "table": part.table,
                "columns": part.columns,
                "rows": part.rows,
            }
    digests = {name: (digest.rows, digest.hexdigest()) for name, digest in tables.items()}
    yield {"kind": "end", "tables": digests}


def _parsed(file: Path, passphrase: str) -> Iterator[dict[str, Any]]:
    for line in read_archive(file, passphrase):
        yield json.loads(line)


def _encryption_keys(settings: Settings) -> str:
    return "\n".join(secret_files.encryption_keys(settings))


def _keyring(settings: Settings) -> str:
    return format_keyring(signing_keys.keyring(settings).values())


def _private_key(purpose: KeyPurpose) -> Callable[[Settings], str]:
    return lambda settings: signing_keys.private_key(settings, purpose)


_KEY_READERS: Final[Mapping[str, Callable[[Settings], str]]] = {
    secret_files.SECRET_FILE: lambda settings: secret_files.installation_secret(
        settings
    ).decode(),
    secret_files.ENCRYPTION_FILE: _encryption_keys,
    signing_keys.KEYRING_FILE: _keyring,
    **{name: _private_key(purpose) for purpose, name in signing_keys.PRIVATE_FILES.items()},
}


_SIGNING_VARIABLES: Final = {
    signing_keys.KEYRING_FILE: signing_keys.KEYRING_VARIABLE,
    **{
        name: signing_keys.PRIVATE_VARIABLES[purpose]
        for purpose, name in signing_keys.PRIVATE_FILES.items()
    },
}
_KEY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    secret_files.SECRET_FILE: (secret_files.SECRET_VARIABLE,),
    secret_files.ENCRYPTION_FILE: (secret_files.ENCRYPTION_VARIABLE,),
    **{name: (variable, f"{variable}_FILE") for name, variable in _SIGNING_VARIABLES.items()},
}


def _present_keys(settings: Settings) -> tuple[Mapping[str, str], list[str]]:
    keys, missing = {}, []
    for name in _KEY_READERS:
        try:
            keys[name] = present_key(settings, name)
        except ConfigError as error:
            if name in NEEDED_KEYS:
                raise
            missing.append(f"{name}: {error}")
    return keys, missing


def _configuration(
    settings: Settings,
) -> tuple[tuple[str, str] | None, Mapping[str, str], list[str]]:
    """Returns the configuration's name and text, the files of suites below its folder, and a
    sentence for each that is elsewhere or not to be read.
    """
    if settings.source is None:
        return None, {}, []
    folder = settings.source.resolve().parent
    files, left_out = {}, []
    for suite in settings.suites.values():
        script = suite.task.partition(":")[0] if suite.task else None
        references = suite.judge.references if suite.judge else None
        for path in (suite.path, script, references):
            if path is None:
                continue
            place = (folder / path).resolve()
            if place.is_relative_to(package_data.path("datasets")):
                continue  # it comes with Swapgate
            if not place.is_relative_to(folder):
                left_out.append(f"suite {suite.name}: {place} is not below {folder}")
                continue
            try:
                files[str(place.relative_to(folder))] = place.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                left_out.append(f"suite {suite.name}: {place} cannot be read: {error}")
    try:
        text = settings.source.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreUnavailable(
            f"{settings.source} cannot be read: {error.strerror}; try again"
        ) from None
    return (settings.source.name, text), files, left_out


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        digest = hashlib.sha256()
        while content := source.read(_READ_BYTES):
            digest.update(content)
    return digest.hexdigest()
