"""Health checks (B10) of a real router, before a provider that fails and comes back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.domain.reliability.breaker import BreakerPolicy
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import Upstream, completion, running_upstream
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
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


@pytest.mark.req("B10")
def test_a_check_under_way_holds_up_no_stop(upstream: Upstream, tmp_path: Path) -> None:
    upstream.turns[FALLBACK] = ScriptedTurn(hang=True)
    with running_router(snapshot(upstream.url, fallback=True), tmp_path, OFTEN):
        wait_until(lambda: bool(upstream.asked_for(FALLBACK)))

    assert upstream.asked_for(FALLBACK)[0].left.wait(60)
