"""Says which revisions of the schema this version knows and which it needs, and refuses a newer
version's database. It reads the migrations' text: importing alembic would take long.
"""

import re
from functools import cache
from typing import Final

from harness import package_data
from harness.domain.errors import DatabaseUnusable

_REVISION: Final = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)
_BEFORE: Final = re.compile(r'^down_revision = "(\w+)"$', re.MULTILINE)


@cache
def known() -> frozenset[str]:
    """Lists all revisions that this version has a migration for."""
    return frozenset(_revision_ids(_REVISION))


@cache
def needed() -> str:
    """Returns the newest revision of the schema, which this version needs."""
    (newest,) = known() - frozenset(_revision_ids(_BEFORE))
    return newest


def check(found: str | None) -> None:
    """Checks that this version knows the database's revision; else raises DatabaseUnusable."""
    if found is not None and found not in known():
        raise DatabaseUnusable(
            f"the database is at revision {found}, which a newer version of Swapgate made, and "
            f"this one needs {needed()}: run that version, or bring back a backup from before "
            "it"
        )


def _revision_ids(pattern: re.Pattern[str]) -> list[str]:
    files = package_data.path("migrations").glob("versions/*.py")
    return [match_ for file in files for match_ in pattern.findall(file.read_text("utf-8"))]
