"""Signs and verifies database rows with Ed25519, and manages the keys.

Private keys stay with the processes that sign. The keyring contains the public keys, and never
comes from the database. `cryptography` is imported late, so that `--help` stays quick.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Final

from harness.frame.errors import ConfigError, SignatureInvalid
from harness.frame.plain_data import canonical_json, hash_content

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


KEY_BYTES: Final = 32


class KeyPurpose(StrEnum):
    """The purpose of a signing key. control: the control plane, the CLI and the dashboard sign
    all rows with it. worker: eval workers sign only samples with it.
    """

    CONTROL = "control"
    WORKER = "worker"


class KeyState(StrEnum):
    """The state of a key. signs: the newest key of its purpose. verifies: a replaced key, whose
    signatures stay valid. retired: a key whose signatures are no longer valid.
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
    """Finds a signature's key. Raises SignatureInvalid if the key is unknown, retired, or not
    for this purpose.
    """
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
    """Parses a keyring. place: the file or variable, for errors. Raises ConfigError."""
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
        raise ConfigError(f"{place} contains no key: restore it from a backup")
    return found


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
SIGNING_DOMAIN: Final = b"swapgate row 1\n"


def row_payload(
    table: str, installation: str, row: Mapping[str, object], **more: object
) -> bytes:
    """Returns the bytes to sign: the row's stored columns and the further values in `more`."""
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
    raise SignatureInvalid("its signature is malformed: `<key id>.<base64url>` is expected")


# The number of valid signatures to remember, as digests of 32 bytes, because readers verify the
# same rows repeatedly.
REMEMBERED: Final = 200_000


def new_private_key() -> str:
    """Creates a private key. Returns the base64url of its 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - `--help` stays quick

    return encode_base64url(Ed25519PrivateKey.generate().private_bytes_raw())


def public_key(private: str, purpose: KeyPurpose) -> PublicKey:
    """Derives the public key. Raises ConfigError for a malformed private key."""
    return PublicKey(purpose, _private(private).public_key().public_bytes_raw())


def _private(text: str) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

    try:
        seed = decode_base64url(text.strip())
        if len(seed) == KEY_BYTES:
            return Ed25519PrivateKey.from_private_bytes(seed)
    except ValueError:
        pass
    raise ConfigError("a signing key is the base64url of 32 bytes: restore it from a backup")


def _verifier(public: bytes) -> Callable[[bytes, bytes], None]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    return Ed25519PublicKey.from_public_bytes(public).verify


class Ed25519Signatures:
    """Implements ports.Signatures. Reads the keys at the first use.

    keyring: reads the public keys.
    private: reads this process's private key, as text; None for a process that only verifies.
    stamp: returns a new value after the keyring changes. The object reads the keyring again
    then, and if it lacks a signature's key.
    """

    def __init__(
        self,
        keyring: Callable[[], Keyring],
        private: Callable[[], str] | None = None,
        *,
        stamp: Callable[[], object] = lambda: None,
    ) -> None:
        self._read_keyring = keyring
        self._stamp_of_keyring = stamp
        self._stamp: object = None
        self._read_private = private
        self._keyring: Keyring | None = None
        self._held: OrderedDict[bytes, None] = OrderedDict()
        self._verify_with: dict[bytes, Callable[[bytes, bytes], None]] = {}  # by public key
        self._lock = Lock()

    def __repr__(self) -> str:
        return "Ed25519Signatures()"

    @cached_property
    def _signing(self) -> "tuple[str, Ed25519PrivateKey]":
        if self._read_private is None:
            raise ConfigError(
                "this process has only public keys and cannot sign: change routes, targets and "
                "keys where the private signing key is"
            )
        private = _private(self._read_private())
        return key_id(private.public_key().public_bytes_raw()), private

    def sign(self, payload: bytes) -> str:
        key, private = self._signing
        return join_signature(key, private.sign(payload))

    def check(self, payload: bytes, signature: str, purpose: KeyPurpose) -> None:
        key, dot, _ = signature.partition(".")
        if not dot:
            split_signature(signature)
        known = self._key(key, purpose)
        text = signature.encode("utf-8", "surrogatepass")
        digest = sha256(known.public + len(text).to_bytes(4) + text + payload).digest()
        if digest in self._held:
            return
        self._verify(known, split_signature(signature)[1], payload)
        with self._lock:
            self._held[digest] = None
            while len(self._held) > REMEMBERED:
                self._held.popitem(last=False)

    def _verify(self, key: PublicKey, raw: bytes, payload: bytes) -> None:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above

        verify = self._verify_with.get(key.public)
        if verify is None:
            verify = self._verify_with[key.public] = _verifier(key.public)
        try:
            verify(raw, payload)
        except InvalidSignature:
            raise SignatureInvalid("its content is not what was signed") from None

    def _key(self, key: str, purpose: KeyPurpose) -> PublicKey:
        # Reads the stamp before the keyring, so a change in between gives a new stamp next
        # time.
        stamp = self._stamp_of_keyring()
        keyring = self._keyring
        if keyring is None or key not in keyring or stamp != self._stamp:
            keyring = self._keyring = self._read_keyring()
            self._stamp = stamp
        return verifying_key(keyring, key, purpose)
