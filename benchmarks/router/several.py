"""What holds over several routers, each with a home of its own, on one PostgreSQL: how soon a
new revision is on every worker, and by how much budgets and rates of keys are exceeded.

`python -m benchmarks.router.several [--changes 120] [--rounds 5] [--routers 3] [--workers 2]`
ends with 3 if a new revision takes longer than the goal.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx

from evals.sim import server as sim
from harness.control.operations import keys
from harness.control.routing import routes
from harness.domain.operations.access import SYSTEM
from harness.domain.reliability.rate_limits import KeyLimits
from tests.support.providers import simulator_thread
from tests.support.router.router_fleet import RouterFleet, router_fleet
from tests.support.router.router_process import ROUTE, eventually
from tests.support.store.private_postgres import own_postgres

LOOK_EVERY_S = 0.02
LATEST_S = 30.0
GOAL_S = 2.0
MISSED = 3
# What a request costs: the prices are for a million tokens, and the simulator counts few.
PRICE = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0}
CALLERS = 4  # of each router
BUDGET = 1000  # requests
RATE_PER_MIN = 600.0
RATE_LASTS_S = 20.0
BODY = {"model": ROUTE, "messages": [{"role": "user", "content": "Colour number 3?"}]}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--changes", type=int, default=120)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--routers", type=int, default=3)
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    with several(chosen.routers, chosen.workers) as fleet:
        late = revisions(fleet, chosen.changes, chosen.workers)
        print(
            f"a new revision on a worker: p50 {at(late, 0.5):.3f} s, "
            f"p99 {at(late, 0.99):.3f} s, latest {late[-1]:.3f} s "
            f"({len(late)} = {chosen.changes} changes x workers)"
        )
        for number in range(chosen.rounds):
            print(budget(fleet, f"budget-{number}"))
        print(rate(fleet))
    print(f"goal: a new revision on a worker within {GOAL_S:.0f} s, p99")
    return 0 if at(late, 0.99) <= GOAL_S else MISSED


@contextmanager
def several(routers: int, workers: int) -> Iterator[RouterFleet]:
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="swapgate-several-"))
        )
        provider = stack.enter_context(
            simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0))
        )
        server = stack.enter_context(own_postgres())
        fleet = stack.enter_context(
            router_fleet(
                folder,
                provider,
                server.url("postgres"),
                routers=routers,
                router={"workers": workers, "rate_share": 1 / routers},
                providers={
                    "sim": {
                        "kind": "sim",
                        "api_base": f"{provider}/v1",
                        "prices": {"sim-base": PRICE},
                    }
                },
            )
        )
        fleet.start()
        yield fleet


def at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def revisions(fleet: RouterFleet, changes: int, workers: int) -> list[float]:
    """Seconds from a change's commit to the first answer with it, of each worker; ordered."""
    late: list[float] = []
    with ExitStack() as stack:
        clients = [
            client
            for url in fleet.urls
            for client in one_for_each_worker(stack, url, fleet, workers)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(clients)))
        for number in range(changes):
            change_description(fleet, f"change {number}")
            committed, wanted = time.monotonic(), fleet.world.revision()
            answered = pool.map(partial(first_with, wanted), clients)
            late += [at_s - committed for at_s in answered]
            time.sleep(
                0.05 + number % 10 / 10
            )  # at all points of the second in which they look
    return sorted(late)


def change_description(fleet: RouterFleet, words: str) -> None:
    routes.change_settings(
        fleet.world.installation.context,
        SYSTEM,
        ROUTE,
        lambda settings: replace(settings, description=words),
    )


def one_for_each_worker(
    stack: ExitStack, url: str, fleet: RouterFleet, workers: int
) -> Iterator[httpx.Client]:
    """Connections that stay with one worker each."""
    met: set[str] = set()
    until = time.monotonic() + LATEST_S
    while len(met) < workers and time.monotonic() < until:
        client = stack.enter_context(opened(url, fleet.world.key))
        worker = ask(client).headers["x-swapgate-request-id"].rpartition("-")[0]
        if worker not in met:
            met.add(worker)
            yield client


def opened(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60)


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/chat/completions", json=BODY)


def first_with(revision: int, client: httpx.Client) -> float:
    until = time.monotonic() + LATEST_S
    while time.monotonic() < until:
        if int(ask(client).headers["x-swapgate-revision"]) >= revision:
            return time.monotonic()
        time.sleep(LOOK_EVERY_S)
    raise AssertionError(f"revision {revision} did not come within {LATEST_S:.0f} s")


def limited(fleet: RouterFleet, name: str, limits: KeyLimits) -> tuple[str, str]:
    """A key that every router knows: its id and its text."""
    installation = fleet.world.installation
    key, text = keys.create_key(
        installation.context, SYSTEM, name, secret=installation.secret, limits=limits
    )
    for url in fleet.urls:
        with opened(url, text) as client:
            eventually(lambda: client.get("/v1/models").status_code == httpx.codes.OK)
    time.sleep(2)  # every worker has looked since
    return key.id, text


def load(fleet: RouterFleet, text: str, over: Callable[[], bool]) -> list[float]:
    """When callers at all routers got an answer with the key, until it is over; ordered."""
    answered: list[float] = []

    def call(url: str) -> None:
        with opened(url, text) as client:
            while not over():
                if ask(client).status_code == httpx.codes.OK:
                    answered.append(time.monotonic())
                else:
                    time.sleep(0.01)

    threads = [
        threading.Thread(target=call, args=(url,)) for url in fleet.urls for _ in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(answered)


def spent(fleet: RouterFleet, key: str) -> tuple[float, int]:
    """What the database has of the key: dollars and requests."""
    with fleet.world.installation.store.read() as tx:
        today = fleet.world.installation.clock.now().date()
        rows = [row for row in tx.observations.spends(since=today) if row.key == key]
    return sum(row.cost_usd for row in rows), sum(row.requests for row in rows)


def budget(fleet: RouterFleet, name: str) -> str:
    """Spends a budget at all routers at once, for some seconds after it was used up."""
    with opened(fleet.urls[0], fleet.world.key) as client:
        usage = ask(client).json()["usage"]
    each = usage["prompt_tokens"] * PRICE["input_usd_per_mtok"] / 1e6
    each += usage["completion_tokens"] * PRICE["output_usd_per_mtok"] / 1e6
    limit = BUDGET * each
    key, text = limited(fleet, name, KeyLimits(budget_day_usd=limit))
    begun = time.monotonic()
    answered = load(fleet, text, lambda: time.monotonic() - begun > 12)
    eventually(lambda: spent(fleet, key)[1] == len(answered))
    dollars, requests = spent(fleet, key)
    late_s = answered[-1] - answered[BUDGET - 1]
    per_s = BUDGET / (answered[BUDGET - 1] - begun)
    return (
        f"budget of {BUDGET} requests, spent at {per_s:.0f}/s: {requests} were answered "
        f"({dollars / limit - 1:+.0%}), the last {late_s:.2f} s after it was used up"
    )


def rate(fleet: RouterFleet) -> str:
    """Asks at all routers at once for more than a rate."""
    _, text = limited(fleet, "rate", KeyLimits(requests_per_min=RATE_PER_MIN))
    begun = time.monotonic()
    answered = len(load(fleet, text, lambda: time.monotonic() - begun > RATE_LASTS_S))
    allowed = RATE_PER_MIN * (1 + (time.monotonic() - begun) / 60)
    return f"rate of {RATE_PER_MIN:.0f}/min: {answered} of {allowed:.0f} were answered"


if __name__ == "__main__":
    sys.exit(main())
