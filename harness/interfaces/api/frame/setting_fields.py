"""The fields of a request body for a record's declared settings
(`harness.frame.configuration.setting`)."""

from typing import Annotated, Any

from pydantic import Field, create_model

from harness.frame.configuration.setting import Declaration, plain_settings
from harness.interfaces.api.frame.endpoint import Body


def settings_body(record: type, *, whole: bool = False) -> type[Body]:
    """Builds a body with the plain settings of a record.

    An omitted field is None, and keeps its value. whole: the body replaces the record, so an
    omitted field has its default.
    """
    fields: dict[str, Any] = {
        declared.name: (
            (_field_type(declared), declared.default)
            if whole and not declared.optional
            else (_field_type(declared) | None, None)
        )
        for declared in plain_settings(record)
    }
    return create_model("SettingFields", __base__=Body, **fields)


def _field_type(declared: Declaration) -> Any:
    bounds = _bounds(declared)
    return Annotated[declared.kind, Field(**bounds)] if bounds else declared.kind


def _bounds(declared: Declaration) -> dict[str, Any]:
    """Returns pydantic's bounds. A number that 0 turns off or removes begins at 0."""
    if declared.kind is str:
        low = {"min_length": int(declared.length.low)} if declared.length.low else {}
        return {**low, "max_length": int(declared.length.high)}
    allowed = declared.range
    if allowed is None:
        return {}
    if allowed.zero or (declared.optional and declared.removal == 0):
        return {"ge": 0, "le": allowed.high}
    return {"gt" if allowed.above else "ge": allowed.low, "le": allowed.high}
