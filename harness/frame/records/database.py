"""`Database` is the store as every subject sees it: transactions, and the upkeep of the file.

`harness.app.store.store` implements it. The lists for people are in
`harness.operations.context`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from harness.frame.records.transaction import Transaction
from harness.frame.signing.signed_rows import RowFault


class Database(Protocol):
    """Opens transactions on SQLite or PostgreSQL. Every method raises StoreUnavailable."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Opens a transaction that only reads, from one state of the database."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Opens a transaction that commits at the block's end."""
        ...

    def change_mark(self) -> str:
        """Reads a mark that changes with each commit. To compare marks costs less than to read
        rows.
        """
        ...

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:
        """Finds the rows with invalid signatures.

        Args:
            working: whether to check only rows of unfinished work.
        """
        ...

    def drop_deleted(self) -> None:
        """Removes deleted rows from SQLite's log too, so that no file contains deleted
        texts.
        """
        ...
