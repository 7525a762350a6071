"""The provider behind every contender: nginx for whole answers, aiohttp for streams."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from aiohttp import web

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
    """Writes nginx's configuration. rest: its upstream and server blocks."""
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


async def send_stream(request: web.Request) -> web.StreamResponse:
    """Sends the first token at once, and later tokens of all streams at the same moments. A
    request for no stream gets a whole answer.
    """
    if b'"stream":true' not in await request.read():
        return web.Response(text=ANSWER, content_type="application/json")
    stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await stream.prepare(request)
    for _ in range(CHUNKS - 1):
        await stream.write(EVENT % b"null")
        await asyncio.sleep(PACE_S - asyncio.get_running_loop().time() % PACE_S)
    await stream.write(EVENT % b'"stop"' + b"data: [DONE]\n\n")
    return stream


if __name__ == "__main__":
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post(PATH, send_stream)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
    )
