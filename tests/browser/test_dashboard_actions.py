"""What people do in the dashboard, in a browser: propose, approve, reject, pause, roll back."""

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from harness.control.proposals import submission
from harness.control.routing import routes
from harness.domain.proposals.proposal import ProposalPhase
from tests.browser.test_dashboard_pages import assert_no_sideways_scroll
from tests.support.browser.agent_sessions import create_key, opened
from tests.support.browser.dashboard_data import Lived, counted, evaluated, lived_copy, turned
from tests.support.browser.dashboard_server import Listener, assert_accessible, dashboard
from tests.support.control.control_plane import read_history

expect.set_options(timeout=90_000)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived_copy(tmp_path_factory, datetime.now(UTC))  # noqa: TID251


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
    key = create_key(house.config, "carla")

    def visited(path: str) -> None:
        page.goto(f"{address}/sign-in?next={quote(path)}")
        send_key(page, key)

    return visited


def sign_in(page: Page, key: str) -> None:
    page.get_by_role("link", name="Sign in").click()
    send_key(page, key)


def send_key(page: Page, key: str) -> None:
    page.get_by_label("Management key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def phase(house: Lived, proposal: str) -> ProposalPhase:
    with opened(house.config) as installation:
        return submission.get_proposal(installation.context, proposal).phase


def card(proposal: str) -> str:
    return f".st-key-proposal-{proposal}"


@pytest.mark.req("C4", "F2", "F3", "F5")
def test_a_swap_from_its_proposal_to_its_canary_and_to_the_abort(
    page: Page, browser: Browser, house: Lived, address: str
) -> None:
    listener = Listener(page)
    key = create_key(house.config, "dora")
    proposal = propose(page, house, address, key)
    assert key not in page.content()

    page.locator(card(proposal)).get_by_role("link", name="Compare").click()
    expect(page.locator(".sg-verdict")).to_contain_text("NOT DECIDED YET")
    evaluated(house.config)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".sg-verdict")).to_contain_text("Better on Support-ticket routing.")
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    expect(page.locator(".stMain")).to_contain_text(
        "dora proposed this, so somebody else has to approve it."
    )
    listener.assert_quiet()

    approver = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    listener = Listener(approver)
    approve(approver, house, f"{address}/sign-in?next={quote('/compare?id=' + proposal)}")
    assert any("canary opened" in did for did in turned(house.config))
    watch(approver, house)
    abort(approver)
    assert phase(house, proposal) is ProposalPhase.ROLLED_BACK
    with opened(house.config) as installation:
        assert routes.load_table(installation.context).routes["returns"].canary is None

    # What has become of it is said alike wherever somebody looks.
    approver.goto(f"{address}/")
    expect(approver.locator("h1")).to_contain_text("mail-triage (waits for approval)")
    expect(approver.locator(".stMain")).to_contain_text("returns: canary aborted")
    closed = approver.get_by_role("link", name="✕ FAILED")
    expect(closed).to_have_attribute("href", f"compare?id={house.proposals['failed']}")
    page.reload()
    expect(page.locator(".sg-verdict")).to_contain_text("but its canary was aborted")
    expect(page.locator(".stMain")).to_contain_text("by carla: the customer asked")
    listener.assert_quiet()


def propose(page: Page, house: Lived, address: str, key: str) -> str:
    """Signs in from the page of proposals, and proposes a swap for `returns` there."""
    page.goto(f"{address}/proposals?route=returns&candidate=sim/sim-better")
    waiting = page.locator(card(house.proposals["awaiting"]))
    expect(waiting.get_by_role("button", name="Approve")).to_be_disabled()
    expect(waiting.get_by_role("button", name="Reject")).to_be_disabled()
    expect(waiting).to_contain_text("Sign in first, at the top of this page")
    sign_in(page, key)
    expect(page.get_by_text("dora · admin")).to_be_visible()
    expect(waiting.get_by_role("button", name="Approve")).to_be_enabled()

    expect(page.get_by_text("For both models: at most about $")).to_be_visible()
    page.get_by_label("Reason").fill("it is cheaper")
    page.get_by_label("Reason").press("Tab")
    expect(page.get_by_text("Proposed as dora.")).to_be_visible()
    page.get_by_role("button", name="Propose", exact=True).click()
    expect(page.get_by_text("dora proposed sim/sim-better for route returns")).to_be_visible()
    with opened(house.config) as installation:
        ctx = installation.context
        [made] = submission.list_proposals(ctx, route="returns", open_only=True)
    assert (made.proposer, made.reason) == ("dora", "it is cheaper")
    return made.id


