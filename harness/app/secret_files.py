"""Finds and creates the installation's secrets, each in an environment variable or in a file of
mode 0600 in `home`.
"""

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.config.model import Settings
from harness.frame.errors import ConfigError
from harness.frame.runtime import encryption
from harness.frame.runtime.clock import SystemRandomIds

SECRET_VARIABLE: Final = "SWAPGATE_SECRET"  # noqa: S105 - a name, not a secret
SECRET_FILE: Final = "secret.key"  # noqa: S105 - a name, not a secret
ENCRYPTION_VARIABLE: Final = "SWAPGATE_ENCRYPTION_KEYS"
ENCRYPTION_FILE: Final = "encryption.keys"
ATTEMPTS, PAUSE_S = 40, 0.05


def installation_secret(settings: Settings, *, create: bool = False) -> bytes:
    """Returns the key of hashes and HMAC chains: from SWAPGATE_SECRET, or a file of mode 0600
    in `home`. Raises ConfigError if the file is empty, or is missing and `create` is False.
    """
    text = os.environ.get(SECRET_VARIABLE)
    if text:
        return text.encode()
    file = settings.home / SECRET_FILE
    if not file.exists():
        if not create:
            raise ConfigError(
                f"{file} is missing: run `swapgate init`, or set {SECRET_VARIABLE}"
            )
        writable_home(settings)
        create_private(file, SystemRandomIds().secret())
    wait_for_content(file)
    if text := file.read_text(encoding="utf-8").strip():
        return text.encode()
    raise ConfigError(
        f"{file} is empty: restore it from a backup, or delete it if the database is empty"
    )


def create_private(file: Path, text: str) -> bool:
    """Creates a file that only its owner can read. Returns False if the file exists already."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as new:
        new.write(f"{text}\n")
    return True


def wait_for_content(file: Path) -> None:
    """Waits until the process that created the file has written its content."""
    for _ in range(ATTEMPTS):
        if file.stat().st_size:
            return
        time.sleep(PAUSE_S)


def environment_secret(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Reads a secret from a variable, or VARIABLE_FILE's file. Raises ConfigError."""
    file = environ.get(f"{variable}_FILE", "")
    if environ.get(variable) or not file:
        return environ.get(variable) or None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable}_FILE cannot be read: {error}") from None


def named_secret(variable: str, section: str) -> str:
    found = environment_secret(variable)
    if not found:
        raise ConfigError(
            f"{section} names {variable}, which is not set: set it, or {variable}_FILE with "
            "the file of the secret"
        )
    return found


def has_secret(settings: Settings) -> bool:
    return bool(os.environ.get(SECRET_VARIABLE)) or (settings.home / SECRET_FILE).exists()


def encryption_file(settings: Settings) -> Path:
    return settings.home / ENCRYPTION_FILE


def encryption_keys(settings: Settings) -> list[str]:
    """Returns the keys that encrypt providers' stored keys, the newest first: from
    SWAPGATE_ENCRYPTION_KEYS, or a file of mode 0600 in `home`. Raises ConfigError without
    keys.
    """
    given = encryption.keys_in(os.environ.get(ENCRYPTION_VARIABLE, ""))
    file = encryption_file(settings)
    if given:
        return given
    if not file.exists():
        raise ConfigError(
            f"{file} is missing, and {ENCRYPTION_VARIABLE} is not set: `swapgate init` makes "
            "the file; if provider keys are stored already, restore it from a backup"
        )
    return encryption.read_key_file(file)


def make_encryption_file(settings: Settings) -> bool:
    """Creates the file unless the environment or the file has keys. Returns whether it did."""
    file = encryption_file(settings)
    if os.environ.get(ENCRYPTION_VARIABLE) or file.exists():
        return False
    writable_home(settings)
    encryption.write_key_file(file, [encryption.new_key()])
    return True


def add_encryption_key(settings: Settings) -> None:
    """Adds a new key as the file's first key; the other keys still decrypt. Raises
    ConfigError.
    """
    if os.environ.get(ENCRYPTION_VARIABLE):
        raise ConfigError(
            f"{ENCRYPTION_VARIABLE} is set: add a new key as its first key, restart each "
            "process, then run this without --new-key"
        )
    file = encryption_file(settings)
    encryption.write_key_file(file, [encryption.new_key(), *encryption.read_key_file(file)])


def writable_home(settings: Settings) -> Path:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        # A unique name, because other processes may check at the same time.
        with tempfile.TemporaryFile(dir=settings.home):
            pass
    except OSError as error:
        raise ConfigError(
            f"{settings.home} is not writable ({error.strerror}): "
            "run in your own folder, or set `home:` in swapgate.yaml"
        ) from None
    return settings.home
