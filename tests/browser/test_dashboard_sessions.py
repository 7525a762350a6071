"""The Sessions page in a browser: who may read what, long transcripts, what it cost, a switch
that a person decides, and what shows without a reload.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from harness.control.agents import switches
from harness.control.agents.switches import SwitchSpec
from harness.control.context import Context
from harness.control.privacy import user_deletion
from harness.domain.agents.agent import AgentSession, literal_choice
from harness.domain.agents.message import MessageToolCall
from harness.domain.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.domain.operations.access import Role
from harness.domain.operations.principals import OPERATOR
from tests.browser.test_dashboard_actions import sign_in
from tests.browser.test_dashboard_pages import assert_no_sideways_scroll
from tests.support.browser.agent_sessions import (
    SCOUT,
    UNPRICED,
    configure,
    converse,
    create_agent,
    create_key,
    open_session,
    opened,
)
from tests.support.browser.dashboard_data import XSS
from tests.support.browser.dashboard_server import Listener, dashboard

expect.set_options(timeout=90_000)
pytestmark = pytest.mark.req("C4", "C5")

SESSIONS = 200
PAIRS = 50
SAGE = "south/sage-1"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configure(tmp_path_factory.mktemp("agents"))


@pytest.fixture(scope="module")
def session_ids(house: Path) -> dict[str, str]:
    """Ids of sessions by what is in them."""
    with opened(house) as installation:
        ctx = installation.context
        agent = create_agent(ctx)
        names = ("work", "long", "approve", "reject", "live", "other")
        found = {name: open_session(ctx, agent).id for name in names}
        gone = open_session(ctx, agent, user="gone").id
        converse(ctx, gone, "forget me", "done")
        user_deletion.delete_user(ctx, OPERATOR, "gone", "asked", secret=installation.secret)
        _work(ctx, found["work"])
        for number in range(PAIRS):
            converse(ctx, found["long"], f"question {number}.", f"answer {number}.")
        for _ in range(SESSIONS - len(found)):
            open_session(ctx, agent)
        return found | {"gone": gone}


def _work(ctx: Context, session: str) -> None:
    """A tool, markup of a hostile model, and a model without a price."""
    call = MessageToolCall("c_1", "find", '{"order": "A-1815"}')
    converse(ctx, session, "Where is order A-1815?", "", calls=[call])
    converse(ctx, session, '{"state": "delivered"}', XSS, response_to="c_1")
    converse(ctx, session, "And now?", "No idea.", target=UNPRICED, cost_usd=None)


@pytest.fixture(scope="module")
def address(house: Path, session_ids: dict[str, str]) -> Iterator[str]:  # noqa: ARG001 - before it serves
    with dashboard(house) as address:
        yield address


def session_of(house: Path, id_: str) -> AgentSession:
    with opened(house) as installation, installation.context.store.read() as tx:
        return tx.sessions.get(id_)


def await_refresh(page: Page) -> None:
    updated = page.get_by_text(re.compile(r"^updated .* UTC, every"))
    before = updated.inner_text()
    expect(updated).not_to_have_text(before)


def test_what_was_said_is_read_with_a_key_alone(
    page: Page, house: Path, session_ids: dict[str, str], address: str
) -> None:
    listener = Listener(page)
    page.goto(f"{address}/sessions?session={session_ids['work']}")
    transcript = page.locator(".sg-transcript")
    expect(transcript).to_contain_text(SCOUT)
    expect(transcript).not_to_contain_text("A-1815")
    expect(page.get_by_text("What was said is private")).to_be_visible()

    sign_in(page, create_key(house, "vera", Role.VIEWER))

    messages = transcript.locator(".message")
    expect(messages).to_have_count(6)
    expect(messages.nth(0)).to_contain_text("Where is order A-1815?")
    expect(messages.nth(1)).to_contain_text('→ find {"order": "A-1815"}')
    # A hostile model's markup is text.
    expect(messages.nth(3)).to_contain_text("<img src=x onerror=")
    expect(page).not_to_have_title("owned")
    expect(messages.nth(5)).to_contain_text(UNPRICED)
    expect(messages.nth(5)).to_contain_text("price unknown")
    page.set_viewport_size({"width": 390, "height": 844})
    assert_no_sideways_scroll(page)
    listener.assert_quiet()


def test_an_unknown_price_is_said_and_never_counted_as_nothing(
    page: Page, session_ids: dict[str, str], address: str
) -> None:
    page.goto(f"{address}/sessions?session={session_ids['work']}")

    expect(page.locator("h1 + p")).to_contain_text("cost $0.02, and 1 answer of unknown")
    expect(page.locator("tr", has_text=SCOUT).last).to_contain_text("$0.02")
    unpriced = page.locator("tr", has_text=UNPRICED).last
    expect(unpriced.get_by_text("price unknown")).to_have_count(1)


def test_a_long_transcript_is_read_a_page_at_a_time(
    page: Page, house: Path, session_ids: dict[str, str], address: str
) -> None:
    page.goto(f"{address}/sessions?session={session_ids['long']}")
    sign_in(page, create_key(house, "vito", Role.VIEWER))

    transcript = page.locator(".sg-transcript")
    expect(page.get_by_text("Messages 71 to 100 of 100.")).to_be_visible()
    expect(transcript).to_contain_text("answer 49.")
    page.get_by_role("link", name="Earlier").click()
    expect(page.get_by_text("Messages 41 to 70 of 100.")).to_be_visible()
    expect(transcript).to_contain_text("question 20.")
    expect(transcript).not_to_contain_text("answer 49.")
    page.get_by_role("link", name="Later").click()
    expect(page.get_by_text("Messages 71 to 100 of 100.")).to_be_visible()


def test_a_purged_session_is_said_to_be_gone(
    page: Page, session_ids: dict[str, str], address: str
) -> None:
    page.goto(f"{address}/sessions?session={session_ids['gone']}")

    expect(page.locator("h1")).to_contain_text("There is no such session")
    expect(page.get_by_text("It may have been deleted")).to_be_visible()
    page.get_by_role("link", name="All sessions").click()
    expect(page.get_by_text("200 sessions")).to_be_visible()


def ask(house: Path, session: str) -> ModelSwitchRequest:
    with opened(house) as installation:
        models = (literal_choice("sage-1", SAGE),)
        spec = SwitchSpec(session, models, f"it writes better {XSS}")
        return switches.request_switch(installation.context, spec)


def decided(house: Path, request: ModelSwitchRequest) -> ModelSwitchRequest:
    with opened(house) as installation, installation.context.store.read() as tx:
        return tx.switch_requests.get(request.id)


def test_a_person_approves_a_switch_and_sees_what_it_means(
    page: Page, house: Path, session_ids: dict[str, str], address: str
) -> None:
    request, listener = ask(house, session_ids["approve"]), Listener(page)
    page.goto(f"{address}/sessions")
    expect(page.locator("h1")).to_contain_text("waits for approval: concierge")
    card = page.locator(f".st-key-switch-{request.id}")
    expect(card).to_contain_text(f"concierge wants to switch to {SAGE}. Approve?")
    expect(card).to_contain_text("left")
    expect(card.get_by_role("button", name="Approve")).to_be_disabled()
    expect(card).to_contain_text("Sign in first, at the top of this page")
    expect(page.locator(".stMain")).not_to_contain_text("it writes better")

    sign_in(page, create_key(house, "carla", Role.APPROVER))
    card.get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog")
    for fact in (SAGE, SCOUT, "$10.00 in, $40.00 out", "$2.00 in, $8.00 out", "not measured"):
        expect(dialog).to_contain_text(fact)
    expect(dialog).to_contain_text("it writes better <img src=x onerror=")
    expect(dialog).to_contain_text("Time left")
    dialog.get_by_role("button", name="Approve the switch").click()

    expect(
        page.get_by_text("carla approved the switch that concierge asked for")
    ).to_be_visible()
    expect(card).to_have_count(0)
    assert decided(house, request).state is SwitchState.APPROVED
    assert session_of(house, session_ids["approve"]).model.target == SAGE
    expect(page).not_to_have_title("owned")
    listener.assert_quiet()


def test_a_viewer_decides_nothing_and_a_rejected_switch_leaves_the_session(
    page: Page, house: Path, session_ids: dict[str, str], address: str
) -> None:
    request = ask(house, session_ids["reject"])
    page.goto(f"{address}/sessions?session={session_ids['reject']}")
    card = page.locator(f".st-key-switch-{request.id}")
    sign_in(page, create_key(house, "volker", Role.VIEWER))
    expect(card).to_contain_text("volker is viewer; this needs approver")
    expect(card.get_by_role("button", name="Reject")).to_be_disabled()
    page.get_by_role("button", name="Sign out").click()

    sign_in(page, create_key(house, "clara", Role.APPROVER))
    card.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Your reason").fill("too dear")
    dialog.get_by_label("Your reason").press("Tab")
    dialog.get_by_role("button", name="Reject the switch").click()

    expect(page.get_by_text("clara rejected the switch")).to_be_visible()
    row = page.locator("tr", has_text=SAGE)
    expect(row).to_contain_text("rejected")
    expect(row).to_contain_text("clara")
    told = decided(house, request)
    assert (told.state, told.decision_reason) == (SwitchState.REJECTED, "too dear")
    assert session_of(house, session_ids["reject"]).model.text == "chat"


@pytest.mark.verify
def test_a_request_shows_without_a_reload_and_what_is_being_typed_stays(
    page: Page, house: Path, session_ids: dict[str, str], address: str
) -> None:
    page.goto(f"{address}/sessions")
    sign_in(page, create_key(house, "lena", Role.APPROVER))
    expect(page.locator("h1")).to_contain_text("No switch waits for a person")

    first = ask(house, session_ids["live"])
    card = page.locator(f".st-key-switch-{first.id}")
    card.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    reason = dialog.get_by_label("Your reason")
    reason.press_sequentially("too d")
    second = ask(house, session_ids["other"])
    expect(page.locator(f".st-key-switch-{second.id}")).to_have_count(1)
    expect(reason).to_have_value("too d")
    expect(reason).to_be_focused()
    reason.press_sequentially("ear")
    reason.press("Tab")
    dialog.get_by_role("button", name="Reject the switch").click()

    expect(page.get_by_text("lena rejected the switch")).to_be_visible()
    expect(card).to_have_count(0)
    assert decided(house, first).decision_reason == "too dear"
    with opened(house) as installation:
        switches.reject_switch(installation.context, OPERATOR, second.id)
    expect(page.locator("h1")).to_contain_text("No switch waits for a person")


def test_a_transcript_goes_on_by_itself_and_nothing_else_moves(
    page: Page, house: Path, session_ids: dict[str, str], address: str
) -> None:
    listener = Listener(page)
    with opened(house) as installation:
        converse(installation.context, session_ids["live"], "first.", "one.")
    page.goto(f"{address}/sessions?session={session_ids['live']}")
    sign_in(page, create_key(house, "lars", Role.VIEWER))
    transcript = page.locator(".sg-transcript")
    expect(transcript).to_contain_text("one.")

    # Only a node that was never drawn anew still has the mark.
    transcript.evaluate("node => node.setAttribute('data-marked', 'yes')")
    await_refresh(page)
    await_refresh(page)
    expect(transcript).to_have_attribute("data-marked", "yes")

    with opened(house) as installation:
        converse(installation.context, session_ids["live"], "second.", "two.")
    expect(transcript).to_contain_text("two.")
    expect(page.locator("h1 + p")).to_contain_text("4 messages")
    listener.assert_quiet()


def test_an_agents_name_is_text_and_loads_nothing(page: Page, tmp_path: Path) -> None:
    file, spy = configure(tmp_path / "named"), "http://127.0.0.1:9/spy.png"
    name = f"![p]({spy}) **x** [y]({spy}) {spy} :red[z] $k$"
    with opened(file) as installation:
        ctx = installation.context
        open_session(ctx, create_agent(ctx, name))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with dashboard(file) as address:
        page.goto(f"{address}/sessions")
        expect(page.get_by_text("1 session", exact=True)).to_be_visible()
        row = page.get_by_role("link", name="· se_")
        expect(row).to_be_visible()
        assert spy not in asked
        expect(row).to_contain_text(name)
        expect(page.locator(f"a[href='{spy}']")).to_have_count(0)
