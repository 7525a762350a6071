"""`ChannelClient` completes, streams, runs tool loops and embeds over a channel to a router; it
repeats a request once where the router says so.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
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
from harness.domain.errors import CallFailed, InputError

if TYPE_CHECKING:
    from harness.ports.world import Clock  # all ports together bring the whole domain

# The longest pause before the one repetition that a router may ask for.
PAUSE_S: Final = 10.0


class ChannelClient:
    """Belongs to one event loop. Close it by `aclose`, or by `async with`.

    All methods raise a kind of CallFailed, and InputError for a request that is not valid.
    """

    def __init__(self, channel: Channel, clock: "Clock") -> None:
        self._channel = channel
        self._clock = clock

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        body = chat_request.chat_body(request)
        route = request.asked_route
        answer = await self._post_with_retry(chat_request.CHAT, body, request.caller, route)
        return response_parsing.parse_completion(
            await _whole(answer), response_parsing.parse_served(answer.headers)
        )

    def stream(self, request: CompletionRequest) -> AsyncStream:
        """Streams an answer's chunks as they come. A failure after the first of them raises
        StreamBroken.
        """
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
        """Asks, runs the tools that the model asks for, and asks again, until it needs none.

        tools: a function for each of the request's tools, by name. on_chunk: the answers are
        streamed, and it gets each piece. Raises ToolLoopUnfinished after max_turns answers.
        """

        async def streamed(completion_request: CompletionRequest) -> CompletionResponse:
            assert on_chunk is not None  # noqa: S101 - chosen below
            async with self.stream(completion_request) as chunks:
                async for chunk in chunks:
                    on_chunk(chunk)
                return chunks.response()

        complete = streamed if on_chunk is not None else self.complete
        return await tool_loop.run_tool_loop(complete, request, tools, max_turns)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        body = chat_request.embedding_body(request)
        route = request.asked_route
        answer = await self._post_with_retry(
            chat_request.EMBEDDINGS, body, request.caller, route
        )
        return response_parsing.parse_embeddings(
            await _whole(answer), response_parsing.parse_served(answer.headers)
        )

    async def aclose(self) -> None:
        await self._channel.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _post_with_retry(
        self, path: str, body: Mapping[str, object], caller: Caller, route: str
    ) -> ChannelAnswer:
        """An answer of 200. Tries again once, where the router itself says to."""
        try:
            sent = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as fault:
            raise InputError(f"the request cannot be written as JSON: {fault}") from None
        headers = chat_request.request_headers(caller)
        answer = await self._channel.post(path, sent, headers)
        if answer.status == 200:
            return answer
        error = await self._failed(answer, route)
        if not error.should_retry or (error.retry_after_s or 0.0) > PAUSE_S:
            raise error
        await asyncio.sleep(error.retry_after_s or 0.0)
        answer = await self._channel.post(path, sent, headers)
        if answer.status != 200:
            raise await self._failed(answer, route)
        return answer

    async def _failed(self, answer: ChannelAnswer, route: str) -> CallFailed:
        body = await _whole(answer)
        return error_from_answer(answer.status, answer.headers, body, route, self._clock.now())


async def _whole(answer: ChannelAnswer) -> bytes:
    try:
        return await answer.body()
    finally:
        await answer.aclose()
