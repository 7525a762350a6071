"""Signed tables: declares which key signs a table's rows, which columns a signature covers, and
which rows a snapshot contains (`sign_rows_of`, `signed_table`). `RowSignatures` signs rows when
Swapproof writes them, and `RowVerifier` verifies rows when Swapproof decides by them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import InputError, SignatureInvalid
from harness.frame.ports import Signatures, Verifier
from harness.frame.records.columns import (
    ANY,
    SIGNATURE,
    FreeText,
    Row,
    default_text,
)
from harness.frame.signing.keyring import KeyPurpose, row_payload

# The next step in messages about a row that does not verify.
REMEDY: Final = (
    "`swapproof db check` names every such row, and `swapproof db remove-forged` removes it"
)

_SIGNED: Final = "signed"
_DECIDES: Final = "decides"


@dataclass(frozen=True)
class SignedTable:
    table: sa.Table
    purpose: KeyPurpose = KeyPurpose.CONTROL
    # Columns that the signature omits, because processes without the signing key change them.
    changing: frozenset[str] = frozenset()
    # Selects the rows that a snapshot contains. None if the manifest omits the table.
    live: sa.ColumnElement[bool] | None = None
    # The values of the one row that needs no signature.
    unsigned: Mapping[str, object] | None = None

    @cached_property
    def covered(self) -> tuple[sa.Column[object], ...]:
        """Sorts the signed columns by name, because migrations add columns in any order."""
        unsigned_names = {*self.changing, SIGNATURE}
        return tuple(
            sorted(
                (c for c in self.table.c if c.name not in unsigned_names),
                key=lambda c: c.name,
            )
        )

    @cached_property
    def codecs(self) -> tuple[tuple[str, Callable[[Any], object], str | None], ...]:
        """Lists each signed column's name, encoder and default."""
        return tuple((c.name, _build_encoder(c), default_text(c)) for c in self.covered)

    @cached_property
    def unsigned_values(self) -> dict[str, object] | None:
        return None if self.unsigned is None else covered_values(self, self.unsigned)

    @cached_property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key.columns)


def _build_encoder(column: sa.Column[object]) -> Callable[[Any], object]:
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
    """Declares a table with signed rows. The other arguments are those of `SignedTable`.

    Args:
        decides: see `is_decided`.
    """
    table.info[_SIGNED] = SignedTable(table, purpose, frozenset(changing), live, unsigned)
    table.info[_DECIDES] = decides
    return table


def signed_table(table: sa.Table) -> SignedTable:
    """Returns a table's declaration. Raises KeyError for an unsigned table."""
    signed: SignedTable = table.info[_SIGNED]
    return signed


def is_signed(table: sa.Table) -> bool:
    return _SIGNED in table.info


def decide_by(table: sa.Table) -> sa.Table:
    """Declares a table of decisions without signed rows."""
    table.info[_DECIDES] = True
    return table


def is_decided(table: sa.Table) -> bool:
    """Returns whether only one transaction at a time may write to the table. Otherwise two
    transactions could wait for each other's rows.
    """
    return bool(table.info.get(_DECIDES))


