"""Health checks (B10) of a real router, before a provider that fails and comes back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from harness.domain.reliability.breaker import BreakerPolicy
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    Upstream,
    completion,
    error,
    running_upstream,
)
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    KEY,
    QUICK,
    running_router,
    snapshot,
    wait_until,
)

OFTEN = replace(
    QUICK,
    health_check_interval_s=0.2,
    breaker=BreakerPolicy(open_s=0.2, open_max_s=0.5),
)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        upstream.turns = {INCUMBENT: completion(), FALLBACK: completion()}
        yield upstream


def value(client: openai.OpenAI, name: str, model: str) -> float:
    url = str(client.base_url).removesuffix("/v1/")
    text = client._client.get(f"{url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    series = f'{name}{{target="up/{model}"}} '
    lines = [line for line in text.splitlines() if line.startswith(series)]
    return float(lines[0].removeprefix(series)) if lines else -1.0


@pytest.mark.req("B10", "B4")
def test_a_provider_that_comes_back_is_found_without_a_user(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.turns[INCUMBENT] = error(401)
    with (
        running_router(snapshot(upstream.url, fallback=True), tmp_path, OFTEN) as world,
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client,
    ):

        def ask() -> str:
            raw = client.chat.completions.with_raw_response.create(
                model="support", messages=[{"role": "user", "content": "hi"}]
            )
            return raw.headers["x-swapgate-target"]

        assert ask() == f"up/{FALLBACK}"
        wait_until(lambda: value(client, "swapgate_health_check_up", INCUMBENT) == 0)
        wait_until(lambda: value(client, "swapgate_health_check_up", FALLBACK) == 1)

        upstream.turns[INCUMBENT] = completion()
        wait_until(lambda: value(client, "swapgate_breaker_state", INCUMBENT) == 0)

        assert value(client, "swapgate_health_check_up", INCUMBENT) == 1
        assert value(client, "swapgate_health_check_duration_seconds", INCUMBENT) > 0
        assert ask() == f"up/{INCUMBENT}"
        # Nobody but the checks asked in between.
        assert sum(row.requests for row in world.wait_for_traffic(2)) == 2


@pytest.mark.req("B10")
def test_a_check_under_way_holds_up_no_stop(upstream: Upstream, tmp_path: Path) -> None:
    upstream.turns[FALLBACK] = ScriptedTurn(hang=True)
    with running_router(snapshot(upstream.url, fallback=True), tmp_path, OFTEN):
        wait_until(lambda: bool(upstream.asked_for(FALLBACK)))

    assert upstream.asked_for(FALLBACK)[0].left.wait(60)


@pytest.mark.req("B10")
def test_an_interval_of_nothing_checks_nobody(upstream: Upstream, tmp_path: Path) -> None:
    never = replace(OFTEN, health_check_interval_s=0.0)
    with (
        running_router(snapshot(upstream.url, fallback=True), tmp_path, never) as world,
        openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY) as client,
    ):
        for _ in range(20):
            client.models.list()

    assert upstream.asked == []
