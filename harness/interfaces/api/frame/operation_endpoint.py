"""Builds endpoints from declared operations (`harness.frame.operation`)."""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field, create_model

from harness.frame.operation import PAGE, Input, Operation, OperationGroup
from harness.interfaces.api.frame.endpoint import (
    Body,
    OverruleBody,
    PageQuery,
    ReasonBody,
    RouteQuery,
    operation_endpoint,
)

# The shared bodies by name; `operation_body` adds each body that it builds.
_BODIES: Final[dict[str, type[Body]]] = {
    body.__name__: body for body in (PageQuery, RouteQuery, ReasonBody, OverruleBody)
}


def add_endpoints(router: APIRouter, *groups: OperationGroup) -> None:
    """Registers the endpoints of all operations of the groups."""
    for group in groups:
        for operation in group.operations:
            if operation.endpoint:
                operation_endpoint(router, operation, operation_body(operation))


def operation_body(operation: Operation[Any]) -> type[Body] | None:
    """Builds the body, or the query of a GET; None without an input.

    Operations with the same inputs share a body by its name. Raises TypeError if two bodies of
    one name differ.
    """
    inputs = operation.inputs[len(operation.path_names) :]
    if not inputs:
        return None
    fields: dict[str, Any] = {
        input_.name: (_build_field_type(input_), ... if input_.is_required else input_.default)
        for input_ in inputs
        if input_.name != PAGE
    }
    is_paged = any(input_.name == PAGE for input_ in inputs)
    name = (
        operation.body
        or _find_shared_name(fields, is_paged=is_paged)
        or _build_name(operation.id)
    )
    base = PageQuery if is_paged else Body
    if name not in _BODIES:
        text = operation.body_text or None
        new_body: Any = create_model(name, __base__=base, __doc__=text, **fields)
        _BODIES[name] = new_body
    if set(_BODIES[name].model_fields) != {*base.model_fields, *fields}:
        raise TypeError(f"{operation.id}: the body {name} has other fields; give another name")
    return _BODIES[name]


def _find_shared_name(fields: Mapping[str, tuple[Any, Any]], *, is_paged: bool) -> str:
    if is_paged:
        return "" if fields else "PageQuery"
    if set(fields) != {"reason"}:
        return ""
    return "OverruleBody" if fields["reason"][1] is ... else "ReasonBody"


def _build_name(name: str) -> str:
    return "".join(word.title() for word in name.split("_")) + "Body"


def _build_field_type(input_: Input) -> Any:
    kind = float if input_.plain_kind is timedelta else input_.plain_kind
    bounded: Any = Annotated[kind, Field(**_build_bounds(input_, kind))]
    optional: Any = bounded | None if input_.takes_none else bounded
    attributes: dict[str, Any] = {}
    if input_.declared.meaning and input_.name != "reason":
        attributes["description"] = input_.declared.meaning
    if input_.declared.api_name:
        attributes["alias"] = input_.declared.api_name
    return Annotated[optional, Field(**attributes)] if attributes else optional


def _build_bounds(input_: Input, kind: Any) -> dict[str, Any]:
    if kind is str:
        length = input_.declared.length
        min_length = {"min_length": int(length.low)} if length.low else {}
        return {**min_length, "max_length": int(length.high)}
    allowed_range = input_.declared.range
    if allowed_range is None:
        return {}
    low = {"gt" if allowed_range.above else "ge": allowed_range.low}
    return low if math.isinf(allowed_range.high) else {**low, "le": allowed_range.high}
