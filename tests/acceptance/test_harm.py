"""A candidate that is good on paper and fails online goes back by itself."""

import re

import httpx
import pytest

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    await_phase,
    before_simulator,
    history,
    proposal,
    propose,
)
from tests.acceptance.traffic import traffic


@pytest.mark.req("F3", "F4")
def test_harm_rolls_the_canary_back_and_no_user_sees_a_failure(installing: Installing) -> None:
    sims: list[Simulator] = []

    def settings(made: Installation) -> Document:
        sims.append(Simulator(made))
        return before_simulator(sims[0], support={"policy": "lasting"})

    place = installing(settings)
    (sim,) = sims
    place.serve("router")
    place.serve("control")
    swap = propose(place, "support", "sim/sim-fragile")
    await_phase(place, swap, "canary")
    sim.fault(
        "sim-fragile",
        "status",
        status=503,
        rate=0.6,
    )
    with traffic(place, "support") as asking:
        await_phase(place, swap, "rolled_back")
        eventually(lambda: asking.answers[-1].arm == "incumbent")

    assert asking.failed == []
    because = proposal(place, swap)["closed_because"]
    # A router's own guard or the control plane ends the canary, whichever sees the harm first.
    # A circuit that these errors opened is an error of the candidate too, without a status.
    by_guard = r"callers of the candidate got an error \((\d+ of them )?503 overloaded\)"
    assert "harm" in because or re.search(by_guard, because), because
    assert history(place, "support") == ["baseline", "canary", "abort"]
    alerts = place.api("GET", "/alerts").json()["items"]
    assert "rolled_back" in {alert["kind"] for alert in alerts}
    after = [place.model_of("support", user=f"later {number}") for number in range(300)]
    assert set(after) == {"sim/sim-base"}
    # It does not come back by its old verdict.
    answer = place.api("POST", "/canaries/support/promote", {"reason": "I want it"})
    assert answer.status_code in (
        httpx.codes.CONFLICT,
        httpx.codes.NOT_FOUND,
    ), answer.text
    assert place.model_of("support") == "sim/sim-base"


@pytest.mark.verify
@pytest.mark.req("F3", "F4")
def test_a_person_ends_a_canary_with_a_reason(installing: Installing) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made), support={"policy": "lasting"})
    )
    place.serve("router")
    place.serve("control")
    swap = propose(place, "support", "sim/sim-better")
    await_phase(place, swap, "canary")
    without = place.api("POST", "/canaries/support/abort", {})
    assert without.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    place.api(
        "POST",
        "/canaries/support/abort",
        {"reason": "the customers complain"},
    ).raise_for_status()
    await_phase(place, swap, "rolled_back")
    eventually(
        lambda: (
            {place.model_of("support", user=f"u{number}") for number in range(300)}
            == {"sim/sim-base"}
        )
    )
    events = place.api("GET", "/audit?limit=20").json()["items"]
    (aborted,) = [event for event in events if event["action"] == "canary.abort"]
    assert "the customers complain" in aborted["details"]["reason"]
