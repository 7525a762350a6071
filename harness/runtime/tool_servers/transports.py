"""How a tool server is reached: a command that is started and spoken to over its pipes, or an
address of streamable HTTP. Neither takes a message of any length, or gives the server more of
this process than the configuration names; the library's own transport for commands does both.
The library follows redirects within their origin alone.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from harness.domain.errors import ConfigError
from harness.domain.providers.api_base_rules import may_connect
from harness.domain.settings import ToolServer

# A result that a model could be shown is far shorter (`conversation.MAX_RESULT_CHARS`).
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
# For the server to end by itself when its input ends, and again after SIGTERM.
ENDS_S: Final = 2.0
POLL_S: Final = 0.02
CONNECT_S: Final = 10.0
_SECRET: Final = re.compile("key|token|secret|passw|credential|auth", re.IGNORECASE)

ReadStream = MemoryObjectReceiveStream[SessionMessage | Exception]
WriteStream = MemoryObjectSendStream[SessionMessage]
Transport = AbstractAsyncContextManager[tuple[ReadStream, WriteStream]]


class MessageTooLong(OSError):
    """The server sent more at once than anybody will read; it is spoken to no further."""

    def __init__(self) -> None:
        super().__init__(f"it sent a message of more than {MAX_MESSAGE_BYTES} bytes")


def open_transport(server: ToolServer, environ: Mapping[str, str]) -> Transport:
    """Opens the connection to a tool server: a child process or HTTP. environ: where the
    variables that the server is configured with are read.
    """
    if server.command:
        return _command_transport(server, _variables(server.env, environ))
    headers = {
        header: _variables((name,), environ)[name]
        for header, name in server.header_envs.items()
    }
    return _http_transport(server.url, headers)


def secret_values(server: ToolServer, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What of the environment the server knows, and nobody else should: all that is sent in a
    header, and what is named like a secret.
    """
    names = (
        *(name for name in server.env if _SECRET.search(name)),
        *server.header_envs.values(),
    )
    return tuple(value for name in names if (value := environ.get(name)))


def _variables(names: tuple[str, ...], environ: Mapping[str, str]) -> Mapping[str, str]:
    for name in names:
        if name not in environ:
            raise ConfigError(f"the environment variable {name} is not set")
    return {name: environ[name] for name in names}


@asynccontextmanager
async def _command_transport(
    server: ToolServer, variables: Mapping[str, str]
) -> AsyncIterator[tuple[ReadStream, WriteStream]]:
    """Raises OSError where the command cannot be started."""
    process = await asyncio.create_subprocess_exec(
        # Found by our PATH; it gets one of its own only where the configuration says so.
        shutil.which(server.command) or server.command,
        *server.args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # What it says there could pass for a line of our log.
        stderr=asyncio.subprocess.DEVNULL,
        env=variables,
        start_new_session=True,
        limit=MAX_MESSAGE_BYTES,
    )
    to_session, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    assert process.stdin is not None  # noqa: S101 - a pipe
    assert process.stdout is not None  # noqa: S101 - a pipe
    try:
        async with (
            to_session,
            read_stream,
            write_stream,
            from_session,
            anyio.create_task_group() as pumps,
        ):
            pumps.start_soon(_read_lines, process.stdout, to_session)
            pumps.start_soon(_write_lines, process.stdin, from_session)
            try:
                yield read_stream, write_stream
            finally:
                pumps.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end_process(process)


async def _read_lines(
    output: asyncio.StreamReader,
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    """Until the server ends. What is no message is left out: who waits for it stops waiting."""
    async with to_session:
        while True:
            try:
                line = await output.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                raise MessageTooLong from None
            except asyncio.IncompleteReadError:
                return
            with suppress(ValueError, anyio.BrokenResourceError):
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                await to_session.send(SessionMessage(message))


async def _write_lines(
    pipe: asyncio.StreamWriter, from_session: MemoryObjectReceiveStream[SessionMessage]
) -> None:
    # One that does not listen any more ends its output as well, or the time for it runs out.
    with suppress(ConnectionError):
        async with from_session:
            async for sent in from_session:
                text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                pipe.write(text.encode() + b"\n")
                await pipe.drain()


async def _end_process(process: asyncio.subprocess.Process) -> None:
    """With all that it started: its group is its own."""
    if process.stdin is not None:
        process.stdin.close()
    for end in (None, signal.SIGTERM, signal.SIGKILL):
        if end is not None:
            _signal_group(process, end)
        # Not `process.wait`: that also waits for whoever else has its output open.
        for _ in range(round(ENDS_S / POLL_S)):
            if process.returncode is not None:
                break
            await asyncio.sleep(POLL_S)
    # What it started may live on.
    _signal_group(process, signal.SIGKILL)
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else ends its pipes


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@asynccontextmanager
async def _http_transport(
    url: str, headers: Mapping[str, str]
) -> AsyncIterator[tuple[ReadStream, WriteStream]]:
    client = httpx2.AsyncClient(
        transport=_GuardedTransport(trust_env=False),
        headers={**headers, "accept-encoding": "identity"},
        # Who calls a tool has a limit for its answer.
        timeout=httpx2.Timeout(CONNECT_S, read=None),
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES
        ) as streams,
    ):
        yield streams  # type: ignore[misc]  # the library's streams are like these


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    """Sends nothing to a closed address, and cuts an answer off that is longer than a message
    may be. Events have a limit each.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions["trace"] = partial(_check_peer, request.url.host)
        answer = await super().handle_async_request(request)
        if answer.headers.get("content-encoding", "identity") != "identity":
            # A few bytes may become any number of them.
            await answer.aclose()
            raise httpx2.ReadError("the answer is compressed, and was not asked to be")
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(answer.stream, httpx2.AsyncByteStream)  # noqa: S101 - for mypy
            answer.stream = _BoundedStream(answer.stream)
        return answer


async def _check_peer(host: str, event: str, values: Mapping[str, Any]) -> None:
    """At where each connection leads, before a byte of a request is sent: a name may lead
    elsewhere than the last time. The library calls this.
    """
    if event != "connection.connect_tcp.complete":
        return
    stream = values["return_value"]
    address = str(stream.get_extra_info("server_addr")[0])
    if not may_connect(host, address):
        await stream.aclose()
        raise httpx2.ConnectError("its name leads to a closed address")


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for piece in self._stream:
            length += len(piece)
            if length > MAX_MESSAGE_BYTES:
                raise httpx2.StreamError(str(MessageTooLong()))
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
