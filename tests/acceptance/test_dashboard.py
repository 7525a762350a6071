"""A swap in the dashboard, in a real browser: proposed by one person, approved by another."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.conftest import Installing
from tests.acceptance.installation import Installation
from tests.acceptance.pages import signed_in
from tests.acceptance.providers import Simulator
from tests.acceptance.swaps import (
    await_phase,
    before_simulator,
    history,
    phase,
)
from tests.acceptance.traffic import traffic


@pytest.mark.verify
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.req("F1", "F2", "A7")
def test_two_people_swap_a_model_in_the_dashboard(
    installing: Installing, browser: Browser
) -> None:
    place = installing(
        lambda made: before_simulator(Simulator(made), support={"policy": "asking"})
    )
    for part in ("router", "control", "ui"):
        place.serve(part)
    keys = {name: place.management_key(name, "admin") for name in ("ann", "bob")}

    ann = signed_in(
        browser,
        place,
        keys["ann"],
        "/proposals?route=support&candidate=sim/sim-better",
    )
    ann.get_by_label("Reason").fill("it is cheaper")
    ann.get_by_label("Reason").press("Tab")
    ann.get_by_role("button", name="Propose", exact=True).click()
    expect(ann.get_by_text("ann proposed sim/sim-better for route support")).to_be_visible()
    (swap,) = [one["id"] for one in place.api("GET", "/proposals").json()["items"]]
    await_phase(place, swap, "awaiting_approval")

    # Who proposed it reviews it, and cannot approve it.
    ann.goto(f"{place.url('ui')}/compare?id={swap}")
    expect(ann.locator(".stMain")).to_contain_text("PASSED")
    expect(ann.locator(".stMain")).to_contain_text("points")
    expect(ann.get_by_role("button", name="Approve")).to_be_disabled()
    assert phase(place, swap) == "awaiting_approval"
    assert place.model_of("support") == "sim/sim-base"

    bob = signed_in(browser, place, keys["bob"], f"/compare?id={swap}")
    expect(bob.locator(".stMain")).to_contain_text("PASSED")
    bob.get_by_role("button", name="Approve").click()
    dialog = bob.get_by_role("dialog")
    expect(dialog).to_contain_text("1 % of its traffic goes to sim/sim-better")
    dialog.get_by_label("Reason").press_sequentially("it is better, too")
    dialog.get_by_role("button", name="Start the canary").click()
    expect(bob.get_by_text("bob approved")).to_be_visible()
    await_phase(place, swap, "canary", "promoted")
    with traffic(place, "support") as asking:
        await_phase(place, swap, "promoted")
    assert asking.failed == []
    assert history(place, "support") == [
        "baseline",
        "canary",
        "weight",
        "promotion",
    ]
    bob.goto(f"{place.url('ui')}/compare?id={swap}")
    expect(bob.locator(".stMain")).to_contain_text("the candidate serves the whole route")

    (approval,) = place.api("GET", f"/proposals/{swap}/approvals").json()["items"]
    assert "bob" in str(approval)
    assert_forged_session_signs_nobody_in(place, bob)


def assert_forged_session_signs_nobody_in(place: Installation, page: Page) -> None:
    """As the owner of the database, give a session to somebody else."""
    db = place.database
    (bob,) = db.rows("SELECT * FROM principal WHERE name = 'bob'")
    (ann,) = db.rows("SELECT * FROM principal WHERE name = 'ann'")
    where = f"principal = '{bob['id']}' AND cookie_hash IS NOT NULL"
    (session,) = db.rows(f"SELECT * FROM dashboard_session WHERE {where}")  # noqa: S608
    with db.changed("dashboard_session", f"id = '{session['id']}'", principal=ann["id"]):
        page.goto(f"{place.url('ui')}/proposals")
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        expect(page.get_by_text("ann · admin")).to_have_count(0)
