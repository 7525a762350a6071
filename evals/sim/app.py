"""The simulator's raw ASGI application serves model endpoints, checks keys, and has, for
loopback clients, the `/sim/` switches for faults, profiles and statistics.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import unquote

from evals.sim import faults, profiles
from evals.sim.protocols.endpoints import CHAT, DIALECTS
from evals.sim.protocols.http_exchange import ClientGone, HttpExchange, Receive, Scope, Send
from evals.sim.protocols.requests import Refused, decoded
from evals.sim.simulator import Simulator
from harness.domain.errors import InputError

ANY_MODEL = "*"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def answer_control(exchange: HttpExchange, simulator: Simulator) -> None:
    """Serves one request under `/sim/`. Raises Refused."""
    if not is_loopback(exchange.client_host):
        raise Refused(403, "The /sim/ switches answer to loopback clients only.")
    what, _, rest = exchange.path.removeprefix("/sim/").partition("/")
    model = unquote(rest) or None
    body = await exchange.body()
    try:
        result = act(simulator, exchange.method, what, model, body)
    except InputError as error:
        raise Refused(400, str(error)) from None
    await exchange.json(200, result)


def act(  # noqa: PLR0911 - one line for each switch
    simulator: Simulator, method: str, what: str, model: str | None, body: bytes
) -> Mapping[str, Any]:
    if model not in {None, ANY_MODEL}:
        simulator.described(str(model))
    match method, what, model:
        case "GET", "faults", None:
            return {"faults": simulator.faults.as_json()}
        case "PUT", "faults", str(name):
            fault = faults.parse_fault(decoded(body))
            simulator.faults.set(name, fault)
            return {name: asdict(fault)}
        case "DELETE", "faults", name:
            simulator.faults.clear(name)
            return {"faults": simulator.faults.as_json()}
        case "GET", "profiles", None:
            return {name: e.profile.as_json() for name, e in simulator.models.items()}
        case "POST", "profiles", str(name) if name != ANY_MODEL:
            simulator.set_profile(name, drifted(simulator, name, decoded(body)))
            return {name: simulator.models[name].profile.as_json()}
        case "GET", "stats", None:
            return {"models": {name: s.as_json() for name, s in simulator.stats.items()}}
        case "DELETE", "stats", None:
            simulator.stats.clear()
            return {"models": {}}
        case _:
            raise Refused(
                404, f"There is no switch {method} {what}; see `swapgate docs open simulator`."
            )


def drifted(simulator: Simulator, model: str, data: dict[str, Any]) -> profiles.Profile:
    """`{"like": OTHER}` takes the profile behind another name; other fields change it."""
    changes = dict(data)
    like = changes.pop("like", model)
    if like not in simulator.models:
        raise InputError(f"like: {profiles.unknown(str(like), tuple(simulator.models))}")
    return profiles.change_profile(simulator.models[like].profile, changes, place=model)


App = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_app(simulator: Simulator, *, key: str = "") -> App:
    """Builds the ASGI application; it needs the connection class of `evals.sim.server`.

    key: refuses models' endpoints without it; empty for none.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the simulator speaks HTTP only, not {scope['type']}")
        exchange = HttpExchange(scope, receive, send)
        try:
            if key and exchange.path.startswith("/v1/"):
                check_key(exchange, key)
            await answer(exchange, simulator)
        except Refused as refused:
            error = DIALECTS.get(exchange.path, CHAT).error(
                refused.status, refused.message, refused.code, refused.param
            )
            await exchange.json(refused.status, error)
        except ClientGone:
            return

    return app


def check_key(exchange: HttpExchange, key: str) -> None:
    """Checks a request's key; else raises Refused, which repeats what was sent, as some
    providers do.
    """
    given = exchange.key()
    if given != key:
        raise Refused(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")


async def answer(exchange: HttpExchange, simulator: Simulator) -> None:
    match exchange.method, exchange.path:
        case "POST", path if path in DIALECTS:
            await simulator.answer(exchange, DIALECTS[path])
        case "POST", "/v1/embeddings":
            await simulator.embed(exchange)
        case "GET", "/v1/models":
            await exchange.json(200, {"object": "list", "data": simulator.catalogue()})
        case "GET", path if path.startswith("/v1/models/"):
            await exchange.json(200, simulator.described(path.removeprefix("/v1/models/")))
        case "GET", "/healthz":
            await exchange.json(200, {"status": "ok", "simulated": True})
        case _, path if path.startswith("/sim/"):
            await answer_control(exchange, simulator)
        case method, path:
            raise Refused(404, f"Unknown request URL: {method} {path}.", code="unknown_url")
