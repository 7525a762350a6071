"""Rows of the database are signed: keys, the keyring and the signed bytes. A signature is
written `<key id>.<base64url>`. Private keys stay with the processes that sign; everybody else
has the keyring, which holds the public ones and never comes from the database.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from harness.domain.content_hash import canonical_json, hash_content
from harness.domain.errors import ConfigError, SignatureInvalid

# What is signed can be nothing else than a row of Swapgate's, in this format.
SIGNING_DOMAIN: Final = b"swapgate row 1\n"
KEY_BYTES: Final = 32


class KeyPurpose(StrEnum):
    """Says who signs with a key. control: the control plane, the command line, the dashboard;
    signs everything. worker: eval workers; samples alone.
    """

    CONTROL = "control"
    WORKER = "worker"


class KeyState(StrEnum):
    """Says what a key is still good for. signs: the newest of its purpose. verifies: replaced;
    what it signed holds. retired: nothing that it signed holds any more.
    """

    SIGNS = "signs"
    VERIFIES = "verifies"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class PublicKey:
    purpose: KeyPurpose
    public: bytes  # the 32 bytes of an Ed25519 key
    state: KeyState = KeyState.SIGNS

    @property
    def id(self) -> str:
        return key_id(self.public)


Keyring = Mapping[str, PublicKey]


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


def key_id(public: bytes) -> str:
    """Returns the first 16 hexadecimal digits of the public key's SHA-256."""
    return hash_content(public)[:16]


def encode_base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def decode_base64url(text: str) -> bytes:
    """Decodes base64url without padding. Raises ValueError."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def row_payload(
    table: str, installation: str, row: Mapping[str, object], **more: object
) -> bytes:
    """The bytes that are signed of a row: its stored columns, and what else it stands for."""
    whole = {"table": table, "installation": installation, "row": row, **more}
    return SIGNING_DOMAIN + canonical_json(whole).encode("utf-8", "surrogatepass")


def join_signature(key: str, signature: bytes) -> str:
    return f"{key}.{encode_base64url(signature)}"


def split_signature(signature: str) -> tuple[str, bytes]:
    """Splits a signature into its key's id and its bytes. Raises SignatureInvalid."""
    key, dot, text = signature.partition(".")
    try:
        if dot:
            return key, decode_base64url(text)
    except ValueError:
        pass
    raise SignatureInvalid("its signature is not one: `<key id>.<base64url>` is expected")


def verifying_key(keyring: Keyring, key: str, purpose: KeyPurpose) -> PublicKey:
    """Finds a signature's key. Raises SignatureInvalid where that may not have made it."""
    known = keyring.get(key)
    if known is None:
        raise SignatureInvalid(f"it is signed with the key {key}, which the keyring lacks")
    if known.state is KeyState.RETIRED:
        raise SignatureInvalid(f"it is signed with the key {key}, which was retired")
    if known.purpose not in (purpose, KeyPurpose.CONTROL):
        raise SignatureInvalid(
            f"it is signed with a {known.purpose.value} key ({key}), which may not sign it"
        )
    return known


def format_keyring(keys: Iterable[PublicKey]) -> str:
    lines = (
        f"{k.id} {k.purpose.value} {encode_base64url(k.public)} {k.state.value}\n" for k in keys
    )
    return "".join(("# Public keys that verify rows: share it with every router.\n", *lines))


def parse_keyring(text: str, place: str) -> dict[str, PublicKey]:
    """Parses a keyring. place: the file or variable, for the error. Raises ConfigError."""
    found: dict[str, PublicKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            id_, purpose, public, state = fields
            key = PublicKey(KeyPurpose(purpose), decode_base64url(public), KeyState(state))
        except ValueError:
            raise ConfigError(
                f"{place}, line {number}: expected `<key id> <purpose> <public key> <state>`"
            ) from None
        if key.id != id_ or len(key.public) != KEY_BYTES:
            raise ConfigError(f"{place}, line {number}: {id_} is not the id of its public key")
        found[id_] = key
    if not found:
        raise ConfigError(f"{place} names no key: bring it back from a backup")
    return found


def rotate_key(keyring: Keyring, new: PublicKey) -> dict[str, PublicKey]:
    """The keyring after a rotation: the key of that purpose before it verifies only."""
    older = {
        id_: replace(key, state=KeyState.VERIFIES)
        if key.purpose is new.purpose and key.state is KeyState.SIGNS
        else key
        for id_, key in keyring.items()
    }
    return {new.id: new, **older}


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
