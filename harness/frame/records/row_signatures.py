"""Signs rows when they are written (`RowSignatures`) and verifies them when they are read to
decide (`RowVerifier`); the manifest likewise. `covered_values` says what a signature is over.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import InputError, SignatureInvalid
from harness.frame.people.principals import LOCAL_PRINCIPAL
from harness.frame.people.records import PRINCIPAL
from harness.frame.ports import Signatures, Verifier
from harness.frame.records.columns import Row, default_text
from harness.frame.records.record import StoredRow
from harness.frame.records.signed_tables import REMEDY, SignedTable, signed_table
from harness.frame.signing.keyring import KeyPurpose, row_payload

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


# A migration, which has no key, wrote it; it holds as long as it says what the code says.
_LOCAL: Final = covered_values(signed_table(PRINCIPAL.table), PRINCIPAL.write(LOCAL_PRINCIPAL))


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
            return "" if covered == _LOCAL else UNSIGNED
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
