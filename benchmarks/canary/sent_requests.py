"""What the live runs ask, and what became of each request."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

KEYS: Final = ("colour", "count")
SCHEMA: Final = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "count": {"type": "integer"}},
    "required": [*KEYS],
    "additionalProperties": False,
}
FORM: Final = {
    "type": "json_schema",
    "json_schema": {"name": "colour", "strict": True, "schema": SCHEMA},
}


class Kind(StrEnum):
    PLAIN = "plain"
    STREAM = "stream"
    JSON = "json"


MIXTURE: Final = (Kind.PLAIN, Kind.STREAM, Kind.JSON)


class Harm(StrEnum):
    """What a user got who did not get what was asked for."""

    ERROR = "error"
    CUT = "cut stream"
    JSON = "broken JSON"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request. sent_s, ended_s: wall time. harm: None for a good answer.

    arm: that it was assigned to. worker: that served it. Both empty without an answer.
    """

    route: str
    kind: Kind
    sent_s: float
    ended_s: float
    arm: str
    worker: str
    harm: Harm | None

    @property
    def canary(self) -> bool:
        return self.arm == "canary"

    @property
    def seconds(self) -> float:
        return self.ended_s - self.sent_s


def body(route: str, kind: Kind, user: str) -> bytes:
    asked: dict[str, object] = {
        "model": route,
        "user": user,
        "messages": [{"role": "user", "content": f"Say 8 words, {user}."}],
    }
    if kind is Kind.STREAM:
        asked["stream"] = True
    if kind is Kind.JSON:
        asked["response_format"] = FORM
    return json.dumps(asked).encode()


def harm_in(kind: Kind, status: int, answer: bytes) -> Harm | None:
    if status != 200:
        return Harm.ERROR
    if kind is Kind.STREAM:
        whole = (
            answer.rstrip().endswith(b"data: [DONE]") and b'"finish_reason":"stop"' in answer
        )
        return None if whole else Harm.CUT
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return Harm.ERROR
    if kind is Kind.JSON and not fits(text):
        return Harm.JSON
    return None if text else Harm.ERROR


def fits(text: str) -> bool:
    try:
        found: Mapping[str, Any] = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and set(found) == set(KEYS)
