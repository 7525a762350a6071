"""Reads which field of a request a provider does not know, in the words of Anthropic, OpenAI,
Groq and Mistral, and takes it out, with the beta that it belongs to. Pure.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from router.conversation.moved_body import MovedBody
from router.request.body_patch import to_json

Headers = tuple[tuple[bytes, bytes], ...]
BETA: Final = b"anthropic-beta"
_UNKNOWN: Final = (
    re.compile(r"([\w.\[\]-]+): Extra inputs are not permitted"),
    re.compile(r"Unknown parameter: '([\w.\[\]-]+)'"),
    re.compile(r"Unrecognized request argument supplied: ([\w.-]+)"),
    re.compile(r"property '([\w.\[\]-]+)' is unsupported"),
)
_STEPS: Final = re.compile(r"[^.\[\]]+")
_WORDS: Final = re.compile(r"[a-z]+")
# What an answer depends on: without one of these it would be the answer to something else.
_NEEDED: Final = frozenset(
    {
        "container",
        "conversation",
        "input",
        "instructions",
        "max_tokens",
        "mcp_servers",
        "messages",
        "model",
        "n",
        "previous_response_id",
        "prompt",
        "response_format",
        "stream",
        "system",
        "text",
        "thread",
        "tool_choice",
        "tools",
    }
)


def refused_field(error: Mapping[str, object]) -> str:
    """The path of a field that the provider does not know; empty for another refusal."""
    message = error.get("message")
    if isinstance(message, str):
        found = next((hit for words in _UNKNOWN if (hit := words.search(message))), None)
        return found[1] if found else ""
    details = message.get("detail") if isinstance(message, dict) else error.get("detail")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("type") == "extra_forbidden":
            place = detail.get("loc")
            steps = [str(step) for step in place] if isinstance(place, list) else []
            return ".".join(steps[1:] if steps[:1] == ["body"] else steps)
    return ""


def without_field(body: bytes, path: str) -> MovedBody:
    """Takes a field out. path: may name kinds between the fields, as in `thinking.enabled.x`.
    What an answer depends on stays.
    """
    steps = _STEPS.findall(path)
    asked: Any = json.loads(body)
    if not steps or (len(steps) == 1 and steps[0] in _NEEDED):
        return MovedBody(body)
    place = asked
    for step in steps[:-1]:
        if isinstance(place, dict) and step in place:
            place = place[step]
        elif isinstance(place, list) and step.isdecimal() and int(step) < len(place):
            place = place[int(step)]
    if not isinstance(place, dict) or steps[-1] not in place:
        return MovedBody(body)
    del place[steps[-1]]
    return MovedBody(to_json(asked).encode(), (".".join(steps),))


def fields_of_betas(headers: Headers, path: str) -> list[str]:
    """Lists the betas whose names have a word of the field's: they go with it."""
    words = set(_WORDS.findall(path.rpartition(".")[2]))
    return [beta for beta in _betas(headers) if words & set(_WORDS.findall(beta))]


def without_betas(headers: Headers, names: Iterable[str]) -> Headers:
    """Takes betas out of the client's headers."""
    gone = set(names)
    if not gone:
        return headers
    kept = [beta for beta in _betas(headers) if beta not in gone]
    others = tuple(header for header in headers if header[0] != BETA)
    return (*others, (BETA, ",".join(kept).encode("latin-1"))) if kept else others


def _betas(headers: Headers) -> Sequence[str]:
    values = (value.decode("latin-1") for name, value in headers if name == BETA)
    return [beta for value in values for part in value.split(",") if (beta := part.strip())]
