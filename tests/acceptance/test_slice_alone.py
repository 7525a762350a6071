"""A candidate that is better for one slice is promoted there alone."""

import json
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import SHORT, await_phase, await_up, history, phase
from tests.acceptance.traffic import traffic

BILLING = {"x-team": "billing"}
SLICE = "team = billing"
TEAMS = ("billing", "sales")
ITEMS = 200
MODELS = {
    "careful": {"skill": {"billing": 0.7, "sales": 0.7}},
    "biller": {"skill": {"billing": 0.98, "sales": 0.3}},
}
GATE = {**SHORT["gate"], "claim": "non_inferior", "margin": 0.1, "n_max": ITEMS}


def split_route(place: Installation) -> Document:
    """Writes the suite, and a file for each team from which the simulator knows its skill."""
    lines: dict[str, list[str]] = {team: [] for team in TEAMS}
    for number in range(ITEMS):
        team = TEAMS[number % 2]
        item: dict[str, Any] = {
            "id": f"{team}-{number}",
            "input": f"Which label has case {number} of {team}?",
            "target": f"label {number}",
            "metadata": {"team": team, "headers": {"x-team": team}},
        }
        lines[team].append(json.dumps(item))
    files = {"teams": lines["billing"] + lines["sales"], **lines}
    for name, rows in files.items():
        (place.folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    options = [
        word for team in TEAMS for word in ("--suite", f"{team}={place.folder / team}.jsonl")
    ]
    sim = Simulator(place, profiles=MODELS, options=tuple(options))
    return {
        "providers": {"sim": sim.settings()},
        "policies": {"short": {**SHORT, "gate": GATE}},
        "control": {"reconcile_interval_s": 0.5},
        "router": {"flush_interval_s": 0.3},
        "suites": {
            "teams": {
                "path": "teams.jsonl",
                "slices": ["team"],
                "split": {SLICE: "x-team: billing"},
            }
        },
        "routes": {
            "support": {
                "incumbent": "sim/careful",
                "suites": ["teams"],
                "policy": "short",
                "total_timeout_s": 15,
            }
        },
    }


def target_of(place: Installation, headers: dict[str, str] | None = None) -> str:
    answer = place.chat("support", headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    return str(answer.headers["x-swapproof-target"])


@pytest.mark.req("A1", "D6", "F2")
def test_a_slice_alone_is_promoted_while_the_rest_keeps_the_incumbent(
    installing: Installing,
) -> None:
    place = installing(split_route)
    await_up(place, "router", "control")
    swap = ("proposal", "create", "support", "sim/biller", "--slice", SLICE)
    wish = (*swap, "--reason", "it is cheaper")
    plan = place.cli(*wish, "--dry-run")
    assert "nothing was stored" in plan.out + plan.err

    shown = place.cli(*wish).out
    assert "for slice team = billing, route support-billing" in shown
    found = place.api("GET", "/proposals").json()["items"]
    ids = {one["route"]: one["id"] for one in found}
    assert set(ids) == {"support", "support-billing"}

    await_phase(place, ids["support"], "rejected")
    await_phase(place, ids["support-billing"], "canary")
    settings = place.api("GET", "/routes/support").json()["settings"]
    assert settings["overrides"] == {"x-team: billing": "support-billing"}
    with traffic(place, "support", headers=BILLING) as asking:
        await_phase(place, ids["support-billing"], "promoted")
        eventually(lambda: target_of(place, BILLING) == "sim/biller")

    assert asking.failed == []
    assert target_of(place) == target_of(place, {"x-team": "sales"}) == "sim/careful"
    assert history(place, "support") == ["baseline", "settings"]
    assert history(place, "support-billing")[-1] == "promotion"
    assert phase(place, ids["support"]) == "rejected"
    replay = place.json("gate", "replay", ids["support-billing"])
    assert replay["agrees"]
    place.cli("proof", "export", ids["support-billing"], "-o", str(place.folder / "proof.json"))
    key = str(place.home / "signing.pub")
    assert place.cli("proof", "verify", "proof.json", "--key", key).out.endswith(
        "The proof holds.\n"
    )


@pytest.mark.req("D6")
def test_slices_are_checked_and_proposed_over_http(
    installing: Installing,
) -> None:
    place = installing(split_route)
    await_up(place, "control")
    body = {"route": "support", "candidate": "sim/biller", "reason": "a story"}

    unknown = place.api("POST", "/proposals/preview", {**body, "slices": ["team = nobody"]})
    planned = place.api("POST", "/proposals/preview", {**body, "slices": [SLICE]})
    none = place.api("GET", "/proposals").json()["items"]
    made = place.api("POST", "/proposals", {**body, "slices": [SLICE]})
    both = place.api("GET", "/proposals").json()["items"]

    assert unknown.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "its `split` has 'team = billing'" in unknown.text
    assert planned.status_code == httpx.codes.OK, planned.text
    assert none == []
    assert made.status_code == httpx.codes.CREATED, made.text
    assert {one["route"] for one in both} == {"support", "support-billing"}
