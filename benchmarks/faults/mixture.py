"""Every fault mixed into healthy traffic, at a fixed rate, for as long as one likes."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from benchmarks.faults.catalogue import Manner, Row, Variant, rows
from benchmarks.faults.client import RequestResult, ask, leave
from benchmarks.faults.figures import right
from benchmarks.faults.load import HEALTHY, PATIENCE_S, Door, official_client, question
from benchmarks.faults.routes import route

# Of requests: those whose answers are tens of megabytes are rare.
LARGE_EVERY: Final = 100
# A slope over less time is the noise of a few requests.
TRENDS_FROM_S: Final = 1200.0
# Before a run whose slopes count: a worker remembers its latest 20,000 requests and a sixteenth
# more for feedback, and its memory grows until it does.
REMEMBERED: Final = 22_000
FILLS_AT: Final = 100.0  # requests per second


@dataclass
class Outcome:
    """sent: requests that began. wrong: those that did not end as they should, by their row."""

    sent: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def note(self, row: Row, asked: RequestResult) -> None:
        self.endings[asked.ending] += 1
        if not right(row.expect, asked):
            self.wrong[f"{row.number} {row.title}"] += 1


def healthy() -> Iterator[tuple[Row, Variant]]:
    return itertools.repeat((rows()[0], HEALTHY))


def mixed() -> Iterator[tuple[Row, Variant]]:
    """Every second one is healthy, the others are all faults in turn."""
    sound, *faulty = rows()
    large = itertools.cycle([(r, v) for r in faulty if r.share < 0.2 for v in r.variants])
    others = itertools.cycle([(r, v) for r in faulty if r.share >= 0.2 for v in r.variants])
    for turn in itertools.count():
        yield sound, HEALTHY
        yield next(large) if turn % (LARGE_EVERY // 2) == 0 else next(others)


async def poured(
    door: Door,
    mixture: Iterator[tuple[Row, Variant]],
    *,
    rate: float,
    seconds: float,
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Requests at that rate, half of them streams; ends when all of them have."""
    loop, outcome = asyncio.get_running_loop(), Outcome()
    under_way: set[asyncio.Task[None]] = set()
    async with official_client(door.port, 0, patience_s) as client:

        async def one(turn: int, row: Row, variant: Variant) -> None:
            name, leaves = route(variant, 0).name, row.manner is Manner.LEAVE
            stream = leaves or (turn // 2) % 2 == 0
            next_ = question(door, name, number=f"soak.{turn:x}", stream=stream)
            doing = leave(client, next_, door.left) if leaves else ask(client, next_)
            outcome.note(row, await doing)

        began = loop.time()
        for turn, (row, variant) in enumerate(mixture):
            due = began + turn / rate
            if due >= began + seconds:
                break
            await asyncio.sleep(due - loop.time())
            outcome.sent += 1
            task = asyncio.create_task(one(turn, row, variant))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return outcome


async def fill_memory(door: Door) -> Outcome:
    """Healthy requests, until the router's worker remembers as many as it ever does."""
    return await poured(door, healthy(), rate=FILLS_AT, seconds=REMEMBERED / FILLS_AT)
