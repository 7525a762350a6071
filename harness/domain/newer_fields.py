"""Keeps what only a newer version knows of a stored policy, rule or route: a field that this
version does not have, and a value of one that it has.

A reader leaves both out and notes them by path (`canary.steps.0.name`), so that they are
written back as they were. What has any of them is followed as far as it is known, and nothing
is decided by it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from harness.domain.errors import NewerVersion

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E", bound=StrEnum)


@dataclass
class NewerFields:
    """Reads the known part of a record, and notes the rest."""

    found: dict[str, Any] = field(default_factory=dict)  # by path

    def known(
        self, cls: "type[DataclassInstance]", data: Mapping[str, Any], path: str = ""
    ) -> dict[str, Any]:
        """Returns the fields of `data` that the class has."""
        names = _field_names(cls)
        if data.keys() <= names:
            return dict(data)
        self.found |= {f"{path}{name}": data[name] for name in data if name not in names}
        return {name: value for name, value in data.items() if name in names}

    def member(self, kind: type[E], value: str, path: str, *, otherwise: E) -> E:
        """Returns the member that the value names. otherwise: for one of a newer version."""
        try:
            return kind(value)
        except ValueError:
            self.found[path] = value
            return otherwise


def known_member(kind: type[E], value: str, subject: str, name: str) -> E:
    """Returns the member that the value names. subject: what has it in its field `name`. Raises
    NewerVersion for one that this version does not know.
    """
    try:
        return kind(value)
    except ValueError:
        raise NewerVersion(describe_newer([f"{name}: {value}"], subject)) from None


@cache
def _field_names(cls: "type[DataclassInstance]") -> frozenset[str]:
    return frozenset(item.name for item in fields(cls))


def with_newer_fields(written: dict[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Puts what only a newer version knows back where it was. newer: by path."""
    for path, value in newer.items():
        *parents, name = path.split(".")
        place: Any = written
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list | tuple) else place[parent]
        place[name] = value
    return written


def name_newer_fields(record: "DataclassInstance", newer: Mapping[str, Any]) -> list[str]:
    """Names them for people: an unknown field by its path, an unknown value after the path of
    its field in the record.
    """
    known = asdict(record) if newer else {}
    return sorted(
        f"{path}: {value}" if _has(known, path) else path for path, value in newer.items()
    )


def _has(known: Any, path: str) -> bool:
    for name in path.split("."):
        if isinstance(known, list | tuple):
            known = known[int(name)]
        elif isinstance(known, Mapping) and name in known:
            known = known[name]
        else:
            return False
    return True


def describe_newer(names: Iterable[str], subject: str = "its policy") -> str:
    """Says what this version does not know of something, and what to do; empty for nothing."""
    found = ", ".join(sorted(names))
    if not found:
        return ""
    return (
        f"{subject} has {found}, which this version does not know: start the control plane "
        "in the newer version that wrote it"
    )
