import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from harness.runtime.outbound.guarded_http import ClosedAddress, GuardedHttpClient
from tests.support.providers.scripted_chat import Response, serving

pytestmark = pytest.mark.req("D1", "D4")
HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """A server that says `first` and then `drop` again and again, until nobody listens."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                peer, _ = server.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(first)
                    while not over.wait(0.02):
                        peer.sendall(drop)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (HEAD, b"x: y\r\n"),
        (HEAD + b"content-length: 100000\r\n\r\n", b"."),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
    ],
)
def test_a_server_that_drips_is_waited_for_no_longer_than_in_all(
    first: bytes, drop: bytes
) -> None:
    with (
        dripping(first, drop) as url,
        pytest.raises(TimeoutError),
        GuardedHttpClient().send(url, {}, timeout_s=0.5) as answer,
    ):
        answer.read(1_000_000)


def test_a_name_that_leads_to_a_closed_address_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = GuardedHttpClient()
    with serving(lambda _: Response("mine now")) as served:
        monkeypatch.setattr(
            "harness.runtime.outbound.guarded_http.may_connect", lambda *_: False
        )
        with (
            pytest.raises(ClosedAddress),
            client.send(served.url, {"x-key": "secret"}, b"{}", timeout_s=5.0),
        ):
            pass

    assert served.requests == []
