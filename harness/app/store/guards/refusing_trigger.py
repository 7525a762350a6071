"""A trigger that refuses rows, with its SQL for SQLite and for PostgreSQL side by side."""

import re
from dataclasses import dataclass
from inspect import cleandoc
from typing import Final

_MESSAGE: Final = re.compile(r"RAISE\(\s*ABORT,\s*'((?:[^']|'')*)'\s*\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusingTrigger:
    """Refuses an `event` (INSERT, UPDATE or DELETE) on `table` before the database runs it.

    Both texts have the same conditions and messages in the same order. A message begins with
    the rule's name, so that callers can distinguish, for example, a lost race from a missing
    proof.
    """

    name: str
    table: str
    event: str
    columns: tuple[str, ...] = ()  # the columns that an UPDATE trigger watches; empty for all
    refuses: str  # a sentence for the reference page
    example: str  # a statement that this trigger refuses
    sqlite: str  # the statements between BEGIN and END
    postgres: str  # the statements before RETURN; tables are in the schema `public`

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages with which the trigger refuses, in order."""
        return tuple(text.replace("''", "'") for text in _MESSAGE.findall(self.sqlite))

    @property
    def statement(self) -> str:
        """The example without the indentation of its source."""
        return cleandoc(self.example)


def append_only(table: str, change: str) -> tuple[RefusingTrigger, RefusingTrigger]:
    """Builds the two triggers that refuse each change and each deletion of a table's rows.

    Args:
        change: the columns and values of an example, as after SET.
    """
    message = f"append_only: {table} is never changed or deleted"
    return (
        refuse_always(
            f"{table}_no_update",
            table,
            "UPDATE",
            message,
            f"UPDATE {table} SET {change}",  # noqa: S608 - constants
        ),
        refuse_always(f"{table}_no_delete", table, "DELETE", message, f"DELETE FROM {table}"),  # noqa: S608 - constants
    )


def never_deleted(table: str) -> RefusingTrigger:
    """Builds the trigger that refuses each deletion of a table's rows."""
    message = f"append_only: {table} is never deleted"
    example = f"DELETE FROM {table}"  # noqa: S608 - constants
    return refuse_always(f"{table}_no_delete", table, "DELETE", message, example)


def refuse_always(
    name: str,
    table: str,
    event: str,
    message: str,
    example: str,
) -> RefusingTrigger:
    """Builds a trigger that refuses each UPDATE or DELETE of a table's rows."""
    changes = "deletion" if event == "DELETE" else "change"
    return RefusingTrigger(
        name=name,
        table=table,
        event=event,
        refuses=f"Each {changes} of a row.",
        example=example,
        sqlite=f"""
        SELECT RAISE(ABORT, '{message}')
        WHERE 1 = 1;
        """,
        postgres=f"""
        IF 1 = 1
        THEN
            RAISE EXCEPTION '{message}'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        """,
    )
