import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from harness.agents import switches
from harness.agents.records import SwitchRequests
from harness.agents.switch_request import ModelSwitchRequest
from harness.frame.pagination import PageRequest
from harness.frame.people.access import OPERATOR, Role
from harness.proposals import submission
from harness.routing.agent import literal_choice
from harness.routing.proposal import ProposalPhase
from tests.browser.conftest import AGENT, SPY
from tests.support.browser.agent_sessions import (
    converse,
    create_key,
    open_session,
    opened,
)
from tests.support.browser.dashboard_data import Lived, counted, lived_copy
from tests.support.browser.dashboard_server import (
    Listener,
    dashboard,
    send_key,
    sign_in,
)

Visit = Callable[[str], None]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived_copy(tmp_path_factory, datetime.now(UTC))  # noqa: TID251


@pytest.fixture
def own_copy(template: Lived, tmp_path: Path) -> Lived:
    home = shutil.copytree(template.config.parent, tmp_path / "home")
    return Lived(home / template.config.name, template.proposals)


@pytest.fixture
def visit(page: Page, own_copy: Lived) -> Iterator[Visit]:
    """Opens a page of the own installation as carla, who proposed nothing."""
    key = create_key(own_copy.config, "carla")

    def visited(path: str) -> None:
        page.goto(f"{address}/sign-in?next={quote(path)}")
        send_key(page, key)

    with dashboard(own_copy.config) as address:
        yield visited


@pytest.mark.req("F3", "F5")
def test_neither_a_double_click_nor_enter_ends_a_canary_by_accident(
    page: Page, visit: Visit
) -> None:
    listener = Listener(page)
    visit("/canary?route=support-chat")
    button = page.get_by_role("button", name="Abort the canary")
    dialog = page.get_by_role("dialog")
    button.press("Enter")
    expect(dialog).to_contain_text("Write a reason to enable the button.")
    for key in ("Enter", "Space", "Escape"):
        page.keyboard.press(key)
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()
    button.dblclick()
    expect(dialog).to_contain_text("From 5 % to 0 %: all traffic goes back to sim/sim-base")
    yes = dialog.get_by_role("button", name="Yes, abort")
    expect(yes).to_be_disabled()
    reason = dialog.get_by_label("Reason")
    reason.press("Enter")
    # The button wakes while the reason is typed.
    reason.press_sequentially("the customer asked")
    expect(yes).to_be_enabled()
    reason.press("Enter")
    expect(page.locator("h1")).not_to_contain_text("aborted")
    yes.dblclick()

    expect(page.locator("h1")).to_contain_text("sim/sim-better was aborted")
    expect(page.locator(".sg-verdict")).to_contain_text("the customer asked")
    expect(button).to_have_count(0)
    expect(page.get_by_text("so there is nothing to pause")).to_be_visible()
    listener.assert_quiet()


@pytest.mark.verify
def test_no_approval_in_another_tab_overtakes_a_rejection(
    page: Page,
    own_copy: Lived,
    visit: Visit,
) -> None:
    id_ = own_copy.proposals["awaiting"]
    visit("/proposals")
    second = page.context.new_page()
    second.goto(page.url)
    second.locator(f".st-key-proposal-{id_}").get_by_role("button", name="Approve").click()
    approval = second.get_by_role("dialog")
    approval.get_by_label("Reason").press_sequentially("it is cheaper")
    start = approval.get_by_role("button", name="Start the canary")
    expect(start).to_be_enabled()

    page.locator(f".st-key-proposal-{id_}").get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Route mail-triage stays with sim/sim-base")
    dialog.get_by_label("Reason").press_sequentially("its licence is not cleared")
    dialog.get_by_role("button", name="Reject").click()

    expect(page.get_by_text("carla rejected")).to_be_visible()
    start.click()
    expect(approval.get_by_role("alert")).to_contain_text("Not done")
    with opened(own_copy.config) as installation:
        found = submission.get_proposal(installation.context, id_)
    assert found.phase is ProposalPhase.REJECTED


