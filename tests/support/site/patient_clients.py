"""Gives clients of httpx a minute where a test names no limit. httpx's own is five seconds,
and an answer may take as long on a machine that has other work.
"""

from typing import Final

from httpx._config import DEFAULT_TIMEOUT_CONFIG

PATIENCE_S: Final = 60.0


def wait_patiently() -> None:
    """Raises the limits of all clients of httpx that this process makes from now on."""
    for part in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, part, PATIENCE_S)
