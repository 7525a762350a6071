"""The fields of a request body for a record's declared settings
(`harness.frame.configuration.setting`)."""

from typing import Annotated, Any

from pydantic import Field, create_model

from harness.frame.configuration.setting import Declaration, plain_settings
from harness.interfaces.api.frame.endpoint import Body


def settings_body(record: type, *, whole: bool = False) -> type[Body]:
    """Builds a body with the plain settings of a record.

    An omitted field is None, and keeps its value.

    Args:
        whole: the body replaces the record, so an omitted field has its default.
    """
    fields: dict[str, Any] = {
        declaration.name: (
            (_build_field_type(declaration), declaration.default)
            if whole and not declaration.optional
            else (_build_field_type(declaration) | None, None)
        )
        for declaration in plain_settings(record)
    }
    return create_model("SettingFields", __base__=Body, **fields)


def _build_field_type(declaration: Declaration) -> Any:
    bounds = _build_bounds(declaration)
    return Annotated[declaration.kind, Field(**bounds)] if bounds else declaration.kind


def _build_bounds(declaration: Declaration) -> dict[str, Any]:
    """Returns pydantic's bounds. A number that 0 turns off or removes begins at 0."""
    if declaration.kind is str:
        low = {"min_length": int(declaration.length.low)} if declaration.length.low else {}
        return {**low, "max_length": int(declaration.length.high)}
    allowed_range = declaration.range
    if allowed_range is None:
        return {}
    if allowed_range.zero or (declaration.optional and declaration.removal == 0):
        return {"ge": 0, "le": allowed_range.high}
    return {"gt" if allowed_range.above else "ge": allowed_range.low, "le": allowed_range.high}
