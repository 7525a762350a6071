"""The simulator with numbered words: `python -m benchmarks.faults.provider LETTER PORT`.

Answers say who wrote them, calls are counted by the request that they are for.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, MutableMapping
from dataclasses import replace
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.faults.answers import words
from benchmarks.faults.catalogue import rows
from benchmarks.faults.routes import routes
from evals.sim import profiles
from evals.sim import server as serve
from evals.sim.app import build_app
from evals.sim.item_bank import ItemBank
from evals.sim.protocols.chat_completions import Completion
from evals.sim.protocols.http_exchange import HttpExchange
from evals.sim.protocols.requests import ChatRequest
from evals.sim.server import server
from evals.sim.simulated_model import SimulatedModel
from evals.sim.simulator import Simulator

# In the prompt, so that every gateway passes it on.
NUMBER: Final = re.compile(rb"request-([0-9a-z.-]+)")
CALLS: Final = "/calls"


class Numbered(Simulator):
    """A simulator whose every answer is its letter's words."""

    def __init__(self, letter: str, models: Iterable[str]) -> None:
        plain = next(iter(profiles.load_profiles(profiles.DEFAULT_PROFILES).values()))
        super().__init__(
            dict.fromkeys(models, plain),
            ItemBank({}),
            unix_time=serve.whole_seconds,
            time_scale=0,
        )
        self._text = " ".join(words(letter))

    def _complete(self, request: ChatRequest, model: SimulatedModel) -> Completion:
        return replace(super()._complete(request, model), text=self._text)


def counting(app: ASGIApp) -> ASGIApp:
    """The application, and under CALLS what it was asked: calls and who left, by number."""
    calls: Counter[str] = Counter()
    left: set[str] = set()

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == CALLS:
            told = {"calls": calls, "left": sorted(left)}
            await HttpExchange(scope, receive, send).reply(200, told)
            return
        body = await HttpExchange(scope, receive, send).body()
        found = NUMBER.search(body)
        number = found[1].decode() if found else ""
        calls[number] += 1
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay_body() -> MutableMapping[str, Any]:
            if unread:
                return unread.pop()
            message = await receive()
            if message["type"] == "http.disconnect":
                left.add(number)
            return message

        await app(scope, replay_body, send)

    return counted


def main() -> None:
    letter, port = sys.argv[1:]
    models = [f"{letter}.{route.name}" for route in routes(rows())]
    app = counting(build_app(Numbered(letter, models)))
    with serve.open_listener("127.0.0.1", int(port)) as listener:
        server(app).run(sockets=[listener])


if __name__ == "__main__":
    main()
