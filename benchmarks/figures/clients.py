"""200 concurrent clients on PostgreSQL while a canary is open:
`python -m benchmarks.figures.clients [--clients 200] [--seconds 600]`.

Real processes: PostgreSQL, control plane, `serve router` with two workers, simulated provider.
The canary comes by a proposal, its evals and its verdict. Each client is the official one, asks
again soon after it has its answer, every other time as a stream, and tries nothing twice.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import openai
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.canary.place import Place, placed
from benchmarks.figures.record import RunResult, record_run
from tests.support.store.private_postgres import own_postgres

ROUTE: Final = "support"
WORKERS: Final = 2
# More than the run has, so that the canary stays open to its end.
NEVER: Final = 10_000_000
POLICY: Final = {
    "canary": {
        "unit": "request",
        "steps": [
            {"weight_bps": 1000, "min_exposures": NEVER},
            {"weight_bps": 2500, "min_exposures": NEVER, "certify": True},
        ],
    }
}
# Between an answer and the next question; without it the load is the clients' own CPU time.
THINKS_S: Final = 2.0


@dataclass
class Crowd:
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    async def client(self, place: Place, number: int, until: float) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{place.port}/v1", api_key=place.key, max_retries=0
        ) as client:
            turn = number
            await asyncio.sleep(THINKS_S * (number % 50) / 50)
            while time.monotonic() < until:
                turn += 1
                try:
                    if not await self._ask(client, f"user-{number}", stream=turn % 2 == 0):
                        self.failed["an empty answer"] += 1
                    else:
                        self.answered += 1
                except Exception as error:  # noqa: BLE001 - every kind is a failed request
                    self.failed[repr(error)[:200]] += 1
                await asyncio.sleep(THINKS_S)

    async def _ask(self, client: openai.AsyncOpenAI, user: str, *, stream: bool) -> str:
        question: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": "Where does my ticket go?"}
        ]
        if not stream:
            answer = await client.chat.completions.create(
                model=ROUTE,
                messages=question,
                user=user,
            )
            return answer.choices[0].message.content or ""
        chunks = await client.chat.completions.create(
            model=ROUTE,
            messages=question,
            user=user,
            stream=True,
        )
        return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])

    async def ask(self, place: Place, clients: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(self.client(place, n, until) for n in range(clients)))


def run(clients: int, seconds: float, folder: Path) -> RunResult:
    with ExitStack() as stack:
        server = stack.enter_context(own_postgres())
        place = stack.enter_context(
            placed(
                folder,
                {ROUTE: "better"},
                POLICY,
                workers=WORKERS,
                database_url=server.url("postgres"),
            )
        )
        place.start("control", "router")
        place.open([ROUTE])
        crowd = Crowd()
        asyncio.run(crowd.ask(place, clients, seconds))
        weight = place.weight_bps(ROUTE)
    faults = [f"{count} × {words}" for words, count in crowd.failed.items()]
    failures = crowd.failed.total()
    if not weight:
        faults.append("the canary was closed before the end")
        failures += 1
    return RunResult(
        crowd.answered + crowd.failed.total(),
        failures,
        f"{clients} clients for {seconds:.0f} s, each with {THINKS_S:.0f} s from an answer to "
        f"its next question; the canary had {weight} bps to the end.",
        faults,
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clients", type=int, default=200)
    options.add_argument("--seconds", type=float, default=600.0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-clients-") as folder:
        return record_run("clients", lambda: run(chosen.clients, chosen.seconds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
