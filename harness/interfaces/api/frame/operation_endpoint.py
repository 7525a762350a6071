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

# The bodies by name: those that several endpoints share, and those built so far.
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
    entered = operation.inputs[len(operation.path_names) :]
    if not entered:
        return None
    fields: dict[str, Any] = {
        field.name: (_field_type(field), ... if field.is_required else field.default)
        for field in entered
        if field.name != PAGE
    }
    is_paged = any(field.name == PAGE for field in entered)
    name = operation.body or _usual_name(fields, is_paged=is_paged) or _title(operation.id)
    base = PageQuery if is_paged else Body
    if name not in _BODIES:
        text = operation.body_text or None
        built: Any = create_model(name, __base__=base, __doc__=text, **fields)
        _BODIES[name] = built
    if set(_BODIES[name].model_fields) != {*base.model_fields, *fields}:
        raise TypeError(f"{operation.id}: the body {name} has other fields; give another name")
    return _BODIES[name]


def _usual_name(fields: Mapping[str, tuple[Any, Any]], *, is_paged: bool) -> str:
    if is_paged:
        return "" if fields else "PageQuery"
    if set(fields) != {"reason"}:
        return ""
    return "OverruleBody" if fields["reason"][1] is ... else "ReasonBody"


def _title(name: str) -> str:
    return "".join(word.title() for word in name.split("_")) + "Body"


def _field_type(entered: Input) -> Any:
    kind = float if entered.plain_kind is timedelta else entered.plain_kind
    bounded: Any = Annotated[kind, Field(**_bounds(entered, kind))]
    whole: Any = bounded | None if entered.takes_none else bounded
    attributes: dict[str, Any] = {}
    if entered.declared.meaning and entered.name != "reason":
        attributes["description"] = entered.declared.meaning
    if entered.declared.api_name:
        attributes["alias"] = entered.declared.api_name
    return Annotated[whole, Field(**attributes)] if attributes else whole


def _bounds(entered: Input, kind: Any) -> dict[str, Any]:
    if kind is str:
        length = entered.declared.length
        least = {"min_length": int(length.low)} if length.low else {}
        return {**least, "max_length": int(length.high)}
    allowed = entered.declared.range
    if allowed is None:
        return {}
    low = {"gt" if allowed.above else "ge": allowed.low}
    return low if math.isinf(allowed.high) else {**low, "le": allowed.high}
