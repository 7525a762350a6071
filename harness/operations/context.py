"""`Context` holds everything outside a use case that the use cases of any subject may use.
`harness.app.installation` builds it, and interfaces pass it as the first argument. Each subject
declares its part in its own `context` module, and its use cases take only that part.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from harness.agents.context import AgentsContext
from harness.frame.records.database import Database
from harness.frame.signing.audit import AuditReading
from harness.operations.listings import Listings
from harness.routing.table import Snapshot


class ListedDatabase(Database, Protocol):
    """A database with the lists for people, and the routers' snapshot."""

    @property
    def lists(self) -> Listings:
        """The lists. Each list runs in its own transaction."""
        ...

    def listings(self) -> AbstractContextManager[Listings]:
        """Opens a transaction for several lists. A list omits rows whose signature is
        invalid.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Returns the routers' snapshot, verified. Raises SnapshotInvalid."""
        ...

    def leader(self) -> str:
        """Returns the name of the control process that leads; empty without one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context(AgentsContext):
    """Adds the lists for people, and this process's position in the audit log."""

    store: ListedDatabase
    # How far this process has verified the audit log.
    audit_reading: AuditReading = field(default_factory=AuditReading, repr=False)
