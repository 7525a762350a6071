"""A streamed answer, put together from its chunks. Pure."""

from dataclasses import replace

from harness.client.messages import ToolRequest
from harness.client.types import (
    CompletionResponse,
    Served,
    StreamChunk,
    TokenLogprob,
    ToolDelta,
    Usage,
)


class StreamAssembly:
    """Chunks in, a CompletionResponse out."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self._usage: Usage | None = None
        self._model = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, ToolRequest] = {}

    def add(self, chunk: StreamChunk) -> None:
        self._text.append(chunk.text)
        self._reasoning.append(chunk.reasoning)
        self._refusal.append(chunk.refusal)
        self._logprobs += chunk.logprobs
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self._usage = chunk.usage or self._usage
        self._model = chunk.model or self._model
        for delta in chunk.tool_deltas:
            self._call(delta)

    def _call(self, delta: ToolDelta) -> None:
        known = self._calls.get(delta.index) or ToolRequest("", "", "")
        self._calls[delta.index] = replace(
            known,
            id=known.id or delta.id,
            name=known.name or delta.name,
            arguments_text=known.arguments_text + delta.arguments_text,
            extra={**known.extra, **delta.extra},
        )

    def response(self, served: Served) -> CompletionResponse:
        return CompletionResponse(
            text="".join(self._text),
            finish_reason=self.finish_reason,
            served=served,
            tool_requests=tuple(self._calls[index] for index in sorted(self._calls)),
            usage=self._usage,
            model=self._model,
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            logprobs=tuple(self._logprobs),
        )