# Frame by frame: what is gone, faded or moved while the page refreshes itself.
WATCH = """() => {
  window.flicker = [];
  const charts = [...document.querySelectorAll(".vega-embed canvas, .vega-embed svg")];
  const tops = {};
  const look = () => {
    for (const name of ["h1", ".sg-verdict", ".sg-steps", ".sg-measures", ".vega-embed"]) {
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
    page: Page,
    own_copy: Lived,
    visit: Visit,
) -> None:
    # Without a request for minutes a banner comes, and moves what is below it.
    counted(own_copy.config, "support-chat")
    visit("/canary?route=support-chat")
    expect(page.locator("h1")).to_contain_text("sim/sim-better shows no harm so far, at 5 %")
    expect(page.locator(".vega-embed canvas, .vega-embed svg").nth(2)).to_be_visible()
    updated = page.get_by_text("updated ")
    page.evaluate(WATCH)
    _, evidence, failed = page.evaluate(STEPS)

    for _ in range(3):
        before = updated.inner_text()
        expect(updated).not_to_have_text(before)
    counted(own_copy.config, "support-chat")
    page.wait_for_function(
        f"([evidence, failed]) => {{ const [_, e, f] = ({STEPS})(); "
        "return e > evidence && f > failed; }",
        arg=[evidence, failed],
    )

    assert "UTC" in updated.inner_text()
    assert page.evaluate("[...new Set(window.flicker)]") == []


@pytest.fixture
def session(house: Lived) -> Iterator[str]:
    with opened(house.config) as installation:
        (agent,) = installation.context.store.lists.agents(PageRequest(1))
        yield open_session(installation.context, agent).id


def ask(house: Lived, session: str) -> ModelSwitchRequest:
    with opened(house.config) as installation:
        models = (literal_choice("sim-better", "sim/sim-better"),)
        return switches.request_switch(
            installation.context, session, models, "it writes better"
        )


@pytest.mark.req("C4")
@pytest.mark.spine
def test_a_request_shows_without_a_reload_and_what_is_being_typed_stays(
    page: Page,
    house: Lived,
    session: str,
    address: str,
) -> None:
    page.goto(f"{address}/sessions")
    sign_in(page, create_key(house.config, "lena", Role.APPROVER))
    expect(page.locator("h1")).to_contain_text("No switch waits for a person")

    first = ask(house, session)
    card = page.locator(f".st-key-switch-{first.id}")
    card.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    reason = dialog.get_by_label("Your reason")
    reason.press_sequentially("too d")
    with opened(house.config) as installation:
        (agent,) = installation.context.store.lists.agents(PageRequest(1))
        other = open_session(installation.context, agent).id
    second = ask(house, other)
    expect(page.locator(f".st-key-switch-{second.id}")).to_have_count(1)
    expect(reason).to_have_value("too d")
    expect(reason).to_be_focused()
    reason.press_sequentially("ear")
    reason.press("Tab")
    dialog.get_by_role("button", name="Reject the switch").click()

    expect(page.get_by_text("lena rejected the switch")).to_be_visible()
    expect(card).to_have_count(0)
    with opened(house.config) as installation:
        with installation.context.store.read() as tx:
            assert SwitchRequests(tx).get(first.id).decision_reason == "too dear"
        switches.reject_switch(installation.context, OPERATOR, second.id)
    expect(page.locator("h1")).to_contain_text("No switch waits for a person")


@pytest.mark.req("C4", "C5")
def test_a_transcript_goes_on_by_itself_and_an_agents_name_loads_nothing(
    page: Page,
    house: Lived,
    session: str,
    address: str,
) -> None:
    listener = Listener(page)
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    with opened(house.config) as installation:
        converse(installation.context, session, "first.", "one.")
    page.goto(f"{address}/sessions")
    row = page.get_by_role("link", name=session)
    expect(row).to_contain_text(AGENT)
    expect(page.locator(f"a[href='{SPY}']")).to_have_count(0)
    row.click()
    sign_in(page, create_key(house.config, "lars", Role.VIEWER))
    transcript = page.locator(".sg-transcript")
    expect(transcript).to_contain_text("one.")

    # Only a node that was never drawn anew still has the mark.
    transcript.evaluate("node => node.setAttribute('data-marked', 'yes')")
    updated = page.get_by_text(re.compile(r"^updated .* UTC, every"))
    for _ in range(2):
        before = updated.inner_text()
        expect(updated).not_to_have_text(before)
    expect(transcript).to_have_attribute("data-marked", "yes")

    with opened(house.config) as installation:
        converse(installation.context, session, "second.", "two.")
    expect(transcript).to_contain_text("two.")
    expect(page.locator("h1 + p")).to_contain_text("4 messages")
    assert SPY not in asked
    listener.assert_quiet()
