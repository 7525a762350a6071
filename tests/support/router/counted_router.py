"""A counted router runs in a thread of its own as a worker of `serve router` does (uvloop, the
server's connections, the pool, a reporter), before a provider in another thread. `RouterMeter`
counts the Python calls and coroutines that one request costs it.
"""

import asyncio
import gc
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple, Self, cast

import uvloop

from harness.app.store.router_store import RouterStore
from harness.frame import package_data
from harness.frame.runtime.clock import SystemClock
from harness.routing.settings import RouterSettings
from harness.routing.table import Snapshot
from router.frame.limits import Timers
from router.recording.internal_errors import Background
from router.recording.reporter import Reporter
from router.server.app import Router
from router.server.process import server
from router.snapshot.holder import SnapshotHolder
from router.upstream.transports import Transports
from tests.support.router.live_router import (
    KEY,
    QUICK,
    SECRET,
    SwitchableStore,
    upstream_keys,
    wait_until,
)

STARTS_OR_AWAITS: Final = 0x80 | 0x200  # CO_COROUTINE, CO_ASYNC_GENERATOR
RESUME_OF_START: Final = 0
# What a request leaves to the next turns of the loop is the request's as well.
LAST_TURNS: Final = 6
REQUEST: Final = (
    "POST %s HTTP/1.1\r\nhost: router\r\nauthorization: Bearer %s\r\n"
    "content-type: application/json\r\naccept: application/json\r\nuser-agent: count\r\n"
    "content-length: %d\r\n\r\n"
)
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class RequestCost(NamedTuple):
    """calls: Python functions entered, coroutines resumed. coroutines: those started."""

    calls: int
    coroutines: int


ROUTER: Final = package_data.path("router")
# The product's folders; a call of anything else is not a step of a walk.
PRODUCT: Final = frozenset({"dashboard", "evals", "harness", "router", "swapproof"})
# What the worker does every few milliseconds, whoever asks: the slower the machine, the more of
# it falls into the time of a request. The sleeps in between are asyncio's.
WORKERS_OWN: Final = frozenset(
    {
        Timers._fire_due.__code__,
        Reporter._run.__code__,
        Background.keep_up.__code__,
    }
)


