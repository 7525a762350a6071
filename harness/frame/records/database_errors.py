"""Translates the database driver's errors into ours, with the next step."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import DatabaseUnusable, InputError, StoreUnavailable, SwapgateError

_DENIED = "InsufficientPrivilege"
# Signs in the driver's error → ours, and its text.
_FAILURES: Final = (
    (
        ("no such table", "UndefinedTable", "no such column", "UndefinedColumn"),
        StoreUnavailable,
        "the database has no tables, or old ones: run `swapgate db upgrade`",
    ),
    (
        ("unable to open database file",),
        DatabaseUnusable,
        (
            "the database's file is missing or cannot be opened: bring it back from a backup, "
            "fix `database_url`, or make a new one with `swapgate db upgrade`"
        ),
    ),
    (
        ("file is not a database", "database disk image is malformed", "malformed database"),
        DatabaseUnusable,
        (
            "the database's file is damaged ({}): stop every process, keep the file and what "
            "lies beside it, and bring a backup to its place"
        ),
    ),
    (
        ("not allowed in statement pooling mode",),
        DatabaseUnusable,
        (
            "the database is behind a connection pooler in statement mode, which has no "
            "transactions: set `pool_mode = session`"
        ),
    ),
    (
        ("unsupported startup parameter",),
        DatabaseUnusable,
        (
            "the connection pooler refuses a parameter ({}): set `ignore_startup_parameters = "
            "extra_float_digits,options` in pgbouncer.ini"
        ),
    ),
)


class RowRefused(InputError):
    """A constraint or trigger refuses the row for good. database: its own first line."""

    def __init__(self, database: str) -> None:
        super().__init__(f"the database refuses this row: {database}")
        self.database = database

    def names(self, *rules: str) -> bool:
        return any(rule in self.database for rule in rules)


class RoleRefused(DatabaseUnusable):
    """The database's role may not do something. database: its own first line."""

    def __init__(self, database: str) -> None:
        super().__init__(
            f"the database's role may not do this ({database}): the owner of the tables runs "
            "`swapgate db upgrade`, then `swapgate db grant ROLE`"
        )
        self.database = database


@contextmanager
def translated() -> Iterator[None]:
    """Translates the driver's errors within its block into ours: StoreUnavailable,
    DatabaseUnusable, RoleRefused, RowRefused, and InputError for an unfit value.
    """
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable(
            "all connections to the database are in use; try again"
        ) from error
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        raise RowRefused(_first_line(error)) from error
    except sa.exc.DBAPIError as error:
        clear_frames(error, error.orig)
        raise _failure(error) from error
    except sa.exc.StatementError as error:
        if isinstance(error.orig, SwapgateError):
            raise error.orig from None
        raise InputError(f"a value cannot be stored: {error.orig}") from error


def clear_frames(*errors: BaseException | None) -> None:
    """Frees what the frames of SQLAlchemy and of the driver hold. They and the error hold one
    another, and a failed connect of psycopg has 37 KiB of buffers: until a router collects,
    which it seldom does, it would keep 34 MiB of them.
    """
    for error in errors:
        if error is not None:
            traceback.clear_frames(error.__traceback__)


def _failure(error: sa.exc.DBAPIError) -> Exception:
    cause, line = f"{error.orig!r}", _first_line(error)
    for signs, kind, text in _FAILURES:
        if any(sign in cause for sign in signs):
            return kind(text.format(line))
    if _DENIED in cause:
        return RoleRefused(line)
    if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
        return StoreUnavailable(
            f"the database does not answer ({line}); the same call may succeed "
            "later, `swapgate doctor` says more"
        )
    return error


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
