"""Answer validity parses an answer's JSON strictly, and checks its tool calls against the tools
that were offered (`are_calls_valid`), once it was sent.
"""

from collections.abc import Iterable, Mapping

from harness.domain.json_schema import matches_schema
from router.protocols.call_pieces import parse_json


def are_calls_valid(calls: Iterable[tuple[str, object]], offered: Mapping[str, object]) -> bool:
    """Whether each call is of an offered tool, and its arguments fit.

    calls: names with arguments, parsed or as text. offered: schemas by name, None for any text.
    """
    for name, given in calls:
        if name not in offered:
            return False
        schema = offered[name]
        if schema is None:
            continue
        arguments = parse_json(given) if isinstance(given, str) else given
        if not isinstance(arguments, Mapping):
            return False
        if isinstance(schema, Mapping) and not matches_schema(arguments, schema):
            return False
    return True
