"""Protocols for the environment of a process: clock, random ids, ciphers, signatures, rate
limits and alert sinks.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertMessage
from harness.frame.people.limits import RateState
from harness.frame.signing.keyring import KeyPurpose


class Clock(Protocol):
    def now(self) -> datetime:
        """Returns the wall time as an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Returns seconds that never jump; for durations and deadlines within one process."""
        ...


class Chance(Protocol):
    def token(self, prefix: str) -> str:
        """Makes a new, unguessable id: `prefix` and 16 hexadecimal digits."""
        ...

    def secret(self) -> str:
        """Makes a new secret of 256 bits, URL-safe."""
        ...


class Cipher(Protocol):
    """Encrypts values that must not be readable in the database, on disk or in a backup."""

    def encrypt(self, text: str) -> str: ...

    def decrypt(self, token: str) -> str:
        """Decrypts a token of `encrypt`. Raises DecryptionFailed; ConfigError without a key."""
        ...

    def reencrypt(self, token: str) -> str:
        """Encrypts a token's text again with the newest key. Raises DecryptionFailed;
        ConfigError without a key.
        """
        ...


class Signer(Protocol):
    """Signs with this process's private key."""

    def sign(self, payload: bytes) -> str:
        """Returns `<key id>.<base64url>`. Raises ConfigError without a private key."""
        ...


class Verifier(Protocol):
    """Verifies signatures with public keys alone."""

    def check(
        self,
        payload: bytes,
        signature: str,
        purpose: KeyPurpose,
    ) -> None:
        """Verifies a signature; an implementation may remember valid signatures.

        Args:
            purpose: the required purpose of the signing key.

        A `control` key may sign every row.
        Raises SignatureInvalid; ConfigError without a keyring.
        """
        ...


class Signatures(Signer, Verifier, Protocol): ...


class RateBook(Protocol):
    """Keeps the states of rate limits by key. Its methods neither wait nor raise."""

    def change(self, key: str, change: Callable[[RateState], RateState]) -> RateState:
        """Replaces the key's state with the result of `change`. Returns the previous state."""
        ...

    def close(self) -> None: ...


class AlertSinks(Protocol):
    def names(self) -> Sequence[str]: ...

    def takes(self, sink: str, kind: AlertKind) -> bool: ...

    def send(self, sink: str, message: AlertMessage) -> None:
        """Sends a message within a bounded time. Raises DeliveryFailed, without any secret."""
        ...
