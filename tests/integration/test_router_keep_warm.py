"""Keep-warm (B6): a trickle to the other providers, and what it must never touch."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import pytest

from harness.domain.canary.observation import TrafficMinute
from harness.domain.routing.kill_switch import Force, ForceKind, KillSwitch, SwitchSource
from harness.domain.routing.table import Canary, Route, RouteSettings, RoutingTable, Snapshot
from harness.domain.routing.target import Target
from harness.domain.settings import RouterSettings
from harness.runtime.clock import SystemClock
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    error,
    running_upstream,
    streamed,
)
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    KEY,
    QUICK,
    World,
    provider,
    running_router,
    snapshot,
)

pytestmark = pytest.mark.req("B6")

WARM, OWN, NEW = Target("other", FALLBACK), Target("up", INCUMBENT), Target("up", CANDIDATE)
TENTH = RouteSettings(keep_warm_bps=1000)
ASKED = 200
EVERY_SECOND = {"content-type": "application/json", "retry-after": "1"}


@dataclass
class Scene:
    upstream: Upstream
    world: World
    client: openai.OpenAI

    def ask(self, user: str, *, stream: bool = False) -> tuple[str, str]:
        """The arm, and the target that served."""
        raw = self.client.chat.completions.with_raw_response.create(
            model="support",
            messages=[{"role": "user", "content": "hi"}],
            user=user,
            stream=stream,
        )
        if stream:
            assert list(raw.parse())
        return raw.headers["x-swapgate-arm"], raw.headers["x-swapgate-target"]

    def ask_all(self, *, stream: bool = False) -> Counter[tuple[str, str]]:
        return Counter(self.ask(f"user-{number}", stream=stream) for number in range(ASKED))

    def traffic(self, requests: int = ASKED) -> dict[str, list[TrafficMinute]]:
        rows = self.world.wait_for_traffic(requests)
        return {arm: [row for row in rows if row.arm == arm] for arm in {r.arm for r in rows}}


Stage = Callable[..., AbstractContextManager[Scene]]


def table(url: str, settings: RouteSettings, canary: Canary | None) -> Snapshot:
    first = snapshot(url, providers=[provider(url, "other")])
    route = Route("support", 1, OWN.id, canary, (WARM.id,), settings)
    targets = {target.id: target for target in (OWN, NEW, WARM)}
    return replace(first, table=RoutingTable(1, {"support": route}, targets))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    @contextmanager
    def staged(
        settings: RouteSettings = TENTH,
        canary: Canary | None = None,
        router: RouterSettings = QUICK,
        switches: tuple[KillSwitch, ...] = (),
    ) -> Iterator[Scene]:
        with running_upstream() as upstream:
            for model in (INCUMBENT, CANDIDATE, FALLBACK):
                upstream.turns[model] = lambda request: (
                    streamed("a") if request.json.get("stream") else completion()
                )
            first = replace(table(upstream.url, settings, canary), switches=switches)
            with (
                running_router(first, tmp_path, router) as world,
                openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
            ):
                yield Scene(upstream, world, client)

    return staged


def test_a_warmed_target_that_fails_harms_nobody_and_gets_no_more(stage: Stage) -> None:
    with stage() as scene:
        scene.upstream.turns[FALLBACK] = error(401)

        served = scene.ask_all()

        assert {target for _, target in served} == {OWN.name}
        assert served["keep_warm", OWN.name] == 1  # then its circuit was open
        assert len(scene.upstream.asked_for(FALLBACK)) == 1
        traffic = scene.traffic()
        assert [(row.requests, row.charged, row.failed) for row in traffic["keep_warm"]] == [
            (1, 1, 0)
        ]
        assert sum(row.charged + row.failed for row in traffic["incumbent"]) == 0


def test_nobody_waits_for_a_second_try_of_a_warmed_target(stage: Stage) -> None:
    with stage() as scene:
        scene.upstream.turns[FALLBACK] = replace(error(503), headers=EVERY_SECOND)

        served = scene.ask_all()

        assert {target for _, target in served} == {OWN.name}
        # About 20 are drawn. After five its circuit is open, and a slow machine tries it anew.
        tried = len(scene.upstream.asked_for(FALLBACK))
        assert 1 <= tried == served["keep_warm", OWN.name] <= 10


def thrown() -> KillSwitch:
    force = Force(ForceKind.PROVIDER, "up")
    at = SystemClock().now()
    return KillSwitch("s-1", None, force, "outage", "ada", at, None, SwitchSource.CLI)


@pytest.mark.parametrize(
    "staged",
    [
        {"settings": RouteSettings()},
        {"settings": replace(TENTH, side_effects=True)},
        {"switches": (thrown(),)},
    ],
    ids=["off", "side effects", "a switch is in force"],
)
def test_nobody_is_drawn_where_it_is_off_or_could_do_harm(
    stage: Stage, staged: dict[str, Any]
) -> None:
    with stage(**staged) as scene:
        assert scene.ask_all() == {("incumbent", OWN.name): ASKED}


def test_callers_who_cannot_be_told_apart_are_drawn_one_request_at_a_time(
    stage: Stage,
) -> None:
    with stage() as scene:
        arms = Counter[str]()
        for _ in range(ASKED):
            raw = scene.client.chat.completions.with_raw_response.create(
                model="support", messages=[]
            )
            arms[raw.headers["x-swapgate-arm"]] += 1

        assert 2 <= arms["keep_warm"] <= 50