def stored_columns(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Lists the columns without decoding, for rows whose values are seldom needed."""
    return [
        sa.type_coerce(column, column.type.impl_instance).label(column.name)
        if isinstance(column.type, sa.types.TypeDecorator)
        else column
        for column in table.c
    ]


class StoredRow:
    """A row in its stored form. The signature covers this form, so a reader verifies the row
    first and decodes only the values that it needs.
    """

    def __init__(self, table: sa.Table, stored: Mapping[str, object]) -> None:
        """Creates a view of a stored row.

        Args:
            stored: the values by column; a missing column is NULL or has its default.
        """
        self._build_readers = _build_readers(table)
        self.stored = stored

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") or name not in self._build_readers:
            raise AttributeError(name)
        value = self.__dict__[name] = self._build_readers[name](self.stored.get(name))
        return value

    def _asdict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self._build_readers}


@cache
def _build_readers(table: sa.Table) -> Mapping[str, Callable[[object], object]]:
    return {column.name: _build_reader(column) for column in table.c}


def _build_reader(column: sa.Column[Any]) -> Callable[[object], object]:
    default = default_text(column)
    type_ = column.type
    read: Callable[[object], object]
    if isinstance(type_, sa.types.TypeDecorator) and not isinstance(type_, FreeText):
        read = partial(_decode, type_.process_result_value)
    elif isinstance(type_, sa.Integer):
        read = _read_integer
    else:
        read = _keep
    return read if default is None else lambda value: read(default if value is None else value)


def _decode(read: Callable[[Any, sa.Dialect], object], value: object) -> object:
    return None if value is None else read(value, ANY)


def _read_integer(value: object) -> int | None:
    return None if value is None else int(str(value))


def _keep(value: object) -> object:
    return value


UNSIGNED: Final = "it has no signature"


def named(signed: SignedTable, values: Mapping[str, Any]) -> str:
    columns = signed.table.primary_key.columns
    # Signed values omit a column that has its default.
    parts = (
        default_text(column) if (value := values.get(column.name)) is None else value
        for column in columns
    )
    return f"{signed.table.name} {'/'.join(map(str, parts))}"


def covered_values(
    signed: SignedTable,
    values: Mapping[str, Any],
    *,
    are_stored: bool = False,
) -> dict[str, object]:
    """Returns the signed columns in their stored form.

    Args:
        are_stored: whether `values` has that form.

    Omits columns that are NULL or have their default, so that a column of a later version does
    not break older signatures.
    """
    covered: dict[str, object] = {}
    for name, encode, default in signed.codecs:
        value = values.get(name)
        if value is not None:
            value = value if are_stored else encode(value)
            if default is None or str(value) != default:
                covered[name] = value
    return covered


class RowVerifier:
    """Verifies rows of one database. installation: the database's id, part of each
    signature.
    """

    def __init__(self, verifier: Verifier, installation: Callable[[], str]) -> None:
        self._verifier = verifier
        self._installation = installation

    def check_row(
        self,
        table: sa.Table,
        row: Row,
        **further_values: object,
    ) -> None:
        signed = signed_table(table)
        if reason := self.row_fault(signed, row, **further_values):
            name = named(signed, {name: getattr(row, name) for name in signed.key})
            raise SignatureInvalid(
                f"the row {name} does not verify: {reason}. Swapproof does not use this row; "
                f"{REMEDY}"
            )

    def row_fault(
        self,
        signed: SignedTable,
        row: Row,
        **further_values: object,
    ) -> str:
        """Returns why a row's signature is invalid; empty if it is valid.

        The signature of a StoredRow may cover the stored text, so its text is checked first.
        """
        if isinstance(row, StoredRow):
            covered = covered_values(signed, row.stored, are_stored=True)
            if not self._find_fault(signed, covered, row.signature, further_values):
                return ""
        try:
            covered = covered_values(signed, row._asdict())
        except (ValueError, TypeError) as error:
            return str(error)
        return self._find_fault(signed, covered, row.signature, further_values)

    def _find_fault(
        self,
        signed: SignedTable,
        covered: Mapping[str, object],
        signature: str | None,
        further_values: Mapping[str, object],
    ) -> str:
        if not signature:
            return "" if covered == signed.unsigned_values else UNSIGNED
        try:
            payload = row_payload(
                signed.table.name, self._installation(), covered, **further_values
            )
            self._verifier.check(payload, signature, signed.purpose)
        except (SignatureInvalid, ValueError, TypeError) as error:
            return str(error)
        return ""

    def check_manifest(self, values: Mapping[str, object], signature: str) -> None:
        try:
            payload = row_payload("manifest", self._installation(), values)
            self._verifier.check(payload, signature, KeyPurpose.CONTROL)
        except SignatureInvalid as error:
            raise SignatureInvalid(f"the manifest does not verify: {error}; {REMEDY}") from None


class RowSignatures(RowVerifier):
    def __init__(self, signatures: Signatures, installation: Callable[[], str]) -> None:
        super().__init__(signatures, installation)
        self._signer = signatures

    def sign(
        self,
        table: sa.Table,
        values: Mapping[str, Any],
        **further_values: object,
    ) -> str:
        """Signs a row.

        Args:
            further_values: signed, too, but not stored in the row.

        Raises InputError.
        """
        signed = signed_table(table)
        try:
            covered = covered_values(signed, values)
            payload = row_payload(table.name, self._installation(), covered, **further_values)
        except (ValueError, TypeError) as error:
            raise InputError(f"the database cannot store a value: {error}") from error
        return self._signer.sign(payload)

    def sign_document(self, name: str, content: Mapping[str, object]) -> str:
        return self._signer.sign(row_payload(name, self._installation(), content))
