"""A connection pooler in transaction mode, before a PostgreSQL that trusts its socket: a client
has a server's session only until its transaction ends.
"""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_HEAD: Final = 5  # of a message: its kind and its length
_READY: Final = b"Z"
_IDLE: Final = b"I"
_TERMINATE: Final = b"X"


class TransactionPooler:
    """Listens on a free port of this machine while the `with` block lasts."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._idle: list[socket.socket] = []
        self._freed = threading.Condition()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for server in self._idle:
            server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            server.sendall(client.recv(1 << 16))
            self._relay(server, client)
            while (asked := client.recv(1 << 16)) and not asked.startswith(_TERMINATE):
                server = self._take()
                server.sendall(asked)
                while not self._relay(server, client):
                    server.sendall(client.recv(1 << 16))

    def _relay(self, server: socket.socket, client: socket.socket) -> bool:
        """Gives the client one whole answer. Returns whether the transaction is over: the
        session is free before the client knows, as it is at PgBouncer.
        """
        while True:
            head = _read(server, _HEAD)
            body = _read(server, int.from_bytes(head[1:]) - _HEAD + 1)
            over = head[:1] == _READY and body == _IDLE
            if over:
                self._free(server)
            client.sendall(head + body)
            if head[:1] == _READY:
                return over

    def _take(self) -> socket.socket:
        with self._freed:
            self._freed.wait_for(lambda: bool(self._idle))
            return self._idle.pop()

    def _free(self, server: socket.socket) -> None:
        with self._freed:
            self._idle.append(server)
            self._freed.notify()


def _read(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = source.recv(size - len(found))
        if not part:
            raise ConnectionError("PostgreSQL has ended the connection")
        found += part
    return found
