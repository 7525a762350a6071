"""The simulator as a raw ASGI application."""

from collections.abc import Awaitable, Callable

from evals.sim import control_endpoints
from evals.sim.protocols.endpoints import DIALECTS, dialect_of
from evals.sim.protocols.http_exchange import ClientGone, HttpExchange, Receive, Scope, Send
from evals.sim.protocols.requests import Refused
from evals.sim.simulator import Simulator

App = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_app(simulator: Simulator, *, allow_switches: bool = True, key: str = "") -> App:
    """The ASGI application; it needs the connection class of `evals.sim.connection`.

    key: refuses models' endpoints without it; empty for none.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the simulator speaks HTTP only, not {scope['type']}")
        exchange = HttpExchange(scope, receive, send)
        try:
            if key and exchange.path.startswith("/v1/"):
                check_key(exchange, key)
            await answer(exchange, simulator, allow_switches=allow_switches)
        except Refused as refused:
            error = dialect_of(exchange.path).error(
                refused.status, refused.message, refused.code, refused.param
            )
            await exchange.json(refused.status, error)
        except ClientGone:
            return

    return app


def check_key(exchange: HttpExchange, key: str) -> None:
    """Raises Refused, which repeats what was sent, as some providers do."""
    given = exchange.key()
    if given != key:
        raise Refused(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")


async def answer(exchange: HttpExchange, simulator: Simulator, *, allow_switches: bool) -> None:
    match exchange.method, exchange.path:
        case "POST", path if path in DIALECTS:
            await simulator.answer(exchange, DIALECTS[path])
        case "POST", "/v1/embeddings":
            await simulator.embed(exchange)
        case "GET", "/v1/models":
            await exchange.json(200, {"object": "list", "data": simulator.catalogue()})
        case "GET", "/healthz":
            await exchange.json(200, {"status": "ok", "simulated": True})
        case "GET", path if path.startswith("/v1/models/"):
            await exchange.json(200, simulator.described(path.removeprefix("/v1/models/")))
        case _, path if allow_switches and path.startswith("/sim/"):
            await control_endpoints.answer(exchange, simulator)
        case method, path:
            raise Refused(404, f"Unknown request URL: {method} {path}.", code="unknown_url")
