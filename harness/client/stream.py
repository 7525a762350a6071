"""A streamed answer, and the `Channel` interface that `http` and `in_process` implement.

`AsyncStream` reads events and joins them to the whole answer. It knows no transport.
`response_parsing` parses the events; `sync_client` has the stream for code without asyncio.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol, Self

from harness.client import response_parsing
from harness.client.response_parsing import error_from_stream
from harness.client.types import (
    CompletionResponse,
    Served,
    StreamChunk,
    TokenLogprob,
    ToolDelta,
    ToolRequest,
    Usage,
)
from harness.frame.errors import InputError
from harness.frame.plain_data import read_object
from harness.frame.sse import EventPayloads, EventTooLarge


class ChannelAnswer(Protocol):
    """An answer whose head has arrived; its body may still come. headers: names in
    lower case.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def body(self) -> bytes: ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives. Raises StreamBroken when it breaks off."""
        ...

    async def aclose(self) -> None:
        """Closes the answer. Before the body's end, this also ends the provider's work."""
        ...


class Channel(Protocol):
    """Sends requests, without retries. After its first request it belongs to one event loop."""

    async def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> ChannelAnswer:
        """Returns an answer of any status. Raises RouterUnreachable, and InputError if
        the channel is closed.
        """
        ...

    async def aclose(self) -> None: ...


class StreamAssembly:
    """Joins the chunks of one answer.

    It appends texts, and keeps the last of each single value. Pieces of a tool's request with
    the same index form one request.
    """

    def __init__(self) -> None:
        self.finish_reason = ""
        self._usage: Usage | None = None
        self._model = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, ToolRequest] = {}
        self._extra: dict[str, list[Any]] = {}

    def add(self, chunk: StreamChunk) -> None:
        self._text.append(chunk.text)
        self._reasoning.append(chunk.reasoning)
        self._refusal.append(chunk.refusal)
        self._logprobs += chunk.logprobs
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self._usage = chunk.usage or self._usage
        self._model = chunk.model or self._model
        for name, value in chunk.message_extra.items():
            if isinstance(value, list):
                _add_details(self._extra.setdefault(name, []), value)
        for delta in chunk.tool_deltas:
            self._add_delta(delta)

    def _add_delta(self, delta: ToolDelta) -> None:
        request = self._calls.get(delta.index) or ToolRequest("", "", "")
        self._calls[delta.index] = replace(
            request,
            id=request.id or delta.id,
            name=request.name or delta.name,
            arguments_text=request.arguments_text + delta.arguments_text,
            extra={**request.extra, **delta.extra},
        )

    def response(self, served: Served) -> CompletionResponse:
        """Builds the answer of the chunks so far."""
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
            message_extra=self._extra,
        )


# OpenRouter sends details in pieces; other providers send whole blocks.
_DETAIL_TEXTS: Final = {
    "reasoning.text": "text",
    "reasoning.summary": "summary",
}


def _add_details(details: list[Any], pieces: Sequence[Any]) -> None:
    """Adds pieces to `details`, in place. Pieces of the same detail become one detail with
    their joined text; the last piece has the signature.
    """
    for piece in pieces:
        if not details or not _continues(details[-1], piece):
            details.append(piece)
            continue
        name = _DETAIL_TEXTS[piece["type"]]
        text = f"{details[-1].get(name) or ''}{piece.get(name) or ''}"
        fields = {field: value for field, value in piece.items() if value is not None}
        details[-1] = {
            **details[-1],
            **fields,
            name: text,
        }


def _continues(last: object, piece: object) -> bool:
    """Tells whether a piece continues the last detail: same type and index, and a type with
    pieces.
    """
    return (
        isinstance(last, dict)
        and isinstance(piece, dict)
        and str(piece.get("type")) in _DETAIL_TEXTS
        and all(last.get(name) == piece.get(name) for name in ("type", "index"))
    )


_DONE: Final = b"[DONE]"


class AsyncStream:
    """Yields the chunks of one answer, once. To end the provider's work early, use `aclose` or
    `async with`.
    """

    def __init__(self, open_answer: Callable[[], Awaitable[ChannelAnswer]], route: str) -> None:
        self._open_answer = open_answer
        self._route = route
        self._assembly = StreamAssembly()
        self._served: Served | None = None
        self._is_complete = False
        self._chunks = self._read_chunks()

    def __aiter__(self) -> AsyncIterator[StreamChunk]:
        return self._chunks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._chunks.aclose()

    @property
    def served(self) -> Served:
        """The target that answers. Raises InputError before the first chunk."""
        if self._served is None:
            raise InputError("this stream has not begun: read its first chunk")
        return self._served

    def response(self) -> CompletionResponse:
        """Returns the whole answer. Raises InputError before the stream has ended."""
        if not self._is_complete:
            raise InputError("this stream has not ended: read all of its chunks first")
        return self._assembly.response(self.served)

    async def _read_chunks(self) -> AsyncGenerator[StreamChunk, None]:
        """Opens the answer at the first chunk, and yields chunks until its end.

        Raises StreamBroken for an error event, or an event that is not a JSON object. Also
        raises it without `[DONE]` or a finish reason, because the answer may be cut.
        """
        answer = await self._open_answer()
        try:
            self._served = response_parsing.parse_served(answer.headers)
            async with (
                aclosing(answer.pieces()) as pieces,
                aclosing(_read_events(pieces)) as events,
            ):
                async for data in events:
                    if data == _DONE:
                        break
                    chunk = self._parse_event(data)
                    self._assembly.add(chunk)
                    # The first event often has only the role.
                    if chunk != StreamChunk(model=chunk.model):
                        yield chunk
                else:
                    raise self._build_error({})
            if not self._assembly.finish_reason:
                raise self._build_error({})
            self._is_complete = True
        except EventTooLarge as error:
            raise self._build_error({"message": str(error)}) from None
        finally:
            await answer.aclose()

    def _parse_event(self, data: bytes) -> StreamChunk:
        """Parses an event. Raises StreamBroken for an error event."""
        raw = read_object(data)
        if raw is None:
            raise self._build_error({"message": "an event of the stream is not a JSON object"})
        error = raw.get("error")
        if error:
            raise self._build_error(
                error if isinstance(error, dict) else {"message": str(error)}
            )
        return response_parsing.parse_chunk(raw)

    def _build_error(self, error: dict[str, object]) -> Exception:
        return error_from_stream(error, self._route, self.served.request_id)


async def _read_events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yields the data of each event, as bytes."""
    # An incomplete last event yields nothing, because the stream broke off within it.
    events = EventPayloads()
    async for piece in pieces:
        for data in events.read(piece):
            yield data
