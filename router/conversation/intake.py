"""The table of what each kind of provider takes of a chat's history."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from router.conversation.call_ids import IdRule

# A conversation that began elsewhere carries what only its first provider understands: marks
# for a cache, signed thoughts.
FOREIGN: Final = (
    "cache_control",
    "thinking_blocks",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
)
# What OpenAI alone knows of a request, and no answer depends on.
OPENAI_ALONE: Final = (
    "client_metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "verbosity",
)


@dataclass(frozen=True, slots=True)
class HistoryIntake:
    """What one kind takes. refused: names of fields, anywhere but in a text or a schema."""

    call_ids: IdRule | None = None
    tool_names: re.Pattern[str] | None = None
    longest_name: int = 64
    demands_reasoning: bool = False  # of each answer that called a tool
    returns_reasoning: bool = False  # it takes its own back
    reads_file_ids: bool = True
    refused: tuple[str, ...] = ()
    # As a body has those: inside a text each quote has a backslash before it.
    quoted: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        quoted = tuple(f'"{name}":'.encode() for name in self.refused)
        object.__setattr__(self, "quoted", quoted)


_OPENAI_NAMES: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPENAIS: Final = HistoryIntake(
    IdRule(re.compile(r"(?s).{1,40}"), 29, "call_", unique=True),
    _OPENAI_NAMES,
    refused=(*FOREIGN, "client_metadata"),
)
_GOOGLES: Final = HistoryIntake(
    IdRule(re.compile(r"(?s).+"), 29, "call_", unique=True),
    re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"),
    reads_file_ids=False,
)
INTAKES: Final[Mapping[str, HistoryIntake]] = {
    "openai": _OPENAIS,
    "azure_openai": _OPENAIS,
    "anthropic": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9_-]+"), 30, "toolu_", unique=True),
        re.compile(r"[A-Za-z0-9_-]{1,128}"),
        128,
        reads_file_ids=False,
    ),
    "bedrock": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9_-]{1,64}"), 30, "toolu_", unique=True),
        re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}"),
        reads_file_ids=False,
    ),
    "gemini": _GOOGLES,
    "vertex": _GOOGLES,
    "groq": HistoryIntake(refused=(*FOREIGN, *OPENAI_ALONE)),
    "mistral": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9]{9}"), 9, unique=True),
        _OPENAI_NAMES,
        refused=(*FOREIGN, *OPENAI_ALONE, "user"),
    ),
    "deepseek": HistoryIntake(demands_reasoning=True, returns_reasoning=True),
}
TAKES_ALL: Final = HistoryIntake(returns_reasoning=True)
# Of a response's `call_id`, at OpenAI.
RESPONSE_CALL_IDS: Final = IdRule(re.compile(r"(?s).{1,64}"), 29, "call_")

NO_NAMES: Final[Mapping[str, str]] = {}


class MovedBody(NamedTuple):
    """A body, ready to send. dropped: fields, as `x-swapgate-degraded` names them. tool_names:
    as the target knows them → as the client calls them.
    """

    body: bytes
    dropped: tuple[str, ...] = ()
    tool_names: Mapping[str, str] = NO_NAMES
