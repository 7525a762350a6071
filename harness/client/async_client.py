"""The Python client for asyncio, over HTTP or with a router in this process.

`AsyncModelClient` builds bodies with `chat_request`, sends them through a `Channel` (`http` or
`in_process`), and reads answers with `response_parsing`. `sync_client` wraps it for code
without asyncio, so rules about requests and retries are here only. Docs: docs/how-to/client.md.
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

KEY_VARIABLE: Final = "SWAPGATE_KEY"
TIMEOUT_S: Final = 600.0  # longer than the default `total_timeout_s` of any route
PAUSE_S: Final = 10.0  # the longest pause before a retry; a router may request one retry


# The function that builds a router in this process, once it is registered.
_router_builders: "list[Callable[[Path | None], EmbeddedRouter]]" = []


def register_router_builder(build: "Callable[[Path | None], EmbeddedRouter]") -> None:
    """Sets how `in_process` builds its router. `swapgate.client` calls it, because only the
    package swapgate has a router.
    """
    _router_builders[:] = [build]


class AsyncModelClient:
    """The asyncio twin of ModelClient, for one event loop. Close it, or use `async with`.

    All methods raise a kind of CallFailed, and InputError for a request that is not valid.
    """

    def __init__(
        self,
        channel: Channel,
        clock: "Clock",
        *,
        repeats: bool = True,
    ) -> None:
        """repeats: whether the client retries a request once if the router says so."""
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
            HttpChannel(base_url, _key(key), timeout_s=timeout_s),
            SystemClock(),
        )

    @classmethod
    def in_process(cls, config: str | Path | None = None, key: str | None = None) -> Self:
        """Opens a client as `ModelClient.in_process` does; blocks while it reads files and the
        database.
        """
        found = _key(key)
        (build,) = _router_builders
        router = build(Path(config) if config is not None else None)
        from harness.client.in_process import InProcessChannel  # noqa: PLC0415 - not needed over HTTP
        from harness.frame.runtime.clock import SystemClock  # noqa: PLC0415

        return cls(InProcessChannel(router, found), SystemClock())

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """Sends a request, and returns the whole answer."""
        body = chat_request.chat_body(request)
        route = request.asked_route
        answer = await self._post_with_retry(chat_request.CHAT, body, request.caller, route)
        return response_parsing.parse_completion(
            await _whole(answer),
            response_parsing.parse_served(answer.headers),
        )

    def stream(self, request: CompletionRequest) -> AsyncStream:
        """Streams an answer. A failure after the first chunk raises StreamBroken."""
        body = chat_request.chat_body(request, stream=True)
        route = request.asked_route

        async def opening() -> ChannelAnswer:
            return await self._post_with_retry(chat_request.CHAT, body, request.caller, route)

        return AsyncStream(opening, route)

    async def complete_with_tools(
        self,
        request: CompletionRequest,
        tools: Mapping[str, ToolFunction],
        *,
        max_turns: int = MAX_TURNS,
        on_chunk: Callable[[StreamChunk], None] | None = None,
    ) -> ToolRun:
        """Does what `ModelClient.complete_with_tools` does."""

        async def streamed(completion_request: CompletionRequest) -> CompletionResponse:
            assert on_chunk is not None  # noqa: S101 - chosen below
            async with self.stream(completion_request) as chunks:
                async for chunk in chunks:
                    on_chunk(chunk)
                return chunks.response()

        complete = streamed if on_chunk is not None else self.complete
        return await tool_loop.run_tool_loop(complete, request, tools, max_turns)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """Sends texts, and returns one vector per text, in their order."""
        body = chat_request.embedding_body(request)
        route = request.asked_route
        answer = await self._post_with_retry(
            chat_request.EMBEDDINGS, body, request.caller, route
        )
        return response_parsing.parse_embeddings(
            await _whole(answer),
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
            sent = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as fault:
            raise InputError(f"the request is not valid JSON: {fault}") from None
        headers = chat_request.request_headers(caller)
        answer = await self._channel.post(path, sent, headers)
        if answer.status == 200:
            return answer
        error = await self._failed(answer, route)
        pause_s = error.retry_after_s or 0.0
        if not (self._repeats and error.should_retry) or pause_s > PAUSE_S:
            raise error
        await asyncio.sleep(pause_s)
        answer = await self._channel.post(path, sent, headers)
        if answer.status != 200:
            raise await self._failed(answer, route)
        return answer

    async def _failed(self, answer: ChannelAnswer, route: str) -> CallFailed:
        """Builds the error of an answer without status 200, and closes the answer."""
        body = await _whole(answer)
        return error_from_answer(answer.status, answer.headers, body, route, self._clock.now())


async def _whole(answer: ChannelAnswer) -> bytes:
    """Reads an answer's body, and closes the answer in any case."""
    try:
        return await answer.body()
    finally:
        await answer.aclose()


def _key(given: str | None) -> str:
    """Returns the given data key, or the environment's. Raises InputError without a
    usable key.
    """
    key = given if given is not None else os.environ.get(KEY_VARIABLE, "")
    if not key or not key.isprintable() or not key.isascii():
        raise InputError(
            "key: it is missing or not a data key; give one (`swapgate key create`), or set "
            f"{KEY_VARIABLE}"
        )
    return key