def approve(page: Page, house: Lived, link: str) -> None:
    page.goto(link)
    send_key(page, create_key(house.config, "carla"))
    page.get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Route returns: 1 % of its traffic goes to sim/sim-better")
    expect(dialog).to_contain_text("the rest stays with sim/sim-base")
    for repeated in (
        "PASSED: Better on Support-ticket routing.",
        "Nothing: it is not slower",
        "What this route costs a month is unknown: no traffic of this route was recorded",
        "This is the 1st candidate on this route in 90 days",
        "1 % of the requests get the candidate's answers at first",
    ):
        expect(dialog).to_contain_text(repeated)
    start = dialog.get_by_role("button", name="Start the canary")
    expect(start).to_be_disabled()
    # The button wakes while the reason is typed.
    dialog.get_by_label("Reason").press_sequentially("it is cheaper, too")
    expect(start).to_be_enabled()
    start.click()
    expect(page.get_by_text("carla approved")).to_be_visible()


def watch(page: Page, house: Lived) -> None:
    """The canary's page follows by itself what is counted."""
    page.reload()
    page.get_by_role("button", name="Watch the canary").click()
    expect(page.locator("h1")).to_contain_text(
        "sim/sim-better has no traffic counted yet, at 1 %"
    )
    counted(house.config, "returns")
    expect(page.locator("h1")).to_contain_text("sim/sim-better shows no harm so far, at 1 %")


def abort(page: Page) -> None:
    """Neither a double click nor Enter ends a canary by accident."""
    button = page.get_by_role("button", name="Abort the canary")
    dialog = page.get_by_role("dialog")
    button.press("Enter")
    expect(dialog).to_contain_text("The button works once a reason stands here.")
    for key in ("Enter", "Space", "Escape"):
        page.keyboard.press(key)
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()
    button.dblclick()
    expect(dialog).to_contain_text("Abort the canary: route returns")
    expect(dialog).to_contain_text("From 1 % to 0 %: all traffic goes back to sim/sim-base")
    yes = dialog.get_by_role("button", name="Yes, abort")
    expect(yes).to_be_disabled()
    expect(dialog).to_contain_text("The button works once a reason stands here.")
    dialog.get_by_label("Reason").press("Enter")
    dialog.get_by_label("Reason").press_sequentially("the customer asked")
    expect(yes).to_be_enabled()
    dialog.get_by_label("Reason").press("Enter")
    expect(page.locator("h1")).not_to_contain_text("aborted")
    yes.dblclick()

    expect(page.locator("h1")).to_contain_text("sim/sim-better was aborted")
    expect(page.locator(".sg-verdict")).to_contain_text("the customer asked")
    expect(button).to_have_count(0)
    expect(
        page.get_by_text("The canary has ended, so there is nothing to pause")
    ).to_be_visible()


