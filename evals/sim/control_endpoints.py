"""`/sim/…`: faults, drift and counts, set and read over HTTP by loopback clients."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from evals.sim import faults, profiles
from evals.sim.protocols.http_exchange import HttpExchange
from evals.sim.protocols.requests import Refused, decoded
from evals.sim.simulator import Simulator
from harness.domain.errors import InputError

ANY_MODEL = "*"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def answer(exchange: HttpExchange, simulator: Simulator) -> None:
    """Serve one request under `/sim/`. Raises Refused."""
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
            return {name: fault.as_json()}
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
            raise Refused(404, f"There is no switch {method} {what}; see docs/simulator.md.")


def drifted(simulator: Simulator, model: str, data: dict[str, Any]) -> profiles.Profile:
    """`{"like": OTHER}` takes the profile behind another name; other fields change it."""
    changes = dict(data)
    like = changes.pop("like", model)
    if like not in simulator.models:
        raise InputError(f"like: {profiles.unknown(str(like), tuple(simulator.models))}")
    return profiles.change_profile(simulator.models[like].profile, changes, place=model)
