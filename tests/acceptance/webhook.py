"""A receiver of alerts: an HTTP server of the tests that keeps what it was sent."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from tests.acceptance.installation import Document

SECRET: Final = "a-secret-of-the-webhook"  # noqa: S105 - made up
VARIABLE: Final = "SWAPPROOF_WEBHOOK_SECRET"


@dataclass
class Webhook:
    port: int = 0
    received: list[Document] = field(default_factory=list)
    unsigned: list[bytes] = field(default_factory=list)

    def settings(self) -> Document:
        """The section `alerts` of the configuration."""
        sink = {
            "webhook": f"http://127.0.0.1:{self.port}/hook",
            "secret_env": VARIABLE,
        }
        return {"sinks": [sink], "deliver_interval_s": 0.2}

    def messages(self, kind: str, text: str = "") -> list[Document]:
        """The messages of this kind which have the text somewhere."""
        return [one for one in self.received if one["kind"] == kind and text in json.dumps(one)]

    def receive(self, body: bytes, signature: str) -> None:
        """Keep a message; its signature is as docs/how-to/alerts.md says."""
        parts = dict(part.split("=", 1) for part in signature.split(","))
        signed = parts["t"].encode() + b"." + body
        expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        if hmac.compare_digest(expected, parts["v1"]):
            self.received.append(json.loads(body))
        else:
            self.unsigned.append(body)


@contextmanager
def receiving() -> Iterator[Webhook]:
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            webhook.receive(body, self.headers["x-swapproof-signature"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        webhook.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield webhook
        server.shutdown()
        thread.join()
