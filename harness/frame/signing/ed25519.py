"""Signs and verifies database rows with Ed25519, and makes keys.

`cryptography` is imported late, so that `--help` stays quick.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Final

from harness.frame.errors import ConfigError, SignatureInvalid
from harness.frame.signing.keyring import (
    KEY_BYTES,
    KeyPurpose,
    Keyring,
    PublicKey,
    decode_base64url,
    encode_base64url,
    join_signature,
    key_id,
    split_signature,
    verifying_key,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


# The number of valid signatures to remember, each as a digest of 32 bytes. Readers verify the
# same rows repeatedly.
REMEMBERED_SIGNATURES: Final = 200_000


def new_private_key() -> str:
    """Creates a private key. Returns the base64url of its 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - `--help` stays quick

    return encode_base64url(Ed25519PrivateKey.generate().private_bytes_raw())


def public_key(private: str, purpose: KeyPurpose) -> PublicKey:
    """Derives the public key. Raises ConfigError for a malformed private key."""
    return PublicKey(purpose, _parse_private_key(private).public_key().public_bytes_raw())


def _parse_private_key(text: str) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - `--help` stays quick

    try:
        seed = decode_base64url(text.strip())
        if len(seed) == KEY_BYTES:
            return Ed25519PrivateKey.from_private_bytes(seed)
    except ValueError:
        pass
    raise ConfigError("a signing key is the base64url of 32 bytes: restore it from a backup")


def _build_verifier(public: bytes) -> Callable[[bytes, bytes], None]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - `--help` stays quick

    return Ed25519PublicKey.from_public_bytes(public).verify


class Ed25519Signatures:
    """Implements ports.Signatures. Reads the keys at the first use.

    keyring: reads the public keys. private: reads this process's private key as a text; None
    for a process that only verifies. stamp: returns a new value after the keyring changes. The
    object reads the keyring again after a new stamp, and for an unknown key.
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
        self._verified: OrderedDict[bytes, None] = OrderedDict()
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
        private = _parse_private_key(self._read_private())
        return key_id(private.public_key().public_bytes_raw()), private

    def sign(self, payload: bytes) -> str:
        key, private = self._signing
        return join_signature(key, private.sign(payload))

    def check(
        self,
        payload: bytes,
        signature: str,
        purpose: KeyPurpose,
    ) -> None:
        key, dot, _ = signature.partition(".")
        if not dot:
            split_signature(signature)
        public_key = self._find_key(key, purpose)
        text = signature.encode("utf-8", "surrogatepass")
        digest = sha256(public_key.public + len(text).to_bytes(4) + text + payload).digest()
        if digest in self._verified:
            return
        self._verify(public_key, split_signature(signature)[1], payload)
        with self._lock:
            self._verified[digest] = None
            while len(self._verified) > REMEMBERED_SIGNATURES:
                self._verified.popitem(last=False)

    def _verify(
        self,
        key: PublicKey,
        raw: bytes,
        payload: bytes,
    ) -> None:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - `--help` stays quick

        verify = self._verify_with.get(key.public)
        if verify is None:
            verify = self._verify_with[key.public] = _build_verifier(key.public)
        try:
            verify(raw, payload)
        except InvalidSignature:
            raise SignatureInvalid("its content is not what was signed") from None

    def _find_key(self, key: str, purpose: KeyPurpose) -> PublicKey:
        # Reads the stamp first, so that the next call notices a change during this one.
        stamp = self._stamp_of_keyring()
        keyring = self._keyring
        if keyring is None or key not in keyring or stamp != self._stamp:
            keyring = self._keyring = self._read_keyring()
            self._stamp = stamp
        return verifying_key(keyring, key, purpose)
