"""Segments are the closed list of parts of a canary's traffic in which errors are counted apart
(statistics.md §2.13): whether a request streams, offers tools, and to which endpoint it goes.

They explain a rollback, and are no evidence. A unit's segments are those of its request alone,
never of an answer.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Segment(StrEnum):
    STREAM = "stream"
    WHOLE = "whole"
    TOOLS = "tools"
    NO_TOOLS = "no_tools"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"

    @property
    def text(self) -> str:
        """Names the requests of the segment, after a preposition."""
        return _TEXTS.get(self) or f"requests to the endpoint {self.value}"


_TEXTS: Final[Mapping[Segment, str]] = {
    Segment.STREAM: "requests that stream",
    Segment.WHOLE: "requests that do not stream",
    Segment.TOOLS: "requests with tools",
    Segment.NO_TOOLS: "requests without tools",
}
SEGMENTS: Final = tuple(Segment)
