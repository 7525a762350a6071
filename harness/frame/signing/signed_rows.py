"""The signed rows that make a snapshot, and their place in the installation's history
(`Lineage`): a router refuses rows that are older than those it served.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Revocations:
    """Data keys that were revoked in an epoch, in the words of the manifest that control signed
    there. A restored database may know nothing of them.
    """

    ids: Sequence[str]
    manifest: Mapping[str, object]
    signature: str


@dataclass(frozen=True)
class SignedRows:
    """The rows that make a snapshot, by table, as they are stored, each with its signature."""

    installation: str
    epoch: int
    revision: int
    changes: int
    rows: Mapping[str, Sequence[Mapping[str, object]]]
    # Each route's fallbacks with their evidence, which its row's signature covers.
    chains: Mapping[str, Sequence[Sequence[str]]]
    revoked: Sequence[str]  # ids of data keys
    # manifest, signature: control's word on which rows and revoked keys these are, and on the
    # audit log's end; empty of a new database.
    manifest: Mapping[str, object]
    signature: str
    # Of earlier epochs, the keys that nothing here says were revoked.
    former: Sequence[Revocations] = ()

    @property
    def revocations(self) -> Revocations:
        return Revocations(tuple(self.revoked), self.manifest, self.signature)


@dataclass(frozen=True, slots=True)
class RowFault:
    table: str
    key: tuple[str, ...]  # of its table; empty for the manifest
    why: str

    @property
    def name(self) -> str:
        return f"{self.table} {'/'.join(self.key)}".rstrip()


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a snapshot stands in its installation's history."""

    installation: str = ""  # the database's own id
    epoch: int = 1  # rises when a person accepts a restored database
    revision: int = 0  # of the routing table
    changes: int = 0  # of keys, providers, switches, shadows and credentials so far
    digest: str = ""  # of the signed rows; empty where nothing is signed
    # By route, its version as `NUMBER:TIME`.
    heads: Mapping[str, str] = field(default_factory=dict)
    # Of the audit log at the last of these changes, its last event as `NUMBER:MAC`; empty where
    # it is not known.
    log_end: str = ""

    @property
    def text(self) -> str:
        return f"revision {self.revision} of epoch {self.epoch}, {self.changes} changes"


# Of a snapshot that comes from no database.
NO_LINEAGE: Final = Lineage()


def older_reason(served: Lineage, offered: Lineage) -> str:
    """Why `offered` must not replace `served` of the same installation; empty where it may."""
    if not served.installation or served.installation != offered.installation:
        return ""
    if offered.epoch != served.epoch:
        return "" if offered.epoch > served.epoch else _older(served, offered)
    before, now = (served.revision, served.changes), (offered.revision, offered.changes)
    if any(new < old for old, new in zip(before, now, strict=True)):
        return _older(served, offered)
    if before == now and served.digest not in ("", offered.digest):
        return (
            f"the database says other things than before of {offered.text}: it was restored "
            f"and changed since. {RESTORE_HINT}"
        )
    return ""


def foreign_reason(served: Lineage, offered: Lineage) -> str:
    """Why another installation's database is refused: its proof is about other routes."""
    known = (served.installation, offered.installation)
    if known[0] == known[1] or not all(known):
        return ""
    return (
        f"the database is that of another installation ({known[1]}), and this router serves "
        f"{known[0]}. If that is wanted, stop the router and remove the file snapshot.json in "
        "its `home`"
    )


def fork_reason(lacking: Sequence[str]) -> str:
    """Says why a database is refused. lacking: from `Store.missing_lineage`."""
    return (
        f"the database lacks {', '.join(lacking[:5])}, which this router knew: it was restored "
        f"from a backup and changed since, or somebody deleted. {RESTORE_HINT}"
    )


def _older(served: Lineage, offered: Lineage) -> str:
    return (
        f"the database holds {offered.text}, and this router serves {served.text}: it was "
        f"restored from a backup, or is an old copy. {RESTORE_HINT}"
    )


RESTORE_HINT: Final = (
    "The last good table goes on serving. If the restored database is what you want, run "
    "`swapgate db accept-restore --reason WHY`"
)


def head_text(version: object, at: object) -> str:
    """Writes a route's newest version with its time. at: microseconds since 1970 UTC."""
    return f"{version}:{at}"