@pytest.mark.verify
def test_a_rejection_needs_a_reason_and_no_approval_in_another_tab_overtakes_it(
    page: Page, house: Lived, address: str
) -> None:
    page.goto(f"{address}/sign-in?next={quote('/proposals')}")
    send_key(page, create_key(house.config, "=1+1"))
    second = page.context.new_page()
    second.goto(f"{address}/proposals")
    waiting = second.locator(card(house.proposals["awaiting"]))
    waiting.get_by_role("button", name="Approve").click()
    approval = second.get_by_role("dialog")
    approval.get_by_label("Reason").press_sequentially("it is cheaper")
    start = approval.get_by_role("button", name="Start the canary")
    expect(start).to_be_enabled()

    waiting = page.locator(card(house.proposals["awaiting"]))
    waiting.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Route mail-triage stays with sim/sim-base")
    expect(dialog.get_by_role("button", name="Reject")).to_be_disabled()
    expect(dialog).to_contain_text("The button works once a reason stands here.")

    dialog.get_by_label("Reason").press_sequentially("its licence is not cleared")
    dialog.get_by_role("button", name="Reject").click()

    expect(page.get_by_text("=1+1 rejected")).to_be_visible()
    start.click()
    expect(approval.get_by_role("alert")).to_contain_text("Not done")
    assert phase(house, house.proposals["awaiting"]) is ProposalPhase.REJECTED

    # A person's name is no formula of a spreadsheet.
    page.goto(f"{address}/audit")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="CSV").click()
    lines = downloading.value.path().read_text("utf-8-sig").splitlines()
    actors = {row["actor"] for row in csv.DictReader(lines)}
    assert "'=1+1" in actors
    assert "=1+1" not in actors


def test_a_busy_route_says_which_proposal_is_open(
    page: Page, house: Lived, visit: Visit
) -> None:
    visit("/proposals?route=drafts&candidate=sim/sim-equal")
    propose = page.get_by_role("button", name="Propose", exact=True)

    expect(propose).to_be_disabled()
    why = f"Route drafts has an open proposal, {house.proposals['evaluating']}"
    expect(page.locator(".stMain")).to_contain_text(why)
    page.get_by_role("link", name="See sim/sim-better instead of sim/sim-base").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better instead of sim/sim-base")


@pytest.mark.req("F3")
@pytest.mark.verify
def test_a_canary_is_paused_promoted_by_hand_and_its_bake_finished(
    page: Page, house: Lived, visit: Visit
) -> None:
    visit("/canary?route=support-chat")
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Yes, pause")).to_be_disabled()
    say_why(page, "lunch")
    dialog.get_by_role("button", name="Yes, pause").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better is paused at 5 %")
    expect(page.get_by_text("until then its share stays at 5 %")).to_be_visible()

    page.get_by_role("button", name="Promote now").click()
    expect(dialog).to_contain_text("From 5 % to 100 % for sim/sim-better")
    expect(dialog.get_by_role("status")).to_have_count(0)
    say_why(page, "a demo at noon")
    dialog.get_by_role("button", name="Yes, promote").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better is promoted and baking")
    assert phase(house, house.proposals["canary"]) is ProposalPhase.PROMOTED
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
    with opened(house.config) as installation:
        route = routes.load_table(installation.context).routes[name]
    return route.experiment.weight_bps if route.experiment else None


# Frame by frame: what is gone, faded or moved while the page refreshes itself.
WATCH = """() => {
  window.flicker = [];
  const charts = [...document.querySelectorAll(".vega-embed canvas, .vega-embed svg")];
  const tops = {};
  const look = () => {
    for (const name of ["h1", ".sg-verdict", ".sg-tiles", ".sg-measures", ".vega-embed"]) {
      const element = document.querySelector(name);
      if (!element) { window.flicker.push(name + " is gone"); continue; }
      let opacity = 1;
      for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
      if (opacity < 0.7) window.flicker.push(name + " is faded");
      const top = Math.round(element.getBoundingClientRect().top);
      if (name in tops && tops[name] !== top) window.flicker.push(name + " has moved");
      tops[name] = top;
    }
    for (const chart of charts)
      if (!chart.isConnected) window.flicker.push("a chart was drawn anew");
    const area = document.querySelector(".vega-embed .mark-area path");
    if (area && getComputedStyle(area).opacity > 0.5) window.flicker.push("an area is opaque");
    requestAnimationFrame(look);
  };
  look();
}"""


# How long the lines are, by chart: in steps, of which new data add some.
STEPS = """() => [...document.querySelectorAll(".vega-embed svg")].map(chart =>
  [...chart.querySelectorAll(".mark-line path")]
    .map(line => line.getAttribute("d").match(/[A-Z]/gi).length)
    .reduce((one, other) => one + other, 0)
)"""


