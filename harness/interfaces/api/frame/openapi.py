"""Builds the OpenAPI document: FastAPI describes the requests; the schemas of answers come from
dataclasses. All operations share one shape of error and the bearer key.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum, IntEnum
from operator import attrgetter
from typing import (
    Any,
    Final,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fastapi import FastAPI
from starlette.types import StatelessLifespan

from harness import __version__
from harness.frame.pagination import Page
from harness.frame.plain_data import HIDDEN, shown_name
from harness.gate.online.rollout_action import RolloutFigures
from harness.gate.verdict import VERDICTS, BaseVerdict
from harness.providers.target import Target
from harness.routing.table import Route

Schema = dict[str, Any]
Lifespan = StatelessLifespan[FastAPI]
SCALARS: Mapping[object, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},  # null replaces NaN and infinity
    str: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    object: {},
    Any: {},
    types.NoneType: {"type": "null"},
    # Client generators cannot read an `enum` of booleans, nor a `const` beside a number.
    Literal[False]: {"type": "boolean", "not": {"const": True}},
    RolloutFigures: {"type": "object", "additionalProperties": {}},
}
LISTS = (list, tuple, set, frozenset, Sequence)


class SchemaComponents:
    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}

    def schema_for(self, kind: Any) -> Schema:  # noqa: C901, PLR0911 - one return per kind of type
        """Builds the schema of an answer's type. Raises TypeError for an unknown type."""
        if (scalar := SCALARS.get(kind)) is not None:
            return dict(scalar)
        origin = get_origin(kind)
        arguments = get_args(kind)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.schema_for(argument) for argument in arguments]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is Page:
            return self._build_page_schema(arguments[0])
        if origin is Mapping or origin is dict:
            return {
                "type": "object",
                "additionalProperties": self.schema_for(arguments[1]),
            }
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            # A named tuple's JSON is a list.
            arguments = tuple(get_type_hints(kind).values())
            origin = tuple
        if origin is tuple and arguments[-1] is not ...:
            item_schemas = [self.schema_for(argument) for argument in arguments]
            n = len(arguments)
            return {
                "type": "array",
                "prefixItems": item_schemas,
                "minItems": n,
                "maxItems": n,
            }
        if any(origin is container for container in LISTS):
            return {"type": "array", "items": self.schema_for(arguments[0])}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _describe_enum(kind)
        if is_dataclass(kind) and isinstance(kind, type):
            return self._define(kind)
        raise TypeError(f"{kind!r} has no JSON Schema here")

    def _build_page_schema(self, kind: Any) -> Schema:
        hints = get_type_hints(Page)
        items = {"type": "array", "items": self.schema_for(kind)}
        other_fields = {
            name: self.schema_for(hints[name]) for name in ("total", "next", "invalid")
        }
        return object_schema({"items": items, **other_fields})

    def _define(self, kind: type) -> Schema:
        name = kind.__name__
        if name not in self.schemas:
            self.schemas[name] = {}  # a type may contain itself
            hints = get_type_hints(kind)
            properties = {
                shown_name(kind, field.name): self.schema_for(hints[field.name])
                for field in fields(kind)
                if field.name not in HIDDEN
            }
            self.schemas[name] = object_schema(
                {**_list_computed_properties(kind), **properties}
            )
        return {"$ref": f"#/components/schemas/{name}"}


def _describe_enum(kind: type[Enum]) -> Schema:
    values = [
        member.name.lower() if issubclass(kind, IntEnum) else member.value for member in kind
    ]
    return {"type": "string", "enum": values}


def _list_computed_properties(kind: type) -> Schema:
    text = {"type": "string"}
    if issubclass(kind, Target):
        return {"id": text, "name": text}
    if issubclass(kind, BaseVerdict):
        outcome = kind.outcome if kind in VERDICTS.values() else None
        return {
            "verdict": {"const": outcome} if outcome else text,
            "words": text,
        }
    if issubclass(kind, Route):
        return {"targets": {"type": "array", "items": text}}
    return {}


def object_schema(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ERROR: Final = object_schema(
    {
        "type": {"type": "string", "description": "e.g. RouteBusy"},
        "message": {"type": "string"},
        "retryable": {
            "type": "boolean",
            "description": "whether the same call may succeed later",
        },
    }
)


class DocumentedApi(FastAPI):
    """An API with an OpenAPI document, but without pages that load remote scripts."""

    def __init__(
        self,
        title: str,
        openapi_url: str,
        complete: Callable[[Schema], Schema],
        lifespan: Lifespan | None = None,
    ) -> None:
        """Creates an API without endpoints.

        Args:
            complete: adds the answers, errors and keys to FastAPI's document.
        """
        super().__init__(
            title=title,
            version=__version__,
            openapi_url=openapi_url,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            generate_unique_id_function=attrgetter("name"),
            lifespan=lifespan,
        )
        self._complete = complete

    def openapi(self) -> Schema:
        if self.openapi_schema is None:
            self.openapi_schema = self._complete(super().openapi())
        return self.openapi_schema


def add_answers(document: Schema, answers: Mapping[tuple[str, str], Any]) -> None:
    """Adds the schemas of answers.

    Args:
        answers: types by path and method.
    """
    components = SchemaComponents()
    for (path, method), kind in answers.items():
        for status, response in document["paths"][path][method]["responses"].items():
            if status not in ("204", "422"):
                response["content"] = _wrap_json(components.schema_for(kind))
    document.setdefault("components", {}).setdefault("schemas", {}).update(components.schemas)


def add_errors_and_keys(
    document: Schema,
    error: Schema,
    key_description: str,
) -> None:
    """Adds the errors and the bearer key.

    Args:
        error: the schema of the field `error`.
        key_description: describes the bearer key.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            # FastAPI documents its default 422 answer, which Swapproof never sends.
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "An error",
                "content": _wrap_json({"$ref": "#/components/schemas/Error"}),
            }
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = object_schema({"error": error})
    document["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": key_description,
        }
    }
    document["security"] = [{"key": []}]


def _wrap_json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
