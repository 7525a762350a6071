"""Data classes name kinds of data, and the providers that may see each of them (D8)."""

from collections.abc import Mapping
from typing import Final

# By the class's name, the providers' names.
DataClasses = Mapping[str, frozenset[str]]
NO_DATA_CLASSES: Final[DataClasses] = {}


def may_see(classes: DataClasses, data_class: str, provider: str) -> bool:
    """Whether the provider may see data of this class. data_class: empty for data without a
    class. No provider may see a class that `classes` lacks.
    """
    return not data_class or provider in classes.get(data_class, frozenset())


def classes_of_provider(classes: DataClasses, provider: str) -> list[str]:
    """The classes that the provider may see, sorted."""
    return sorted(name for name, allowed in classes.items() if provider in allowed)


def is_at_least_as_strict(classes: DataClasses, data_class: str, *, than: str) -> bool:
    """Whether every provider that may see data of `data_class` may see data of `than`.

    Empty for no class. A class that `classes` lacks is seen by nobody.
    """
    if not than or data_class == than:
        return True
    nobody: frozenset[str] = frozenset()
    return bool(data_class) and classes.get(data_class, nobody) <= classes.get(than, nobody)
