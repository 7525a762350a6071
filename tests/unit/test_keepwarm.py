from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.providers.force import KillSwitch
from harness.providers.target import Target
from harness.routing.plan import KeepWarm, draw_keep_warm, keep_warm_targets
from harness.routing.route_settings import MAX_KEEP_WARM_BPS, RouteSettings, Stakes
from harness.routing.table import BUCKETS, Canary, Route, RoutingTable, hash_bucket
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import ASK, AUTH, CHAT, Door, Script
from tests.support.router.live_router import (
    FALLBACK,
    INCUMBENT,
    provider,
    snapshot,
    switch_of,
)

pytestmark = pytest.mark.req("B6")

DAY = date(2026, 3, 1)
ONE_PERCENT = KeepWarm(100)
KEYS = [f"user-{number}" for number in range(20_000)]
keys = st.text(max_size=20)
shares = st.integers(0, MAX_KEEP_WARM_BPS)
target_lists = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


def drawn(
    key: str,
    targets: list[str],
    setting: KeepWarm = ONE_PERCENT,
    day: date = DAY,
    sick: frozenset[str] = frozenset(),
) -> str | None:
    return draw_keep_warm(
        key,
        route="chat",
        day=day,
        targets=targets,
        healthy=lambda target: target not in sick,
        setting=setting,
    )


def test_every_target_gets_its_share() -> None:
    counts = Counter(drawn(key, ["a", "b", "c"]) for key in KEYS)

    # 200 expected of 20 000, deviation 14; the keys are fixed, so this holds always or never.
    assert all(150 < counts[target] < 250 for target in "abc")
    assert sum(counts.values()) == len(KEYS)


@given(keys, target_lists, shares, shares, st.dates())
def test_raising_the_share_only_adds_keys(
    key: str,
    targets: list[str],
    low: int,
    high: int,
    day: date,
) -> None:
    low, high = sorted((low, high))
    before = drawn(key, targets, KeepWarm(low), day)

    assert before is None or drawn(key, targets, KeepWarm(high), day) == before


@given(keys, target_lists, shares, st.sets(st.sampled_from("abcdefgh")))
def test_a_sick_target_gets_nothing_and_moves_nobody_else(
    key: str,
    targets: list[str],
    share: int,
    sick: set[str],
) -> None:
    healthy = drawn(key, targets, KeepWarm(share))
    now = drawn(key, targets, KeepWarm(share), sick=frozenset(sick))

    assert now == (None if healthy in sick else healthy)


@given(keys, target_lists, shares)
def test_a_route_with_side_effects_is_never_drawn(
    key: str,
    targets: list[str],
    share: int,
) -> None:
    assert drawn(key, targets, KeepWarm(share, side_effects=True)) is None
    assert drawn(key, targets, KeepWarm(0)) is None
    assert drawn(key, []) is None


def test_the_greatest_share_for_many_targets_still_reaches_each() -> None:
    counts = Counter(drawn(key, list("abcdefgh"), KeepWarm(MAX_KEEP_WARM_BPS)) for key in KEYS)

    assert all(1800 < counts[target] < 2200 for target in "abcdefgh")


def test_tomorrow_it_is_others() -> None:
    today = {key for key in KEYS if drawn(key, ["a"])}
    tomorrow = {key for key in KEYS if drawn(key, ["a"], day=DAY + timedelta(1))}

    assert len(today & tomorrow) < 10
    assert {key for key in KEYS if drawn(key, ["a"])} == today


