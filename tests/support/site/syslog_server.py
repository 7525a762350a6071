"""A real syslog server over TCP or TLS keeps the messages that it reads, each counted by octets
(RFC 6587).
"""

import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SyslogServer:
    """certificate: its key and certificate, for TLS. reads: False for one that hangs up once,
    before it has read a byte.
    """

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.messages: list[str] = []
        self.reads = True
        self.port = 0
        self.scheme = "syslog+tcp" if certificate is None else "syslog+tls"
        self._certificate = certificate

    @contextmanager
    def up(self) -> Iterator["SyslogServer"]:
        syslog = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                connection = syslog.accepted(self.request)
                with connection:
                    if syslog.reads:
                        syslog.messages += read_messages(connection)
                    else:
                        linger_s = struct.pack("ii", 1, 0)  # closed by a reset
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_s)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        with Server(("127.0.0.1", self.port), Handler) as server:
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def accepted(self, connection: socket.socket) -> socket.socket:
        if self._certificate is None:
            return connection
        key, cert = self._certificate
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        return context.wrap_socket(connection, server_side=True)


def read_messages(connection: socket.socket) -> list[str]:
    """Reads to the sender's end."""
    messages = []
    with connection.makefile("rb") as stream:
        data = stream.read()
    while data:
        count, _, rest = data.partition(b" ")
        messages.append(rest[: int(count)].decode())
        data = rest[int(count) :]
    return messages
