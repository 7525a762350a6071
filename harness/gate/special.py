"""The special functions of scipy (`scipy.special`), loaded at the first call: they take as long
as all else that a command of the command line imports, and few commands compute anything.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    found = getattr(import_module("scipy.special"), name)
    globals()[name] = found  # the next call finds it here
    return found
