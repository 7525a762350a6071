"""Writes rows to Parquet files and reads them back (`ParquetArchive`): the one place that knows
pyarrow. A file's name has the month of its rows and the start of its checksum.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.domain.errors import InputError, NotFound, StoreUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

_HASH_CHARS: Final = 16


@dataclass(frozen=True)
class ParquetArchive:
    """Implements ports.ArchiveFiles."""

    folder: Path

    def write(
        self,
        table: str,
        month: str,
        columns: Mapping[str, type],
        rows: Sequence[Mapping[str, Any]],
    ) -> tuple[str, str]:
        try:
            return self._write(table, month, columns, rows)
        except OSError as error:
            raise StoreUnavailable(
                f"the archive {self.folder} cannot be written: {error}; no row was removed"
            ) from error

    def _write(
        self,
        table: str,
        month: str,
        columns: Mapping[str, type],
        rows: Sequence[Mapping[str, Any]],
    ) -> tuple[str, str]:
        import pyarrow as pa  # noqa: PLC0415 - 0.3 s, for a job that runs seldom
        from pyarrow import parquet  # noqa: PLC0415

        place = self.folder / table / month
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = place / f".writing-{os.getpid()}"
        schema = pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), fresh)
        # What is on the disk, and not what was meant.
        if _read(fresh) != [dict(row) for row in rows]:
            fresh.unlink()
            raise InputError(f"rows of {table} do not come back from Parquet as they are")
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{table}/{month}/{sha256[:_HASH_CHARS]}.parquet"
        fresh.replace(self.folder / name)
        _sync_folder(place)
        return name, sha256

    def read(self, name: str) -> Sequence[Mapping[str, Any]]:
        return _read(self._file(name))

    def sha256(self, name: str) -> str | None:
        try:
            with self._file(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except NotFound:
            return None

    def names(self) -> Sequence[str]:
        found = self.folder.glob("*/*/*.parquet")
        return sorted(str(file.relative_to(self.folder)) for file in found)

    def _file(self, name: str) -> Path:
        file = self.folder / name
        if not file.resolve().is_relative_to(self.folder.resolve()) or not file.is_file():
            raise NotFound(
                f"there is no file {name!r} in the archive {self.folder}: `swapgate archive "
                "list` shows those that were written"
            )
        return file


def _read(file: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet  # noqa: PLC0415 - as above

    # The folders' names are no columns.
    rows: list[dict[str, Any]] = parquet.ParquetFile(file).read().to_pylist()
    return rows


def _arrow_type(kind: type) -> "pa.DataType":
    import pyarrow as pa  # noqa: PLC0415 - as above

    types = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    return types[kind]


def _sync_folder(folder: Path) -> None:
    """Writes the new name to disk, as a crash of the machine would lose it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
