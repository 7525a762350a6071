"""Simulates users who stream a route's answers through the official client."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import openai

from benchmarks.real.orders import FORMAT, MOST_TOKENS, QUESTION, orders
from tests.acceptance.installation import REQUEST_S, Installation


@dataclass(frozen=True)
class Answer:
    """first_token_s: time until the first text, if any. error: empty for a whole answer."""

    target: str
    arm: str
    first_token_s: float | None
    total_s: float
    error: str = ""


@dataclass
class Traffic:
    """Sends requests from several threads inside `running`, each request from a new user."""

    place: Installation
    route: str
    threads: int = 2
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._users = itertools.count()
        self._inputs = [f"{QUESTION}{order['input']}" for order in orders()]
        self.client = openai.OpenAI(
            base_url=f"{self.place.url('router')}/v1",
            api_key=self.place.data_key,
            max_retries=0,
            timeout=REQUEST_S,
        )

    @property
    def failed(self) -> Sequence[Answer]:
        return [answer for answer in self.answers if answer.error]

    def ask(self) -> Answer:
        number = next(self._users)
        begun = time.monotonic()
        first = None
        target = arm = ""
        try:
            with self.client.chat.completions.with_streaming_response.create(
                model=self.route,
                user=f"{self.route}-{number}",
                messages=[{"role": "user", "content": self._inputs[number % 120]}],
                max_tokens=MOST_TOKENS,
                extra_body={"response_format": FORMAT},
                stream=True,
            ) as raw:
                target = raw.headers.get("x-swapproof-target", "")
                arm = raw.headers.get("x-swapproof-arm", "")
                reason = None
                for chunk in raw.parse():
                    for choice in chunk.choices:
                        reason = choice.finish_reason or reason
                        if choice.delta.content and first is None:
                            first = time.monotonic() - begun
        except openai.OpenAIError as error:
            return Answer(
                target,
                arm,
                first,
                time.monotonic() - begun,
                repr(error)[:200],
            )
        why = "" if reason and first is not None else f"ended as {reason}"
        return Answer(target, arm, first, time.monotonic() - begun, why)

    def _ask_on(self) -> None:
        while not self._over.is_set():
            self.answers.append(self.ask())

    @contextmanager
    def running(self) -> Iterator["Traffic"]:
        running = [threading.Thread(target=self._ask_on) for _ in range(self.threads)]
        for thread in running:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in running:
                thread.join()


def burst(
    place: Installation,
    route: str,
    count: int,
) -> list[Answer]:
    """Sends the requests of `count` users at the same moment."""
    asking = Traffic(place, route, threads=count)
    found: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: found.append(asking.ask())) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
