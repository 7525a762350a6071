"""Sends the demo's traffic: the official openai client for proof, a light generator for volume.
Rates are by route, and may change while it runs; `TrafficCounts` counts answers and failures.

Every answer is looked at: an error, an empty answer or a stream without its end is a failed
request of a user.
"""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
from openai import OpenAI, OpenAIError

TIMEOUT_S = 60.0
SDKS = 2
KEPT_FAILURES = 100
QUESTIONS = (
    "Where is my parcel?",
    "How do I change my e-mail address?",
    "I was charged twice this month.",
    "The page stays blank after I log in.",
)


@dataclass
class TrafficCounts:
    """Requests that were answered, by client, and what went wrong with the first others."""

    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    failed: int = 0

    @property
    def total(self) -> int:
        return sum(self.answered.values()) + self.failed

    def note_failure(self, client: str, route: str, why: str) -> None:
        """Counts a failed request. Traffic may go on for days: the first texts are kept."""
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(f"{client} on {route}: {why}")


@dataclass
class DemoTraffic:
    """Sends the demo's requests: a generator's and the official client's."""

    base_url: str
    key: str
    # Requests per second and route, changed while it runs. base_url ends in /v1.
    rates: dict[str, float]
    tally: TrafficCounts = field(default_factory=TrafficCounts)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, *, sdk_rate: float = 0.0) -> None:
        """Starts the requests, after `stop` anew. sdk_rate: requests per second by the official
        client, over all routes; 0 for none.
        """
        self._stop.clear()
        self._threads.clear()
        clients = SDKS if sdk_rate else 0
        official = [partial(self._official, sdk_rate / SDKS, start) for start in range(clients)]
        runs: list[Callable[[], None]] = [self._generate, *official]
        for run in runs:
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Sends no new requests, and waits for those under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=TIMEOUT_S)

    def _official(self, rate: float, start: int) -> None:
        # max_retries=0: what the user's first try sees is what counts.
        client = OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0)
        with client:
            for number, route in enumerate(self._routes(), start=start * 1_000_000):
                if self._stop.wait(1 / rate):
                    return
                try:
                    text = _ask(client, route, number)
                except OpenAIError as error:
                    self.tally.note_failure("openai", route, str(error)[:200])
                    continue
                if text:
                    self.tally.answered["openai"] += 1
                else:
                    self.tally.note_failure("openai", route, "an empty answer")

    def _routes(self) -> Iterator[str]:
        return itertools.cycle(sorted(self.rates))

    def _generate(self) -> None:
        asyncio.run(self._generating())

    async def _generating(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=200)
        headers = {"Authorization": f"Bearer {self.key}"}
        async with (
            aiohttp.ClientSession(
                timeout=timeout, connector=connector, headers=headers
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for route in self.rates:
                tasks.create_task(self._users_of(route, session, tasks))

    async def _users_of(
        self, route: str, session: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> None:
        """A new user every time: open-loop arrivals at the route's rate."""
        due = time.monotonic()
        for number in itertools.count():
            if self._stop.is_set():
                return
            due = max(due + 1 / self.rates[route], time.monotonic() - 0.5)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.create_task(self._one(route, number, session))

    async def _one(self, route: str, number: int, session: aiohttp.ClientSession) -> None:
        body = {
            "model": route,
            "user": f"user-{route}-{number}",
            "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
        }
        try:
            async with session.post(f"{self.base_url}/chat/completions", json=body) as answer:
                reply = await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.tally.note_failure("generator", route, repr(error)[:200])
            return
        if answer.status == 200 and reply["choices"][0]["message"]["content"]:
            self.tally.answered["generator"] += 1
        else:
            self.tally.note_failure("generator", route, f"{answer.status} {str(reply)[:200]}")


def _ask(client: OpenAI, route: str, number: int) -> str:
    """One question by the official client; every other one is streamed."""
    message: Any = {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}
    user = f"sdk-{route}-{number}"
    # A provider that dies in mid-stream cannot be hidden: nobody may splice two models' texts.
    if route == "search" or number % 2:
        reply = client.chat.completions.create(model=route, messages=[message], user=user)
        return reply.choices[0].message.content or ""
    chunks = client.chat.completions.create(
        model=route, messages=[message], user=user, stream=True
    )
    text, ended = "", False
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ended = ended or choice.finish_reason is not None
    return text if ended else ""
