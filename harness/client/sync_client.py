"""The client for code without asyncio runs the asyncio client on a loop in a thread.

This module handles only threads and Ctrl-C. Its methods call those of `async_client`, which has
the rules about requests, retries and errors.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from harness.client.async_client import TIMEOUT_S, AsyncModelClient
from harness.client.stream import AsyncStream
from harness.client.tool_loop import MAX_TURNS, ToolFunction
from harness.client.types import (
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Served,
    StreamChunk,
    ToolRun,
)
from harness.frame.errors import InputError, RouterUnreachable

_Result = TypeVar("_Result")
_END: Final = object()


class BackgroundLoop:
    """An event loop in a daemon thread of its own, so that callers may have a loop, too."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(
            target=self._serve, name="swapproof-client", daemon=True
        )
        self._thread.start()

    def _serve(self) -> None:
        self._loop.run_forever()
        self._runner.close()

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs the work to its end. Ctrl-C in this thread cancels it. Raises InputError."""
        if self.closed:
            work.close()
            raise InputError("this client is closed; create a new client")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except futures.CancelledError:
            raise RouterUnreachable(
                "this client was closed during the request; there is no answer"
            ) from None
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts the work without waiting for its end; does nothing after `close`."""
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()

    def close(self) -> None:
        """Ends the loop. Waiting calls in other threads raise RouterUnreachable."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class Stream:
    """Yields the chunks of one answer, once. To end it early, use `close` or `with`."""

    def __init__(self, loop: BackgroundLoop, stream: AsyncStream) -> None:
        self._loop = loop
        self._stream = stream
        self._chunks = self._run()
        # Ctrl-C may interrupt a step. `_close_stream` waits for this lock until the step ends.
        self._step = asyncio.Lock()

    def __iter__(self) -> Iterator[StreamChunk]:
        return self._chunks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the stream and the provider's work. Does nothing after the client is closed."""
        if not self._loop.closed:
            self._loop.run(self._close_stream())

    async def _close_stream(self) -> None:
        async with self._step:
            await self._stream.aclose()

    @property
    def served(self) -> Served:
        """The target that answers. Raises InputError before the first chunk."""
        return self._stream.served

    def response(self) -> CompletionResponse:
        """Returns the whole answer. Raises InputError before the stream has ended."""
        return self._stream.response()

    def _run(self) -> Iterator[StreamChunk]:
        async def read_next() -> object:
            async with self._step:
                return await anext(aiter(self._stream), _END)

        try:
            while isinstance(chunk := self._loop.run(read_next()), StreamChunk):
                yield chunk
        except GeneratorExit:
            # Does not wait: the garbage collector may raise this in the loop's own thread,
            # which would then wait for itself.
            self._loop.begin(self._close_stream())
            raise


class ModelClient:
    """Calls routes; several threads may share one client. Close it, or use `with`.

    Every method raises InputError for an invalid request, and a kind of CallFailed if the call
    fails.
    """

    def __init__(self, open_client: Callable[[], AsyncModelClient]) -> None:
        """Use `over_http` or `in_process` instead."""
        self._client = open_client()
        self._loop = BackgroundLoop()

    @classmethod
    def over_http(
        cls,
        base_url: str,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Opens a client of a router at an address. Raises InputError.

        Args:
            key: a client key; by default the environment variable SWAPPROOF_KEY.
            timeout_s: for a whole answer, also of a stream.
        """
        return cls(lambda: AsyncModelClient.over_http(base_url, key, timeout_s=timeout_s))

    @classmethod
    def in_process(cls, config: str | Path | None = None, key: str | None = None) -> Self:
        """Opens a client with its own router in this process, over the installation's database.
        Raises ConfigError, SnapshotInvalid, InputError.

        Args:
            config: the configuration file; by default SWAPPROOF_CONFIG, else ./swapproof.yaml.
            key: a client key, whose routes, limits and budget apply; by default SWAPPROOF_KEY.
        """
        return cls(lambda: AsyncModelClient.in_process(config, key))

    def complete(self, request: CompletionRequest) -> CompletionResponse:
        """Sends a request, and returns the whole answer."""
        return self._loop.run(self._client.complete(request))

    def stream(self, request: CompletionRequest) -> Stream:
        """Streams an answer. A failure after the first chunk raises StreamBroken."""
        return Stream(self._loop, self._client.stream(request))

    def complete_with_tools(
        self,
        request: CompletionRequest,
        tools: Mapping[str, ToolFunction],
        *,
        max_turns: int = MAX_TURNS,
        on_chunk: Callable[[StreamChunk], None] | None = None,
    ) -> ToolRun:
        """Calls the model, and runs in threads the tools that it calls, until it calls no tool.
        Raises ToolLoopUnfinished after max_turns answers.

        Args:
            tools: a function for each of the request's tools, by name.
            on_chunk: gets each piece of the streamed answers; it must not block for long.
        """
        return self._loop.run(
            self._client.complete_with_tools(
                request,
                tools,
                max_turns=max_turns,
                on_chunk=on_chunk,
            )
        )

    def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """Sends texts, and returns one vector per text, in their order."""
        return self._loop.run(self._client.embed(request))

    def close(self) -> None:
        """Closes the client. Waiting calls in other threads raise RouterUnreachable."""
        if not self._loop.closed:
            self._loop.run(self._client.aclose())
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
