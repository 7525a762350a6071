"""Keys in real processes: shared by workers, and while the database is away."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from harness.control.operations import keys
from harness.domain.operations.access import SYSTEM
from harness.domain.reliability.rate_limits import KeyLimits
from tests.support.router.router_process import EVER, Routed, ask, eventually, routed
from tests.support.store.postgres_cluster import postgres_node

pytestmark = pytest.mark.slow


def made(world: Routed, name: str, **limits: Any) -> tuple[str, str]:
    """Its id and its text."""
    ctx, secret = world.installation.context, world.installation.secret
    key, text = keys.create_key(ctx, SYSTEM, name, secret=secret, limits=KeyLimits(**limits))
    return key.id, text


def status(world: Routed, text: str) -> int:
    """Of one request with that key."""
    with world.client(text) as client:
        try:
            ask(client)
        except openai.APIStatusError as error:
            return error.status_code
    return 200


@pytest.mark.req("G5")
def test_workers_share_a_keys_limit_and_one_connection_gets_all_of_it(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        key, text = made(world, "limited", requests_per_min=40)
        _, other = made(world, "other", requests_per_min=40)
        world.place.start("router", "serve", "router", "--workers", "2", wait_for="/readyz")

        # One connection is one worker's.
        begun = time.monotonic()
        with world.client(text) as client:
            alone = sum(outcome(client) == 200 for _ in range(60))
        assert 40 <= alone <= 41 + (time.monotonic() - begun) * 40 / 60
        # 12 connections, and both workers.
        begun = time.monotonic()
        counter = Counter(target for _ in range(12) for target in fresh(world, other, times=5))
        assert 40 <= counter[200] <= 45 + (time.monotonic() - begun) * 40 / 60
        assert counter[200] + counter[429] == 60

        def recorded() -> int:
            with world.installation.store.read() as tx:
                rows = tx.observations.spends(since=EVER.date())
            return sum(row.requests for row in rows if row.key == key)

        eventually(lambda: recorded() == alone)
        refused = (60 - alone) + counter[429]
        eventually(lambda: world.counter("swapgate_router_rate_limited_total") == refused)


def outcome(client: openai.OpenAI) -> int:
    try:
        ask(client)
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def fresh(world: Routed, text: str, *, times: int) -> list[int]:
    """Outcomes over a connection of their own."""
    with world.client(text) as client:
        return [outcome(client) for _ in range(times)]


def keys_hold(world: Routed, away: Callable[[], object], back: Callable[[], object]) -> None:
    """Known keys go on, revoked and unknown ones stay out: also after a start without it."""
    _, narrow = made(world, "budget", budget_day_usd=1000)
    gone_id, gone = made(world, "gone")
    keys.revoke_key(world.installation.context, SYSTEM, gone_id)
    world.start()

    def hold() -> None:
        assert [status(world, text) for text in (world.key, narrow)] == [200, 200]
        assert [status(world, text) for text in (gone, "sk-sg-random", "x")] == [401, 401, 401]

    hold()
    away()
    eventually(lambda: world.readyz() == "degraded")
    hold()
    world.kill()
    world.start()
    assert world.readyz() == "degraded"
    hold()
    back()
    eventually(lambda: world.readyz() == "ok")
    hold()
    # What came meanwhile is in force as soon as the database is back.
    late_id, late = made(world, "late")
    eventually(lambda: status(world, late) == 200)
    keys.revoke_key(world.installation.context, SYSTEM, late_id)
    eventually(lambda: status(world, late) == 401)


@pytest.mark.req("G5")
def test_keys_hold_while_the_database_file_is_moved_away(provider: str, tmp_path: Path) -> None:
    file, away = tmp_path / "swapgate.db", tmp_path / "elsewhere.db"
    with routed(tmp_path, provider) as world:
        keys_hold(world, lambda: shutil.move(file, away), lambda: shutil.move(away, file))


@pytest.mark.postgres
@pytest.mark.req("G5")
@pytest.mark.verify
def test_keys_hold_while_postgresql_is_stopped(provider: str, tmp_path: Path) -> None:
    with (
        postgres_node(migrated=True) as server,
        routed(tmp_path, provider, server.dsn) as world,
    ):
        keys_hold(world, server.stop, server.start)
