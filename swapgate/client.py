"""The names of the Python client, as `swapgate` exports them."""

from harness.client.async_client import AsyncModelClient
from harness.client.messages import (
    Image,
    Message,
    Text,
    ToolDefinition,
    ToolRequest,
    ToolResponse,
)
from harness.client.requests import Caller, CompletionRequest, EmbeddingRequest, OutputSchema
from harness.client.stream import AsyncStream
from harness.client.sync_client import ModelClient, Stream
from harness.client.types import (
    CompletionResponse,
    EmbeddingResponse,
    Served,
    StreamChunk,
    TokenLogprob,
    ToolDelta,
    ToolRun,
    Usage,
)
from harness.domain.errors import (
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
    SwapgateError,
    ToolLoopUnfinished,
)

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
    "SwapgateError",
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