@pytest.mark.verify
def test_the_live_block_follows_by_itself_without_flicker(
    page: Page, house: Lived, visit: Visit
) -> None:
    # Without a request for minutes a banner comes, and moves what is below it.
    counted(house.config, "support-chat")
    # An address that names no route says so, and leads to one.
    visit("/canary?route=nope")
    expect(page.locator("h1")).to_contain_text("There is no route nope")
    page.get_by_label("Show another route").click()
    page.get_by_role("option", name="faq").click()
    expect(page.locator("h1")).to_contain_text("sim/sim-better is promoted and baking")
    expect(page).to_have_url(re.compile("route=faq"))

    page.goto(page.url.replace("route=faq", "route=support-chat"))
    expect(page.locator("h1")).to_contain_text("sim/sim-better shows no harm so far, at 5 %")
    expect(page.locator(".vega-embed canvas, .vega-embed svg").nth(2)).to_be_visible()
    updated = page.get_by_text("updated ")
    page.evaluate(WATCH)
    _, evidence, failed = page.evaluate(STEPS)

    for _ in range(3):
        before = updated.inner_text()
        expect(updated).not_to_have_text(before)
    counted(house.config, "support-chat")
    page.wait_for_function(
        f"([evidence, failed]) => {{ const [_, e, f] = ({STEPS})(); "
        "return e > evidence && f > failed; }",
        arg=[evidence, failed],
    )

    assert "UTC" in updated.inner_text()
    assert page.evaluate("[...new Set(window.flicker)]") == []


def test_a_route_goes_back_and_is_forced_and_its_client_gets_a_key(
    page: Page, house: Lived, visit: Visit
) -> None:
    listener = Listener(page)
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
    with opened(house.config) as installation:
        history = read_history(installation.context, "faq")
    assert (history[0].actor, history[0].reason) == ("carla", "users complain")
    _force(page)
    _give_key(page)
    listener.assert_quiet()


def _force(page: Page) -> None:
    """Throws a kill switch, which Enter does not, and lifts it."""
    page.get_by_role("button", name="Kill switch …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Send all requests to").click()
    page.get_by_role("option", name="sim (the whole provider)").click()
    expect(dialog).to_contain_text("1 route within 2 s: faq.")
    throw = dialog.get_by_role("button", name="Throw the switch")
    expect(throw).to_be_disabled()
    reason = dialog.get_by_label("Reason")
    reason.click()
    reason.press_sequentially("a vendor is down")
    reason.press("Enter")
    expect(throw).to_be_enabled()
    throw.click()
    expect(page.get_by_text("provider:sim is forced for route faq")).to_be_visible()
    page.get_by_role("button", name="Lift the switch of provider:sim").click()
    page.get_by_role("dialog").get_by_label("Reason").press_sequentially("it is back")
    page.get_by_role("dialog").get_by_role("button", name="Lift it").click()
    expect(page.get_by_text("carla lifted the switch")).to_be_visible()


def _give_key(page: Page) -> None:
    """Creates a client's key at the width of a phone: it is shown once."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(page.url.partition("/routes")[0] + "/keys")
    page.get_by_role("button", name="Create a client key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Client, who uses the key").press_sequentially("acme")
    dialog.get_by_role("button", name="Create the key").click()
    expect(page.get_by_test_id("stCode").get_by_text("sg-")).to_be_visible()
    page.get_by_role("button", name="I have stored it").click()
    expect(page.get_by_text("acme").first).to_be_visible()
    expect(page.get_by_role("button", name="I have stored it")).to_have_count(0)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") == 0
    # What only an admin sees.
    page.goto(page.url.replace("/keys", "/settings"))
    expect(page.locator("h1")).to_contain_text("settings are set in the file")
    expect(page.get_by_text("Copy as CLI")).to_be_visible()
    assert_no_sideways_scroll(page)
    assert_accessible(page)
