"""Answers how many tokens a message has (`/v1/messages/count_tokens`): by the count of the
target that would answer the caller, else by an estimate that says so.
"""

import json
from collections.abc import Mapping
from typing import Final

from router.request.body import ClientRequest
from router.server.headers import JSON, Header
from router.server.replies import Reply

COUNT_PATH: Final = "/v1/messages/count_tokens"
PROVIDER_PATH: Final = "/messages/count_tokens"
COUNTED_FIELDS: Final = ("messages", "model", "system", "tools", "tool_choice", "thinking")
ESTIMATED: Final[Header] = (b"x-swapgate-degraded", b"count_tokens")
# English text has about four characters a token; a picture takes up to 1,600 tokens.
CHARACTERS_PER_TOKEN: Final = 4
COUNT_TIMEOUT_S: Final = 10.0
TOKENS_PER_FILE: Final = 1_600


def count_body(message: bytes) -> bytes:
    """Returns the fields of a message that count; a provider refuses the others here."""
    fields = json.loads(message)
    return json.dumps(
        {name: fields[name] for name in COUNTED_FIELDS if name in fields}
    ).encode()


def estimate_tokens(request: ClientRequest) -> Reply:
    """Estimates the tokens of every block and tool."""
    fields = [request.value(name) for name in COUNTED_FIELDS if name != "model"]
    characters, files = _weigh([value for value in fields if value is not None])
    tokens = -(-characters // CHARACTERS_PER_TOKEN) + files * TOKENS_PER_FILE
    body = json.dumps({"input_tokens": max(tokens, 1)}).encode()
    return Reply(200, (JSON, ESTIMATED), body)


def _weigh(value: object) -> tuple[int, int]:
    """Counts the characters of a value, and its files, whose base64 is no text."""
    if isinstance(value, str):
        return len(value), 0
    if isinstance(value, Mapping):
        if value.get("type") == "base64":
            return 0, 1
        parts = [len(str(name)) for name in value]
        weights = [_weigh(member) for member in value.values()]
        return sum(parts) + sum(c for c, _ in weights), sum(f for _, f in weights)
    if isinstance(value, list):
        weights = [_weigh(member) for member in value]
        return sum(c for c, _ in weights), sum(f for _, f in weights)
    return 1, 0
