"""Records the environment variables that the `.env` beside the configuration set. The process
that reads the file records their names in its environment, for itself and its child processes.
"""

from collections.abc import Mapping
from typing import Final

DOTENV_VARIABLE: Final = "SWAPPROOF_DOTENV_NAMES"  # the variables that `.env` set
DOTENV_FILE_VARIABLE: Final = "SWAPPROOF_DOTENV_FILE"  # the path of that `.env`


def dotenv_names(environ: Mapping[str, str]) -> set[str]:
    return set(environ.get(DOTENV_VARIABLE, "").split(",")) - {""}


def record_dotenv(names: set[str], file: str) -> Mapping[str, str]:
    """Returns the variables that record the names and the path."""
    return {
        DOTENV_VARIABLE: ",".join(sorted(names)),
        DOTENV_FILE_VARIABLE: file,
    }


def find_dotenv(variable: str, environ: Mapping[str, str]) -> str | None:
    """Returns the path of the `.env` that set the variable; None if no `.env` did."""
    if variable not in dotenv_names(environ):
        return None
    return environ.get(DOTENV_FILE_VARIABLE, ".env")
