import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from harness.gate.online.waiting import LEFT
from router.frame.asgi import App
from router.server.process import WorkerServer, server
from router.workers.parent import HAND_OVER
from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    EVENTS,
    ROLE,
    completion,
    event,
    running_upstream,
)
from tests.support.router.asgi_router import ASK as CHAT_ASK
from tests.support.router.asgi_router import CHAT, Door
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    KEY,
    QUICK,
    running_router,
    snapshot,
    wait_until,
)

pytestmark = pytest.mark.req("G5")

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
JSON = {"content-type": "application/json"}
STREAM = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"


class Place:
    """A server of two answers, one of which goes on until `over`."""

    def __init__(self, **given: Any) -> None:
        self.over = threading.Event()
        self.told = threading.Event()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.runner: WorkerServer = server(self._app(), on_stop=self.told.set, **given)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.runner.serve([listener]))
        )

    def _app(self) -> App:
        async def app(
            scope: Any,
            receive: Any,
            send: Any,
        ) -> None:
            if scope["type"] == "lifespan":
                for step in ("startup", "shutdown"):
                    await receive()
                    await send({"type": f"lifespan.{step}.complete"})
                return
            length = [] if scope["path"] == "/stream" else [(b"content-length", b"2")]
            head = {
                "type": "http.response.start",
                "status": 200,
                "headers": length,
            }
            await send(head)
            if scope["path"] == "/stream":
                await send(
                    {
                        "type": "http.response.body",
                        "body": b"be",
                        "more_body": True,
                    }
                )
                while not self.over.is_set():  # noqa: ASYNC110 - of another thread
                    await asyncio.sleep(0.01)
            await send({"type": "http.response.body", "body": b"ok"})

        return app

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.runner.handle_exit(number, None)


@contextmanager
def running(**given: Any) -> Iterator[Place]:
    place = Place(**given)
    place.thread.start()
    wait_until(lambda: place.runner.started)
    try:
        yield place
    finally:
        place.over.set()
        place.stop(signal.SIGINT)
        place.thread.join(60)


def send_and_read(found: socket.socket, what: bytes = ASK) -> bytes:
    found.sendall(what)
    out = b""
    while not out.endswith(b"\r\n\r\nok"):
        data = found.recv(65536)
        if not data:
            break
        out += data
    return out


def test_after_sigterm_it_serves_on_for_the_delay_then_refuses_and_lets_streams_end() -> None:
    with (
        running(drain_s=60.0, shutdown_delay_s=600.0) as place,
        place.connect() as stream,
    ):
        stream.sendall(STREAM)
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
        place.stop()
        assert place.told.is_set()

        wait_until(lambda: place.runner.server_state.ending)
        with place.connect() as late:
            out = send_and_read(late)
        assert out.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in out  # and comes back elsewhere

        place.stop(signal.SIGINT)  # the delay is over
        wait_until(place.refuses)
        assert place.thread.is_alive()
        place.over.set()
        rest = b""
        while data := stream.recv(65536):
            rest += data
        assert rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_delay_it_refuses_at_once(number: int) -> None:
    delay_s = 600.0 if number == signal.SIGINT else 0.0
    with (
        running(drain_s=60.0, shutdown_delay_s=delay_s) as place,
        place.connect() as stream,
    ):
        stream.sendall(STREAM)
        assert stream.recv(65536)
        place.stop(number)
        wait_until(place.refuses)
        assert place.thread.is_alive()


def test_who_connected_before_the_listener_was_closed_is_answered() -> None:
    with running(drain_s=60.0) as place:
        waiting = [place.connect() for _ in range(50)]
        place.stop()
        assert {send_and_read(client)[:12] for client in waiting} == {b"HTTP/1.1 200"}
        for client in waiting:
            client.close()


async def test_who_connects_as_the_listener_closes_is_known_to_the_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - only lifespan
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    listener = socket.create_server(("127.0.0.1", 0))
    runner = server(app, drain_s=0.0)
    runner.config.load()
    runner.lifespan = runner.config.lifespan_class(runner.config)
    await runner.startup([listener])
    late = socket.create_connection(listener.getsockname(), timeout=60)

    with late:
        await runner.shutdown([listener])

        assert not runner.server_state.connections
        with suppress(ConnectionError):  # the server has aborted it
            assert late.recv(1) == b""


