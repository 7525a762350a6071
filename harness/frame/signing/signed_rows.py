"""The signed rows of a snapshot, and their place in the installation's history (`Lineage`). A
router refuses rows that are older than the rows that it served.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Revocations:
    """The revoked client keys of an epoch, with the control plane's signed manifest. A restored
    database may lack these revocations.
    """

    ids: Sequence[str]
    manifest: Mapping[str, object]
    signature: str


@dataclass(frozen=True)
class SignedRows:
    """The rows of a snapshot by table, in their stored form, each with its signature."""

    installation: str
    epoch: int
    revision: int
    changes: int
    rows: Mapping[str, Sequence[Mapping[str, object]]]
    # Maps a route to its fallbacks with their evidence. The route's signature covers them.
    chains: Mapping[str, Sequence[Sequence[str]]]
    revoked: Sequence[str]  # ids of client keys
    # The control plane's statement, with its signature, of these rows, the revoked keys and the
    # audit log's end. Empty in a new database.
    manifest: Mapping[str, object]
    signature: str
    # Revocations of earlier epochs that are not in `revoked`.
    former: Sequence[Revocations] = ()

    @property
    def revocations(self) -> Revocations:
        return Revocations(tuple(self.revoked), self.manifest, self.signature)


@dataclass(frozen=True, slots=True)
class RowFault:
    table: str
    key: tuple[str, ...]  # the row's primary key; empty for the manifest
    why: str

    @property
    def name(self) -> str:
        return f"{self.table} {'/'.join(self.key)}".rstrip()


@dataclass(frozen=True, slots=True)
class Lineage:
    """The place of a snapshot in its installation's history."""

    installation: str = ""  # the database's id
    epoch: int = 1  # rises when a person accepts a restored database
    revision: int = 0  # the routing table's revision
    # The number of changes of keys, providers, switches, shadows and credentials.
    changes: int = 0
    digest: str = ""  # hash of the signed rows; empty without signed rows
    heads: Mapping[str, str] = field(default_factory=dict)  # route to version, as `NUMBER:TIME`
    # The audit log's last event at the last change, as `NUMBER:MAC`; empty if unknown.
    log_end: str = ""

    @property
    def text(self) -> str:
        return f"revision {self.revision} of epoch {self.epoch}, {self.changes} changes"


# The lineage of a snapshot that does not come from a database.
NO_LINEAGE: Final = Lineage()


def older_reason(served: Lineage, offered: Lineage) -> str:
    """Returns why `offered` must not replace `served` of the same installation; empty if it
    may.
    """
    if not served.installation or served.installation != offered.installation:
        return ""
    if offered.epoch != served.epoch:
        return "" if offered.epoch > served.epoch else _describe_older(served, offered)
    served_counts = (served.revision, served.changes)
    offered_counts = (offered.revision, offered.changes)
    if any(new < old for old, new in zip(served_counts, offered_counts, strict=True)):
        return _describe_older(served, offered)
    if served_counts == offered_counts and served.digest not in ("", offered.digest):
        return (
            f"the database now has other rows for {offered.text}: somebody restored and then "
            f"changed it. {RESTORE_HINT}"
        )
    return ""


def foreign_reason(served: Lineage, offered: Lineage) -> str:
    """Returns why the router refuses another installation's database; empty for its own."""
    installations = (served.installation, offered.installation)
    if installations[0] == installations[1] or not all(installations):
        return ""
    return (
        f"the database belongs to another installation ({installations[1]}), and this router "
        f"serves {installations[0]}. If you want to change the installation, stop the router "
        "and remove the file snapshot.json in its `home`"
    )


def fork_reason(lacking: Sequence[str]) -> str:
    """Returns why the router refuses a database.

    Args:
        lacking: from `Store.missing_lineage`.
    """
    return (
        f"the database lacks {', '.join(lacking[:5])}, which this router knows: somebody "
        f"restored a backup and then changed it, or deleted rows. {RESTORE_HINT}"
    )


def _describe_older(served: Lineage, offered: Lineage) -> str:
    return (
        f"the database has {offered.text}, and this router serves {served.text}: the database "
        f"was restored from a backup, or is an old copy. {RESTORE_HINT}"
    )


RESTORE_HINT: Final = (
    "The router keeps serving the last good table. If you want the restored database, run "
    "`swapproof db accept-restore --reason WHY`"
)


def head_text(version: object, at: object) -> str:
    """Formats a route's newest version and its time.

    Args:
        at: microseconds since 1970 UTC.
    """
    return f"{version}:{at}"
