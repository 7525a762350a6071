"""A small chat-completions server in a thread answers by a test's function."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.providers.target import Price, Provider
from tests.support.site import http_thread
from tests.support.site.http_thread import Exchange

KEY = "sk-secret-of-the-test"


@dataclass(frozen=True)
class Response:
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
        return Provider(
            "sim",
            "openai",
            self.url,
            prices=prices,
            **more,
        )


@contextmanager
def serving(script: Script, host: str = "127.0.0.1") -> Iterator[Served]:
    class Handler(Exchange):
        def exchange(self) -> None:
            body = json.loads(self.received_body())
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
            self.answer(response.status, response.payload(), response.headers)

    served = Served("")
    with http_thread.serving(Handler, host) as port:
        served.url = f"http://{host}:{port}/v1"
        yield served
