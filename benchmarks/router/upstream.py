"""The provider behind every contender: nginx for whole answers, `StreamProvider` for streams.

It shares the load's core, so it must do little: with a provider that takes longer than the
contenders, 64 streams that begin at once measured the provider's own queue.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import httptools
import uvloop

from benchmarks.router.processes import (
    LOAD_CORE,
    PATH,
    PLAIN,
    STREAMED,
    Ask,
    Peer,
    Site,
    free_port,
    start,
    wait_for,
)

ANSWER = (
    '{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    '"finish_reason":"stop","logprobs":null,"message":{"role":"assistant","refusal":null,'
    '"content":"' + "word " * 60 + '"}}],"usage":{"prompt_tokens":40,"completion_tokens":60,'
    '"total_tokens":100}}'
)
# Keeps nginx's temporary files out of the system's folders.
FOLDERS = "".join(
    f"{folder}_temp_path {{folder}}/{folder};"
    for folder in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_buffer_size 64k; client_max_body_size 8m; %s
  {rest}
}}
"""


def nginx_command(folder: Path, rest: str) -> list[str]:
    """Writes nginx's configuration.

    Args:
        rest: its upstream and server blocks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nginx.conf"
    text = NGINX.replace("%s", FOLDERS).format(folder=folder, rest=rest)
    file.write_text(text, encoding="utf-8")
    return ["nginx", "-c", str(file), "-e", str(folder / "error.log")]


def serve(folder: Path, stack: ExitStack) -> tuple[int, int, list[int]]:
    """Starts both processes. Returns the ports of whole answers and streams, and the pids."""
    plain = free_port()
    streamed = free_port()
    rest = (
        f"server {{ listen 127.0.0.1:{plain}; default_type application/json;"
        f" location / {{ return 200 '{ANSWER}'; }} }}"
    )
    pids = []
    commands = {
        plain: nginx_command(folder / "upstream", rest),
        streamed: [
            sys.executable,
            "-m",
            "benchmarks.router.upstream",
            str(streamed),
        ],
    }
    for port, command in commands.items():
        process = start(
            command,
            stack,
            core=LOAD_CORE,
            log=folder / f"upstream-{port}.log",
        )
        wait_for(port, process, 30)
        pids.append(process.pid)
    return plain, streamed, pids


KEPT = 256


def command(site: Site) -> Sequence[str]:
    upstreams = "".join(
        f"upstream {kind} {{ server 127.0.0.1:{site.upstreams[kind]}; keepalive {KEPT}; }}\n"
        for kind in (PLAIN, STREAMED)
    )
    locations = "".join(
        f"location /{kind}/ {{ proxy_pass http://{kind}/; proxy_http_version 1.1;"
        f' proxy_set_header Connection ""; proxy_buffering {buffering}; }}\n'
        for kind, buffering in ((PLAIN, "on"), (STREAMED, "off"))
    )
    # nginx keeps bodies of up to 2 MB in memory, because the router keeps bodies in memory,
    # too.
    sizes = "client_body_buffer_size 2m; proxy_max_temp_file_size 0;"
    server = f"server {{ listen 127.0.0.1:{site.port}; {sizes} {locations} }}"
    return nginx_command(site.folder, upstreams + server)


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(path=f"/{kind}{PATH}", model=kind)


PEER = Peer("nginx", command, ask)


CHUNKS = 100
PACE_S = 0.01
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"word "},"logprobs":null,"finish_reason":%s}]}\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


FIRST = HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"
WORD = framed(EVENT % b"null")
LAST = framed(EVENT % b'"stop"' + b"data: [DONE]\n\n") + b"0\r\n\r\n"
WHOLE = (
    HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(ANSWER) + ANSWER.encode()
)


class Pace:
    """Sends later tokens of all streams at the same moments."""

    def __init__(self) -> None:
        self._left: dict[asyncio.Transport, int] = {}

    def begin(self, stream: asyncio.Transport) -> None:
        if not self._left:
            self._wait()
        self._left[stream] = CHUNKS - 1

    def forget(self, stream: asyncio.Transport) -> None:
        self._left.pop(stream, None)

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(PACE_S - loop.time() % PACE_S, self._send)

    def _send(self) -> None:
        for stream, left in list(self._left.items()):
            stream.write(WORD if left > 1 else LAST)
            self._left[stream] = left - 1
            if left == 1:
                del self._left[stream]
        if self._left:
            self._wait()


class StreamProvider(asyncio.Protocol):
    """Sends a stream's first token at once. A request for no stream gets a whole answer."""

    _transport: asyncio.Transport

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._reader = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a Protocol
        self._pace.forget(self._transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if b'"stream":true' not in body:
            self._transport.write(WHOLE)
            return
        self._transport.write(FIRST + WORD)
        self._pace.begin(self._transport)


async def serve_streams(port: int) -> None:
    pace = Pace()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StreamProvider(pace), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve_streams(int(sys.argv[1])))
