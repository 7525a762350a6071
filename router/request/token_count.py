"""Answers how many tokens a request has (`/v1/messages/count_tokens`,
`/v1/responses/input_tokens`): by the count of the target that would answer the caller, else by
an estimate that says so.
"""

import json
from collections.abc import Mapping
from typing import Final

from harness.domain.routing.capabilities import Endpoint
from router.frame.body import ClientRequest
from router.frame.replies import JSON, Reply

COUNT_PATHS: Final[Mapping[str, Endpoint]] = {
    "/v1/messages/count_tokens": Endpoint.MESSAGES,
    "/v1/responses/input_tokens": Endpoint.RESPONSES,
}
PROVIDER_PATHS: Final = {
    endpoint: path.removeprefix("/v1") for path, endpoint in COUNT_PATHS.items()
}
COUNTED_FIELDS: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    Endpoint.MESSAGES: ("messages", "model", "system", "tools", "tool_choice", "thinking"),
    Endpoint.RESPONSES: (
        *("conversation", "input", "instructions", "model", "parallel_tool_calls"),
        *("previous_response_id", "reasoning", "text", "tool_choice", "tools", "truncation"),
    ),
}
# English text has about four characters a token; a picture takes up to 1,600 tokens.
CHARACTERS_PER_TOKEN: Final = 4
COUNT_TIMEOUT_S: Final = 10.0
TOKENS_PER_FILE: Final = 1_600


def count_body(body: bytes, endpoint: Endpoint) -> bytes:
    """Returns the fields of a request that count; a provider refuses the others here."""
    fields = json.loads(body)
    counted = COUNTED_FIELDS[endpoint]
    return json.dumps({name: fields[name] for name in counted if name in fields}).encode()


def estimate_tokens(request: ClientRequest) -> Reply:
    names = COUNTED_FIELDS[request.endpoint]
    fields = [request.value(name) for name in names if name != "model"]
    characters, files = _weigh([value for value in fields if value is not None])
    tokens = -(-characters // CHARACTERS_PER_TOKEN) + files * TOKENS_PER_FILE
    counted: dict[str, object] = {"input_tokens": max(tokens, 1)}
    if request.endpoint is Endpoint.RESPONSES:
        counted["object"] = "response.input_tokens"
    path = PROVIDER_PATHS[request.endpoint]
    estimated = (b"x-swapgate-degraded", path.rpartition("/")[2].encode())
    return Reply(200, (JSON, estimated), json.dumps(counted).encode())


def _weigh(value: object) -> tuple[int, int]:
    """Counts the characters of a value, and its files, whose base64 is no text."""
    if isinstance(value, str):
        return (0, 1) if value.startswith("data:") else (len(value), 0)
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
