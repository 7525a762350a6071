"""Declares whose key signs the rows of a table, which columns a signature covers, and which
rows a snapshot needs all of. A table carries its declaration: `signed_table(table)`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import InputError, SignatureInvalid
from harness.frame.ports import Signatures, Verifier
from harness.frame.records.columns import ANY, SIGNATURE, FreeText, Row, default_text
from harness.frame.signing.keyring import KeyPurpose, row_payload

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
    # The values of the one row that needs no signature.
    unsigned: Mapping[str, object] | None = None

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
    def unsigned_values(self) -> dict[str, object] | None:
        return None if self.unsigned is None else covered_values(self, self.unsigned)

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
    unsigned: Mapping[str, object] | None = None,
    decides: bool = True,
) -> sa.Table:
    """Declares that rows of a table are signed. The other arguments are as of `SignedTable`.
    decides: as of `is_decided`.
    """
    table.info[_SIGNED] = SignedTable(table, purpose, frozenset(changing), live, unsigned)
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


def stored_columns(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Lists the columns as they are stored: to read rows whose values are mostly known."""
    return [
        sa.type_coerce(column, column.type.impl_instance).label(column.name)
        if isinstance(column.type, sa.types.TypeDecorator)
        else column
        for column in table.c
    ]


class StoredRow:
    """Stands for a row of `table`: a value is read when it is first asked for."""

    def __init__(self, table: sa.Table, stored: Mapping[str, object]) -> None:
        """stored: values by column. A missing column is NULL or at its default."""
        self._readers = _readers(table)
        self.stored = stored

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") or name not in self._readers:
            raise AttributeError(name)
        value = self.__dict__[name] = self._readers[name](self.stored.get(name))
        return value

    def _asdict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self._readers}


@cache
def _readers(table: sa.Table) -> Mapping[str, Callable[[object], object]]:
    return {column.name: _reader(column) for column in table.c}


def _reader(column: sa.Column[Any]) -> Callable[[object], object]:
    default, type_ = default_text(column), column.type
    read: Callable[[object], object]
    if isinstance(type_, sa.types.TypeDecorator) and not isinstance(type_, FreeText):
        read = partial(_process, type_.process_result_value)
    elif isinstance(type_, sa.Integer):
        read = _whole_number
    else:
        read = _as_it_is
    return read if default is None else lambda value: read(default if value is None else value)


def _process(read: Callable[[Any, sa.Dialect], object], value: object) -> object:
    return None if value is None else read(value, ANY)


def _whole_number(value: object) -> int | None:
    return None if value is None else int(str(value))


def _as_it_is(value: object) -> object:
    return value


UNSIGNED: Final = "it has no signature"


def named(signed: SignedTable, values: Mapping[str, Any]) -> str:
    columns = signed.table.primary_key.columns
    # A column at its default is not among the values that are signed.
    parts = (
        default_text(column) if (value := values.get(column.name)) is None else value
        for column in columns
    )
    return f"{signed.table.name} {'/'.join(map(str, parts))}"


def covered_values(signed: SignedTable, values: Mapping[str, Any]) -> dict[str, object]:
    """Returns the signed columns as they are stored.

    It leaves out columns that are NULL or at their default. So a column that a later version
    adds does not break older signatures.
    """
    covered: dict[str, object] = {}
    for name, stored, default in signed.codecs:
        value = values.get(name)
        if value is not None:
            value = stored(value)
            if default is None or str(value) != default:
                covered[name] = value
    return covered


def stored_values(signed: SignedTable, values: Mapping[str, Any]) -> dict[str, object]:
    """Returns the signed values of a row of `stored_columns`, or of `covered_values`."""
    return {
        name: value
        for name, _, default in signed.codecs
        if (value := values.get(name)) is not None
        and (default is None or str(value) != default)
    }


class RowVerifier:
    """Verifies rows of one database. installation: its id, which every signature covers."""

    def __init__(self, verifier: Verifier, installation: Callable[[], str]) -> None:
        self._verifier = verifier
        self._installation = installation

    def check_row(self, table: sa.Table, row: Row, **more: object) -> None:
        signed = signed_table(table)
        if why := self.row_fault(signed, row, **more):
            name = named(signed, {name: getattr(row, name) for name in signed.key})
            raise SignatureInvalid(
                f"the row {name} is not to be believed: {why}. Nothing is built on it; {REMEDY}"
            )

    def row_fault(self, signed: SignedTable, row: Row, **more: object) -> str:
        """Why the signature of a row that was read does not hold; empty where it does.

        For a stored row the signature may be over the stored text.
        """
        if isinstance(row, StoredRow):
            covered = stored_values(signed, row.stored)
            if not self._fault(signed, covered, row.signature, more):
                return ""
        try:
            covered = covered_values(signed, row._asdict())
        except (ValueError, TypeError) as error:
            return str(error)
        return self._fault(signed, covered, row.signature, more)

    def _fault(
        self,
        signed: SignedTable,
        covered: Mapping[str, object],
        signature: str | None,
        more: Mapping[str, object],
    ) -> str:
        if not signature:
            return "" if covered == signed.unsigned_values else UNSIGNED
        try:
            payload = row_payload(signed.table.name, self._installation(), covered, **more)
            self._verifier.check(payload, signature, signed.purpose)
        except (SignatureInvalid, ValueError, TypeError) as error:
            return str(error)
        return ""

    def check_manifest(self, values: Mapping[str, object], signature: str) -> None:
        try:
            payload = row_payload("manifest", self._installation(), values)
            self._verifier.check(payload, signature, KeyPurpose.CONTROL)
        except SignatureInvalid as error:
            raise SignatureInvalid(
                f"the manifest is not to be believed: {error}; {REMEDY}"
            ) from None


class RowSignatures(RowVerifier):
    def __init__(self, signatures: Signatures, installation: Callable[[], str]) -> None:
        super().__init__(signatures, installation)
        self._signer = signatures

    def sign(self, table: sa.Table, values: Mapping[str, Any], **more: object) -> str:
        """Signs a row. more: what the row stands for beside its columns. Raises InputError."""
        signed = signed_table(table)
        try:
            covered = covered_values(signed, values)
            payload = row_payload(table.name, self._installation(), covered, **more)
        except (ValueError, TypeError) as error:
            raise InputError(f"a value cannot be stored: {error}") from error
        return self._signer.sign(payload)

    def sign_document(self, name: str, content: Mapping[str, object]) -> str:
        return self._signer.sign(row_payload(name, self._installation(), content))
