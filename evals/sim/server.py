"""Serves a simulator under uvicorn, in this process until a signal, or in a thread.

Loopback clients also get the `/sim/` switches for faults, profiles and statistics. `simulator`
writes the answers. This module handles paths, keys and connections.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from evals.sim import faults, simulated_model
from evals.sim.chat_completions import CHAT, Refused, decoded
from evals.sim.faults import TRANSPORT, HttpExchange
from evals.sim.profiles import (
    DEFAULT_PROFILES,
    adapter,
    change_profile,
    load_profiles,
)
from evals.sim.simulated_model import ItemBank, Source
from evals.sim.simulator import DIALECTS, Simulator
from harness.frame import package_data
from harness.frame.calm_server import CalmServer
from harness.frame.errors import InputError
from harness.frame.plain_data import digest
from harness.routing.settings import http_url

ANY_MODEL = "*"
LOOPBACK = ("127.0.0.1", "::1")
GRACE_S = 1.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def answer_control(exchange: HttpExchange, simulator: Simulator) -> None:
    """Answers a request to a `/sim/` switch. Raises Refused for other machines and unknown
    models.
    """
    if not (exchange.client and exchange.client.host in LOOPBACK):
        raise Refused(403, "The /sim/ switches answer to loopback clients only.")
    switch, _, rest = exchange.path.removeprefix("/sim/").partition("/")
    model = unquote(rest) or None
    if model not in {None, ANY_MODEL} and switch != "profiles":  # `profiles` may add a model
        simulator.model(str(model))
    try:
        result = act(
            simulator,
            f"{exchange.method} {switch}",
            model,
            await exchange.body(),
        )
    except InputError as error:
        raise Refused(400, str(error)) from None
    await exchange.reply(200, result)


def act(
    simulator: Simulator,
    switch: str,
    model: str | None,
    body: bytes,
) -> Mapping[str, Any]:
    """Runs a switch, `METHOD NAME`, and returns its answer. Raises Refused, InputError."""
    match switch, model:
        case "PUT faults", str(name):
            fault = faults.parse_fault(decoded(body))
            simulator.faults.set(name, fault)
            return {name: asdict(fault)}
        case "DELETE faults", name:
            simulator.faults.clear(name)
            return {"cleared": name or ANY_MODEL}
        case "POST profiles", str(name) if name != ANY_MODEL:
            changes = decoded(body)
            base = simulator.model(str(changes.pop("like", name))).profile
            profile = change_profile(base, changes, place=name)
            simulator.set_profile(name, profile)
            return {name: profile.as_json()}
        case "GET stats", None:
            return {
                "models": {name: stats.as_json() for name, stats in simulator.stats.items()}
            }
        case "DELETE stats", None:
            simulator.stats.clear()
            return {"models": {}}
        case _:
            advice = "see `swapproof docs open simulator`"
            raise Refused(404, f"There is no switch {switch}; {advice}.")


def build_app(simulator: Simulator, *, key: str = "") -> ASGIApp:
    """Builds the ASGI application, which needs `BreakableProtocol`.

    Args:
        key: the key that clients must send to models' endpoints; empty for none.
    """

    async def app(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        exchange = HttpExchange(scope, receive, send)
        try:
            await answer(exchange, simulator, key)
        except Refused as refused:
            error = DIALECTS.get(exchange.path, CHAT).error(refused)
            await exchange.reply(refused.status, error)
        except ClientDisconnect:
            return

    return app


async def answer(
    exchange: HttpExchange,
    simulator: Simulator,
    key: str,
) -> None:
    """Serves one request. Raises Refused, which repeats a wrong key, as some providers do."""
    if key and exchange.path.startswith("/v1/") and exchange.key != key:
        message = f"Incorrect API key provided: {exchange.key}."
        raise Refused(401, message, code="invalid_api_key")
    match exchange.method, exchange.path:
        case "POST", path if path in DIALECTS:
            await simulator.answer(exchange, DIALECTS[path])
        case "POST", "/v1/embeddings":
            await simulator.embed(exchange)
        case "GET", "/v1/models":
            await exchange.reply(200, simulator.catalogue())
        case "GET", "/healthz":
            await exchange.reply(200, {"status": "ok", "simulated": True})
        case _, path if path.startswith("/sim/"):
            await answer_control(exchange, simulator)
        case method, path:
            raise Refused(
                404,
                f"Unknown request URL: {method} {path}.",
                code="unknown_url",
            )


class BreakableProtocol(HttpToolsProtocol):
    """Gives the application the transport, so that it can reset the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # ASGI's types do not know our extension.
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class SimServer(CalmServer):
    """Shuts down even while some answers hang on purpose."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(GRACE_S, self._abort_open)
        await super().shutdown(sockets)

    def _abort_open(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, BreakableProtocol):
                connection.transport.abort()


def server(app: object) -> SimServer:
    """Builds a server for one process. `run` takes its sockets."""
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
        timeout_graceful_shutdown=5,
    )
    return SimServer(config)


def simulator(
    *,
    profiles: Path = DEFAULT_PROFILES,
    suites: Sequence[Source] = (),
    time_scale: float = 1.0,
) -> Simulator:
    """Builds the simulator with the shipped suites.

    Args:
        suites: further suites of the user.
        time_scale: factor on all latencies; 0 answers at once.
    """
    shipped_items = simulated_model.load_suites(
        simulated_model.suite_files(package_data.path("datasets"))
    )
    user_items = simulated_model.load_suites(suites)
    version = (
        digest(adapter(list[simulated_model.BankItem]).dump_python(user_items))[:6]
        if user_items
        else ""
    )
    bank = ItemBank([*shipped_items, *user_items], version)
    models = load_profiles(profiles)
    return Simulator(models, bank, time_scale=time_scale)


def open_listener(host: str, port: int) -> socket.socket:
    """Opens the socket of the server. Raises InputError if the address is taken or unknown."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"the simulator cannot listen on {host}:{port}: {error.strerror}; "
            "choose another port with --port"
        ) from None


def listener_url(listener: socket.socket) -> str:
    return http_url(*listener.getsockname()[:2])


def serve_forever(
    host: str = "127.0.0.1",
    port: int = 9000,
    *,
    profiles: Path | None = None,
    suites: Sequence[Source] = (),
    time_scale: float = 1.0,
    key: str = "",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then returns. Raises InputError before it serves.

    Args:
        on_ready: gets the base URL (without `/v1`) once the server accepts connections.
    """
    profiles_file = profiles or DEFAULT_PROFILES
    provider_simulator = simulator(profiles=profiles_file, suites=suites, time_scale=time_scale)
    with open_listener(host, port) as listener:
        sim_server = server(build_app(provider_simulator, key=key))
        # uvicorn raises the signals again when it ends; they must not kill the process.
        old_handlers = {
            signal_number: signal.signal(signal_number, lambda *_: None)
            for signal_number in STOP_SIGNALS
        }
        try:
            if on_ready:
                on_ready(listener_url(listener))
            sim_server.run(sockets=[listener])
        finally:
            for signal_number, handler in old_handlers.items():
                signal.signal(signal_number, handler)
