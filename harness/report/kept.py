"""Where the answers of a `gate run` lie when they are kept."""

from pathlib import Path
from typing import Final

DATABASE: Final = "SWAPGATE__DATABASE_URL"
FILE: Final = "swapgate.db"


def address(folder: Path) -> str:
    """The database's URL in `folder`."""
    return f"sqlite:///{folder.resolve() / FILE}"