class CallCounter:
    """Counts as `sys.setprofile` tells of calls; those of C functions don't count, and nothing
    that the event loop calls for the worker's own sake.
    """

    def __init__(self) -> None:
        self.calls = self.coroutines = 0
        self.of_files: Counter[str] = Counter()  # calls, by the file of what is called
        self._loops: FrameType | None = None
        self._is_workers_own = False

    def __enter__(self) -> Self:
        gc.disable()  # others may have it call Python as well
        sys.setprofile(self.note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()
        self.calls -= 1  # this one

    def product_files(self) -> Counter[Path]:
        """Calls by file of the product, relative to the checkout."""
        files = {Path(file): calls for file, calls in self.of_files.items()}
        own = {
            file.relative_to(package_data.ROOT): calls
            for file, calls in files.items()
            if file.is_relative_to(package_data.ROOT)
        }
        return Counter({file: calls for file, calls in own.items() if file.parts[0] in PRODUCT})

    def begin(self) -> None:
        self._loops = sys._getframe().f_back
        sys.setprofile(self.note)

    def note(
        self,
        frame: FrameType,
        happening: str,
        _: object,
    ) -> None:
        if happening != "call":
            return
        code = frame.f_code
        if frame.f_back is self._loops:
            self._is_workers_own = code in WORKERS_OWN or not Path(
                code.co_filename
            ).is_relative_to(ROUTER)
        if self._is_workers_own:
            return
        self.calls += 1
        self.of_files[code.co_filename] += 1
        if code.co_flags & STARTS_OR_AWAITS:
            # The argument of RESUME says whether a function starts or goes on after a wait.
            place = code.co_code[frame.f_lasti + 1]
            self.coroutines += place & 3 == RESUME_OF_START


class ThreadedProvider:
    """Answers every request on every connection with the same packets, each of them after the
    first once the client has what came before: no two of them travel as one.
    """

    def __init__(self, packets: Sequence[bytes]) -> None:
        self._packets = packets
        self.arrived = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                # Else a stream's next packet waits for 40 ms until the one before is confirmed.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while read_message(connection):
                first, *others = self._packets
                while self.arrived.acquire(blocking=False):
                    """Forget what arrived of the answer before."""
                connection.sendall(first)
                for packet in others:
                    self.arrived.acquire()
                    connection.sendall(packet)


def read_message(
    connection: socket.socket, arrived: threading.Semaphore | None = None
) -> bytes:
    """One message with its body, counted or in chunks; empty where the other side ended.

    Args:
        arrived: released with every packet.
    """
    data = b""
    while not _is_whole(data):
        piece = connection.recv(1 << 16)
        if not piece:
            return b""
        data += piece
        if arrived is not None:
            arrived.release()
    return data


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    length = _LENGTH.search(head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


class RouterMeter:
    """Counts requests of one client, one after the other, to a router in its own thread.

    body_apart: the client sends the body once the router has read the head.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        port: int,
        provider: ThreadedProvider,
        *,
        body_apart: bool = False,
    ) -> None:
        self._body_apart = body_apart
        self._loop = loop
        self._provider = provider
        self._client = socket.create_connection(("127.0.0.1", port))
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._client.close()

    def ask(self, path: str, body: bytes) -> bytes:
        head = (REQUEST % (path, KEY, len(body))).encode()
        if self._body_apart:
            self._client.sendall(head)
            self.settle()
            self._client.sendall(body)
        else:
            self._client.sendall(head + body)
        answer = read_message(self._client, self._provider.arrived)
        self.settle()
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:500]
        return answer

    def settle(self) -> None:
        done = threading.Lock()
        done.acquire()
        for _ in range(LAST_TURNS):
            self._loop.call_soon_threadsafe(done.release)
            done.acquire()

    def in_loop(self, call: Callable[..., object], *given: object) -> None:
        self._loop.call_soon_threadsafe(call, *given)
        self.settle()

    def cost(
        self,
        path: str,
        bodies: Iterator[bytes],
        *,
        warm_up: int = 8,
        times: int = 16,
    ) -> RequestCost:
        """The least of several requests: on some the worker's housekeeping comes on top."""
        counts = []
        with self._counting(path, bodies, warm_up) as counter:
            for _ in range(times):
                before = counter.calls, counter.coroutines
                self.ask(path, next(bodies))
                counts.append(
                    (
                        counter.calls - before[0],
                        counter.coroutines - before[1],
                    )
                )
        return RequestCost(*min(counts))

    @contextmanager
    def _counting(
        self,
        path: str,
        bodies: Iterator[bytes],
        warm_up: int,
    ) -> Iterator[CallCounter]:
        for _ in range(warm_up):
            self.ask(path, next(bodies))
        counter = CallCounter()
        self.in_loop(counter.begin)
        yield counter
        self.in_loop(sys.setprofile, None)

    def files(
        self,
        path: str,
        bodies: Iterator[bytes],
        *,
        warm_up: int = 8,
        times: int = 8,
    ) -> Counter[Path]:
        with self._counting(path, bodies, warm_up) as counter:
            for _ in range(times):
                self.ask(path, next(bodies))
        return counter.product_files()

    def garbage(
        self,
        path: str,
        bodies: Iterator[bytes],
        *,
        warm_up: int = 8,
        times: int = 16,
    ) -> Counter[str]:
        """What requests leave to the garbage collector of the router's objects, by type."""
        for _ in range(warm_up):
            self.ask(path, next(bodies))
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(times):
                self.ask(path, next(bodies))
            gc.collect()
            return Counter(
                type(left).__name__
                for left in gc.garbage
                if type(left).__module__.startswith("router.")
            )
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


@contextmanager
def metered_router(
    first: Callable[[str], Snapshot],
    packets: Sequence[bytes],
    folder: Path,
    settings: RouterSettings = QUICK,
    *,
    body_apart: bool = False,
) -> Iterator[RouterMeter]:
    """Runs a router whose work is measured.

    Args:
        first: the snapshot for a provider's URL.
        packets: of its answer, head and all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        provider = ThreadedProvider(packets)
        stack.callback(provider.close)
        loop, port = stack.enter_context(
            _serving(
                first(f"http://127.0.0.1:{provider.port}/v1"),
                folder,
                settings,
            )
        )
        meter = RouterMeter(loop, port, provider, body_apart=body_apart)
        stack.callback(meter.close)
        yield meter


@contextmanager
def _serving(
    first: Snapshot,
    folder: Path,
    settings: RouterSettings,
) -> Iterator[tuple[asyncio.AbstractEventLoop, int]]:
    clock = SystemClock()
    store = cast("RouterStore", SwitchableStore(first))
    holder = SnapshotHolder(store, folder / "snapshot.json", keys_of=upstream_keys)
    holder.boot()
    ours, theirs = socket.socketpair()
    reporter = Reporter(
        ours,
        worker="w",
        clock=clock,
        live_rollouts=lambda: holder.current.rollouts if holder.current else frozenset(),
        on_orphaned=lambda: None,
    )
    parent = threading.Thread(target=_drain, args=(theirs,), daemon=True)
    parent.start()
    transports = Transports(settings)

    async def stop() -> None:
        await reporter.aclose()
        await transports.aclose()

    app = Router(holder, reporter, transports, settings, SECRET, clock, on_stop=stop)
    listener = socket.create_server(("127.0.0.1", 0))
    runner = server(app, drain_s=2)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await runner.serve([listener])

    thread = threading.Thread(target=lambda: uvloop.run(run()))
    thread.start()
    wait_until(lambda: runner.started)
    try:
        yield loops[0], listener.getsockname()[1]
    finally:
        runner.should_exit = True
        thread.join(60)
        listener.close()
        parent.join(10)


def _drain(channel: socket.socket) -> None:
    """Reads as the parent does, and hangs up at the end."""
    with channel, suppress(OSError):
        while channel.recv(1 << 16):
            pass
