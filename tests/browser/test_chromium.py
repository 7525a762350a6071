"""The browser itself: it is there, it renders, and a wrong one is named."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.support.browser.chromium import NoBrowserError, find


def test_a_page_is_rendered_for_real(page: Page, tmp_path: Path) -> None:
    document = tmp_path / "page.html"
    document.write_text("<body style='background: rgb(11, 93, 173)'><h1>Swapgate</h1>")

    page.goto(document.as_uri())
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")

    assert page.get_by_role("heading").inner_text() == "Swapgate"
    assert shot.size == (1280, 900)
    assert shot.getpixel((1200, 800)) == (11, 93, 173)
    assert len(shot.crop((0, 0, 300, 100)).getcolors() or []) > 1, "the text was not drawn"


def test_a_named_browser_that_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SWAPGATE_BROWSER", str(tmp_path / "nothing"))

    with pytest.raises(NoBrowserError, match="nothing"):
        find(lambda: tmp_path)
