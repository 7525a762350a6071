"""What protects the router's process: endless answers, and clients that never come to an end.

Real processes and sockets; memory as the system counts it.
"""

import gzip
import io
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil
import pytest

from evals.sim import server as sim
from harness.app import seed
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.frame.people.access import SYSTEM
from harness.operations import keys
from tests.support.control.colours_suite import suite_file
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, Routed, ask
from tests.support.site.processes import site

GIB: Final = 1 << 30
PIECE: Final = b"x" * (1 << 16)
ANSWER_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: "
JSON_HEAD: Final = ANSWER_HEAD + b"application/json\r\n"
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
        match self.kind:
            case "body":
                yield JSON_HEAD + b"content-length: %d\r\n\r\n" % GIB
                yield from self._gib(PIECE)
            case "chunks":
                yield JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n"
                yield from self._gib(CHUNK)
            case "gzip bomb":
                size = len(self.bomb)
                yield (
                    JSON_HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % size
                )
                yield self.bomb
            case "header":
                yield JSON_HEAD + b"x-a: "
                yield from self._gib(PIECE)
            case "headers":
                yield JSON_HEAD
                yield from self._gib(b"x-a: %s\r\n" % (b"y" * 8000))
            case _:  # a stream of one event that does not end
                yield (ANSWER_HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
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


pytestmark = pytest.mark.slow
MIB = 1 << 20
# Of an answer at most 64 MiB are kept, in pieces and then whole.
ROOM_MIB = 300
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with hostile_provider() as hostile:
        yield hostile


@pytest.fixture(scope="module")
def world(hostile: Hostile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """The hostile provider first, the simulator as its fallback."""
    folder = tmp_path_factory.mktemp("protection")
    with (
        simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url,
        served(folder, hostile, url) as it,
    ):
        it.start()
        yield it


@contextmanager
def served(
    folder: Path,
    hostile: Hostile,
    url: str,
) -> Iterator[Routed]:
    settings: dict[str, object] = {
        "database_url": f"sqlite:///{folder / 'swapproof.db'}",
        # Its circuit stays closed, so that it is asked first every time.
        "router": {"breaker": {"failures": 1000}},
        "providers": {
            "bad": {"kind": "custom", "api_base": hostile.url},
            "sim": {"kind": "sim", "api_base": f"{url}/v1"},
        },
        "suites": {"colours": {"path": str(suite_file(folder)), "scorer": "exact"}},
        "routes": {
            ROUTE: {
                "incumbent": "bad/huge",
                "fallbacks": ["sim/sim-base"],
                "suites": ["colours"],
            },
            "well": {"incumbent": "sim/sim-base", "suites": ["colours"]},
        },
    }
    with site(folder, settings) as place:
        installation = open_installation(place.config, create_secret=True)
        try:
            upgrade_database(installation.settings)
            seed.apply_seed(installation.context, installation.settings)
            made = keys.create_key(
                installation.context,
                SYSTEM,
                "test",
                secret=installation.secret,
            )
            yield Routed(place, installation, made[1])
        finally:
            installation.close()


def rss_mib(world: Routed) -> float:
    parent = psutil.Process(world.place.pid("router"))
    total = 0
    for child in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return total / MIB


class Peak:
    def __init__(self, world: Routed) -> None:
        self._world = world
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mib = 0.0

    def __enter__(self) -> Self:
        self._before = rss_mib(self._world)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.mib = max(self.mib, rss_mib(self._world) - self._before)


def port_of(world: Routed) -> int:
    return world.place.ports["router"]


def connect(world: Routed) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(world)), timeout=30)


@pytest.mark.req("G5")
@pytest.mark.parametrize(
    "kind", [pytest.param("header", marks=pytest.mark.spine), *sorted({*KINDS} - {"header"})]
)
def test_an_answer_without_end_is_cut_and_the_next_target_answers(
    world: Routed,
    hostile: Hostile,
    kind: str,
) -> None:
    hostile.kind = kind
    hostile.sent = []
    stream = kind == "stream"
    with world.client() as client, Peak(world) as peak:
        assert ask(client, stream=stream)

    assert hostile.sent
    # What stands in the sockets' buffers comes on top of the 64 MiB.
    assert max(hostile.sent) < 128 * MIB
    assert peak.mib < ROOM_MIB


@pytest.mark.req("G5")
def test_clients_that_never_finish_their_request_hold_up_nobody(world: Routed) -> None:
    begun = [
        b"",
        b"POST /v1/chat",
        HEAD,
        HEAD + f"authorization: Bearer {world.key}\r\ncontent-length: 1000\r\n\r\n{{".encode(),
        HEAD + b"content-length: 1000\r\n\r\n{",
    ]
    with ExitStack() as stack, Peak(world) as peak:
        slow = [stack.enter_context(connect(world)) for _ in range(300)]
        for number, reader in enumerate(slow):
            reader.sendall(begun[number % len(begun)])
            if number % 3 == 0:  # half open: it says that nothing more comes, and waits
                reader.shutdown(socket.SHUT_WR)
        answered(world, 40)
        for reader in slow:  # a byte now and then keeps nothing alive
            with suppress(OSError):
                reader.sendall(b"a")
        answered(world, 40)
    assert peak.mib < ROOM_MIB


@pytest.mark.req("G5")
def test_thousands_of_idle_connections_hold_up_nobody(world: Routed) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # As many as this process and the router may have open, at most 3,000.
    room = min(
        hard,
        psutil.Process(world.place.pid("router")).rlimit(psutil.RLIMIT_NOFILE)[0],
    )
    try:
        with ExitStack() as stack, Peak(world) as peak:
            for number in range(min(3_000, room - 500)):
                stack.enter_context(connect(world))
                if number % 1000 == 999:
                    answered(world, 10)
            answered(world, 40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    answered(world, 10)
    assert peak.mib < ROOM_MIB


def answered(world: Routed, times: int) -> None:
    with world.client() as client:
        for _ in range(times):
            done = client.chat.completions.create(
                model="well",
                messages=[{"role": "user", "content": "Colour number 3?"}],
            )
            assert done.choices[0].message.content
