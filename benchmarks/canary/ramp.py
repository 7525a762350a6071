"""A healthy candidate goes from 1 % to all users and through its bake, by itself.

What each step rested on is then read as people read it: from `swapgate canary explain`, by
`swapgate gate replay`, and from the Canary page in a browser.
"""

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from benchmarks.canary.load import Load, pouring
from benchmarks.canary.place import Place, placed
from benchmarks.canary.wall_time import now_s, until
from benchmarks.canary.wrong import harm_of, slow_s
from harness.domain.canary.rollout import RolloutState
from tests.support.browser.chromium import find
from tests.support.browser.dashboard_server import dashboard

ROUTE: Final = "chat"
# Minimums for minutes, not for production: the certificate is what it always is.
POLICY: Final[Mapping[str, object]] = {
    "canary": {
        "unit": "request",
        "steps": [
            {"weight_bps": 100, "min_exposures": 30},
            {"weight_bps": 500, "min_exposures": 100},
            {"weight_bps": 2500, "min_exposures": 300, "certify": True},
        ],
        "bake_s": 15,
    }
}
WITHIN_S: Final = 600.0
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@dataclass(frozen=True)
class Ramp:
    """moves: the audit events, oldest first, each with what `swapgate gate replay` says of it.

    took_s: from the first step to the end of the bake. unread: reasons of moves that the page
    does not show. errors: of users; slow: with an answer slower than 1.5 times the median.
    """

    ended: str
    took_s: float
    moves: Sequence[Mapping[str, Any]]
    unread: Sequence[str]
    asked: int
    errors: int
    slow: int


def run(*, workers: int, rps: float, picture: Path | None) -> Ramp:
    with (
        tempfile.TemporaryDirectory(prefix="swapgate-live-") as folder,
        placed(Path(folder), {ROUTE: "better"}, POLICY, workers=workers) as place,
        pouring(place.port, place.key, rps) as load,
    ):
        place.start("control", "router")
        place.open([ROUTE])
        began = now_s()
        load.route = ROUTE
        until(lambda: _over(place), WITHIN_S, 0.2)
        took_s = now_s() - began
        load.route = ""
        time.sleep(1.0)
        moves = _moves(place)
        return Ramp(
            ended=place.rollout(ROUTE).state.value,
            took_s=took_s,
            moves=moves,
            unread=_unread(place, moves, picture),
            **_users(load, began),
        )


def _over(place: Place) -> bool:
    rollout = place.rollout(ROUTE)
    if rollout.state is RolloutState.PROMOTED:
        return not rollout.baking
    return not rollout.live


def _users(load: Load, began: float) -> dict[str, int]:
    all_ = load.since(began, ROUTE)
    slow = slow_s(all_)
    harms = [harm_of(request, slow) for request in all_]
    return {
        "asked": len(all_),
        "errors": sum(harm not in ("", "slow") for harm in harms),
        "slow": harms.count("slow"),
    }


def _moves(place: Place) -> Sequence[Mapping[str, Any]]:
    told = json.loads(place.site.run("--json", "canary", "explain", ROUTE).stdout)
    return [
        {**move, "replay": _replayed(place, move["number"])}
        for move in sorted(told["moves"], key=lambda move: int(move["number"]))
    ]


def _replayed(place: Place, number: int) -> str:
    done = place.site.run("replay", str(number), expect=None)
    return "agrees" if done.returncode == 0 else done.stdout + done.stderr


def _unread(
    place: Place, moves: Sequence[Mapping[str, Any]], picture: Path | None
) -> Sequence[str]:
    """What a browser does not find on the page."""
    with dashboard(place.site.config) as address, sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        chromium = find(lambda: own)
        browser = playwright.chromium.launch(
            executable_path=chromium.executable,
            args=[*ARGUMENTS],
            env={**os.environ, **chromium.environment},
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/canary?route={ROUTE}")
        page.get_by_text("Copy as CLI").wait_for(timeout=120_000)
        page.get_by_text("What was done").wait_for(timeout=120_000)
        box = page.locator(".stMainBlockContainer").bounding_box()
        page.set_viewport_size(
            {"width": 1280, "height": int(box["height"]) + 80 if box else 900}
        )
        page.get_by_text("Failures so far").wait_for(timeout=120_000)
        page.wait_for_timeout(3000)
        text = page.inner_text(".stMain").replace("\N{NO-BREAK SPACE}", " ")
        if picture is not None:
            page.screenshot(path=picture)
        browser.close()
    return [str(e["details"]["reason"]) for e in moves if e["details"]["reason"] not in text]


def lines(ramp: Ramp) -> Sequence[str]:
    head = (
        f"{ramp.ended} after {ramp.took_s:.0f} s with the bake; {ramp.asked} requests, "
        f"{ramp.errors} with an error, {ramp.slow} slow"
    )
    columns = (
        "| event | did | canary failed | control failed | evidence of harm at most | "
        "certificate | replay |"
    )
    said = [head, columns]
    for move in ramp.moves:
        d = move["details"]
        share = max(0.0, d["log_e_max"] / d["rollback_at"])
        said.append(
            f"| {move['number']} | {move['action']} | {d['canary_failures']} of "
            f"{d['canary_units']:,} | {d['control_failures']} of {d['control_units']:,} | "
            f"{share:.0%} of the level | {d['certificate']:.3g} of {d['certificate_at']:g} | "
            f"{move['replay']} |"
        )
        said.append(f"    {d['reason']}")
    said.append(f"not on the page: {list(ramp.unread) or 'nothing'}")
    return said
