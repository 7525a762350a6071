"""A real Chromium, a page of its own for every test, and a dashboard that many tests read."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.browser.agent_sessions import (
    create_agent,
    open_session,
    opened,
)
from tests.support.browser.chromium import Chromium, NoBrowserError, find
from tests.support.browser.dashboard_data import Lived, lived_copy
from tests.support.browser.dashboard_server import dashboard

TIMEOUT_MS = 90_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# An agent's name as a hostile client chooses it: Markdown that would load a picture.
SPY = "http://127.0.0.1:9/spy.png"
AGENT = f"![p]({SPY}) **x** [y]({SPY}) {SPY} :red[z] $k$"
expect.set_options(timeout=TIMEOUT_MS)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of this folder; pytest asks a folder's conftest about no others."""
    item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    try:
        return find(playwrights_own)
    except NoBrowserError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def playwrights_own() -> Path:
    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path)


# Not for the whole session: while it lives, Playwright's loop counts as running in this
# thread, and no asynchronous test of another file could start its own.
@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.executable,
            args=ARGUMENTS,
            env={**os.environ, **chromium.environment},
            timeout=TIMEOUT_MS,
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a fresh context, 1280 by 900, that waits up to 90 s for elements."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """What many tests read: routes of every kind, and an agent with a session."""
    house = lived_copy(tmp_path_factory, datetime.now(UTC))  # noqa: TID251
    with opened(house.config) as installation:
        agent = create_agent(installation.context, AGENT, route="quiet")
        open_session(installation.context, agent)
    return house


@pytest.fixture(scope="session")
def address(house: Lived) -> Iterator[str]:
    with dashboard(house.config) as address:
        yield address
