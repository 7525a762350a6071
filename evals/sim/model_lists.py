"""A list switch sets what `GET /v1/models` answers instead of the simulator's own list: what a
gateway lists, or what a broken or hostile server sends.
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from evals.sim import profiles
from evals.sim.protocols.http_exchange import HttpExchange
from harness.domain.errors import InputError


@dataclass(frozen=True, slots=True)
class ModelListSwitch:
    """An answer, as it is sent."""

    body: str = ""
    status: int = 200
    location: str = ""  # where a redirect leads
    times: int = 1  # how often the body is sent; 0 for until the client leaves
    pause_ms: int = 0  # behind each time

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    async def answer(self, exchange: HttpExchange) -> None:
        """Answers a request for the list with the switch's body, as often as it says. Raises
        ClientGone.
        """
        if self.location:
            exchange.headers = {**exchange.headers, "location": self.location}
        await exchange.start(self.status, "application/json")
        for _ in range(self.times) if self.times else itertools.count():
            await exchange.write(self.body.encode())
            await exchange.pause(self.pause_ms / 1000)
            await exchange.give_way()
        await exchange.write(b"", last=True)


def parse_list_switch(data: object) -> ModelListSwitch:
    """Parses the simulator's switch for lists of models. Raises InputError that names the
    field.
    """
    values = profiles.known(data, ModelListSwitch, "models")
    for name, value in values.items():
        kind = type(getattr(ModelListSwitch(), name))
        if type(value) is not kind:
            raise InputError(f"models: {name}: must be of the type {kind.__name__}")
    return ModelListSwitch(**values)
