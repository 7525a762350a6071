"""A provider's key is taken away, or refused, under load (E5): the next one answers, and nobody
notices; a new key is used at once (D3).
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import httpx
import openai
import pytest

from harness.control.operations import keys
from harness.domain.operations.access import SYSTEM, Role
from harness.runtime import secret_files
from tests.support.router.router_process import ROUTE, Routed, eventually, routed
from tests.support.site.processes import free_port

SECRETS = {name: f"sk-{name}-0123456789abcdef" for name in ("first", "second", "third")}
PATH = "/api/v1/credentials/providers"


@contextmanager
def simulator(secret: str) -> Iterator[str]:
    """A provider of its own process, which refuses who does not send its key."""
    port = free_port()
    words = ["sim", "--port", str(port), "--key-env", "SIM_WANTS", "--time-scale", "0.02"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "swapgate", *words],
        env={**os.environ, "SIM_WANTS": secret},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(120)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


class ServedAnswer(NamedTuple):
    provider: str
    attempts: str
    begun: float
    worker: str  # of the router


# What every worker does, whichever part of it a caller meets.
TURNS = ["first", "second", "first"]


def turns(answers: Iterable[ServedAnswer]) -> list[str]:
    """The providers in order, each once for as long as it answers."""
    return [provider for provider, _ in groupby(answer.provider for answer in answers)]


@dataclass
class Callers:
    """Who served each answer, by caller and in order, and when. They never try again."""

    url: str
    key: str
    served: list[list[ServedAnswer]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def call(self, mine: list[ServedAnswer], *, stream: bool) -> None:
        with openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0
        ) as client:
            while not self.stopping.is_set():
                begun = time.monotonic()
                try:
                    raw = client.chat.completions.with_raw_response.create(
                        model=ROUTE,
                        messages=[{"role": "user", "content": "Colour number 3?"}],
                        stream=stream,
                    )
                    found = raw.parse()
                    if stream:
                        assert list(found)
                except Exception as error:  # noqa: BLE001 - every kind is a failed request
                    self.errors.append(repr(error))
                    return
                provider = raw.headers["x-swapgate-target"].partition("/")[0]
                worker = raw.headers["x-swapgate-request-id"].rpartition("-")[0]
                attempts = raw.headers["x-swapgate-attempts"]
                mine.append(ServedAnswer(provider, attempts, begun, worker))

    @contextmanager
    def running(self, callers: int = 4) -> Iterator[None]:
        self.served = [[] for _ in range(callers)]
        threads = [
            threading.Thread(target=self.call, args=(mine,), kwargs={"stream": number % 2 == 0})
            for number, mine in enumerate(self.served)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join(120)

    def latest_of(self, provider: str) -> float:
        """When the last request that this provider answered was sent."""
        answers = (answer for mine in self.served for answer in mine)
        return max(answer.begun for answer in answers if answer.provider == provider)

    def all_by(self, provider: str, answers: int = 5) -> None:
        """Wait until each caller's last answers are of this provider."""

        def last() -> bool:
            tails = [[answer.provider for answer in mine[-answers:]] for mine in self.served]
            return bool(self.errors) or all(tail == [provider] * answers for tail in tails)

        eventually(last)
        assert not self.errors


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(simulator(secret)) for name, secret in SECRETS.items()
        }
        first, *others = (f"{name}/sim-base" for name in SECRETS)
        made = stack.enter_context(
            routed(
                tmp_path_factory.mktemp("world"),
                "",
                router={"flush_interval_s": 0.2, "workers": 2},
                providers={n: {"kind": "sim", "api_base": f"{u}/v1"} for n, u in urls.items()},
                routes={
                    ROUTE: {"incumbent": first, "fallbacks": others, "suites": ["colours"]}
                },
            )
        )
        secret_files.make_encryption_file(made.installation.settings)
        made.place.start("control", "serve", "control", wait_for="/readyz")
        yield made


@pytest.fixture(scope="module")
def api(world: Routed) -> Iterator[httpx.Client]:
    """Of an admin; every provider has its key, and the router serves."""
    admin = keys.create_key(
        world.installation.context,
        SYSTEM,
        "admin",
        secret=world.installation.secret,
        role=Role.ADMIN,
    )[1]
    bearer = {"authorization": f"Bearer {admin}"}
    with httpx.Client(base_url=world.place.url("control"), headers=bearer) as client:
        for name, secret in SECRETS.items():
            assert client.put(f"{PATH}/{name}", json={"value": secret}).json()["hasValue"]
        world.start()
        yield client


def assert_nothing_leaked(world: Routed) -> None:
    written = world.place.log("router") + world.place.log("control")
    assert not any(secret in written for secret in SECRETS.values())


@pytest.mark.req("D3", "D4", "E5")
def test_when_a_key_is_taken_away_under_load_the_next_provider_answers_and_nobody_fails(
    world: Routed, api: httpx.Client
) -> None:
    callers = Callers(world.url, world.key)
    with callers.running():
        callers.all_by("first")

        sent = time.monotonic()
        assert api.delete(f"{PATH}/first").json()["lacksKey"]
        callers.all_by("second")
        late = callers.latest_of("first") - sent
        answered = sum(map(len, callers.served))
        print(f"{late:.2f} s after; {answered} answers")  # noqa: T201 - the figure

        api.put(f"{PATH}/first", json={"value": SECRETS["first"]})
        callers.all_by("first")

    # From the first to the second and back, each at its first attempt: none met a 401.
    for mine in callers.served:
        assert {answer.attempts for answer in mine} == {"1"}
        assert (mine[0].provider, mine[-1].provider) == ("first", "first")
        assert any(answer.provider == "second" for answer in mine)
        # Two workers hear of a change one after the other, and a connection may go from one to
        # the other meanwhile: each worker by itself turns once there and once back.
        for worker in {answer.worker for answer in mine}:
            providers = turns(answer for answer in mine if answer.worker == worker)
            assert providers in [TURNS[a:b] for a in range(3) for b in range(a + 1, 4)]
    assert_nothing_leaked(world)


@pytest.mark.req("B4", "D3", "D4")
def test_a_key_that_was_refused_is_replaced_and_its_provider_answers_again_at_once(
    world: Routed, api: httpx.Client
) -> None:
    callers = Callers(world.url, world.key)
    with callers.running():
        callers.all_by("first")

        # Its circuits stay open for two minutes on every worker: longer than this test waits.
        api.put(f"{PATH}/first", json={"value": "sk-no-longer-valid-0123456789"})
        callers.all_by("second")

        sent = time.monotonic()
        api.put(f"{PATH}/first", json={"value": SECRETS["first"]})
        callers.all_by("first")
        late = callers.latest_of("second") - sent
        print(f"the last one to the second {late:.2f} s after")  # noqa: T201 - the figure

    assert_nothing_leaked(world)
