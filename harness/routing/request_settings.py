"""The settings of a request that decide its answer, such as its limit. A copy of the request
must have the same settings. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final

# Members of a request's body that decide an answer, by the name that a chat has for them.
_SETTINGS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "stop": "stop",
    "stop_sequences": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "reasoning_effort",
    "seed": "seed",
}
# Without these members, a request in production has the provider's defaults.
UNSET: Final[Mapping[str, object]] = {"temperature": None, "max_tokens": None}


def read_settings(body: Mapping[str, Any]) -> Mapping[str, object]:
    """Reads the settings of a body, by the names that a chat has for them."""
    found = {
        chat_name: body[name]
        for name, chat_name in _SETTINGS.items()
        if body.get(name) is not None
    }
    return {**UNSET, **found}
