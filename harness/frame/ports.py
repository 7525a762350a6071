"""Protocols of the world around a process: clock, random ids, ciphers, signatures, rate limits,
and the services to which alerts go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.delivery import AlertMessage
from harness.frame.people.limits import RateState
from harness.frame.runtime.clock import ClockWatch
from harness.frame.signing.keyring import KeyPurpose

if TYPE_CHECKING:
    from harness.store.store import Store


class Clock(Protocol):
    def now(self) -> datetime:
        """Returns the wall time, in UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump; for durations and deadlines within one process."""
        ...


class Calendar(Protocol):
    def next_time(self, cron: str, after: datetime) -> datetime | None:
        """Returns the first time later than `after` that a cron expression names (five fields,
        UTC); None for one that never comes. Raises InputError for no such expression.
        """
        ...


class Chance(Protocol):
    def token(self, prefix: str) -> str:
        """Makes a new, unguessable id: `prefix` and 16 hexadecimal digits."""
        ...

    def secret(self) -> str:
        """Makes a new secret of 256 bits, URL-safe."""
        ...


class Cipher(Protocol):
    """Encrypts what must not be read in the database, on disk or in a backup."""

    def encrypt(self, text: str) -> str: ...

    def decrypt(self, token: str) -> str:
        """Decrypts a token of `encrypt`. Raises DecryptionFailed, ConfigError without any
        key.
        """
        ...

    def reencrypt(self, token: str) -> str:
        """Encrypts the text of a token anew with the newest key. Raises DecryptionFailed,
        ConfigError without any key.
        """
        ...


class Signer(Protocol):
    """Signs with this process's private key."""

    def sign(self, payload: bytes) -> str:
        """Signs a payload: `<key id>.<base64url>`. Raises ConfigError without a private key."""
        ...


class Verifier(Protocol):
    """Verifies signatures with public keys alone."""

    def check(self, payload: bytes, signature: str, purpose: KeyPurpose) -> None:
        """Verifies a signature. purpose: of the key that must have signed; one of `control` may
        sign everything.

        Raises SignatureInvalid, ConfigError without a keyring. What held once is remembered.
        """
        ...


class Signatures(Signer, Verifier, Protocol): ...


class RateBook(Protocol):
    """Keeps the state of rate limits by name. Never waits, never raises."""

    def change(self, key: str, change: Callable[[RateState], RateState]) -> RateState:
        """Replace the key's state by what comes of it; the state before."""
        ...

    def close(self) -> None: ...


class AlertSinks(Protocol):
    def names(self) -> Sequence[str]: ...

    def takes(self, sink: str, kind: AlertKind) -> bool: ...

    def send(self, sink: str, message: AlertMessage) -> None:
        """Sends a message, in a bounded time. Raises DeliveryFailed, without any secret."""
        ...


@dataclass(frozen=True)
class World:
    """Holds a process's store, clock and chance, and where its alerts go."""

    store: "Store"
    clock: Clock
    chance: Chance
    sinks: AlertSinks | None = field(default=None, kw_only=True)  # None where alerts go nowhere
    # Where people reach the dashboard; alerts link to its pages.
    dashboard_url: str = field(default="", kw_only=True)
    clock_watch: ClockWatch = field(default_factory=ClockWatch, kw_only=True)
