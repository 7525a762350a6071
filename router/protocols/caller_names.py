"""Says which headers and fields of real clients name a person or a conversation, and what a
conversation begins with. A `prompt_cache_key` names an application, so it names no caller.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

# Open WebUI's, LiteLLM's, Langfuse's, Claude Code's, Codex' and their like. Microsoft's and
# Amazon's name processes of theirs.
_PERSON: Final = re.compile(r"(?!x-ms-|x-amz)(?:\w+-)*(?:user|customer)[-_]id|\w+_user_id")
_CONVERSATION: Final = re.compile(
    r"(?!x-ms-|x-amz)(?:\w+[-_])*(?:session|conversation|chat|thread)[-_]id|x-session-affinity"
)
PERSON_FIELDS: Final = ("safety_identifier", "user")
METADATA_FIELDS: Final = ("metadata", "litellm_metadata")
CONVERSATION_FIELDS: Final = ("conversation", "litellm_session_id", "session_id")
# Of a system prompt: enough to tell one application from another.
RULES_CHARS: Final = 300
# Claude Code writes its version and a changing part into the first line of its system prompt.
BILLING: Final = "x-anthropic-billing-header:"
# What changes between the turns of a conversation: numbers, ids, names of days and months.
_CHANGING: Final = re.compile(
    r"\b(?=[a-f\d-]*\d)[a-f\d]{6,}(?:-[a-f\d]{2,})*\b|\d+"
    r"|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\b(?:mon|tue|wed|thu|fri|sat|sun)\b"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)(?:[a-z]{3,6})?\b|\b[ap]m\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def header_rank(name: bytes) -> int:
    """Ranks a header's name: 1 where it names a person, 2 a conversation, 0 neither."""
    text = name.decode("latin-1")
    if _PERSON.fullmatch(text):
        return 1
    return 2 if _CONVERSATION.fullmatch(text) else 0


def metadata_caller(metadata: object) -> str:
    """Returns the caller that a body's `metadata` names, a person first; empty without one."""
    if not isinstance(metadata, dict):
        return ""
    named = [
        (rank, f"{'user' if rank == 1 else 'conversation'}:{value}")
        for name, value in metadata.items()
        if isinstance(value, str) and value and (rank := _field_rank(str(name)))
    ]
    return min(named)[1] if named else ""


def _field_rank(name: str) -> int:
    return header_rank(name.lower().encode("latin-1", "replace"))


def conversation_opening(messages: object, rules: object = None) -> list[object]:
    """Returns what stays of a conversation's beginning through its turns: the first message of
    the user, and the rules before it without what changes. Empty without a message of
    the user.

    rules: the system prompt of a protocol that has it apart from the messages.
    """
    if not isinstance(messages, list):
        return []
    said = [_stable_rules(rules)] if rules else []
    for message in messages:
        if not isinstance(message, dict):
            return []
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            said.append(_stable_rules(content))
        elif role == "user":
            rules_text = "".join(said)[:RULES_CHARS]
            before = [("system", rules_text)] if rules_text else []
            return [*before, ("user", content)]
    return []


def _stable_rules(content: object) -> str:
    text = "\n".join(_texts(content))
    if text.startswith(BILLING):
        text = text.partition("\n")[2]
    return _CHANGING.sub("#", text[:RULES_CHARS])


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text
