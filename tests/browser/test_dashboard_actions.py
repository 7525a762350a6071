"""What people do in the dashboard, in a browser: propose, approve, reject, pause, roll back."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from harness.app.installation import open_installation
from harness.control.operations import keys
from harness.control.proposals import submission
from harness.control.routing import routes
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.proposals.proposal import ProposalPhase
from tests.support.browser.dashboard_data import Lived, hurt, lived, turned
from tests.support.browser.dashboard_server import Listener, dashboard

expect.set_options(timeout=90_000)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived(tmp_path_factory.mktemp("template"), datetime.now(UTC))  # noqa: TID251


@pytest.fixture
def house(template: Lived, tmp_path: Path) -> Lived:
    """An installation of the test's own."""
    home = shutil.copytree(template.config.parent, tmp_path / "home")
    return Lived(home / template.config.name, template.proposals)


@pytest.fixture
def address(house: Lived) -> Iterator[str]:
    with dashboard(house.config) as address:
        yield address


Visit = Callable[[str], None]


@pytest.fixture
def visit(page: Page, house: Lived, address: str) -> Visit:
    """Opens a page of the dashboard as carla, who proposed nothing."""
    key = key_of(house, "carla")

    def visited(path: str) -> None:
        page.goto(f"{address}{path}")
        sign_in(page, key)

    return visited


def key_of(house: Lived, name: str) -> str:
    """A new admin's key, by its text."""
    installation = open_installation(house.config)
    try:
        ctx, secret = installation.context, installation.secret
        return keys.create_key(ctx, SYSTEM, name, secret=secret, role=Role.ADMIN)[1]
    finally:
        installation.close()


