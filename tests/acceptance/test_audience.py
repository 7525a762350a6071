"""Staff get a candidate first, one customer never does in the canary, and a person can ask who
gets which model.
"""

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Document, Installation, eventually
from tests.acceptance.pages import signed_in
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    LASTING,
    await_phase,
    before_simulator,
    propose,
    served_revision,
)
from tests.acceptance.traffic import ask_all

AUDIENCE: Document = {
    "first": [{"by": "user", "prefixes": ["staff:"]}],
    "never": [{"by": "key", "values": ["customer-x"]}],
}
POLICY: Document = {
    **LASTING,
    "promotion": "approved",
    "canary": {**LASTING["canary"], "audience": AUDIENCE},
}


def in_canary(installing: Installing) -> tuple[Installation, str]:
    """An installation whose canary has an audience, and the proposal's id."""

    def settings(made: Installation) -> Document:
        document = before_simulator(Simulator(made), support={"policy": "careful"})
        return {**document, "policies": {**document["policies"], "careful": POLICY}}

    place = installing(settings)
    place.serve("router")
    place.serve("control")
    without_canary = served_revision(place)
    ann = place.management_key("ann", "proposer")
    swap = propose(place, "support", "sim/sim-better", token=ann)
    await_phase(place, swap, "awaiting_approval")
    shown = place.cli("proposal", "approve", swap, "--reason", "customer X knows")
    assert "Never measured: client key customer-x." in shown.out + shown.err
    await_phase(place, swap, "canary")
    eventually(lambda: served_revision(place) > without_canary)
    return place, swap


@pytest.mark.verify
@pytest.mark.req("F3", "F4")
def test_staff_are_first_a_customer_never_and_who_tells_it(installing: Installing) -> None:
    place, swap = in_canary(installing)
    never = place.json("key", "create", "customer-x")["text"]
    eventually(lambda: place.chat("support", key=never).status_code == 200)

    for number in range(5):
        staff = place.chat("support", user=f"staff:{number}")
        assert staff.headers["x-swapproof-target"] == "sim/sim-better"
        excluded = place.chat("support", user=f"staff:{number}", key=never)
        assert excluded.headers["x-swapproof-target"] == "sim/sim-base"
    users = [f"caller-{number}" for number in range(600)]
    arms = {user: answer.arm for user, answer in ask_all(place, "support", users).items()}
    drawn = next(user for user, arm in arms.items() if arm == "canary")
    other = next(user for user, arm in arms.items() if arm == "incumbent")

    # On the command line, and by HTTP.
    (first,) = place.json("canary", "who", "staff:1")
    assert (first["arm"], first["model"]) == ("canary", "sim/sim-better")
    assert first["because"].startswith("the audience puts it first: user staff:*")
    (customer,) = place.json("canary", "who", "customer-x")
    assert (customer["arm"], customer["sent_as"]) == ("incumbent", "key")
    for user in (drawn, other):
        asked = place.api("POST", "/caller-arms", {"user": user, "route": "support"})
        (found,) = asked.json()["items"]
        assert found["arm"] == arms[user]
        assert "the share draws it: bucket" in found["because"]

    # Callers whom a rule assigned are no exposures, in either arm.
    def outcomes() -> Document | None:
        (canary,) = place.api("GET", "/canaries").json()["items"]
        rows = {row["key"]: row for row in canary["explanation"]["uncounted"]}
        return rows.get("audience")

    by_rule = eventually(outcomes) or {}
    assert by_rule["candidate"] >= 5
    assert by_rule["incumbent"] >= 5
    (approval,) = place.api("GET", f"/proposals/{swap}/approvals").json()["items"]
    assert approval["reason"] == "customer X knows"


@pytest.mark.verify
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.req("F3", "A7")
def test_the_canary_page_tells_which_model_a_caller_gets(
    installing: Installing,
    browser: Browser,
) -> None:
    place, _ = in_canary(installing)
    place.serve("ui")
    key = place.management_key("eve", "viewer")
    page = signed_in(browser, place, key, "/canary?route=support")
    main = page.locator(".stMain")
    expect(main).to_contain_text("first: user staff:*; never: client key customer-x")
    page.get_by_text("Who gets the candidate").click()
    field = page.get_by_label("User id, or a client key's name")
    field.fill("staff:1")
    field.press("Enter")
    expect(main).to_contain_text("the audience puts it first: user staff:*")
    field.fill("caller-1")
    field.press("Enter")
    expect(main).to_contain_text("the share draws it: bucket")
