"""A model is retired in 30 days: the countdown, its source and command, clients' headers."""

import re
import shlex
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final

import openai
import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.pages import signed_in
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    LASTING,
    POLICIES,
    await_phase,
    before_simulator,
    propose,
)

ASKED: Final[Any] = [{"role": "user", "content": "Where is my parcel?"}]
PROVEN_WITHIN_S: Final = 600.0  # a job that runs every half minute, and a comparison
IN_30_DAYS: Final = r"in (29|30) days"  # 29 if the day changes within the story


def retire(made: Installation, sims: list[Simulator]) -> Document:
    """The configuration of a route whose model ends in 30 days, as the file states it."""
    sims.append(Simulator(made))
    return {
        **before_simulator(sims[0], support={}),
        "catalogue": {"sim/sim-base": {"end_date": in_days(made, 30)}},
        "control": {"reconcile_interval_s": 0.5, "housekeeping_interval_s": 0.5},
    }


def in_days(place: Installation, days: int) -> date:
    """The day so long after the installation was configured."""
    configured = datetime.fromtimestamp(place.config.stat().st_mtime, UTC)
    return configured.date() + timedelta(days=days)


def ask(place: Installation) -> dict[str, str]:
    """The headers that the official client gets."""
    with openai.OpenAI(
        base_url=f"{place.url('router')}/v1", api_key=place.data_key, max_retries=0
    ) as client:
        raw = client.chat.completions.with_raw_response.create(model="support", messages=ASKED)
    return {name.lower(): value for name, value in raw.headers.items()}


def countdown(place: Installation) -> Document:
    (route,) = place.json("status")["routes"]
    found: list[Document] = route["endings"]
    return found[0] if found else {}


@pytest.mark.req("F11")
def test_a_model_that_ends_is_counted_down_wherever_people_and_clients_look(
    installing: Installing,
) -> None:
    sims: list[Simulator] = []
    place = installing(lambda made: retire(made, sims))
    (sim,) = sims
    place.serve("router")
    place.serve("control")

    def alert() -> Document:
        alerts = place.api("GET", "/alerts").json()["items"]
        return next((one for one in alerts if one["kind"] == "model_ends"), {})

    opened = eventually(alert)
    assert re.search(rf"^sim/sim-base ends on .*, {IN_30_DAYS}", opened["title"])
    assert opened["title"].endswith("according to swapproof.yaml")

    # The command line has the alert's words, and a command that runs.
    ending = countdown(place)
    assert re.search(IN_30_DAYS, ending["text"])
    assert ending["source"] == "swapproof.yaml"
    assert f"`{ending['next']}`" in opened["text"]
    shown = place.cli("status").out
    assert ending["text"] in shown
    assert ending["next"] in shown
    place.cli(*shlex.split(ending["next"])[1:])

    (listed,) = place.api("GET", "/models/ending").json()["items"]
    assert (listed["end_date"], listed["source"]) == (ending["day"], "swapproof.yaml")
    assert listed["uses"] == ["incumbent of support"]

    # A client of the official SDK reads the same day.
    headers = eventually(lambda: found if "sunset" in (found := ask(place)) else {})
    assert parsedate_to_datetime(headers["sunset"]).date().isoformat() == ending["day"]
    assert re.fullmatch(r"@\d+", headers["deprecation"])

    # The provider's answers state an earlier day: it governs, and the other one stays visible.
    stated = format_datetime(datetime.combine(in_days(place, 20), time(), UTC), usegmt=True)
    sim.fault("sim-base", "hang", delay_s=0, headers={"Sunset": stated})

    def earlier() -> Document:
        assert place.chat("support").status_code == 200
        found = countdown(place)
        return found if found["source"] != "swapproof.yaml" else {}

    ending = eventually(earlier)
    assert ending["source"] == "headers of answers of provider sim"
    assert f"swapproof.yaml states {listed['end_date']}" in ending["text"]
    assert "the earliest day governs" in ending["text"]
    assert eventually(lambda: ask(place)["sunset"] == stated)

    # A caller cannot state one.
    forged = {"Sunset": "Thu, 01 Jan 2026 00:00:00 GMT"}
    assert place.chat("support", headers=forged).status_code == 200
    assert countdown(place)["source"] == ending["source"]


@pytest.mark.verify
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.req("F11")
def test_overview_counts_the_model_down(installing: Installing, browser: Browser) -> None:
    sims: list[Simulator] = []
    place = installing(lambda made: retire(made, sims))
    for part in ("router", "control", "ui"):
        place.serve(part)
    ending = eventually(lambda: countdown(place))

    page = signed_in(browser, place, place.management_key("ann", "admin"), "/")
    link = page.get_by_role("link", name="support", exact=True)
    row = page.get_by_role("row").filter(has=link)
    expect(row).to_contain_text(ending["text"])
    expect(row).to_contain_text(ending["next"])


