"""`TcpLink` passes the bytes of TCP connections on, and can be cut: then nothing arrives in
either direction, and no connection is closed, as when a cable is pulled.
"""

import selectors
import socket
import threading


class TcpLink:
    """Listens on a port of its own for connections to `address`."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self._address = address
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open = threading.Event()
        self._open.set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._ending.set()
        self._open.set()
        self._thread.join()
        self._server.close()

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as ready:
            ready.register(self._server, selectors.EVENT_READ)
            while not self._ending.is_set():
                for key, _ in ready.select(0.05):
                    self._open.wait()
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    if source is self._server:
                        for end in self._connect(peers):
                            ready.register(end, selectors.EVENT_READ)
                    elif source in peers and not self._pass(source, peers[source]):
                        for end in (source, peers[source]):
                            ready.unregister(end)
                            del peers[end]
                            end.close()
            for end in peers:
                end.close()

    def _connect(self, peers: dict[socket.socket, socket.socket]) -> list[socket.socket]:
        client, _ = self._server.accept()
        if isinstance(self._address, str):
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(self._address)
        else:
            upstream = socket.create_connection(self._address)
        peers |= {client: upstream, upstream: client}
        return [client, upstream]

    def _pass(self, source: socket.socket, target: socket.socket) -> bool:
        try:
            data = source.recv(65_536)
            if data:
                target.sendall(data)
        except OSError:
            return False
        return bool(data)
