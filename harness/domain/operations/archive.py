"""Says what the archive takes out of the database when it is old (`ARCHIVED`), and what a file
is (`ArchivedFile`). Nothing that is proof is among it: verdicts, samples, blocks of canaries,
routes' versions and the audit log stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

# Table → its column of time.
ARCHIVED: Final[Mapping[str, str]] = {"traffic": "minute", "key_spend": "day"}
# The month's spend, and the month before a promotion that its savings are reckoned from.
LEAST_KEPT: Final = timedelta(days=62)
ARCHIVE_WRITE: Final = "archive.write"
ARCHIVE_SUBJECT: Final = "archive"


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """Describes a Parquet file, as the audit log has it."""

    name: str  # path below the archive's folder
    table: str
    rows: int
    first: str  # ISO time or day of its oldest row
    last: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ArchiveFault:
    """Says what is wrong with a file of the archive."""

    name: str
    text: str
