"""A small chat-completions server in a thread, for the eval runner's tests: answers come from a
test's function; requests are kept with their `authorization`.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.domain.routing.target import Price, Provider

KEY = "sk-secret-of-the-test"


@dataclass(frozen=True)
class Response:
    """What is sent back: a text as a completion; raw bytes, status and headers as they are."""

    text: str = ""
    status: int = 200
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False

    def payload(self) -> bytes:
        if self.raw is not None:
            return self.raw
        completion = {
            "model": "served-1",
            "system_fingerprint": "fp",
            "choices": [
                {
                    "message": {"role": "assistant", "content": self.text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        }
        return json.dumps(completion).encode()


Script = Callable[[Mapping[str, Any]], Response]


@dataclass
class Served:
    """url: the api_base. requests: the bodies that came, with their `authorization` header."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)

    def provider(self, **more: Any) -> Provider:
        prices = {"m": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=10.0)}
        return Provider("sim", "openai", self.url, prices=prices, **more)

    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@contextmanager
def serving(script: Script, host: str = "127.0.0.1") -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.requests.append(
                {
                    **body,
                    "path": self.path,
                    "authorization": self.headers.get("authorization"),
                    "extra": self.headers.get("x-extra"),
                }
            )
            response = script(body)
            if response.reset:
                self.close_connection = True
                return
            payload = response.payload()
            self.send_response(response.status)
            for name, value in {
                "content-length": str(len(payload)),
                **response.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Not on the test's output."""

    server = ThreadingHTTPServer((host, 0), Handler)
    served = Served(f"http://{host}:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
