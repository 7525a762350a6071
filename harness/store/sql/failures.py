"""The database's errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from harness.domain.errors import InputError, StoreUnavailable

_NO_TABLES = ("no such table", "UndefinedTable", "no such column", "UndefinedColumn")


@contextmanager
def translated() -> Iterator[None]:
    """Raises StoreUnavailable, or InputError where the database refuses a row for good."""
    try:
        yield
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        raise InputError(f"the database refuses this row: {reason(error)}") from error
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable(
            "all connections to the database are in use; try again"
        ) from error
    except sa.exc.DBAPIError as error:
        if any(sign in f"{error.orig!r}" for sign in _NO_TABLES):
            raise StoreUnavailable(
                "the database has no tables, or old ones: run `swapgate db upgrade`"
            ) from error
        if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
            raise StoreUnavailable(
                f"the database does not answer ({reason(error)}); the same call may succeed "
                "later, `swapgate doctor` says more"
            ) from error
        raise


def reason(error: sa.exc.DBAPIError) -> str:
    """The database's own first line."""
    return str(error.orig).strip().partition("\n")[0]


def violates(error: sa.exc.DBAPIError, *rules: str) -> bool:
    """Whether the database named one of these constraints, columns or trigger rules."""
    return any(rule in reason(error) for rule in rules)
