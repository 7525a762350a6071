"""A person labels pairs on the page Labels with the keyboard alone, wide and narrow."""

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from harness.frame.people.access import OPERATOR
from harness.proposals.labels import label_pairs
from tests.support.browser.agent_sessions import create_key, opened
from tests.support.browser.dashboard_data import Lived, lived_copy
from tests.support.browser.dashboard_server import (
    Listener,
    assert_accessible,
    assert_no_sideways_scroll,
    dashboard,
    send_key,
)

pytestmark = pytest.mark.req("F13")


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived_copy(tmp_path_factory, datetime.now(UTC))  # noqa: TID251


@pytest.fixture
def address(house: Lived) -> Iterator[str]:
    with dashboard(house.config) as found:
        yield found


def test_a_person_labels_with_the_keyboard_alone_wide_and_narrow(
    page: Page, house: Lived, address: str
) -> None:
    listener = Listener(page)
    key = create_key(house.config, "carla")
    with opened(house.config) as installation:
        started = label_pairs.start_labelling(
            installation.context, OPERATOR, house.proposals["awaiting"], people=["carla"]
        )
    page.set_viewport_size({"width": 1280, "height": 844})
    page.goto(f"{address}/sign-in?next={quote('/labels')}")
    send_key(page, key)
    expect(page.locator("h1")).to_contain_text("1 labelling to go on with")
    assert_accessible(page)
    page.get_by_role("button", name="Label mail-triage").press("Enter")
    expect(page.get_by_text("Pair 1", exact=True)).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("sim/sim-better")
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    page.keyboard.press("a")
    expect(page.get_by_text("Pair 2", exact=True)).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    assert_accessible(page)
    assert_no_sideways_scroll(page)
    page.keyboard.press("t")
    expect(page.get_by_text("Pair 3", exact=True)).to_be_visible()
    page.keyboard.press("q")
    expect(page.locator("h1")).to_contain_text("1 labelling to go on with")

    with opened(house.config) as installation:
        progress = label_pairs.load_progress(installation.context, started.id)
    assert progress.labels == 2
    listener.assert_quiet()
