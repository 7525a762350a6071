"""Where the answers of a `gate run` lie when they are kept."""

from pathlib import Path
from shlex import quote
from typing import Final

DATABASE: Final = "SWAPGATE__DATABASE_URL"
FILE: Final = "swapgate.db"
KEYRING: Final = "SWAPGATE_SIGNING_KEYRING_FILE"
PUBLIC: Final = "signing.pub"


def address(folder: Path) -> str:
    """The database's URL in `folder`."""
    return f"sqlite:///{folder.resolve() / FILE}"


def variables(folder: Path) -> str:
    """What a shell puts before `swapgate replay`: the database, and who signed its rows."""
    return (
        f"{DATABASE}={quote(address(folder))} {KEYRING}={quote(str(folder.resolve() / PUBLIC))}"
    )
