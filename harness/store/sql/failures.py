"""The database's errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from harness.domain.errors import InputError, StoreUnavailable, SwapgateError

_NO_FILE = "unable to open database file"
_NO_TABLES = ("no such table", "UndefinedTable", "no such column", "UndefinedColumn")


class RowRefused(InputError):
    """A constraint or trigger refuses the row for good. database: its own first line."""

    def __init__(self, database: str) -> None:
        super().__init__(f"the database refuses this row: {database}")
        self.database = database

    def names(self, *rules: str) -> bool:
        """Whether the database named one of these constraints, columns or trigger rules."""
        return any(rule in self.database for rule in rules)


@contextmanager
def translated() -> Iterator[None]:
    """Raises StoreUnavailable, RowRefused, or InputError for a value that no column takes."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable(
            "all connections to the database are in use; try again"
        ) from error
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        raise RowRefused(_first_line(error)) from error
    except sa.exc.DBAPIError as error:
        raise _failure(error) from error
    except sa.exc.StatementError as error:
        if isinstance(error.orig, SwapgateError):
            raise error.orig from None
        raise InputError(f"a value cannot be stored: {error.orig}") from error


def _failure(error: sa.exc.DBAPIError) -> Exception:
    if any(sign in f"{error.orig!r}" for sign in _NO_TABLES):
        return StoreUnavailable(
            "the database has no tables, or old ones: run `swapgate db upgrade`"
        )
    if _NO_FILE in f"{error.orig!r}":
        return StoreUnavailable(
            "the database's file is missing or cannot be opened: run `swapgate db upgrade`, or "
            "bring the file back"
        )
    if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
        return StoreUnavailable(
            f"the database does not answer ({_first_line(error)}); the same call may succeed "
            "later, `swapgate doctor` says more"
        )
    return error


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
