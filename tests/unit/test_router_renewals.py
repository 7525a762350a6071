"""A replaced credential lets its targets be tried again at once (D3)."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.domain.providers.credentials import StoredKey
from harness.domain.routing.kill_switch import KillSwitch, SwitchSource, parse_force
from harness.domain.routing.table import Snapshot
from router.upstream.transport import UpstreamRequest
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    UPSTREAM_KEYS,
    provider,
    snapshot,
)

FIRST, SECOND, *_ = UPSTREAM_KEYS
REFUSALS = [error(401), error(402), error(403), error(404, code="model_not_found")]


def world(key_env: str, etag: str, *stored: StoredKey, team: str = "router") -> Snapshot:
    up = provider("http://up", api_key_env=key_env, extra_headers={"x-team": team})
    made = snapshot("http://up", fallback=True, providers=[up])
    return replace(made, etag=etag, stored_keys=stored)


class Refusing:
    """A door whose incumbent refuses every request as `turn` says, until told otherwise.

    meanwhile: happens once, while a request is under way.
    """

    def __init__(self, folder: Path, turn: ScriptedTurn, first: Snapshot) -> None:
        self.turn: ScriptedTurn | None = turn
        self.meanwhile: Callable[[], None] | None = None
        self.asked: Counter[str] = Counter()
        self.door = Door(folder, self._answer, first=first)

    def _answer(self, request: UpstreamRequest) -> ScriptedTurn:
        model = json.loads(request.body)["model"]
        self.asked[model] += 1
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        return self.turn if model == INCUMBENT and self.turn else completion(model)

    async def ask(self) -> str:
        """The model that served."""
        _, headers, _ = await self.door.call(CHAT, ASK)
        return headers[b"x-swapgate-target"].decode().partition("/")[2]

    def change(self, to: Snapshot) -> None:
        self.door.kept.put(to)
        assert self.door.holder.refresh()


@pytest.mark.req("B4", "D3")
@pytest.mark.parametrize("turn", REFUSALS, ids=["401", "402", "403", "not this account's"])
async def test_the_first_request_after_a_new_key_is_tried_with_it(
    tmp_path: Path, turn: ScriptedTurn
) -> None:
    scene = Refusing(tmp_path, turn, world(FIRST, "one"))
    assert [await scene.ask() for _ in range(3)] == [FALLBACK] * 3
    assert scene.asked[INCUMBENT] == 1

    scene.turn = None
    scene.change(world(SECOND, "two"))

    assert [await scene.ask() for _ in range(3)] == [INCUMBENT] * 3


@pytest.mark.req("B4", "D3")
@pytest.mark.parametrize(
    "changed",
    [
        world(FIRST, "two", StoredKey("up", "default", "written again")),
        world(FIRST, "two", team="another"),
    ],
    ids=["the same key written again", "a header"],
)
async def test_whatever_proves_who_asks_is_a_credential(
    tmp_path: Path, changed: Snapshot
) -> None:
    scene = Refusing(tmp_path, error(402), world(FIRST, "one"))
    assert await scene.ask() == FALLBACK

    scene.turn = None
    scene.change(changed)

    assert await scene.ask() == INCUMBENT


@pytest.mark.req("B4", "D3")
async def test_a_new_key_that_is_refused_too_opens_the_circuit_again(tmp_path: Path) -> None:
    scene = Refusing(tmp_path, error(401), world(FIRST, "one"))
    await scene.ask()

    scene.change(world(SECOND, "two"))

    assert [await scene.ask() for _ in range(3)] == [FALLBACK] * 3
    assert scene.asked[INCUMBENT] == 2


@pytest.mark.req("B4", "D3")
async def test_a_snapshot_without_a_new_credential_closes_no_circuit(tmp_path: Path) -> None:
    scene = Refusing(tmp_path, error(401), world(FIRST, "one"))
    await scene.ask()

    scene.change(world(FIRST, "two"))

    assert await scene.ask() == FALLBACK
    assert scene.asked[INCUMBENT] == 1


@pytest.mark.req("B4", "D3")
async def test_a_request_on_the_way_with_the_old_key_opens_nothing(tmp_path: Path) -> None:
    scene = Refusing(tmp_path, error(401), world(FIRST, "one"))

    def changed_meanwhile() -> None:
        scene.change(world(SECOND, "two"))
        scene.door.app._alarms.evaluate()

    scene.meanwhile = changed_meanwhile
    assert await scene.ask() == FALLBACK

    scene.turn = None
    assert await scene.ask() == INCUMBENT


@pytest.mark.req("B4", "B11")
@pytest.mark.parametrize("force", ["provider:up", f"target:up/{INCUMBENT}"])
async def test_a_switch_thrown_for_a_target_ends_its_pause_and_closes_its_circuit(
    tmp_path: Path, force: str
) -> None:
    first = world("UP_KEY", "1")
    for turn in (replace(error(429), headers={"retry-after": "7200"}), error(401)):
        refusing = Refusing(tmp_path, turn, first)
        assert [await refusing.ask() for _ in range(2)] == [FALLBACK] * 2
        refusing.turn = None

        thrown = switch(force)
        refusing.change(replace(first, etag="2", switches=(thrown,)))
        assert await refusing.ask() == INCUMBENT

        # Lifted again, it goes on; the same switch is not heeded twice.
        refusing.turn = replace(error(429), headers={"retry-after": "7200"})
        refusing.change(replace(first, etag="3", switches=(thrown,)))
        refusing.change(replace(first, etag="4"))
        assert [await refusing.ask() for _ in range(3)] == [FALLBACK] * 3
        assert refusing.asked[INCUMBENT] == 3


@pytest.mark.req("B4", "B11")
async def test_a_switch_for_another_target_opens_nothing(tmp_path: Path) -> None:
    first = world("UP_KEY", "1")
    refusing = Refusing(tmp_path, error(401), first)
    await refusing.ask()

    refusing.change(replace(first, etag="2", switches=(switch(f"target:up/{FALLBACK}"),)))
    refusing.change(replace(first, etag="3"))
    await refusing.ask()

    assert refusing.asked[INCUMBENT] == 1


def switch(force: str) -> KillSwitch:
    now = ManualClock().now()
    return KillSwitch(
        "sw_1", None, parse_force(force), "limit raised", "ops", now, None, SwitchSource.CLI
    )
