"""The Python client for asyncio, over HTTP or with a router in this process.

`AsyncModelClient` builds bodies with `chat_request`, sends them through a `Channel` (`http` or
`in_process`), and reads answers with `response_parsing`. `sync_client` wraps it for code
without asyncio, so only this module has rules about requests and retries. Docs:
docs/how-to/client.md.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from harness.client import chat_request, response_parsing, tool_loop
from harness.client.response_parsing import error_from_answer
from harness.client.stream import AsyncStream, Channel, ChannelAnswer
from harness.client.tool_loop import MAX_TURNS, ToolFunction
from harness.client.types import (
    Caller,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    StreamChunk,
    ToolRun,
)
from harness.frame.errors import CallFailed, InputError

if TYPE_CHECKING:
    from harness.client.in_process import EmbeddedRouter
    from harness.frame.ports import Clock

KEY_VARIABLE: Final = "SWAPPROOF_KEY"
TIMEOUT_S: Final = 600.0  # longer than the default `total_timeout_s` of any route
PAUSE_S: Final = 10.0  # the longest pause before a retry; a router may request one retry


# At most one function, which builds a router in this process: see `register_router_builder`.
_router_builders: "list[Callable[[Path | None], EmbeddedRouter]]" = []


def register_router_builder(build: "Callable[[Path | None], EmbeddedRouter]") -> None:
    """Sets the function that builds a router for `in_process`. `swapproof.client` calls it,
    because only the package swapproof may import a router.
    """
    _router_builders[:] = [build]


class AsyncModelClient:
    """The asyncio twin of ModelClient, for one event loop. Close it, or use `async with`.

    Every method raises InputError for an invalid request, and a kind of CallFailed if the call
    fails.
    """

    def __init__(
        self,
        channel: Channel,
        clock: "Clock",
        *,
        repeats: bool = True,
    ) -> None:
        """Creates a client on a channel.

        Args:
            repeats: whether the client retries a request once if the router says so.
        """
        self._channel = channel
        self._clock = clock
        self._repeats = repeats

    @classmethod
    def over_http(
        cls,
        base_url: str,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Opens a client as `ModelClient.over_http` does."""
        from harness.client.http import HttpChannel  # noqa: PLC0415 - aiohttp is slow to import
        from harness.frame.runtime.clock import SystemClock  # noqa: PLC0415

        return cls(
            HttpChannel(base_url, _find_key(key), timeout_s=timeout_s),
            SystemClock(),
        )

    @classmethod
    def in_process(cls, config: str | Path | None = None, key: str | None = None) -> Self:
        """Opens a client as `ModelClient.in_process` does; blocks while it reads files and the
        database.
        """
        client_key = _find_key(key)
        (build,) = _router_builders
        router = build(Path(config) if config is not None else None)
        from harness.client.in_process import InProcessChannel  # noqa: PLC0415 - not needed over HTTP
        from harness.frame.runtime.clock import SystemClock  # noqa: PLC0415

        return cls(InProcessChannel(router, client_key), SystemClock())

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """Sends a request, and returns the whole answer."""
        body = chat_request.chat_body(request)
        route = request.asked_route
        answer = await self._post_with_retry(chat_request.CHAT, body, request.caller, route)
        return response_parsing.parse_completion(
            await _read_whole(answer),
            response_parsing.parse_served(answer.headers),
        )

    def stream(self, request: CompletionRequest) -> AsyncStream:
        """Streams an answer. A failure after the first chunk raises StreamBroken."""
        body = chat_request.chat_body(request, stream=True)
        route = request.asked_route

        async def open_answer() -> ChannelAnswer:
            return await self._post_with_retry(chat_request.CHAT, body, request.caller, route)

        return AsyncStream(open_answer, route)

    async def complete_with_tools(
        self,
        request: CompletionRequest,
        tools: Mapping[str, ToolFunction],
        *,
        max_turns: int = MAX_TURNS,
        on_chunk: Callable[[StreamChunk], None] | None = None,
    ) -> ToolRun:
        """Works like `ModelClient.complete_with_tools`."""

        async def complete_by_stream(
            completion_request: CompletionRequest,
        ) -> CompletionResponse:
            assert on_chunk is not None  # noqa: S101 - called only with `on_chunk`
            async with self.stream(completion_request) as chunks:
                async for chunk in chunks:
                    on_chunk(chunk)
                return chunks.response()

        complete = complete_by_stream if on_chunk is not None else self.complete
        return await tool_loop.run_tool_loop(complete, request, tools, max_turns)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """Sends texts, and returns one vector per text, in their order."""
        body = chat_request.embedding_body(request)
        route = request.asked_route
        answer = await self._post_with_retry(
            chat_request.EMBEDDINGS, body, request.caller, route
        )
        return response_parsing.parse_embeddings(
            await _read_whole(answer),
            response_parsing.parse_served(answer.headers),
        )

    async def aclose(self) -> None:
        """Closes the connections or the router of this client. Calls in progress fail."""
        await self._channel.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _post_with_retry(
        self,
        path: str,
        body: Mapping[str, object],
        caller: Caller,
        route: str,
    ) -> ChannelAnswer:
        """Posts a body, and returns an answer with status 200.

        Retries once, after the pause that the router asks for, if the router recommends a retry
        and the pause is at most PAUSE_S. Raises a kind of CallFailed, and InputError for a body
        that is not JSON.
        """
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as fault:
            raise InputError(f"the request is not valid JSON: {fault}") from None
        headers = chat_request.request_headers(caller)
        answer = await self._channel.post(path, content, headers)
        if answer.status == 200:
            return answer
        error = await self._build_error(answer, route)
        pause_s = error.retry_after_s or 0.0
        if not (self._repeats and error.should_retry) or pause_s > PAUSE_S:
            raise error
        await asyncio.sleep(pause_s)
        answer = await self._channel.post(path, content, headers)
        if answer.status != 200:
            raise await self._build_error(answer, route)
        return answer

    async def _build_error(self, answer: ChannelAnswer, route: str) -> CallFailed:
        """Builds the error of an answer without status 200, and closes the answer."""
        body = await _read_whole(answer)
        return error_from_answer(answer.status, answer.headers, body, route, self._clock.now())


async def _read_whole(answer: ChannelAnswer) -> bytes:
    """Reads an answer's body, and closes the answer in any case."""
    try:
        return await answer.body()
    finally:
        await answer.aclose()


def _find_key(key: str | None) -> str:
    """Returns the client key of the caller, or else of the environment. Raises InputError
    without a usable key.
    """
    if key is None:
        key = os.environ.get(KEY_VARIABLE, "")
    if not key or not key.isprintable() or not key.isascii():
        raise InputError(
            "key: it is missing or not a client key; give one (`swapproof key create`), or set "
            f"{KEY_VARIABLE}"
        )
    return key
