"""Defers numpy and the special functions of scipy for the gate's rules until one of them first
computes: they take as long to import as all else that a command imports, and most processes and
commands only read what was decided.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from scipy import special

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
else:

    class _Deferred:
        """Stands for a module until one of its names is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> object:
            found = getattr(import_module(self._name), name)
            setattr(self, name, found)  # the next use finds it here
            return found

    np, special = _Deferred("numpy"), _Deferred("scipy.special")
    ArrayLike = Floats = Ints = Bools = object

__all__ = ["ArrayLike", "Bools", "Floats", "Ints", "np", "special"]
