"""Encrypts and decrypts stored secrets with Fernet (AES-128 in CBC mode and HMAC-SHA-256), and
reads, writes and makes the keys; several may be valid at once, so that they can be rotated.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.frame.errors import ConfigError, DecryptionFailed

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

OTHERS: Final = 0o077
UNREADABLE: Final = (
    "a stored value cannot be decrypted: none of the encryption keys at hand made it. Bring "
    "the key back that did, or store the value anew"
)


def new_key() -> str:
    from cryptography.fernet import Fernet  # noqa: PLC0415 - `--help` stays quick

    return Fernet.generate_key().decode()


def keys_in(text: str) -> list[str]:
    """Separated by commas, white space or new lines."""
    return text.replace(",", " ").split()


def read_key_file(file: Path) -> list[str]:
    """Reads a file's keys. Raises ConfigError for none, or where other users may read it."""
    try:
        mode = file.stat().st_mode & 0o777
        if mode & OTHERS:
            raise ConfigError(
                f"{file} has mode {mode:04o}, so that others than its owner may use it: "
                f"`chmod 600 {file}`, and if anybody may have read it, put a new key first "
                "and run `swapgate provider key rotate-encryption`"
            )
        found = keys_in(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if not found:
        raise ConfigError(f"{file} is empty: bring it back from a backup")
    return found


def write_key_file(file: Path, keys: Sequence[str], *, mode: int = 0o600) -> None:
    """Writes a key file atomically, by default for its owner alone. Raises OSError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.fchmod(descriptor, mode)  # the umask may have narrowed it
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write("".join(f"{key}\n" for key in keys))
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


class FernetCipher:
    """Implements ports.Cipher. read: returns the keys; the first one encrypts.

    They are read when they are first needed, and again whenever something is encrypted or the
    known ones did not make a value: another process may have put a new key first.
    """

    def __init__(self, read: Callable[[], Sequence[str]]) -> None:
        self._read = read
        self._known: tuple[str, ...] = ()
        self._fernet: MultiFernet | None = None

    def __repr__(self) -> str:
        return "FernetCipher()"

    def encrypt(self, text: str) -> str:
        # By a key that was put first since: after a rotation the others may go.
        self._refresh()
        return self._keys().encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        return self._tried(lambda keys: keys.decrypt(token.encode()))

    def reencrypt(self, token: str) -> str:
        self._refresh()
        return self._tried(lambda keys: keys.rotate(token.encode()))

    def _tried(self, do: "Callable[[MultiFernet], bytes]") -> str:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - `--help` stays quick

        try:
            return do(self._keys()).decode()
        except InvalidToken:
            before = self._known
            self._fernet = None
            keys = self._keys()
            if self._known != before:
                try:
                    return do(keys).decode()
                except InvalidToken:
                    pass
        raise DecryptionFailed(UNREADABLE)

    def _refresh(self) -> None:
        """Reads the keys once more. Where they cannot be read, the known ones still hold."""
        if self._known:
            with suppress(ConfigError):
                if tuple(self._read()) != self._known:
                    self._fernet = None

    def _keys(self) -> "MultiFernet":
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - as above

        if self._fernet is None:
            self._known = tuple(self._read())
            try:
                self._fernet = MultiFernet([Fernet(key) for key in self._known])
            except ValueError:
                # Its words may hold the key.
                raise ConfigError(
                    "an encryption key is malformed: each is 32 bytes in URL-safe base64, as "
                    "`swapgate init` makes them"
                ) from None
        return self._fernet
