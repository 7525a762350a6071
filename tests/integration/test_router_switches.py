"""The kill switch of a router: what it may not do, when it ends, what it proves."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.routing.table import Snapshot
from router.snapshot.holder import load_snapshot, save_snapshot
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    served,
    snapshot,
    switch_of,
)

SPARE = f"target:up/{FALLBACK}"


class Served(NamedTuple):
    target: str
    switch: str


async def ask_router(door: Door) -> Served:
    _, headers, _ = await door.call(CHAT, ASK)
    target = headers[b"x-swapgate-target"].decode()
    return Served(target, headers.get(b"x-swapgate-switch", b"").decode())


def with_switches(*switch: KillSwitch, **more: object) -> Snapshot:
    made = snapshot("http://127.0.0.1:1/v1", fallback=True, **more)  # type: ignore[arg-type]  # as there
    return replace(made, switches=switch)


@pytest.mark.req("B11")
async def test_a_switch_adds_no_target_that_a_route_has_no_evidence_for(tmp_path: Path) -> None:
    door = Door(tmp_path)
    for force in ("provider:elsewhere", f"target:up/{CANDIDATE}"):
        door.holder.current = served(with_switches(switch_of(force)))
        told = f"sw_1; {force}; not_in_effect"
        assert await ask_router(door) == Served(f"up/{INCUMBENT}", told)

    _, _, metrics = await door.call("/metrics", b"", method="GET")
    assert b"swapgate_router_switch_not_in_effect_total 2.0" in metrics


@pytest.mark.req("B11")
async def test_a_switch_expires_with_nobody_looking_and_no_database(tmp_path: Path) -> None:
    door = Door(tmp_path)
    expires_at = door.clock.now() + timedelta(hours=2)
    door.holder.current = served(with_switches(switch_of(SPARE, expires_at=expires_at)))
    door.kept.away = True

    assert (await ask_router(door)).target == f"up/{FALLBACK}"
    door.clock.advance(2 * 3600)
    assert await ask_router(door) == Served(f"up/{INCUMBENT}", "")


@pytest.mark.req("B11")
async def test_a_target_that_is_avoided_is_out_and_its_chain_answers(tmp_path: Path) -> None:
    door = Door(tmp_path)
    force = f"avoid:target:up/{INCUMBENT}"
    door.holder.current = served(with_switches(switch_of(force)))

    told = f"sw_1; {force}; in_effect"
    assert await ask_router(door) == Served(f"up/{FALLBACK}", told)


@pytest.mark.req("B11")
async def test_requests_under_a_switch_are_no_evidence_about_a_canary(tmp_path: Path) -> None:
    door = Door(tmp_path)
    forced = with_switches(switch_of(SPARE), weight_bps=10_000)
    for serving in (served(forced), served(replace(forced, switches=()))):
        door.holder.current = serving
        await ask_router(door)

    door.recorder.flush(final=True)
    assert [block.units for block in door.kept.blocks.values()] == [1]


@pytest.mark.req("B11")
@pytest.mark.parametrize(
    ("force", "counted", "told"),
    [
        ("avoid:provider:elsewhere", 1, ""),
        # The incumbent's own plan does not have it; its requests are no evidence either.
        (f"avoid:target:up/{CANDIDATE}", 0, ""),
        (f"avoid:target:up/{FALLBACK}", 0, f"sw_1; avoid:target:up/{FALLBACK}; in_effect"),
        ("provider:elsewhere", 1, "sw_1; provider:elsewhere; not_in_effect"),
    ],
)
async def test_a_switch_without_effect_on_a_route_leaves_its_requests_as_they_are(
    tmp_path: Path, force: str, counted: int, told: str
) -> None:
    door = Door(tmp_path)
    door.holder.current = served(with_switches(switch_of(force), weight_bps=1))

    assert await ask_router(door) == Served(f"up/{INCUMBENT}", told)
    door.recorder.flush(final=True)
    assert sum(block.units for block in door.kept.blocks.values()) == counted


@pytest.mark.req("B11", "D3")
def test_the_snapshot_on_disk_keeps_switches(tmp_path: Path) -> None:
    one = switch_of(SPARE)
    until = one.created_at + timedelta(minutes=5)
    other = switch_of(SPARE, id="sw_2", route="support", expires_at=until)
    kept = with_switches(one, other)

    save_snapshot(kept, tmp_path / "kept.json")

    assert load_snapshot(tmp_path / "kept.json").switches == (one, other)
