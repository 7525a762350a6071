"""Keep-warm (B6): a trickle to the other providers, and what it must never touch."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from harness.domain.routing.kill_switch import KillSwitch, SwitchSource, parse_force
from harness.domain.routing.table import Route, RouteSettings, RoutingTable
from harness.domain.routing.target import Target
from harness.runtime.clock import SystemClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door
from tests.support.router.live_router import FALLBACK, INCUMBENT, provider, snapshot

pytestmark = pytest.mark.req("B6")

WARM, OWN = Target("other", FALLBACK), Target("up", INCUMBENT)
TENTH = RouteSettings(keep_warm_bps=1000)
ASKED: Final = 200


class Warmed(Door):
    """Route `support`, with a fallback of another provider that answers with `turn`."""

    def __init__(
        self,
        folder: Path,
        turn: ScriptedTurn | None = None,
        settings: RouteSettings = TENTH,
        switches: tuple[KillSwitch, ...] = (),
    ) -> None:
        self.tried = 0

        def script_turn(request: Any) -> ScriptedTurn:
            if turn is None or json.loads(request.body)["model"] != FALLBACK:
                return completion()
            self.tried += 1
            return turn

        first = snapshot("http://up", providers=[provider("http://up", "other")])
        route = Route("support", 1, OWN.id, None, (WARM.id,), settings)
        table = RoutingTable(1, {"support": route}, {OWN.id: OWN, WARM.id: WARM})
        first = replace(first, table=table, switches=switches)
        super().__init__(folder, script_turn, first=first)

    async def ask_all(self, *, users: bool = True) -> Counter[tuple[bytes, bytes]]:
        """How often an arm was served by a target. users: each request has one of its own."""
        found: Counter[tuple[bytes, bytes]] = Counter()
        for number in range(ASKED):
            sticky = ((b"x-swapgate-sticky", b"user-%d" % number),) if users else ()
            asked = ASK if users else ASK.replace(b'{"role":"user","content":"hi"}', b"")
            status, headers, _ = await self.call(CHAT, asked, headers=(AUTH, *sticky))
            assert status == 200
            found[headers[b"x-swapgate-arm"], headers[b"x-swapgate-target"]] += 1
        return found


async def test_a_warmed_target_that_fails_harms_nobody_and_gets_no_more(tmp_path: Path) -> None:
    door = Warmed(tmp_path, error(401))

    served = await door.ask_all()

    # Then its circuit was open.
    own = OWN.name.encode()
    assert served == {(b"keep_warm", own): 1, (b"incumbent", own): ASKED - 1}
    assert door.tried == 1
    door.recorder.flush(final=True)
    rows = {row.arm: (row.requests, row.charged, row.failed) for row in door.kept.traffic}
    assert rows == {"keep_warm": (1, 1, 0), "incumbent": (ASKED - 1, 0, 0)}


async def test_nobody_waits_for_a_second_try_of_a_warmed_target(tmp_path: Path) -> None:
    door = Warmed(tmp_path, replace(error(503), headers={"retry-after": "1"}))

    served = await door.ask_all()

    # About 20 are drawn. After five its circuit is open.
    assert {target for _, target in served} == {OWN.name.encode()}
    assert 1 <= door.tried == served[b"keep_warm", OWN.name.encode()] <= 5


def thrown() -> KillSwitch:
    at, force = SystemClock().now(), parse_force("provider:up")
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
async def test_nobody_is_drawn_where_it_is_off_or_could_do_harm(
    tmp_path: Path, staged: Mapping[str, Any]
) -> None:
    served = await Warmed(tmp_path, **staged).ask_all()

    assert served == {(b"incumbent", OWN.name.encode()): ASKED}


async def test_callers_who_cannot_be_told_apart_are_drawn_one_request_at_a_time(
    tmp_path: Path,
) -> None:
    served = await Warmed(tmp_path).ask_all(users=False)

    assert 2 <= served[b"keep_warm", WARM.name.encode()] <= 50
