"""The dashboard in a real browser: the browser, and the page of a visitor who has signed in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.acceptance.installation import Installation
from tests.support.browser.chromium import Chromium, NoBrowserError, find

TIMEOUT_MS: Final = 180_000
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser for the block; without one, the test is skipped, or fails in CI."""
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        chromium = find_chromium(Path(playwright.chromium.executable_path))
        started = playwright.chromium.launch(
            executable_path=chromium.executable,
            args=ARGUMENTS,
            env={**os.environ, **chromium.environment},
            timeout=TIMEOUT_MS,
        )
        yield started
        started.close()


def find_chromium(playwrights_own: Path) -> Chromium:
    try:
        return find(lambda: playwrights_own)
    except NoBrowserError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def signed_in(
    browser: Browser,
    place: Installation,
    key: str,
    path: str,
) -> Page:
    """A page of a new visitor, who has signed in."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(f"{place.url('ui')}/sign-in?next={quote(path)}")
    page.get_by_label("Management key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    return page
