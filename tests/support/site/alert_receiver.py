"""A real HTTP server that receives alerts; it can go down, and come up again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.site.http_thread import Exchange, serving


@dataclass
class Got:
    headers: Mapping[str, str]
    body: bytes
    path: str


@dataclass
class Receiver:
    port: int = 0
    status: int = 204
    got: list[Got] = field(default_factory=list)

    @contextmanager
    def up(self) -> Iterator["Receiver"]:
        receiver = self

        class Handler(Exchange):
            def exchange(self) -> None:
                got = Got(self.received_headers(), self.received_body(), self.path)
                receiver.got.append(got)
                moved = 300 <= receiver.status < 400
                self.answer(
                    receiver.status,
                    b"",
                    {"location": "/elsewhere"} if moved else {},
                )

        with serving(Handler, port=self.port) as port:
            self.port = port
            yield self
