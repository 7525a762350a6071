"""A hostile provider on a bare socket sends up to 1 GiB: body, chunks, gzip bomb, headers or
one stream event. It counts the bytes that were taken.
"""

import gzip
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

GIB: Final = 1 << 30
PIECE: Final = b"x" * (1 << 16)
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: "
JSON: Final = HEAD + b"application/json\r\n"
CHUNK: Final = b"%x\r\n%s\r\n" % (len(PIECE), PIECE)
KINDS: Final = ("body", "chunks", "gzip bomb", "header", "headers", "stream")


def bomb() -> bytes:
    """1 GiB of zeros, about 1 MiB."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as packed:
        for _ in range(GIB >> 20):
            packed.write(bytes(1 << 20))
    return out.getvalue()


@dataclass
class Hostile:
    """kind: what the next answers are. sent: bytes that somebody took, of each answer."""

    port: int
    kind: str = "body"
    sent: list[int] = field(default_factory=list)
    bomb: bytes = field(default_factory=bomb)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(1 << 16)
            # An answer of the test before may still end.
            sent = self.sent
            place = len(sent)
            sent.append(0)
            for piece in self._pieces():
                client.sendall(piece)
                sent[place] += len(piece)

    def _pieces(self) -> Iterator[bytes]:
        """Without end, or for 1 GiB."""
        match self.kind:
            case "body":
                yield JSON + b"content-length: %d\r\n\r\n" % GIB
                yield from self._gib(PIECE)
            case "chunks":
                yield JSON + b"transfer-encoding: chunked\r\n\r\n"
                yield from self._gib(CHUNK)
            case "gzip bomb":
                size = len(self.bomb)
                yield JSON + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % size
                yield self.bomb
            case "header":
                yield JSON + b"x-a: "
                yield from self._gib(PIECE)
            case "headers":
                yield JSON
                yield from self._gib(b"x-a: %s\r\n" % (b"y" * 8000))
            case _:  # a stream of one event that does not end
                yield HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                yield b"6\r\ndata: \r\n"
                yield from self._gib(CHUNK)

    def _gib(self, piece: bytes) -> Iterator[bytes]:
        for _ in range(GIB // len(piece)):
            yield piece


@contextmanager
def hostile_provider() -> Iterator[Hostile]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hostile = Hostile(listener.getsockname()[1])

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=hostile.answer, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield hostile
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
