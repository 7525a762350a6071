import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.providers.force import (
    KillSwitch,
    SwitchSource,
    parse_environment_switches,
    parse_file_switches,
)
from harness.providers.target import Target
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Canary, Route, RoutingTable, Snapshot
from router.snapshot.compiler import compile_snapshot
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import ASK, CHAT, Door, code
from tests.support.router.live_router import (
    CANDIDATE,
    FALLBACK,
    INCUMBENT,
    provider,
    served,
    shadow_of,
    snapshot,
    switch_of,
    upstream_keys,
)

pytestmark = pytest.mark.req("D8")
AT = datetime(2026, 11, 20, tzinfo=UTC)
OWN = Target("up", "m-own")
NEAR = Target("up", "m-near")
AWAY = Target("away", "m-away")
PERSONAL = RouteSettings(data_class="personal")
CLEARED = {"personal": frozenset({"up"})}


def route(
    incumbent: Target = OWN,
    chain: Sequence[Target] = (),
    *,
    canary: Target | None = None,
    holdback: Target | None = None,
    settings: RouteSettings = PERSONAL,
) -> Snapshot:
    """`away` may see nothing personal."""
    ramp = Canary(canary.id, 10_000, "s", "r") if canary else None
    held = Canary(holdback.id, 10_000, "s", "r", control=True) if holdback else None
    made = Route(
        "support",
        1,
        incumbent.id,
        ramp,
        tuple(target.id for target in chain),
        settings,
        held,
    )
    targets = {target.id: target for target in (OWN, NEAR, AWAY)}
    first = snapshot("http://up", providers=[provider("http://away", "away")])
    return replace(first, table=RoutingTable(1, {"support": made}, targets))


class CountingRouter(Door):
    def __init__(self, folder: Path) -> None:
        models = [target.model for target in (OWN, NEAR, AWAY)]
        super().__init__(folder, dict.fromkeys(models, completion()))

    async def ask(
        self,
        found: Snapshot,
        standing: Sequence[KillSwitch] = (),
        classes: Any = CLEARED,
        times: int = 1,
    ) -> tuple[int, bytes]:
        self.holder.current = served(found, standing, classes)
        for _ in range(times):
            status, _, body = await self.call(CHAT, ASK)
        return status, body


@pytest.fixture
def counted(tmp_path: Path) -> CountingRouter:
    return CountingRouter(tmp_path)


@pytest.mark.spine
async def test_a_route_that_nobody_may_see_is_refused_with_the_reason(
    counted: CountingRouter,
) -> None:
    status, body = await counted.ask(route(AWAY))

    assert (status, code(body)) == (503, "no_target_left")
    [left] = json.loads(body)["error"]["targets"]
    assert left["left_out"] == "data_class"
    assert not counted.asked


@pytest.mark.parametrize(
    "classes",
    [
        {},
        {"open": frozenset({"up"})},
        {"personal": frozenset()},
    ],
)
async def test_a_class_that_the_file_does_not_name_any_more_is_seen_by_nobody(
    counted: CountingRouter, classes: Any
) -> None:
    status, _ = await counted.ask(route(chain=(NEAR,)), classes=classes)

    assert status == 503
    assert not counted.asked


async def test_nobody_is_kept_warm_with_what_he_may_not_see(counted: CountingRouter) -> None:
    often = replace(PERSONAL, keep_warm_bps=1_000)
    both = {"personal": frozenset({"up", "away"})}
    found = route(chain=(AWAY,), settings=often)

    assert served(found, classes=both).routes["support"].warmed == (AWAY.id,)
    assert served(found, classes=CLEARED).routes["support"].warmed == ()
    await counted.ask(found, times=100)
    assert counted.asked == {"m-own": 100}


SWITCHES = {
    "command line": [switch_of("provider:away")],
    "api, one route": [
        switch_of(f"target:{AWAY.id}", source=SwitchSource.REST, route="support")
    ],
    "SWAPPROOF_FORCE provider": parse_environment_switches("provider:away", AT),
    "SWAPPROOF_FORCE target": parse_environment_switches(f"target:{AWAY.id}", AT),
    "SWAPPROOF_FORCE name": parse_environment_switches(f"target:{AWAY.name}", AT),
    "SWAPPROOF_FORCE route": parse_environment_switches("support=provider:away", AT),
    "file": parse_file_switches(["provider:away", f"support=target:{AWAY.id}"], AT),
}


BEHIND = route(chain=(AWAY,))
WAYS: Mapping[str, tuple[Snapshot, Sequence[KillSwitch]]] = {
    "chain": (route(AWAY, (AWAY, OWN)), ()),
    "canary": (route(canary=AWAY), ()),
    "holdback": (route(holdback=AWAY), ()),
    **{form: (BEHIND, switches) for form, switches in SWITCHES.items()},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.spine
async def test_no_way_leads_to_a_target_that_may_not_see_the_data(
    counted: CountingRouter, way: str
) -> None:
    found, switches = WAYS[way]
    status, _ = await counted.ask(
        found,
        switches,
        times=3,
    )
    again, _ = await counted.ask(replace(found, switches=tuple(switches)), times=3)

    assert (status, again) == (200, 200)
    assert counted.asked == {"m-own": 6}
    counted.recorder.flush(final=True)
    # What never asked the candidate is no success of it.
    blocks = counted.kept.blocks.values()
    assert all(block.canary_failures == block.canary_units for block in blocks)


def test_no_shadow_sees_what_it_may_not(caplog: pytest.LogCaptureFixture) -> None:
    shadow = shadow_of("support", OWN.id, AWAY, data_class="personal")
    found = replace(route(), shadows=(shadow,))
    both = {"personal": frozenset({"up", "away"})}

    assert served(found, classes=both).routes["support"].shadow is not None
    assert served(found, classes=CLEARED).routes["support"].shadow is None
    assert "may not see" in caplog.text


def test_whoever_forgets_to_say_the_classes_shows_nothing() -> None:
    found = route(chain=(NEAR,))

    made = compile_snapshot(found, (), upstream_keys(found)).routes["support"]

    assert made.barred == {OWN.id, NEAR.id}
    assert not any(plan.targets for by_arm in made.plans.values() for plan in by_arm.values())


SPARE = f"target:up/{FALLBACK}"


class Served(NamedTuple):
    target: str
    switch: str


async def ask_router(door: Door) -> Served:
    _, headers, _ = await door.call(CHAT, ASK)
    target = headers[b"x-swapproof-target"].decode()
    return Served(target, headers.get(b"x-swapproof-switch", b"").decode())


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

    _, _, metrics = await door.call(
        "/metrics",
        b"",
        method="GET",
    )
    assert b"swapproof_router_switch_not_in_effect_total 2.0" in metrics


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
        (
            f"avoid:target:up/{FALLBACK}",
            0,
            f"sw_1; avoid:target:up/{FALLBACK}; in_effect",
        ),
        ("provider:elsewhere", 1, "sw_1; provider:elsewhere; not_in_effect"),
    ],
)
async def test_a_switch_without_effect_on_a_route_leaves_its_requests_as_they_are(
    tmp_path: Path,
    force: str,
    counted: int,
    told: str,
) -> None:
    door = Door(tmp_path)
    door.holder.current = served(with_switches(switch_of(force), weight_bps=1))

    assert await ask_router(door) == Served(f"up/{INCUMBENT}", told)
    door.recorder.flush(final=True)
    assert sum(block.units for block in door.kept.blocks.values()) == counted
