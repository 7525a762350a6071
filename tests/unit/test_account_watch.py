"""What a router reports about the accounts that it calls (F2)."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.routing.reliability.rate_headers import RateKind, RateReading
from harness.routing.reliability.users_first import AccountLoad
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error, streamed
from tests.support.router.asgi_router import ASK, Place
from tests.support.router.live_router import INCUMBENT, QUICK

pytestmark = pytest.mark.req("F2")

JSON = {"content-type": "application/json"}
STREAM = json.dumps({**json.loads(ASK), "stream": True}).encode()


def left(remaining: int, turn: ScriptedTurn | None = None) -> ScriptedTurn:
    """An answer whose header names the requests that are left."""
    turn = turn or completion()
    limits = {"x-ratelimit-remaining-requests": str(remaining)}
    return replace(turn, headers={**turn.headers, **limits})


def report(place: Place, after_s: float = 5.0) -> AccountLoad:
    """Lets the router look at its targets, and returns what it shares after some time."""
    place.clock.advance(after_s)
    place.app._alerts.evaluate()
    place.holder.tell_followers()
    (load,) = place.kept.account_loads.values()
    return load


async def test_a_router_counts_users_and_reads_headers_once_a_second(tmp_path: Path) -> None:
    place = Place(tmp_path, {INCUMBENT: left(40)})
    place.app._alerts.evaluate()
    await place.ask(times=3)
    place.script = {INCUMBENT: left(7)}
    await place.ask(times=2)

    load = report(place, 60.0)
    assert (load.users, load.user_tokens) == (5.0, 60.0)
    assert load.provider == "up"
    assert "sk-" not in load.account
    # The second answer came within the same second.
    assert load.rates[0].rate == RateReading(RateKind.REQUESTS, 40.0)

    place.script = {INCUMBENT: left(6, streamed("hello"))}
    await place.ask(STREAM)
    assert report(place).rates[0].rate == RateReading(RateKind.REQUESTS, 6.0)


async def test_a_users_429_is_shared_at_once_with_its_pause(tmp_path: Path) -> None:
    refusal = replace(error(429), headers={**JSON, "retry-after": "400"})
    place = Place(tmp_path, {INCUMBENT: refusal})
    await place.ask()

    refused_at = place.clock.now()
    load = report(place, 1.0)
    assert load.refused_at == refused_at
    assert load.resume_at is not None
    assert (load.resume_at - refused_at).total_seconds() == 400.0


async def test_a_health_check_is_no_user_and_waits_for_room_in_the_users_limit(
    tmp_path: Path,
) -> None:
    settings = replace(QUICK, health_check_interval_s=10.0)
    place = Place(tmp_path, {INCUMBENT: left(40)}, settings)

    async def check() -> int:
        before = len(place.transport.seen)
        place.clock.advance(11)
        place.app._alerts.evaluate()
        place.app._checks.run_due()
        await asyncio.gather(*place.app._checks._running.values())
        return len(place.transport.seen) - before

    assert await check() == 1
    assert report(place).users == 0.0

    place.app._alerts.evaluate()
    place.script = {INCUMBENT: left(1)}
    await place.ask(times=30)
    assert [await check() for _ in range(4)] == [0, 0, 0, 0]
    place.clock.advance(11)
    assert await check() == 1  # the header is older than a minute, so the rest is unknown
