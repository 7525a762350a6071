"""Finds and creates the installation's secrets. Each is in an environment variable or in a file
of mode 0600 in `home`. Also finds, creates, rotates and retires the keys that sign rows: in
files in `home`, in variables, or in files that a variable names (`…_FILE`).

A variable always wins over a file. This module creates a missing secret only on request,
because a new secret makes stored hashes and keys useless. No message contains a secret.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from harness.app.configuration.model import Settings
from harness.frame.errors import ConfigError
from harness.frame.runtime import encryption
from harness.frame.runtime.clock import SystemRandomIds
from harness.frame.signing.ed25519 import (
    Ed25519Signatures,
    new_private_key,
    public_key,
)
from harness.frame.signing.keyring import (
    KeyPurpose,
    Keyring,
    KeyState,
    PublicKey,
    format_keyring,
    parse_keyring,
    rotate_key,
)

SECRET_VARIABLE: Final = "SWAPPROOF_SECRET"  # noqa: S105 - a name, not a secret
SECRET_FILE: Final = "secret.key"  # noqa: S105 - a name, not a secret
ENCRYPTION_VARIABLE: Final = "SWAPPROOF_ENCRYPTION_KEYS"
ENCRYPTION_FILE: Final = "encryption.keys"
CONTENT_ATTEMPTS = 40
CONTENT_PAUSE_S = 0.05


def installation_secret(settings: Settings, *, create: bool = False) -> bytes:
    """Returns the key of hashes and HMAC chains: from SWAPPROOF_SECRET, or a file of mode 0600
    in `home`. Raises ConfigError if the file is empty, or is missing and `create` is False.
    """
    text = os.environ.get(SECRET_VARIABLE)
    if text:
        return text.encode()
    file = settings.home / SECRET_FILE
    if not file.exists():
        if not create:
            raise ConfigError(
                f"{file} is missing: run `swapproof init`, or set {SECRET_VARIABLE}"
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
    for _ in range(CONTENT_ATTEMPTS):
        if file.stat().st_size:
            return
        time.sleep(CONTENT_PAUSE_S)


def environment_secret(variable: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Reads a secret from a variable, or VARIABLE_FILE's file. Raises ConfigError."""
    file = environ.get(f"{variable}_FILE", "")
    if environ.get(variable) or not file:
        return environ.get(variable) or None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable}_FILE cannot be read: {error}") from None


def require_named_secret(variable: str, section: str) -> str:
    """Reads the secret of a variable that the configuration names.

    Args:
        section: for the message.

    Raises ConfigError if the variable is not set.
    """
    secret = environment_secret(variable)
    if not secret:
        raise ConfigError(
            f"{section} names {variable}, which is not set: set it, or {variable}_FILE with "
            "the file of the secret"
        )
    return secret


def has_secret(settings: Settings) -> bool:
    return bool(os.environ.get(SECRET_VARIABLE)) or (settings.home / SECRET_FILE).exists()


def encryption_file(settings: Settings) -> Path:
    return settings.home / ENCRYPTION_FILE


def encryption_keys(settings: Settings) -> list[str]:
    """Returns the keys that encrypt providers' stored keys, the newest first: from
    SWAPPROOF_ENCRYPTION_KEYS, or a file of mode 0600 in `home`. Raises ConfigError without
    keys.
    """
    keys = encryption.split_keys(os.environ.get(ENCRYPTION_VARIABLE, ""))
    file = encryption_file(settings)
    if keys:
        return keys
    if not file.exists():
        raise ConfigError(
            f"{file} is missing, and {ENCRYPTION_VARIABLE} is not set: `swapproof init` makes "
            "the file; if provider keys are stored already, restore it from a backup"
        )
    return encryption.read_key_file(file)


