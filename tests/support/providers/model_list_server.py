"""A server of a provider's list of models, sound or hostile: `serving_lists`."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ListAnswer:
    """What `GET /v1/models` answers."""

    body: str = ""
    status: int = 200
    location: str = ""  # where a redirect leads
    times: int = 1  # how often the body is sent; 0 for until the client leaves
    pause_ms: int = 0  # behind each time


@dataclass
class ListServer:
    url: str
    answer: ListAnswer


@contextmanager
def serving_lists() -> Iterator[ListServer]:
    """Serves in a thread, on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = lists.answer
            self.send_response(answer.status)
            self.send_header("content-type", "application/json")
            if answer.location:
                self.send_header("location", answer.location)
            self.end_headers()
            with suppress(OSError):
                for _ in range(answer.times) if answer.times else itertools.count():
                    self.wfile.write(answer.body.encode())
                    time.sleep(answer.pause_ms / 1000)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    lists = ListServer(f"http://127.0.0.1:{server.server_port}", ListAnswer())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield lists
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
