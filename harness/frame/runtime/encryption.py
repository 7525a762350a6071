"""Encrypts and decrypts stored secrets with Fernet (AES-128 in CBC mode and HMAC-SHA-256), and
creates, reads and writes the keys. Several keys may be valid at once, to allow a rotation.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.frame.errors import ConfigError, DecryptionFailed

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

MODE_OF_OTHERS: Final = 0o077
UNREADABLE: Final = (
    "a stored value cannot be decrypted: no available encryption key fits. Restore the key "
    "that encrypted it, or store the value again"
)


def new_key() -> str:
    from cryptography.fernet import Fernet  # noqa: PLC0415 - `--help` stays quick

    return Fernet.generate_key().decode()


def split_keys(text: str) -> list[str]:
    """Splits a text into keys, at commas, white space and new lines."""
    return text.replace(",", " ").split()


def read_key_file(file: Path) -> list[str]:
    """Reads a file's keys. Raises ConfigError if it has no key or other users may read it."""
    try:
        mode = file.stat().st_mode & 0o777
        if mode & MODE_OF_OTHERS:
            raise ConfigError(
                f"{file} has mode {mode:04o}, so users other than its owner may use it: run "
                f"`chmod 600 {file}`. If somebody may have read it, add a new key as the first "
                "one, and run `swapproof provider key rotate-encryption`"
            )
        keys = split_keys(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if not keys:
        raise ConfigError(f"{file} is empty: restore it from a backup")
    return keys


def write_key_file(
    file: Path,
    keys: Sequence[str],
    *,
    mode: int = 0o600,
) -> None:
    """Writes a key file atomically, by default only for its owner. Raises OSError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.fchmod(descriptor, mode)  # the umask may have narrowed it
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write("".join(f"{key}\n" for key in keys))
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


class FernetCipher:
    """Implements ports.Cipher. read: returns the keys; the first key encrypts.

    Reads the keys at the first use. Reads them again before each encryption, and if no known
    key decrypts a value, because another process may have added a key.
    """

    def __init__(self, read: Callable[[], Sequence[str]]) -> None:
        self._read = read
        self._known: tuple[str, ...] = ()
        self._fernet: MultiFernet | None = None

    def __repr__(self) -> str:
        return "FernetCipher()"

    def encrypt(self, text: str) -> str:
        # Uses the newest key, because a person may delete the older keys after a rotation.
        self._refresh()
        return self._load_keys().encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        return self._try_keys(lambda keys: keys.decrypt(token.encode()))

    def reencrypt(self, token: str) -> str:
        self._refresh()
        return self._try_keys(lambda keys: keys.rotate(token.encode()))

    def _try_keys(self, do: "Callable[[MultiFernet], bytes]") -> str:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - `--help` stays quick

        try:
            return do(self._load_keys()).decode()
        except InvalidToken:
            former = self._known
            self._fernet = None
            keys = self._load_keys()
            if self._known != former:
                try:
                    return do(keys).decode()
                except InvalidToken:
                    pass
        raise DecryptionFailed(UNREADABLE)

    def _refresh(self) -> None:
        """Reads the keys again. If that fails, the known keys stay valid."""
        if self._known:
            with suppress(ConfigError):
                if tuple(self._read()) != self._known:
                    self._fernet = None

    def _load_keys(self) -> "MultiFernet":
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - `--help` stays quick

        if self._fernet is None:
            self._known = tuple(self._read())
            try:
                self._fernet = MultiFernet([Fernet(key) for key in self._known])
            except ValueError:
                # The error's text may contain the key.
                raise ConfigError(
                    "an encryption key is malformed: each is 32 bytes in URL-safe base64, as "
                    "`swapproof init` makes them"
                ) from None
        return self._fernet