def create_encryption_file(settings: Settings) -> bool:
    """Creates the file of encryption keys, unless the environment or the file has keys. Returns
    whether it created the file.
    """
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
    """Returns `home`, and creates it if it is missing. Raises ConfigError if it is not
    writable.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        # Tests with a file of a unique name, because several processes may test at once.
        with tempfile.TemporaryFile(dir=settings.home):
            pass
    except OSError as error:
        raise ConfigError(
            f"{settings.home} is not writable ({error.strerror}): "
            "run in your own folder, or set `home:` in swapproof.yaml"
        ) from None
    return settings.home


KEYRING_FILE: Final = "signing.pub"
KEYRING_VARIABLE: Final = "SWAPPROOF_SIGNING_KEYRING"
PRIVATE_FILES: Final = {
    KeyPurpose.CONTROL: "signing.key",
    KeyPurpose.WORKER: "worker-signing.key",
}
PRIVATE_VARIABLES: Final = {
    KeyPurpose.CONTROL: "SWAPPROOF_SIGNING_KEY",
    KeyPurpose.WORKER: "SWAPPROOF_WORKER_SIGNING_KEY",
}
# An eval worker's signing variables. A worker must not get the control plane's private key.
WORKER_VARIABLES: Final = tuple(
    f"{name}{suffix}"
    for name in (KEYRING_VARIABLE, PRIVATE_VARIABLES[KeyPurpose.WORKER])
    for suffix in ("", "_FILE")
)


def signatures(settings: Settings, purpose: KeyPurpose | None = None) -> Ed25519Signatures:
    """Builds this process's signatures.

    Args:
        purpose: the purpose of its private key; None for a process that only verifies.
    """
    private = None if purpose is None else partial(private_key, settings, purpose)
    return Ed25519Signatures(
        partial(keyring, settings), private, stamp=_build_keyring_stamp(settings)
    )


def keyring(settings: Settings) -> Keyring:
    """Reads the keyring from the environment or its file. Raises ConfigError."""
    keyring_text = environment_secret(KEYRING_VARIABLE)
    if keyring_text is not None:
        return parse_keyring(keyring_text, KEYRING_VARIABLE)
    file = settings.home / KEYRING_FILE
    if not file.exists():
        raise ConfigError(
            f"{file} is missing: copy it from the machine of the control plane, where "
            f"`swapproof init` created it, or set {KEYRING_VARIABLE}"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    return parse_keyring(text.strip(), str(file))


def _build_keyring_stamp(settings: Settings) -> Callable[[], tuple[int, int, int] | None]:
    """Builds a function whose result changes with the keyring's file. The result is None if a
    variable has the keyring, or if the file is missing.
    """
    if os.environ.get(KEYRING_VARIABLE):
        return lambda: None
    file = os.environ.get(f"{KEYRING_VARIABLE}_FILE")
    # A text is faster than a Path, and each check of a row reads the file's status.
    return partial(_read_file_stamp, file or str(settings.home / KEYRING_FILE))


def _read_file_stamp(file: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - a Path takes twice as long
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def private_key(settings: Settings, purpose: KeyPurpose) -> str:
    """Reads the private key of a purpose, from the environment or its file. Raises
    ConfigError.
    """
    text = environment_secret(PRIVATE_VARIABLES[purpose])
    if text is not None:
        return text
    file = settings.home / PRIVATE_FILES[purpose]
    if not file.exists():
        raise ConfigError(
            f"{file} is missing: run `swapproof init` for a new installation; else restore it "
            f"from a backup, or set {PRIVATE_VARIABLES[purpose]}"
        )
    wait_for_content(file)
    return encryption.read_key_file(file)[0]


def create_keys(settings: Settings) -> list[Path]:
    """Creates missing signing keys and the keyring. Returns the new files. Raises ConfigError.

    Does not change an existing keyring, because only `rotate_signing_key` adds keys.
    """
    if environment_secret(KEYRING_VARIABLE) is not None:
        return []
    file = settings.home / KEYRING_FILE
    if file.exists():
        return []
    writable_home(settings)
    created = [_create_private_key(settings, purpose) for purpose in KeyPurpose]
    keys = [public_key(private_key(settings, purpose), purpose) for purpose in KeyPurpose]
    _write_keyring(settings, keys)
    return [*(path for path in created if path is not None), file]


def rotate_signing_key(settings: Settings, purpose: KeyPurpose) -> PublicKey:
    """Creates a new key for signing; the previous key only verifies. Raises ConfigError if the
    keys are in the environment.
    """
    for name in (KEYRING_VARIABLE, PRIVATE_VARIABLES[purpose]):
        if environment_secret(name) is not None:
            raise ConfigError(
                f"{name} is set: rotate on the machine with the key files, then update it"
            )
    former_keyring = keyring(settings)
    private = new_private_key()
    new = public_key(private, purpose)
    # All processes must know the new key before it signs.
    _write_keyring(settings, rotate_key(former_keyring, new).values())
    encryption.write_key_file(settings.home / PRIVATE_FILES[purpose], [private])
    return new


def check_retirable(settings: Settings, key: str) -> None:
    """Raises ConfigError for an unknown key, a key that still signs, or a keyring in a
    variable.
    """
    keys = keyring(settings)
    if key not in keys:
        raise ConfigError(f"the keyring has no key {key}; it has {', '.join(keys)}")
    if keys[key].state is KeyState.SIGNS:
        raise ConfigError(f"the key {key} signs: rotate it first")
    if environment_secret(KEYRING_VARIABLE) is not None:
        raise ConfigError(f"{KEYRING_VARIABLE} is set: change the key's state in its value")


def retire_signing_key(settings: Settings, key: str) -> None:
    """Retires a key, whose signatures are then invalid. Raises ConfigError."""
    check_retirable(settings, key)
    keys = dict(keyring(settings))
    keys[key] = PublicKey(keys[key].purpose, keys[key].public, KeyState.RETIRED)
    _write_keyring(settings, keys.values())


def _create_private_key(settings: Settings, purpose: KeyPurpose) -> Path | None:
    """Creates a missing private key. Returns its file, or None if the key existed."""
    file = settings.home / PRIVATE_FILES[purpose]
    is_in_variable = environment_secret(PRIVATE_VARIABLES[purpose]) is not None
    return file if not is_in_variable and create_private(file, new_private_key()) else None


def _write_keyring(settings: Settings, keys: Iterable[PublicKey]) -> None:
    lines = format_keyring(keys).splitlines()
    encryption.write_key_file(settings.home / KEYRING_FILE, lines, mode=0o644)
