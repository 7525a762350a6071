"""Parses triggers that refuse rows from text, and builds the conditions that tables share.

The conditions are SQL that both databases read, except for the macros of `guards`. `triggers`
turns them into each database's own statements.
"""

# ruff: noqa: S608 - constants form these statements, never user input

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from harness.frame.records.columns import SIGNATURE

_HEADING: Final = re.compile(
    r"(?P<event>INSERT|UPDATE|DELETE)(?: OF (?P<columns>[\w, ]+))? ON (?P<table>\w+)"
    r"(?: AS (?P<name>\w+))?"
)
_NAMES: Final = {
    "INSERT": "guard",
    "UPDATE": "no_rewrite",
    "DELETE": "no_delete",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Refuses an `event` (INSERT, UPDATE, DELETE) on `table` if a rule's condition is true."""

    name: str
    table: str
    event: str
    rules: tuple[tuple[str, str], ...]  # (message, condition)
    columns: tuple[str, ...] = ()  # the columns that an UPDATE guard watches; empty for all


def read_guards(text: str) -> tuple[Guard, ...]:
    """Parses triggers. A heading such as `UPDATE OF a, b ON table AS name` begins a trigger.
    Lines with 4 spaces are messages of rules, and lines with 8 spaces the condition of the
    message above. A message without a condition always refuses.
    """
    found: list[tuple[re.Match[str], list[tuple[str, list[str]]]]] = []
    for line in filter(str.strip, text.splitlines()):
        if heading := _HEADING.fullmatch(line):
            found.append((heading, []))
        elif line.startswith(" " * 8):
            found[-1][1][-1][1].append(line.strip())
        else:
            found[-1][1].append((line.strip(), []))
    return tuple(
        Guard(
            heading["name"] or f"{heading['table']}_{_NAMES[heading['event']]}",
            heading["table"],
            heading["event"],
            tuple((message, " ".join(condition) or "1 = 1") for message, condition in rules),
            tuple(heading["columns"].split(", ")) if heading["columns"] else (),
        )
        for heading, rules in found
    )


def listed(values: Iterable[str]) -> str:
    """Joins values as a list of SQL strings. The values are constants without quotes."""
    return ", ".join(f"'{value}'" for value in values)


def _same(keys: Iterable[str]) -> str:
    return " AND ".join(f"t.{key} = NEW.{key}" for key in keys)


def taken(
    table: str,
    *keys: str,
    same: str = "",
) -> str:
    """Refuses a row whose key exists, because INSERT OR REPLACE would delete the stored row.
    same: a condition to use instead of the keys.
    """
    return f"""version_taken: a row with this key exists
        EXISTS (SELECT 1 FROM {table} t WHERE {same or _same(keys)})"""


def busy(
    table: str,
    condition: str,
    *keys: str,
) -> str:
    """Refuses a second open row. The unique index does the same, but INSERT OR REPLACE bypasses
    it.
    """
    return f"""route_busy: the route has a {table} under way
        NEW.{condition} AND EXISTS (SELECT 1 FROM {table} t WHERE {_same(keys)}
        AND t.id <> NEW.id AND t.{condition})"""


def another(
    table: str,
    key: str,
    *columns: str,
) -> str:
    """Refuses a row whose key exists with other content. Allows an equal row."""
    differs = " OR ".join(f"t.{column} <> NEW.{column}" for column in columns)
    return f"""append_only: this {table} exists with other content
        EXISTS (SELECT 1 FROM {table} t WHERE {_same([key])} AND ({differs}))"""


def rewords(columns: Iterable[str], *, blanks: Iterable[str] = ()) -> str:
    """Builds a condition that is true if a column changes to a value other than `blanks`."""
    blank = listed(blanks)
    conditions = []
    for name in columns:
        condition = f"NEW.{name} <> OLD.{name}"
        if blank:
            condition += f" AND NEW.{name} NOT IN ({blank})"
        conditions.append(f"({condition})")
    return " OR ".join(conditions)


def person(principal: str) -> str:
    """Builds SQL for the person behind a principal: the newest declaration's, or the principal
    itself.
    """
    return (
        "COALESCE((SELECT l.person FROM person_link l"
        f" WHERE l.principal = {principal} AND l.number = (SELECT MAX(m.number)"
        f" FROM person_link m WHERE m.principal = {principal})), {principal})"
    )


def changes(*columns: str) -> str:
    """Builds a condition that is true if one of the columns changes, also from or to NULL."""
    return " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in columns)


def changes_beside(table: sa.Table, *columns: str) -> str:
    """Builds a condition that is true if any column but these changes."""
    return changes(*(column.name for column in table.c if column.name not in columns))


def closed_once(
    table: sa.Table,
    once: str,
    only: str,
    content: str,
    closing: Sequence[str],
    noun: str = "",
) -> str:
    """Builds triggers of a table whose rows may close once, but otherwise never change.

    once, only, content: parts of the messages.
    closing: the columns that closing sets, the time first.
    noun: a row's noun in the messages; by default the table's name.
    """
    at = closing[0]
    name = table.name
    return f"""UPDATE ON {name}
    append_only: a {once} once
        OLD.{at} IS NOT NULL
    append_only: a {only}
        NEW.{at} IS NULL
    append_only: what was {content} does not change
        {changes_beside(table, *closing, SIGNATURE)}
DELETE ON {name}
    append_only: {noun or name} is never deleted"""
