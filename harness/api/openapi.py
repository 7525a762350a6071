"""OpenAPI: FastAPI writes what callers send, our types say what is answered."""

import copy
from collections.abc import Mapping
from typing import Any, Final

from harness.api.json_schema import SchemaComponents
from harness.domain.operations.access import MANAGEMENT_KEY_PREFIX

ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "description": "e.g. RouteBusy"},
                "message": {"type": "string"},
                "retryable": {
                    "type": "boolean",
                    "description": "the same call, unchanged, may yet succeed",
                },
            },
            "required": ["type", "message", "retryable"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}


def document(
    plain: Mapping[str, Any], answers: Mapping[tuple[str, str], Any]
) -> dict[str, Any]:
    """`plain` with the schema of every answer, one shape of error, and the bearer key."""
    result = copy.deepcopy(dict(plain))
    components = SchemaComponents()
    for (path, method), kind in answers.items():
        operation = result["paths"][path][method]
        # FastAPI's own shape of a wrong field, which we do not send.
        operation["responses"].pop("422", None)
        for status, response in operation["responses"].items():
            if status != "204":
                response["content"] = _json(components.of(kind))
        operation["responses"]["default"] = {
            "description": "What went wrong",
            "content": _json({"$ref": "#/components/schemas/Error"}),
        }
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update({**components.schemas, "Error": ERROR})
    result["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": f"a management key, {MANAGEMENT_KEY_PREFIX}…",
        }
    }
    result["security"] = [{"key": []}]
    return result


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
