"""A record's plain form without what is at its default: what is hashed to be compared later.

A version that adds a field finds it at its default in everything that was stored before, and
its hash as it was.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass

from harness.control.serialize import Plain, to_plain


def to_hashable(value: object) -> Plain:
    """Raises TypeError, as `plain` does."""
    if isinstance(value, Mapping):
        return {str(key): to_hashable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_hashable(inner) for inner in value]
    if not is_dataclass(value) or isinstance(value, type):
        return to_plain(value)
    told = ((field, getattr(value, field.name)) for field in fields(value))
    return {
        field.name: to_hashable(inner) for field, inner in told if not _is_default(field, inner)
    }


def _is_default(field: "Field[object]", value: object) -> bool:
    if field.default is not MISSING:
        return type(value) is type(field.default) and value == field.default
    return field.default_factory is not MISSING and value == field.default_factory()
