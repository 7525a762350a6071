"""A judge that is a rule, not a model: it prefers the only answer with an order's fields.

The pinned packages have two models, and a judge may be neither of the two that it compares. So
this judge knows the form of an answer and nothing of its truth.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from benchmarks.real.orders import SCHEMA

JUDGE: Final = "rule/schema"
_DATA: Final = "DATA:\n"
_LETTERS: Final = ("A", "B")


def has_fields(answer: object) -> bool:
    """Tells whether an answer is an object with exactly the fields of an order."""
    return isinstance(answer, Mapping) and set(answer) == set(SCHEMA["required"])


def choose_winner(prompt: str) -> str:
    """Returns "A", "B" or "tie" for a prompt of the scorer `preference`."""
    data = json.loads(prompt.rpartition(_DATA)[2])
    formed = [letter for letter in _LETTERS if has_fields(data[letter])]
    return formed[0] if len(formed) == 1 else "tie"


class _Answers(BaseHTTPRequestHandler):
    """Answers OpenAI's chat completions and list of models."""

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "schema", "object": "model"}]})

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        prompt = json.loads(self.rfile.read(length))["messages"][-1]["content"]
        winner = choose_winner(prompt) if _DATA in prompt else "tie"
        content = json.dumps({"reason": "the fields", "winner": winner})
        message = {"role": "assistant", "content": content}
        self._send(
            {
                "id": "schema",
                "object": "chat.completion",
                "created": 0,
                "model": "schema",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Prints nothing."""

    def _send(self, document: Mapping[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_judge() -> Iterator[str]:
    """Serves the judge on a free port of this machine. Yields its base address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