def test_a_server_that_is_replaced_keeps_its_idle_connections_for_one_more_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.server.connection.LINGER_S", 0.0)
    with (
        running(drain_s=60.0) as place,
        place.connect() as idle,
        place.connect() as other,
    ):
        assert send_and_read(idle)
        assert send_and_read(other)
        place.stop(HAND_OVER)
        wait_until(place.refuses)
        assert not place.told.is_set()  # the router as a whole is well

        assert len(place.runner.server_state.connections) == 2
        out = send_and_read(idle)
        assert out.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in out
        assert idle.recv(1) == b""

        # Told to stop altogether, it waits for nobody.
        place.stop()
        assert other.recv(1) == b""
        place.thread.join(60)
        assert not place.thread.is_alive()


def test_a_server_that_waits_no_longer_closes_whoever_is_connected_still() -> None:
    half = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"
    with running(drain_s=0.0) as place, ExitStack() as clients:
        connected = [clients.enter_context(place.connect()) for _ in range(4)]
        for client, sent in zip(connected, (b"", half, STREAM, ASK), strict=True):
            client.sendall(sent)
        connections = place.runner.server_state.connections
        wait_until(lambda: len(connections) == len(connected))
        place.stop(signal.SIGINT)
        place.thread.join(60)

        assert not connections
        for client in connected:
            with suppress(ConnectionError):
                while client.recv(65536):
                    pass


async def test_a_router_that_is_to_stop_is_not_ready_and_serves(tmp_path: Path) -> None:
    door = Door(tmp_path)
    assert (await door.call("/readyz", method="GET"))[0] == 200

    door.app.stop()

    status, _, body = await door.call("/readyz", method="GET")
    assert (status, body) == (503, b'{"status":"stopping"}')
    assert (await door.call("/healthz", method="GET"))[0] == 200
    ask = b'{"model":"support","messages":[{"role":"user","content":"hi"}]}'
    assert (await door.call("/v1/chat/completions", ask))[0] == 200


@pytest.mark.req("D3")
@pytest.mark.parametrize("streams", [False, True])
def test_what_no_provider_ends_is_recorded_as_the_server_leaves(
    streams: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    begun = ROLE, event({"content": "word"}), ScriptedEvent.HANG
    hanging = ScriptedTurn(headers=EVENTS, steps=begun) if streams else ScriptedTurn(hang=True)
    body = CHAT_ASK.replace(b"{", b'{"stream":true,', 1) if streams else CHAT_ASK
    with (
        running_upstream() as upstream,
        httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=60) as http,
    ):

        def ask_in_vain() -> None:
            place = urlsplit(world.url)
            head = (
                f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            with socket.create_connection((place.hostname, place.port)) as client:
                client.sendall(head.encode() + body)
                with suppress(ConnectionError):
                    while client.recv(1 << 16):
                        pass

        with running_router(snapshot(upstream.url), tmp_path) as world:
            upstream.turns[INCUMBENT] = completion()
            for _ in range(3):  # then a connection to the provider is idle
                http.post(f"{world.url}{CHAT}", content=CHAT_ASK, headers=JSON)
            upstream.turns[INCUMBENT] = hanging
            asking = threading.Thread(target=ask_in_vain)
            asking.start()
            wait_until(lambda: len(upstream.asked) == 4)
        asking.join(60)

    assert world.recorder.counters["callers_gone"] == 1
    assert sum(row.requests for row in world.store.traffic) == 4
    waits = {kind for row in world.store.traffic for kind in row.waits}
    assert not any(kind.endswith(LEFT) for kind in waits), "the router left, and no caller"


@pytest.mark.req("B10")
def test_a_health_check_under_way_holds_up_no_stop(tmp_path: Path) -> None:
    often = replace(QUICK, health_check_interval_s=0.2)
    with running_upstream() as upstream:
        upstream.turns = {
            INCUMBENT: completion(),
            FALLBACK: ScriptedTurn(hang=True),
        }
        with running_router(snapshot(upstream.url, fallback=True), tmp_path, often):
            wait_until(lambda: bool(upstream.asked_for(FALLBACK)))

        assert upstream.asked_for(FALLBACK)[0].left.wait(60)
