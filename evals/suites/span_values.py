"""Reads and writes the values of a span's attributes, for `otel_spans` and `ai_sdk_spans`."""

import json
from typing import Any


def parse_json(value: object) -> Any:
    """Reads an attribute that is JSON in a text, or a structured value."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def list_objects(value: object) -> list[dict[str, Any]]:
    """Returns the objects of a list; the list and each object may be JSON in a text."""
    parsed = parse_json(value)
    entries = map(parse_json, parsed) if isinstance(parsed, list) else ()
    return [entry for entry in entries if isinstance(entry, dict)]


def write_text(value: object) -> str:
    """Returns a text as it is, and another value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
