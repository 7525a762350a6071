"""The simulator's raw ASGI application serves model endpoints, checks keys, and has, for
loopback clients, the `/sim/` switches for faults, profiles and statistics.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from evals.sim import faults, profiles
from evals.sim.protocols.endpoints import CHAT, DIALECTS
from evals.sim.protocols.http_exchange import HttpExchange
from evals.sim.protocols.requests import Refused, decoded
from evals.sim.simulator import Simulator
from harness.domain.errors import InputError

ANY_MODEL = "*"
LOOPBACK = ("127.0.0.1", "::1")


async def answer_control(exchange: HttpExchange, simulator: Simulator) -> None:
    """Serves one request under `/sim/`. Raises Refused."""
    if not (exchange.client and exchange.client.host in LOOPBACK):
        raise Refused(403, "The /sim/ switches answer to loopback clients only.")
    what, _, rest = exchange.path.removeprefix("/sim/").partition("/")
    model = unquote(rest) or None
    if model not in {None, ANY_MODEL}:
        simulator.model(str(model))
    try:
        result = act(simulator, f"{exchange.method} {what}", model, await exchange.body())
    except InputError as error:
        raise Refused(400, str(error)) from None
    await exchange.reply(200, result)


def act(simulator: Simulator, switch: str, model: str | None, body: bytes) -> Mapping[str, Any]:
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
            like = simulator.model(str(changes.pop("like", name))).profile
            profile = profiles.change_profile(like, changes, place=name)
            simulator.set_profile(name, profile)
            return {name: profile.as_json()}
        case "GET stats", None:
            return {"models": {name: s.as_json() for name, s in simulator.stats.items()}}
        case "DELETE stats", None:
            simulator.stats.clear()
            return {"models": {}}
        case _:
            known = "see `swapgate docs open simulator`"
            raise Refused(404, f"There is no switch {switch}; {known}.")


def build_app(simulator: Simulator, *, key: str = "") -> ASGIApp:
    """Builds the ASGI application; it needs the connection class of `evals.sim.server`.

    key: refuses models' endpoints without it; empty for none.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = HttpExchange(scope, receive, send)
        try:
            await answer(exchange, simulator, key)
        except Refused as refused:
            error = DIALECTS.get(exchange.path, CHAT).error(
                refused.status, refused.message, refused.code, refused.param
            )
            await exchange.reply(refused.status, error)
        except ClientDisconnect:
            return

    return app


async def answer(exchange: HttpExchange, simulator: Simulator, key: str) -> None:
    """Serves one request. Raises Refused; a wrong key is repeated, as some providers do."""
    if key and exchange.path.startswith("/v1/") and exchange.key != key:
        said = f"Incorrect API key provided: {exchange.key}."
        raise Refused(401, said, code="invalid_api_key")
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
            raise Refused(404, f"Unknown request URL: {method} {path}.", code="unknown_url")
