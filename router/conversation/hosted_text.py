"""Says as text what a provider's own tool left in a conversation: searches with their results,
code with its output, documents by URL. For a target that has no such block or item. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Final

# What its provider alone can read, or no model needs.
_UNREADABLE: Final = frozenset(
    {
        "cache_control",
        "call_id",
        "caller",
        "citations",
        "container_id",
        "encrypted_content",
        "encrypted_index",
        "id",
        "media_type",
        "signature",
        "status",
        "tool_use_id",
        "type",
    }
)
# A longer text without a blank is data: a picture, a file.
_LONGEST_WORD: Final = 2_000


def hosted_text(block: Mapping[str, object]) -> str:
    """Says a block or item: its kind, then each of its texts and numbers with its name."""
    said = [f"{name}: {text}" for name, text in _leaves(block, "")]
    return "\n".join((f"[{block.get('type')}]", *said))


def has_text(block: Mapping[str, object]) -> bool:
    """Tells whether anything of a block can be said."""
    return next(_leaves(block, ""), None) is not None


def _leaves(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _UNREADABLE:
                yield from _leaves(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    elif isinstance(value, str):
        is_data = len(value) > _LONGEST_WORD and " " not in value
        if value.strip() and not is_data and not value.startswith("data:"):
            yield name, value
    elif value is not None and not isinstance(value, bool):
        yield name, str(value)