def retire_with_spare(made: Installation, sims: list[Simulator]) -> Document:
    """A route whose model ends in 20 days, with a fallback that rounds measure as a spare."""
    sims.append(Simulator(made))
    spares = {
        "models": ["sim/sim-better"],
        "every": "0 3 * * 1",
        "budget_usd": 50,
        "prefer": "not_worse",
        "on_better": "notify",
    }
    route = {
        "policy": "retiring",
        "fallbacks": ["sim/sim-better"],
        "failover": "proven_first",
        "candidates": spares,
    }
    return {
        **before_simulator(sims[0], support=route),
        "policies": {**POLICIES, "retiring": {**LASTING, "retire": "auto"}},
        "catalogue": {"sim/sim-base": {"end_date": in_days(made, 20)}},
    }


@pytest.mark.slow
@pytest.mark.req("F12")
def test_a_proven_spare_takes_over_before_the_end_and_no_caller_gets_an_error(
    installing: Installing,
) -> None:
    sims: list[Simulator] = []
    place = installing(lambda made: retire_with_spare(made, sims))
    (sim,) = sims
    place.serve("router")
    place.serve("control")

    # The announced end starts a round at once, and the round proves the fallback.
    def proven() -> Document:
        (spare,) = place.api("GET", "/routes/support/spares").json()["items"]
        return spare if spare["proof"]["proven"] else {}

    spare = eventually(proven, wait_s=PROVEN_WITHIN_S)
    assert (spare["name"], spare["place"]) == ("sim/sim-better", 1)
    shown = place.cli("route", "show", "support").out
    assert re.search(r"sim/sim-better: proven .+ by v_\w+, until ", shown)

    # `retire: auto` opens its canary, while the old model is the control.
    def replacing() -> Document:
        found = place.api("GET", "/proposals").json()["items"]
        opened = (one for one in found if one["phase"] == "canary")
        return next(opened, {})

    proposal = eventually(replacing, wait_s=PROVEN_WITHIN_S)
    assert proposal["reason"] == f"sim/sim-base ends on {in_days(place, 20).isoformat()}"
    assert place.api("GET", "/routes/support").json()["canary"] is not None

    # The model is gone, in both ways in which providers say so.
    for gone in ({"kind": "not_found"}, {"kind": "status", "status": 410}):
        sim.fault("sim-base", **gone)
        for number in range(20):
            answer = place.chat("support", headers={"x-swapproof-sticky": f"caller-{number}"})
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-swapproof-target"] == "sim/sim-better"
            assert "x-swapproof-fallback" not in answer.headers


def with_two_fallbacks(made: Installation, sims: list[Simulator]) -> Document:
    """A route that tries its proven fallbacks first; the second of two gets a proof."""
    sims.append(Simulator(made))
    route = {
        "policy": "alone",
        "fallbacks": ["sim/sim-worse", "sim/sim-better"],
        "failover": "proven_first",
    }
    return {
        **before_simulator(sims[0], support=route),
        "policies": {**POLICIES, "alone": {**LASTING, "self_approval": True}},
    }


@pytest.mark.slow
@pytest.mark.req("F12", "H6")
def test_a_model_that_a_person_rolled_back_is_no_longer_the_first_fallback(
    installing: Installing,
) -> None:
    sims: list[Simulator] = []
    place = installing(lambda made: with_two_fallbacks(made, sims))
    (sim,) = sims
    place.serve("router")
    place.serve("control")

    def proven() -> list[str]:
        spares = place.api("GET", "/routes/support/spares").json()["items"]
        return [spare["name"] for spare in spares if spare["proof"]["proven"]]

    def fallback() -> tuple[str, str]:
        answer = place.chat("support", headers={"x-swapproof-sticky": "kim"})
        assert answer.status_code == 200, answer.text
        headers = answer.headers
        return headers["x-swapproof-target"], headers.get("x-swapproof-fallback", "")

    swap = propose(place, "support", "sim/sim-better")
    await_phase(place, swap, "canary")
    assert proven() == ["sim/sim-better"]
    sim.fault("sim-base", "status", status=503)
    # A job that runs every half minute brings the proof to the router.
    eventually(lambda: fallback() == ("sim/sim-better", ""), wait_s=PROVEN_WITHIN_S)
    sim.heal()

    place.cli("canary", "promote", "support", "--reason", "a story")
    await_phase(place, swap, "promoted")
    place.cli("route", "rollback", "support", "--reason", "too chatty")

    assert proven() == []
    shown = place.cli("route", "fallback", "spares", "support").out
    assert "had its promotion rolled back by" in " ".join(shown.split())
    sim.fault("sim-base", "status", status=503)
    eventually(lambda: fallback() == ("sim/sim-worse", "unproven"))
