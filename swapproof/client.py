"""Re-exports the public names of the Python client (clients, requests, answers, errors).
`swapproof` imports this module at the first use of a name.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.client.async_client import AsyncModelClient, register_router_builder
from harness.client.stream import AsyncStream
from harness.client.sync_client import ModelClient, Stream
from harness.client.types import (
    Caller,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Image,
    Message,
    OutputSchema,
    Served,
    StreamChunk,
    Text,
    TokenLogprob,
    ToolDefinition,
    ToolDelta,
    ToolRequest,
    ToolResponse,
    ToolRun,
    Usage,
)
from harness.frame.errors import (
    AnswerUnreadable,
    CallFailed,
    CallLimited,
    CallRefused,
    ConfigError,
    InputError,
    KeyRefused,
    NobodyAnswered,
    RouterUnreachable,
    SnapshotInvalid,
    StreamBroken,
    SwapproofError,
    ToolLoopUnfinished,
)

if TYPE_CHECKING:
    from harness.client.in_process import EmbeddedRouter


def _build_router(config: Path | None) -> "EmbeddedRouter":
    """Builds a router in this process. Raises InputError in the package of the client alone."""
    try:
        from harness.app.router_process import build_embedded_router  # noqa: PLC0415 - not needed over HTTP
    except ModuleNotFoundError as error:
        if not (error.name or "").endswith("harness.app"):
            raise
        raise InputError(
            "a router in this process needs the package swapproof: install it, or use over_http"
        ) from None
    return build_embedded_router(config)


register_router_builder(_build_router)

__all__ = [
    "AnswerUnreadable",
    "AsyncModelClient",
    "AsyncStream",
    "CallFailed",
    "CallLimited",
    "CallRefused",
    "Caller",
    "CompletionRequest",
    "CompletionResponse",
    "ConfigError",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "Image",
    "InputError",
    "KeyRefused",
    "Message",
    "ModelClient",
    "NobodyAnswered",
    "OutputSchema",
    "RouterUnreachable",
    "Served",
    "SnapshotInvalid",
    "Stream",
    "StreamBroken",
    "StreamChunk",
    "SwapproofError",
    "Text",
    "TokenLogprob",
    "ToolDefinition",
    "ToolDelta",
    "ToolLoopUnfinished",
    "ToolRequest",
    "ToolResponse",
    "ToolRun",
    "Usage",
]
