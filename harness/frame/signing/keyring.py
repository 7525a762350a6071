"""The keyring: the public keys that verify signed rows, and their purposes and states.

Private keys stay with the processes that sign. The keyring never comes from the database. The
client's wheel contains this module, so it must not import `cryptography`.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.frame.errors import ConfigError, SignatureInvalid
from harness.frame.plain_data import canonical_json, hash_content

KEY_BYTES: Final = 32


class KeyPurpose(StrEnum):
    """The purpose of a signing key.

    control: the control plane, the CLI and the dashboard sign all rows with such a key. worker:
    an eval worker signs only samples with such a key.
    """

    CONTROL = "control"
    WORKER = "worker"


class KeyState(StrEnum):
    """The state of a key.

    signs: the newest key of its purpose. verifies: a replaced key, whose signatures stay valid.
    retired: a key whose signatures are no longer valid.
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


def verifying_key(
    keyring: Keyring,
    key: str,
    purpose: KeyPurpose,
) -> PublicKey:
    """Finds a signature's key. Raises SignatureInvalid if the key is unknown, retired, or not
    for this purpose.
    """
    public_key = keyring.get(key)
    if public_key is None:
        raise SignatureInvalid(f"it is signed with the key {key}, which the keyring lacks")
    if public_key.state is KeyState.RETIRED:
        raise SignatureInvalid(f"it is signed with the key {key}, which was retired")
    if public_key.purpose not in (purpose, KeyPurpose.CONTROL):
        raise SignatureInvalid(
            f"it is signed with a {public_key.purpose.value} key ({key}), which may not sign it"
        )
    return public_key


def format_keyring(keys: Iterable[PublicKey]) -> str:
    lines = (
        f"{k.id} {k.purpose.value} {encode_base64url(k.public)} {k.state.value}\n" for k in keys
    )
    return "".join(
        (
            "# Public keys that verify rows: share it with every router.\n",
            *lines,
        )
    )


def parse_keyring(text: str, place: str) -> dict[str, PublicKey]:
    """Parses a keyring.

    Args:
        place: the file or variable, for errors.

    Raises ConfigError.
    """
    keys: dict[str, PublicKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            id_, purpose, public, state = fields
            key = PublicKey(
                KeyPurpose(purpose),
                decode_base64url(public),
                KeyState(state),
            )
        except ValueError:
            raise ConfigError(
                f"{place}, line {number}: expected `<key id> <purpose> <public key> <state>`"
            ) from None
        if key.id != id_ or len(key.public) != KEY_BYTES:
            raise ConfigError(f"{place}, line {number}: {id_} is not the id of its public key")
        keys[id_] = key
    if not keys:
        raise ConfigError(f"{place} contains no key: restore it from a backup")
    return keys


def rotate_key(keyring: Keyring, new: PublicKey) -> dict[str, PublicKey]:
    """Returns the keyring after a rotation: the previous key of that purpose only verifies."""
    older = {
        id_: replace(key, state=KeyState.VERIFIES)
        if key.purpose is new.purpose and key.state is KeyState.SIGNS
        else key
        for id_, key in keyring.items()
    }
    return {new.id: new, **older}


# The prefix of each signed payload, so that no other document can pass for a row.
SIGNING_DOMAIN: Final = b"swapproof row 1\n"


def row_payload(
    table: str,
    installation: str,
    row: Mapping[str, object],
    **further_values: object,
) -> bytes:
    """Returns the bytes to sign: the row's stored columns and the further values."""
    document = {
        "table": table,
        "installation": installation,
        "row": row,
        **further_values,
    }
    return SIGNING_DOMAIN + canonical_json(document).encode("utf-8", "surrogatepass")


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
    raise SignatureInvalid("its signature is malformed: `<key id>.<base64url>` is expected")