def sign_in(page: Page, key: str) -> None:
    page.get_by_role("button", name="Expand sidebar").click()
    page.get_by_label("Management key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("You act as")).to_be_visible()
    page.get_by_role("button", name="Collapse sidebar").click()


def phase(house: Lived, name: str) -> ProposalPhase:
    installation = open_installation(house.config)
    try:
        return submission.get_proposal(installation.context, house.proposals[name]).phase
    finally:
        installation.close()


def card(proposal: str) -> str:
    return f".st-key-proposal-{proposal}"


@pytest.mark.req("C4")
def test_a_person_approves_what_another_proposed(
    page: Page, house: Lived, visit: Visit
) -> None:
    listener = Listener(page)
    visit("/proposals")
    waiting = page.locator(card(house.proposals["awaiting"]))
    waiting.get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(
        "Route mail-triage: 1 % of its traffic goes to sim/sim-better"
    )
    expect(dialog).to_contain_text("the rest stays with sim/sim-base")
    dialog.get_by_role("button", name="Start the canary").click()

    expect(page.get_by_text("carla approved")).to_be_visible()
    expect(waiting).to_contain_text("approvals 1 of 1, by carla")
    assert any("canary opened" in did for did in turned(house.config))
    assert phase(house, "awaiting") is ProposalPhase.CANARY
    listener.assert_quiet()


@pytest.mark.req("F5")
def test_nobody_acts_without_a_key_and_who_proposed_cannot_approve(
    page: Page, house: Lived, address: str
) -> None:
    page.goto(f"{address}/proposals")
    waiting = page.locator(card(house.proposals["awaiting"]))
    expect(waiting.get_by_role("button", name="Approve")).to_be_disabled()
    expect(waiting).to_contain_text("Sign in with a management key in the sidebar first")
    waiting.get_by_role("button", name="Reject").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("no")
    page.get_by_role("dialog").get_by_label("Reason").press("Tab")
    page.get_by_role("dialog").get_by_role("button", name="Reject").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Sign in with")
    page.get_by_role("button", name="Close", exact=True).click()

    key = key_of(house, "carla")
    sign_in(page, key)
    expect(waiting.get_by_role("button", name="Approve")).to_be_enabled()
    assert key not in page.url
    assert key not in page.content()


def test_a_rejection_needs_a_reason(page: Page, house: Lived, visit: Visit) -> None:
    visit("/proposals")
    waiting = page.locator(card(house.proposals["awaiting"]))
    waiting.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Route mail-triage stays with sim/sim-base")
    dialog.get_by_role("button", name="Reject").click()
    expect(dialog.get_by_role("alert")).to_contain_text("a refusal needs a reason")
    assert phase(house, "awaiting") is ProposalPhase.AWAITING_APPROVAL

    dialog.get_by_label("Reason").fill("its licence is not cleared")
    dialog.get_by_label("Reason").press("Tab")
    dialog.get_by_role("button", name="Reject").click()

    expect(page.get_by_text("carla rejected")).to_be_visible()
    assert phase(house, "awaiting") is ProposalPhase.REJECTED


@pytest.mark.req("F2")
def test_a_swap_is_proposed_with_its_price_before_it_starts(
    page: Page, house: Lived, visit: Visit
) -> None:
    visit("/proposals?route=newsletter&candidate=sim/sim-better")
    expect(page.get_by_text("For both models: at most about $")).to_be_visible()
    page.get_by_label("Reason").fill("it is cheaper")
    page.get_by_label("Reason").press("Tab")
    expect(page.get_by_text("Proposed as carla.")).to_be_visible()
    page.get_by_role("button", name="Propose", exact=True).click()

    expect(
        page.get_by_text("carla proposed sim/sim-better for route newsletter")
    ).to_be_visible()
    installation = open_installation(house.config)
    newest = submission.list_proposals(
        installation.context, route="newsletter", open_only=True
    )[0]
    installation.close()
    assert (newest.proposer, newest.reason) == ("carla", "it is cheaper")
    assert newest.phase is ProposalPhase.PROPOSED


def test_a_busy_route_says_which_proposal_is_open(
    page: Page, house: Lived, visit: Visit
) -> None:
    visit("/proposals?route=drafts&candidate=sim/sim-equal")
    page.get_by_role("button", name="Propose", exact=True).click()

    alert = page.get_by_role("alert").filter(has_text="Not done")
    expect(alert).to_contain_text(house.proposals["evaluating"])


@pytest.mark.req("F3")
def test_a_canary_is_paused_and_then_aborted(page: Page, house: Lived, visit: Visit) -> None:
    visit("/canary?route=support-chat")
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Yes, pause").click()
    expect(dialog.get_by_role("alert")).to_contain_text("needs a reason")
    say_why(page, "lunch")
    dialog.get_by_role("button", name="Yes, pause").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better is paused at 5 %")
    expect(page.get_by_text("It is paused: its share stays")).to_be_visible()

    page.get_by_role("button", name="Abort the canary").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Route support-chat. From 5 % to 0 %")
    expect(dialog).to_contain_text("all traffic goes back to sim/sim-base")
    say_why(page, "the customer asked")
    dialog.get_by_role("button", name="Yes, abort").click()

    expect(page.locator("h1")).to_contain_text("sim/sim-better was rolled back")
    expect(page.get_by_role("button", name="Abort the canary")).to_be_disabled()
    expect(
        page.get_by_text("The canary has ended, so there is nothing to pause")
    ).to_be_visible()
    assert phase(house, "canary") is ProposalPhase.ROLLED_BACK
    installation = open_installation(house.config)
    route = routes.load_table(installation.context).routes["support-chat"]
    installation.close()
    assert route.canary is None


@pytest.mark.req("F3")
def test_a_step_by_hand_warns_of_what_the_data_say_against_it_and_takes_a_reason(
    page: Page, house: Lived, visit: Visit
) -> None:
    hurt(house.config, "support-chat")
    visit("/canary?route=support-chat")
    errors = page.locator(".sg-measures .row").filter(has_text="Errors")
    expect(errors).to_contain_text("▲ strong evidence of harm")
    expect(errors).to_contain_text("candidate, 6 failures: 3 malformed, 3 timeout")

    page.get_by_role("button", name="Next step").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("From 5 % to 25 % for sim/sim-better")
    expect(dialog.get_by_role("status")).to_contain_text("▲ The data argue against it.")
    expect(dialog.get_by_role("status")).to_contain_text("(3 malformed, 3 timeout) against")
    dialog.get_by_role("button", name="Yes, advance").click()
    expect(dialog.get_by_role("alert")).to_contain_text("needs a reason")
    say_why(page, "the customer agrees")
    dialog.get_by_role("button", name="Yes, advance").click()

    expect(page.get_by_text("advance by carla on route support-chat.")).to_be_visible()
    expect(page.locator("h1")).to_contain_text("at 25 %")
    assert weight_bps(house, "support-chat") == 2500


@pytest.mark.req("F3")
def test_a_canary_is_promoted_by_hand_and_its_bake_finished(
    page: Page, house: Lived, visit: Visit
) -> None:
    visit("/canary?route=support-chat")
    page.get_by_role("button", name="Promote now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("From 5 % to 100 % for sim/sim-better")
    expect(dialog.get_by_role("status")).to_have_count(0)
    say_why(page, "a demo at noon")
    dialog.get_by_role("button", name="Yes, promote").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better is promoted and baking")
    assert phase(house, "canary") is ProposalPhase.PROMOTED
    expect(dialog).to_have_count(0)

    page.get_by_role("button", name="Finish the bake").click()
    expect(dialog).to_contain_text("harm that shows later is no longer detected")
    expect(dialog).not_to_contain_text("From 5 % to 100 %")
    say_why(page, "it was a day")
    dialog.get_by_role("button", name="Yes, finish").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better was promoted")
    assert weight_bps(house, "support-chat") is None


def say_why(page: Page, reason: str) -> None:
    field = page.get_by_role("dialog").get_by_label("Reason")
    # For a moment the one of the dialog before stands beside it.
    expect(field).to_have_count(1)
    field.fill(reason)
    field.press("Tab")


def weight_bps(house: Lived, name: str) -> int | None:
    """Of the route's canary or holdback."""
    installation = open_installation(house.config)
    route = routes.load_table(installation.context).routes[name]
    installation.close()
    return route.experiment.weight_bps if route.experiment else None


def test_the_live_block_follows_by_itself(page: Page, visit: Visit) -> None:
    visit("/canary?route=support-chat")
    updated = page.get_by_text("updated ")
    before = updated.inner_text()

    expect(updated).not_to_have_text(before)
    assert "UTC" in updated.inner_text()


def test_a_route_goes_back_to_its_former_model(page: Page, house: Lived, visit: Visit) -> None:
    visit("/routes?route=faq")
    expect(page.locator("h1")).to_contain_text("sim/sim-better serves faq since")
    page.get_by_role("button", name="Roll back …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(
        "Route faq: 100 % of the traffic goes from sim/sim-better to sim/sim-base, at once."
    )
    dialog.get_by_label("Reason").fill("users complain")
    dialog.get_by_label("Reason").press("Tab")
    dialog.get_by_role("button", name="Yes, roll back").click()

    expect(page.locator("h1")).to_contain_text("sim/sim-base serves faq since")
    expect(page.get_by_text("rolled back by hand").first).to_be_visible()
    installation = open_installation(house.config)
    history = routes.load_history(installation.context, "faq")
    installation.close()
    assert (history[0].actor, history[0].reason) == ("carla", "users complain")
