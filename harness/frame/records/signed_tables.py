"""Declares whose key signs the rows of a table, which columns a signature covers, and which
rows a snapshot needs all of. A table carries its declaration: `signed_table(table)`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.records.columns import ANY, SIGNATURE, default_text
from harness.frame.signing.keyring import KeyPurpose

# The next step in messages about a row that does not verify.
REMEDY: Final = (
    "`swapgate db check` names every such row, and `swapgate db remove-forged` removes it"
)
_SIGNED: Final = "signed"
_DECIDES: Final = "decides"


@dataclass(frozen=True)
class SignedTable:
    table: sa.Table
    purpose: KeyPurpose = KeyPurpose.CONTROL
    # Columns outside the signature: processes without the signing key change them.
    changing: frozenset[str] = frozenset()
    # The rows that a snapshot is made of; None for a table that the manifest does not cover.
    live: sa.ColumnElement[bool] | None = None

    @cached_property
    def covered(self) -> tuple[sa.Column[object], ...]:
        """Returns the columns that the signature covers, by name: migrations add them in any
        order.
        """
        left_out = {*self.changing, SIGNATURE}
        return tuple(
            sorted((c for c in self.table.c if c.name not in left_out), key=lambda c: c.name)
        )

    @cached_property
    def codecs(self) -> tuple[tuple[str, Callable[[Any], object], str | None], ...]:
        """Lists for each covered column its name, its value's stored form and its default."""
        return tuple((c.name, _stored(c), default_text(c)) for c in self.covered)

    @cached_property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key.columns)


def _stored(column: sa.Column[object]) -> Callable[[Any], object]:
    type_ = column.type
    if isinstance(type_, sa.types.TypeDecorator):
        bind = type_.process_bind_param
        return lambda value: bind(value, ANY)
    if isinstance(type_, sa.Boolean):
        return bool
    if isinstance(type_, sa.Integer):
        return int
    return float if isinstance(type_, sa.Double) else str


def sign_rows_of(
    table: sa.Table,
    *,
    purpose: KeyPurpose = KeyPurpose.CONTROL,
    changing: Iterable[str] = (),
    live: sa.ColumnElement[bool] | None = None,
    decides: bool = True,
) -> sa.Table:
    """Declares that rows of a table are signed. The other arguments are as of `SignedTable`.
    decides: as of `is_decided`.
    """
    table.info[_SIGNED] = SignedTable(table, purpose, frozenset(changing), live)
    table.info[_DECIDES] = decides
    return table


def signed_table(table: sa.Table) -> SignedTable:
    """Returns how the rows of a table are signed. Raises KeyError for an unsigned table."""
    signed: SignedTable = table.info[_SIGNED]
    return signed


def is_signed(table: sa.Table) -> bool:
    return _SIGNED in table.info


def decide_by(table: sa.Table) -> sa.Table:
    """Declares a table of decisions whose rows are not signed."""
    table.info[_DECIDES] = True
    return table


def is_decided(table: sa.Table) -> bool:
    """Tells whether a unit of work takes its turn before it writes a row of the table, so that
    no two wait for each other's rows.
    """
    return bool(table.info.get(_DECIDES))
