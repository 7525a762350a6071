"""Hot reload, and serving on while the database is away."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import openai
import pytest

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import Upstream, completion, running_upstream
from tests.support.router.live_router import (
    CANDIDATE,
    INCUMBENT,
    KEY,
    World,
    running_router,
    snapshot,
    wait_until,
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        upstream.turns = {INCUMBENT: completion("old"), CANDIDATE: completion("new")}
        yield upstream


def ask(world: World, user: str = "u") -> tuple[str, str, str]:
    """The answer, its arm and its revision."""
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="support", messages=[{"role": "user", "content": "hi"}], user=user
        )
        readyz = client._client.get(f"{world.url}/readyz").json()["status"]
    text = raw.parse().choices[0].message.content or ""
    assert readyz in ("ok", "degraded")
    return text, raw.headers["x-swapgate-arm"], raw.headers["x-swapgate-revision"]


@pytest.mark.req("A1", "D3")
def test_a_new_revision_serves_without_a_restart(upstream: Upstream, tmp_path: Path) -> None:
    with running_router(snapshot(upstream.url), tmp_path) as world:
        assert ask(world) == ("old", "incumbent", "3")

        world.store.put(snapshot(upstream.url, weight_bps=10_000, revision=4))
        wait_until(lambda: world.holder.current and world.holder.current.revision == 4)

        assert ask(world) == ("new", "canary", "4")


def test_it_serves_on_while_the_database_is_away_and_loses_no_observation(
    upstream: Upstream, tmp_path: Path
) -> None:
    with running_router(snapshot(upstream.url), tmp_path) as world:
        world.store.away = True
        wait_until(lambda: world.holder.stale)

        for _ in range(5):
            assert ask(world)[0] == "old"
        wait_until(lambda: not world.recorder._spool.empty)
        world.store.away = False

        rows = world.wait_for_traffic(5)
        wait_until(lambda: not world.holder.stale)
    assert sum(row.requests for row in rows) == 5


def test_after_a_restart_without_the_database_the_disk_serves(
    upstream: Upstream, tmp_path: Path
) -> None:
    first = snapshot(upstream.url, weight_bps=10_000, revision=7)
    with running_router(first, tmp_path):
        pass

    with running_router(None, tmp_path) as world:
        assert world.holder.stale
        assert ask(world) == ("new", "canary", "7")


@pytest.mark.req("F4")
def test_the_same_user_stays_in_the_same_arm(upstream: Upstream, tmp_path: Path) -> None:
    with running_router(snapshot(upstream.url, weight_bps=5000), tmp_path) as world:
        arms = {user: {ask(world, user)[1] for _ in range(3)} for user in "abcdefghij"}

    assert all(len(arm) == 1 for arm in arms.values())
    assert {arm for names in arms.values() for arm in names} == {"incumbent", "canary"}


def test_requests_under_way_end_before_the_server_does(
    upstream: Upstream, tmp_path: Path
) -> None:
    slow = ScriptedTurn(steps=(0.5, *completion("at last").steps))
    upstream.turns[INCUMBENT] = slow

    found: list[str] = []
    with running_router(snapshot(upstream.url), tmp_path) as world:
        thread = Thread(target=lambda: found.append(ask_once(world)))
        before = len(upstream.asked)
        thread.start()
        wait_until(lambda: len(upstream.asked) > before)
    thread.join(60)

    assert found == ["at last"]
    assert sum(row.requests for row in world.store.traffic) == 1


def ask_once(world: World) -> str:
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="support", messages=[{"role": "user", "content": "hi"}]
        )
    return answer.choices[0].message.content or ""
