"""What the stakes and a content filter's refusal mean for a request: the official client."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from evals.sim import faults
from evals.sim.simulator import Simulator
from harness.domain.operations.access import key_hash
from harness.domain.reliability.breaker import BreakerPolicy, WhenAllOpen
from harness.domain.routing.table import (
    KeyGrant,
    OnContentPolicy,
    Route,
    RouteSettings,
    RoutingTable,
    Snapshot,
    Stakes,
)
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import RouterSettings
from tests.support.providers import simulator_thread
from tests.support.router.live_router import KEY, QUICK, SECRET, running_router

OWN, CHEAP, LARGE = (
    Target("up", "sim-base"),
    Target("b", "sim-worse"),
    Target("c", "sim-better"),
)
CHAIN = (CHEAP.id, LARGE.id)
FILTERED = {"kind": "status", "status": 400, "code": "content_policy_violation"}
ROUTES = {
    "careful": RouteSettings(stakes=Stakes.HIGH, capable=(LARGE.id,)),
    "alone": RouteSettings(stakes=Stakes.HIGH),
    "easy": RouteSettings(),
    "lenient": RouteSettings(on_content_policy=OnContentPolicy.FALLBACK),
}


@pytest.fixture
def client(sim: Simulator, tmp_path: Path) -> Iterator[openai.OpenAI]:
    with served(sim, tmp_path) as client:
        yield client


@contextmanager
def served(
    sim: Simulator, folder: Path, settings: RouterSettings = QUICK
) -> Iterator[openai.OpenAI]:
    sim.faults.clear()
    sim.stats.clear()
    with simulator_thread.serve_in_thread(sim) as url:
        snapshot = Snapshot(
            RoutingTable(
                1,
                {
                    name: Route(name, 1, OWN.id, None, CHAIN, settings)
                    for name, settings in ROUTES.items()
                },
                {target.id: target for target in (OWN, CHEAP, LARGE)},
            ),
            {name: Provider(name, "sim", f"{url}/v1") for name in ("up", "b", "c")},
            (KeyGrant("k", key_hash(KEY, SECRET)),),
            "1",
        )
        with (
            running_router(snapshot, folder, settings) as world,
            openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
        ):
            yield client


def ask(client: openai.OpenAI, route: str) -> str:
    """The target that served."""
    raw = client.chat.completions.with_raw_response.create(
        model=route, messages=[{"role": "user", "content": "Say 12 words please."}]
    )
    assert raw.parse().choices[0].message.content
    return raw.headers["x-swapgate-target"]


def fail(sim: Simulator, *models: Target, **fault: Any) -> None:
    for model in models:
        sim.faults.set(
            model.model, faults.parse_fault(fault or {"kind": "status", "status": 503})
        )


def requests_to(sim: Simulator, target: Target) -> int:
    stats = sim.stats.get(target.model)
    return stats.requests if stats else 0


@pytest.mark.req("A4", "B4")
def test_high_stakes_while_the_capable_ones_circuits_are_open_name_those_that_are_forbidden(
    sim: Simulator, tmp_path: Path
) -> None:
    fail_fast = replace(QUICK, breaker=BreakerPolicy(when_all_open=WhenAllOpen.FAIL_FAST))
    with served(sim, tmp_path, fail_fast) as client:
        fail(sim, OWN, kind="status", status=401)
        with pytest.raises(openai.InternalServerError):
            ask(client, "alone")
        with pytest.raises(openai.InternalServerError) as told:
            ask(client, "alone")

    assert (told.value.status_code, told.value.code) == (503, "all_circuits_open")
    body: Any = told.value.body
    assert [target["left_out"] for target in body["targets"]] == ["open", "stakes", "stakes"]
    assert "marked capable" in body["message"]


@pytest.mark.req("A5")
def test_a_content_filters_refusal_falls_only_where_the_route_says_so(
    sim: Simulator, client: openai.OpenAI
) -> None:
    fail(sim, OWN, **FILTERED)

    with pytest.raises(openai.BadRequestError) as told:
        ask(client, "easy")
    assert told.value.code == "content_policy_violation"
    assert requests_to(sim, CHEAP) == 0

    assert ask(client, "lenient") == CHEAP.name
    assert (requests_to(sim, OWN), requests_to(sim, CHEAP)) == (2, 1)


@pytest.mark.req("A5")
def test_when_every_content_filter_refuses_the_client_is_told_the_last_refusal(
    sim: Simulator, client: openai.OpenAI
) -> None:
    fail(sim, OWN, CHEAP, LARGE, **FILTERED)

    with pytest.raises(openai.BadRequestError) as told:
        ask(client, "lenient")

    assert told.value.code == "content_policy_violation"
    assert told.value.response.headers["x-swapgate-target"] == LARGE.name
    assert [requests_to(sim, target) for target in (OWN, CHEAP, LARGE)] == [1, 1, 1]
