"""Builds the simulator from profiles and suites, and serves it under uvicorn, in this process
until a signal or in a thread. Its connections can be reset by faults.
"""

import asyncio
import dataclasses
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from evals.sim import item_bank
from evals.sim.app import build_app
from evals.sim.item_bank import ItemBank, Source
from evals.sim.profiles import DEFAULT_PROFILES, Profile, load_profiles, swap_profiles
from evals.sim.protocols.http_exchange import TRANSPORT
from evals.sim.simulator import Simulator
from harness import package_data
from harness.domain.content_hash import digest
from harness.domain.errors import InputError

GRACE_S = 1.0


class BreakableProtocol(HttpToolsProtocol):
    """Hands the transport to the application, so that it can reset the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Not part of ASGI's types: our own extension.
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class SimServer(uvicorn.Server):
    """Ends cleanly although some answers hang on purpose."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(GRACE_S, self._abort_open)
        await super().shutdown(sockets)

    def _abort_open(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, BreakableProtocol):
                connection.transport.abort()


def server(app: object, *, limit_s: float = 5.0) -> SimServer:
    """A server for one process; sockets are given when it runs."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type] # uvicorn's own names for the same ASGI types
        http=BreakableProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(limit_s),
    )
    return SimServer(config)


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def whole_seconds() -> int:
    return time.time_ns() // 1_000_000_000


def simulator(
    *,
    profiles: Path | None = None,
    suites: Sequence[Source] = (),
    swaps: Sequence[str] = (),
    time_scale: float = 1.0,
) -> Simulator:
    """Builds a simulator over the shipped suites and the given ones.

    profiles: a YAML file instead of the shipped one. suites: files, `NAME=FILE`, or settings.
    swaps: `A=B` exchanges two models' roles. Raises InputError.
    """
    models: dict[str, Profile] = load_profiles(profiles or DEFAULT_PROFILES)
    shipped = item_bank.load_suites(item_bank.suite_files(package_data.path("datasets")))
    own = item_bank.load_suites(suites)
    version = digest([dataclasses.asdict(item) for item in own])[:6] if own else ""
    return Simulator(
        swap_profiles(models, swaps),
        ItemBank([*shipped, *own], version),
        unix_time=whole_seconds,
        time_scale=time_scale,
    )


def open_listener(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises InputError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"the simulator cannot listen on {host}:{port}: {error.strerror}; "
            "choose another port with --port"
        ) from None


def listener_url(listener: socket.socket) -> str:
    """Returns the listener's address, `http://host:port`, without `/v1`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_forever(  # noqa: PLR0913 - the options of the command, one by one
    host: str = "127.0.0.1",
    port: int = 9000,
    *,
    profiles: Path | None = None,
    suites: Sequence[Source] = (),
    swaps: Sequence[str] = (),
    time_scale: float = 1.0,
    key: str = "",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return. Raises InputError before it serves.

    on_ready: called once with the base URL (without `/v1`), when connections are accepted.
    """
    sim = simulator(profiles=profiles, suites=suites, swaps=swaps, time_scale=time_scale)
    with open_listener(host, port) as listener:
        serving = server(build_app(sim, key=key))
        # uvicorn raises the signals again when it is done: they must not kill us then.
        before = {sign: signal.signal(sign, lambda *_: None) for sign in STOP_SIGNALS}
        try:
            if on_ready:
                on_ready(listener_url(listener))
            serving.run(sockets=[listener])
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