def test_it_is_independent_of_the_canarys_arm() -> None:
    warm = [key for key in KEYS if drawn(key, ["a", "b", "c"], KeepWarm(500))]
    in_both = sum(hash_bucket(key, salt="rollout") < BUCKETS // 2 for key in warm)

    assert 0.45 < in_both / len(warm) < 0.55


def test_each_other_providers_first_target_of_the_chain_is_warmed() -> None:
    settings = RouteSettings(capable=("b2", "c1"))
    canary = Canary("c1", 100, "salt", "ro-1")
    route = Route("chat", 1, "a1", canary, ("a2", "b1", "b2", "c1"), settings)
    provider_of = {target: target[0] for target in ("a1", "a2", "b1", "b2", "c1")}

    assert keep_warm_targets(route, provider_of) == ("b1",)  # c1 is the canary's
    assert keep_warm_targets(replace(route, canary=None), provider_of) == (
        "b1",
        "c1",
    )
    high = replace(route, canary=None, settings=replace(settings, stakes=Stakes.HIGH))
    assert keep_warm_targets(high, provider_of) == ("b2", "c1")


@pytest.mark.parametrize("share", [-1, MAX_KEEP_WARM_BPS + 1])
def test_a_share_that_is_no_trickle_is_refused(share: int) -> None:
    with pytest.raises(InputError, match=f"not {share}"):
        KeepWarm(share)


WARM = Target("other", FALLBACK)
OWN = Target("up", INCUMBENT)
TENTH = RouteSettings(keep_warm_bps=1000)
ASKED: Final = 200


class Warmed(Door):
    def __init__(
        self,
        folder: Path,
        turn: ScriptedTurn | None = None,
        settings: RouteSettings = TENTH,
        switches: tuple[KillSwitch, ...] = (),
    ) -> None:
        script: Script = {
            INCUMBENT: completion(),
            FALLBACK: turn or completion(),
        }
        first = snapshot("http://up", providers=[provider("http://up", "other")])
        route = Route("support", 1, OWN.id, None, (WARM.id,), settings)
        table = RoutingTable(1, {"support": route}, {OWN.id: OWN, WARM.id: WARM})
        first = replace(first, table=table, switches=switches)
        super().__init__(folder, script, first=first)

    async def ask_all(self, *, users: bool = True) -> Counter[tuple[bytes, bytes]]:
        """How often an arm was served by a target.

        Args:
            users: each request has one of its own.
        """
        found: Counter[tuple[bytes, bytes]] = Counter()
        for number in range(ASKED):
            sticky = ((b"x-swapproof-sticky", b"user-%d" % number),) if users else ()
            asked = ASK if users else ASK.replace(b'{"role":"user","content":"hi"}', b"")
            status, headers, _ = await self.call(
                CHAT,
                asked,
                headers=(AUTH, *sticky),
            )
            assert status == 200
            found[headers[b"x-swapproof-arm"], headers[b"x-swapproof-target"]] += 1
        return found


@pytest.mark.spine
async def test_a_warmed_target_that_fails_costs_no_caller_and_gets_no_more(
    tmp_path: Path,
) -> None:
    door = Warmed(tmp_path, error(401))

    served = await door.ask_all()

    # Then its circuit was open.
    own = OWN.name.encode()
    assert served == {(b"keep_warm", own): 1, (b"incumbent", own): ASKED - 1}
    assert door.asked[FALLBACK] == 1
    door.recorder.flush(final=True)
    rows = {row.arm: (row.requests, row.charged, row.failed) for row in door.kept.traffic}
    assert rows == {"keep_warm": (1, 1, 0), "incumbent": (ASKED - 1, 0, 0)}


async def test_no_caller_waits_for_a_second_try_of_a_warmed_target(tmp_path: Path) -> None:
    door = Warmed(tmp_path, replace(error(503), headers={"retry-after": "1"}))

    served = await door.ask_all()

    # About 20 are drawn. After five its circuit is open.
    assert {target for _, target in served} == {OWN.name.encode()}
    assert 1 <= door.asked[FALLBACK] == served[b"keep_warm", OWN.name.encode()] <= 5


@pytest.mark.parametrize(
    "staged",
    [
        {"settings": RouteSettings()},
        {"settings": replace(TENTH, side_effects=True)},
        {"switches": (switch_of("provider:up"),)},
    ],
    ids=["off", "side effects", "a switch is in force"],
)
async def test_no_request_is_drawn_where_it_is_off_or_could_do_harm(
    tmp_path: Path, staged: Mapping[str, Any]
) -> None:
    served = await Warmed(tmp_path, **staged).ask_all()

    assert served == {(b"incumbent", OWN.name.encode()): ASKED}


async def test_callers_who_cannot_be_told_apart_are_drawn_one_request_at_a_time(
    tmp_path: Path,
) -> None:
    served = await Warmed(tmp_path).ask_all(users=False)

    assert 2 <= served[b"keep_warm", WARM.name.encode()] <= 50
