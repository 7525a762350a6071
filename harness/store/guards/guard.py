"""`Guard` describes a trigger that refuses rows: table, event, and rules (message and SQL
condition). Beside it the conditions that several tables share: key taken, route busy,
append-only. `harness.store.guards.triggers` makes SQL of the guards.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from harness.store.schema.columns import SIGNATURE

Rule = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Guard:
    """Refuses an `event` (INSERT, UPDATE, DELETE) on `table` where one of its rules holds."""

    name: str
    table: str
    event: str
    rules: tuple[Rule, ...]  # (message, condition)
    columns: tuple[str, ...] = ()  # of an UPDATE, those that it watches; empty for all


def listed(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def taken(table: str, *keys: str) -> Rule:
    """Refuses a key that is there: INSERT OR REPLACE would delete a row that must stay."""
    same = " AND ".join(f"t.{key} = NEW.{key}" for key in keys)
    return (
        "version_taken: such a row is there",
        f"EXISTS (SELECT 1 FROM {table} t WHERE {same})",
    )


def busy(table: str, condition: str, *keys: str) -> Rule:
    """Refuses a second live row, as the unique index does, also where SQLite would REPLACE."""
    same = " AND ".join(f"t.{key} = NEW.{key}" for key in keys)
    return (
        f"route_busy: the route has a {table} under way",
        (
            f"NEW.{condition} AND EXISTS (SELECT 1 FROM {table} t WHERE {same}"
            f" AND t.id <> NEW.id AND t.{condition})"
        ),
    )


def rewords(columns: Iterable[str], *, blanks: Iterable[str] = ()) -> str:
    """Refuses another content in one of these columns, but blanks."""
    blank = listed(blanks)
    return " OR ".join(
        f"(NEW.{name} <> OLD.{name}{f' AND NEW.{name} NOT IN ({blank})' if blank else ''})"
        for name in columns
    )


def another(table: str, keys: Iterable[str], columns: Iterable[str]) -> Rule:
    """Refuses a row whose key is there with another content; the same may come twice."""
    same = " AND ".join(f"t.{key} = NEW.{key}" for key in keys)
    differs = " OR ".join(f"t.{column} <> NEW.{column}" for column in columns)
    return (
        f"append_only: this {table} is there with another content",
        f"EXISTS (SELECT 1 FROM {table} t WHERE {same} AND ({differs}))",
    )


def person(principal: str) -> str:
    """Names the person behind a principal, by the newest declaration."""
    return (
        "COALESCE((SELECT l.person FROM person_link l"
        f" WHERE l.principal = {principal} AND l.number = (SELECT MAX(m.number)"
        f" FROM person_link m WHERE m.principal = {principal})), {principal})"
    )


def same_route(alias: str) -> str:
    """The row that the alias stands for belongs to the route of the new one."""
    return f"{alias}.route = NEW.route"


def changes(*columns: str) -> str:
    return " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in columns)


def always(message: str) -> tuple[Rule, ...]:
    return ((f"append_only: {message}", "1 = 1"),)


def changes_beside(table: sa.Table, *columns: str) -> str:
    """Refuses another content in any other column than these."""
    return changes(*(column.name for column in table.c if column.name not in columns))


def on_insert(table: str, *rules: Rule) -> Guard:
    return Guard(f"{table}_guard", table, "INSERT", rules)


def on_update(table: str, *rules: Rule) -> Guard:
    return Guard(f"{table}_no_rewrite", table, "UPDATE", rules)


def on_delete(table: str, *rules: Rule) -> Guard:
    return Guard(f"{table}_no_delete", table, "DELETE", rules)


def closed_once(
    table: sa.Table, once: str, only: str, content: str, closing: Sequence[str], noun: str = ""
) -> tuple[Guard, Guard]:
    """Guards of a table whose rows are closed once, else never changed or deleted.

    once, only, content: words of the messages. closing: the columns that closing sets, its time
    first. noun: a row's in the message; the table's name by default.
    """
    at = closing[0]
    return (
        on_update(
            table.name,
            (f"append_only: a {once} once", f"OLD.{at} IS NOT NULL"),
            (f"append_only: a {only}", f"NEW.{at} IS NULL"),
            (
                f"append_only: what was {content} does not change",
                changes_beside(table, *closing, SIGNATURE),
            ),
        ),
        on_delete(table.name, *always(f"{noun or table.name} is never deleted")),
    )
