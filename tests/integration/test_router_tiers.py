"""Tiers and tasks, from the file to the answer: the official client asks for `fast`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from evals.sim import server
from evals.sim.simulator import Simulator
from harness import config, package_data
from harness.control.operations import keys
from harness.control.routing import seed
from harness.domain.operations.access import SYSTEM
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers import simulator_thread
from tests.support.router.live_router import QUICK, SECRET, running_router

FILE = """
providers:
  one: {{kind: sim, api_base: {url}, tiers: {{fast: sim-base, frontier: sim-better}}}}
  two: {{kind: sim, api_base: {url}, tiers: {{fast: sim-worse}}}}
routes:
  fast: {{incumbent: one, fallbacks: [two], task: triage}}
  frontier: {{incumbent: one, fallbacks: [two/sim-base]}}
"""


@pytest.fixture
def sim() -> Simulator:
    return server.simulator(time_scale=0)


@dataclass(frozen=True)
class Clients:
    """narrow: its key may use `frontier` alone."""

    wide: openai.OpenAI
    narrow: openai.OpenAI


@pytest.fixture
def clients(sim: Simulator, tmp_path: Path) -> Iterator[Clients]:
    world = SmallInstallation(tmp_path)
    ctx = world.context()
    with simulator_thread.serve_in_thread(sim) as url:
        file = tmp_path / "swapgate.yaml"
        file.write_text(FILE.format(url=f"{url}/v1"), encoding="utf-8")
        seed.apply_seed(
            ctx,
            config.load_settings(file, {}, defaults=package_data.path("config/default.yaml")),
        )
        _, key = keys.create_key(ctx, SYSTEM, "app", secret=SECRET)
        _, narrow = keys.create_key(ctx, SYSTEM, "narrow", secret=SECRET, routes=["frontier"])
        with (
            running_router(world.store.snapshot(), tmp_path, QUICK) as router,
            openai.OpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0) as client,
        ):
            yield Clients(client, client.with_options(api_key=narrow))


@pytest.fixture
def client(clients: Clients) -> openai.OpenAI:
    return clients.wide


def ask(client: openai.OpenAI, model: str, task: str | None = None) -> tuple[str, str]:
    """The route and the target that served."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": "Say 12 words please."}],
        extra_headers={"x-swapgate-task": task} if task else {},
    )
    assert raw.parse().model == raw.headers["x-swapgate-route"]
    return raw.headers["x-swapgate-route"], raw.headers["x-swapgate-target"]


@pytest.mark.req("A3")
def test_a_task_picks_its_route_and_an_unknown_one_leaves_the_choice_to_the_model(
    client: openai.OpenAI,
) -> None:
    assert ask(client, "frontier", "triage")[0] == "fast"
    assert ask(client, "anything", "triage")[0] == "fast"
    assert ask(client, "frontier", "poetry")[0] == "frontier"
    with pytest.raises(openai.NotFoundError):
        ask(client, "anything", "poetry")


@pytest.mark.req("A3")
def test_a_task_opens_no_route_that_the_key_may_not_use(clients: Clients) -> None:
    assert ask(clients.narrow, "frontier")[0] == "frontier"
    with pytest.raises(openai.PermissionDeniedError, match="'fast'"):
        ask(clients.narrow, "frontier", "triage")
