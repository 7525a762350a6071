"""A person labels pairs on the page Labels with the keyboard alone, wide and narrow."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from harness.frame.people.access import OPERATOR
from harness.proposals.labels import label_pairs
from harness.proposals.labels.records import Labels
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


WIDTHS_PX = (1280, 390)
REQUEST = ".sg-answers.one .answer"


def label_pair(page: Page, key: str, width: int) -> None:
    """Presses one key at a width, and waits until another pair or a banner stands there."""
    page.set_viewport_size({"width": width, "height": 844})
    # While the page is drawn, the buttons of the earlier pair still take the key.
    expect(page.locator("[data-test-script-state=notRunning]")).to_have_count(1)
    text = page.locator(REQUEST).inner_text()
    page.keyboard.press(key)
    page.wait_for_function(
        "([place, text]) => document.querySelector(place)?.innerText !== text",
        arg=[REQUEST, text],
    )


def shows_pair(page: Page) -> bool:
    expect(
        page.get_by_text(re.compile("Answer A|no open pair|labels have ended")).first
    ).to_be_visible()
    return page.get_by_text("Answer A").is_visible()


def test_a_person_labels_from_the_first_pair_to_the_verdict_with_the_keyboard_alone(
    page: Page, house: Lived, address: str
) -> None:
    """Each act is done at both widths: marking, skipping, returning and ending."""
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
    page.get_by_role("button", name=f"Label {started.suite}").press("Enter")
    for width in WIDTHS_PX:
        page.set_viewport_size({"width": width, "height": 844})
        expect(page.get_by_text("Pair 1", exact=True)).to_be_visible()
        expect(page.locator("body")).not_to_contain_text("sim/sim-better")
        assert_accessible(page)
        assert_no_sideways_scroll(page)
    for width in WIDTHS_PX:
        label_pair(page, "s", width)
    for width, mark, letter in zip(WIDTHS_PX, "12", "AB", strict=True):
        page.set_viewport_size({"width": width, "height": 844})
        page.keyboard.press(mark)
        expect(page.get_by_text(f"{letter} is marked unacceptable")).to_be_visible()
        label_pair(page, "t", width)
    page.keyboard.press("q")
    page.get_by_role("button", name=f"Label {started.suite}").press("Enter")
    while shows_pair(page):
        label_pair(page, "t", 1280)
    expect(page.get_by_text("You have no open pair.")).to_be_visible()
    assert_accessible(page)
    page.keyboard.press("k")
    for width in WIDTHS_PX:
        expect(page.get_by_text("Answer A")).to_be_visible()
        label_pair(page, "n", width)
    expect(page.get_by_text("The labels have ended.")).to_be_visible()
    assert_accessible(page)
    assert_no_sideways_scroll(page)

    with opened(house.config) as installation:
        progress = label_pairs.load_progress(installation.context, started.id)
        with installation.context.store.read() as tx:
            labels = Labels(tx).of_labelling(started.id)
    assert progress.ended
    assert progress.skipped == 0
    assert sum(bool(label.unacceptable) for label in labels) == len(WIDTHS_PX)
    listener.assert_quiet()
