"""Drives `ModelClient` in its four variants by one set of plain calls."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from swapproof import (
    AsyncModelClient,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    ModelClient,
    StreamChunk,
    ToolRun,
)
from tests.support.router.router_process import Routed

Found = TypeVar("Found")
VARIANTS = ("sync-in-process", "async-in-process", "sync-http", "async-http")


class Variant(Protocol):
    def complete(self, request: CompletionRequest) -> CompletionResponse: ...

    def stream(
        self, request: CompletionRequest, chunks: list[StreamChunk]
    ) -> CompletionResponse: ...

    def leave(self, request: CompletionRequest) -> StreamChunk:
        """The first chunk, and off."""
        ...

    def with_tools(self, request: CompletionRequest, **more: object) -> ToolRun: ...

    def embed(self, request: EmbeddingRequest) -> EmbeddingResponse: ...


class Sync:
    def __init__(self, client: ModelClient) -> None:
        self.client = client

    def complete(self, request: CompletionRequest) -> CompletionResponse:
        return self.client.complete(request)

    def stream(
        self, request: CompletionRequest, stream_chunks: list[StreamChunk]
    ) -> CompletionResponse:
        with self.client.stream(request) as chunks:
            for chunk in chunks:
                assert chunks.served.request_id
                stream_chunks.append(chunk)
            return chunks.response()

    def leave(self, request: CompletionRequest) -> StreamChunk:
        with self.client.stream(request) as chunks:
            return next(iter(chunks))

    def with_tools(self, request: CompletionRequest, **more: object) -> ToolRun:
        return self.client.complete_with_tools(request, **more)  # type: ignore[arg-type]  # a test's own

    def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        return self.client.embed(request)


class Async:
    def __init__(self, client: AsyncModelClient, runner: asyncio.Runner) -> None:
        self.client = client
        self._runner = runner

    def run(self, work: Callable[[], Awaitable[Found]]) -> Found:
        async def working() -> Found:
            return await work()

        return self._runner.run(working())

    def complete(self, request: CompletionRequest) -> CompletionResponse:
        return self.run(lambda: self.client.complete(request))

    def stream(
        self, request: CompletionRequest, stream_chunks: list[StreamChunk]
    ) -> CompletionResponse:
        async def streaming() -> CompletionResponse:
            async with self.client.stream(request) as chunks:
                async for chunk in chunks:
                    assert chunks.served.request_id
                    stream_chunks.append(chunk)
                return chunks.response()

        return self.run(streaming)

    def leave(self, request: CompletionRequest) -> StreamChunk:
        async def leaving() -> StreamChunk:
            async with self.client.stream(request) as chunks:
                return await anext(aiter(chunks))

        return self.run(leaving)

    def with_tools(self, request: CompletionRequest, **more: object) -> ToolRun:
        return self.run(
            lambda: self.client.complete_with_tools(request, **more)  # type: ignore[arg-type]  # a test's own
        )

    def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        return self.run(lambda: self.client.embed(request))


@contextmanager
def variant(
    name: str,
    world: Routed,
    key: str | None = None,
) -> Iterator[Variant]:
    """Opens a variant of the client.

    Args:
        world: its router runs where the variant needs one.
        key: by default the world's.
    """
    key = key or world.key
    config = world.place.config
    sync = name.startswith("sync")
    in_process = name.endswith("in-process")
    if sync:
        made = (
            ModelClient.in_process(config, key)
            if in_process
            else ModelClient.over_http(world.url, key)
        )
        with made as client:
            yield Sync(client)
        return
    with asyncio.Runner() as runner:
        asynchronous = (
            AsyncModelClient.in_process(config, key)
            if in_process
            else AsyncModelClient.over_http(f"{world.url}/v1/", key)
        )
        try:
            yield Async(asynchronous, runner)
        finally:
            runner.run(asynchronous.aclose())
