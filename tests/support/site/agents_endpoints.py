"""Every endpoint below /agents, with a request that it takes and what it answers each kind of
client. The tests of bad input run over these rows and compare them with the OpenAPI document,
so that an endpoint without a row fails.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

CREATED = 201
DONE = 200
GONE = 204
REFUSED = 403
UNSEEN = 404


class Kind(StrEnum):
    """Who asks. OWNER: the client key that the agent was made with. OTHER: another client key.
    OPEN: nobody's key, on this machine. The rest: a management key of that role.
    """

    OWNER = "owner"
    OTHER = "other"
    VIEWER = "viewer"
    PROPOSER = "proposer"
    APPROVER = "approver"
    ADMIN = "admin"
    OPEN = "open"


def for_everybody(status: int) -> dict[Kind, int]:
    return dict.fromkeys(Kind, status)


def to_the_owner(status: int, *, viewer: int) -> dict[Kind, int]:
    """Of a place below an agent that a client key owns."""
    return {
        **for_everybody(status),
        Kind.OTHER: UNSEEN,
        Kind.OPEN: UNSEEN,
        Kind.VIEWER: viewer,
    }


@dataclass(frozen=True)
class Endpoint:
    """One row. path: as the OpenAPI document has it."""

    method: str
    path: str
    statuses: Mapping[Kind, int]
    body: Mapping[str, object] | None = None
    # By field, what has the right type and is wrong all the same.
    wrong: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


AGENT: Final = "/agents/{agent_id}"
SESSION: Final = f"{AGENT}/sessions/{{session_id}}"
NAMES: Final = ("", "x" * 201)
MODELS: Final = (
    "",
    " ",
    "auto",
    "auto:nothing",
    "@sim/sim-base",
    "sim:",
    "nobody-has-this",
)
FUNCTION: Final[dict[str, Any]] = {
    "type": "function",
    "function": {"name": "f"},
}
TOOLS: Final[tuple[object, ...]] = (
    [""],
    ["no-such-tool"],
    [5],
    [{"type": "web"}],
    [{**FUNCTION, "more": 1}],
    [{"type": "function", "function": {"name": "a b"}}],
    [{"type": "function", "function": {"name": "f", "parameters": "x"}}],
    [FUNCTION, FUNCTION],
    [{"command": "/bin/sh", "args": ["-c", "id"]}],
    [{"type": "mcp", "server_url": "http://169.254.169.254/"}],
    ["x"] * 129,
)
PARTS: Final[tuple[object, ...]] = (
    "",
    " ",
    [],
    5,
    None,
    True,
    {"text": "x"},
    ["x"],
    [{"type": "text"}],
    [{"type": "text", "text": ""}],
    [
        {
            "type": "text",
            "text": "x",
            "more": 1,
        }
    ],
    [{"type": "text", "text": "x"}, {"type": "text"}],
    [{"type": "image_url"}],
    [{"type": "file", "file": {}}],
    [{"type": "image_url", "image_url": "https://x.example/a.png"}],
    [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
    [
        {
            "type": "image_url",
            "image_url": {"url": "data:text/html;base64,AAAA"},
        }
    ],
    [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,***"},
        }
    ],
    [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/svg+xml;base64,PGI+"},
        }
    ],
    [{"type": "image_url", "image_url": {"url": "https://["}}],
    [{"type": "image_url", "image_url": {"url": "https:///path"}}],
    [
        {
            "type": "image_url",
            "image_url": {"url": "https://x.example/a\n.png"},
        }
    ],
    [
        {
            "type": "image_url",
            "image_url": {"url": "https://x.example/a.png", "detail": "max"},
        }
    ],
    [
        {
            "type": "image_url",
            "image_url": {"url": "https://x.example/a.png", "size": 3},
        }
    ],
    [{"type": "text", "text": "x"}] * 257,
)

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/agents",
        {**for_everybody(CREATED), Kind.VIEWER: REFUSED},
        {"name": "support", "model": "chat"},
        {
            "name": NAMES,
            "model": MODELS,
            "tools": TOOLS,
            "config": (
                {"fallbackModel": "nobody-has-this"},
                {"fallback_model": "chat"},
            ),
            "dataClass": ("no-such-class",),
            "description": ("x" * 10_001,),
            "instructions": ("x" * 200_001,),
            "reason": ("x" * 1_001,),
        },
    ),
    Endpoint("GET", "/agents", for_everybody(DONE)),
    Endpoint("GET", AGENT, to_the_owner(DONE, viewer=DONE)),
    Endpoint(
        "PATCH",
        AGENT,
        to_the_owner(DONE, viewer=REFUSED),
        {"description": "Helps customers"},
        {
            "name": NAMES,
            "model": MODELS,
            "tools": TOOLS,
            "config": ({"fallbackModel": "nobody-has-this"}, {"maxUsd": 5}),
            "description": ("x" * 10_001,),
            "instructions": ("x" * 200_001,),
        },
    ),
    Endpoint("DELETE", AGENT, to_the_owner(GONE, viewer=REFUSED)),
    Endpoint(
        "POST",
        f"{AGENT}/sessions",
        to_the_owner(CREATED, viewer=REFUSED),
        {"userId": "user-1"},
        {
            "userId": ("x" * 201,),
            "metadata": ({f"key-{number}": 1 for number in range(65)},),
        },
    ),
    Endpoint("GET", f"{AGENT}/sessions", to_the_owner(DONE, viewer=DONE)),
    Endpoint("GET", SESSION, to_the_owner(DONE, viewer=DONE)),
    Endpoint("DELETE", SESSION, to_the_owner(GONE, viewer=REFUSED)),
    Endpoint(
        "POST",
        f"{SESSION}/messages",
        to_the_owner(DONE, viewer=REFUSED),
        {"role": "user", "content": "hello"},
        {
            "role": (
                "system",
                "assistant",
                "developer",
                "",
                "User",
                "x" * 41,
            ),
            "content": PARTS,
            "toolCallId": ("call-1",),
        },
    ),
    Endpoint("GET", f"{SESSION}/messages", to_the_owner(DONE, viewer=DONE)),
    Endpoint(
        "POST",
        f"{SESSION}/switch_model",
        to_the_owner(DONE, viewer=REFUSED),
        {"action": "list"},
        {
            "action": ("", "approve"),
            "model": ("x" * 301,),
            "reason": ("x" * 1_001,),
            "waitS": (-1, 86_401),
        },
    ),
    Endpoint("GET", f"{SESSION}/switch_requests", to_the_owner(DONE, viewer=DONE)),
)


def documented(document: Mapping[str, Any]) -> set[str]:
    methods = {
        "get",
        "put",
        "post",
        "patch",
        "delete",
        "head",
        "options",
        "trace",
    }
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
        if method in methods
    }


def body_schema(document: Mapping[str, Any], endpoint: Endpoint) -> Mapping[str, Any] | None:
    operation = document["paths"][endpoint.path][endpoint.method.lower()]
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return resolve(document, schema)


def resolve(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        *_, name = schema["$ref"].split("/")
        schema = document["components"]["schemas"][name]
    return schema


# One value of each JSON type, none of them a meaningful one.
VALUES: Final[Mapping[str, object]] = {
    "null": None,
    "boolean": True,
    "integer": 5,
    "number": 1.5,
    "string": "yes",
    "array": [[]],
    "object": {"colour": "red"},
}


def wrong_types(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[object]:
    """Values of every type that a field does not take."""
    taken = taken_types(document, schema)
    if taken:
        yield from (value for name, value in VALUES.items() if name not in taken)


def taken_types(document: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """Names of JSON types; empty for a field that takes any."""
    schema = resolve(document, schema)
    if "anyOf" in schema:
        sets = [taken_types(document, inner) for inner in schema["anyOf"]]
        return set().union(*sets) if all(sets) else set()
    kind = schema.get("type")
    return {kind, "integer"} if kind == "number" else {kind} if kind else set()
