"""The keys that sign rows of the database, and the keyring of their public halves. Private keys
stay with the processes that sign. The keyring never comes from the database.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.frame.content_hash import canonical_json, hash_content
from harness.frame.errors import ConfigError, SignatureInvalid

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


# What is signed can be nothing else than a row of Swapgate's, in this format.
SIGNING_DOMAIN: Final = b"swapgate row 1\n"


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
