"""The provider behind every contender: nginx for whole answers, our own process for streams."""

import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.router.machine import LOAD_CORE
from benchmarks.router.processes import free_port, start, wait_for

ANSWER = (
    '{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    '"finish_reason":"stop","logprobs":null,"message":{"role":"assistant","refusal":null,'
    '"content":"' + "word " * 60 + '"}}],"usage":{"prompt_tokens":40,"completion_tokens":60,'
    '"total_tokens":100}}'
)
# What nginx keeps on disk, and would otherwise keep in the system's folders.
FOLDERS = "".join(
    f"{folder}_temp_path {{folder}}/{folder};"
    for folder in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_buffer_size 64k; %s
  {rest}
}}
"""


def nginx_command(folder: Path, rest: str) -> list[str]:
    """nginx in the foreground with one worker. rest: upstream and server blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nginx.conf"
    text = NGINX.replace("%s", FOLDERS).format(folder=folder, rest=rest)
    file.write_text(text, encoding="utf-8")
    return ["nginx", "-c", str(file), "-e", str(folder / "error.log")]


def serve(folder: Path, stack: ExitStack) -> tuple[int, int, list[int]]:
    """Ports of whole answers and of streams; the pids. Both on the load's core."""
    plain, streamed = free_port(), free_port()
    rest = (
        f"server {{ listen 127.0.0.1:{plain}; default_type application/json;"
        f" location / {{ return 200 '{ANSWER}'; }} }}"
    )
    pids = []
    commands = {
        plain: nginx_command(folder / "upstream", rest),
        streamed: [sys.executable, "-m", "benchmarks.router.stream_latency", str(streamed)],
    }
    for port, command in commands.items():
        process = start(command, stack, core=LOAD_CORE, log=folder / f"upstream-{port}.log")
        wait_for(port, process, 30)
        pids.append(process.pid)
    return plain, streamed, pids
