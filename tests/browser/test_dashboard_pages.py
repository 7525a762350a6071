import os
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.browser.dashboard_data import XSS, Lived, counted, paused
from tests.support.browser.dashboard_server import (
    Listener,
    assert_accessible,
    assert_no_sideways_scroll,
    dashboard,
    status,
)
from tests.support.sampling import later
from tests.support.site.processes import free_port

ROOT = Path(__file__).parents[2]
# Set it to write the pictures of README and docs anew.
PICTURES = "SWAPPROOF_WRITE_PICTURES"

GROUND = {"light": (255, 255, 255), "dark": (16, 21, 28)}

SEEN_LOADING = """
new MutationObserver(() => {
  const card = document.querySelector('[aria-busy="true"].sg-loading');
  if (card) window.seenLoading = card.getBoundingClientRect().height;
}).observe(document, {childList: true, subtree: true});
"""


def opened(page: Page, url: str) -> Listener:
    listener = Listener(page)
    page.add_init_script(SEEN_LOADING)
    page.goto(url)
    expect(page.get_by_text("Copy as CLI")).to_be_visible()
    return listener


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", "1 route needs a decision: mail-triage"),
        (
            "/canary?route=support-chat",
            "sim/sim-better shows no harm so far, at 5 %",
        ),
        (
            "/routes?route=support-chat",
            "sim/sim-base serves support-chat since",
        ),
        later(
            "/compare?id={mismatch}",
            "sim/sim-fenced instead of sim/sim-base",
        ),
        later(
            "/proposals?state=open",
            "1 proposal waits for approval: mail-triage",
        ),
        later("/traffic", "No caller got an error in the last 24 hours"),
        later("/alerts", "1 route needs a decision: mail-triage"),
        later("/sessions", "No switch waits for a person"),
        later("/canary?route=quiet", "No canary on quiet"),
        later("/shadows", "No shadow runs"),
        later("/suites", "4 suites"),
        later("/keys", "No client has a key yet"),
        later("/overview", "1 route needs a decision: mail-triage"),
        later("/audit", "The audit log is intact"),
        later("/providers", "sim works"),
    ],
)
def test_every_page_answers_in_its_first_line(
    page: Page,
    house: Lived,
    address: str,
    path: str,
    answer: str,
) -> None:
    """Wide and light, narrow and dark: axe-core objects to nothing serious."""
    listener = opened(page, address + path.format(**house.proposals))

    expect(page.locator("h1")).to_contain_text(answer)
    assert page.locator("h1").evaluate("e => getComputedStyle(e).fontSize") == "24px"
    # Null where the page was ready before the browser drew the card.
    seen = page.evaluate("window.seenLoading")
    assert seen is None or seen >= 150
    expect(page.locator(".sg-loading")).to_have_count(0)
    assert_no_sideways_scroll(page)
    assert_accessible(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "c => getComputedStyle(document.querySelector('.stApp')).backgroundColor === c",
        arg=f"rgb{GROUND['dark']}",
    )
    assert_no_sideways_scroll(page)
    assert_accessible(page)
    listener.assert_quiet()


def test_times_are_in_the_readers_zone_with_utc_as_a_tooltip(
    browser: Browser,
    address: str,
) -> None:
    context = browser.new_context(timezone_id="Asia/Kolkata")
    page = context.new_page()
    opened(page, f"{address}/routes?route=support-chat")
    time = page.locator("h1 time")
    expect(time).to_contain_text("UTC+05:30")
    utc = datetime.fromisoformat((time.get_attribute("title") or "").removesuffix(" UTC"))
    local = (utc + timedelta(hours=5, minutes=30)).strftime("%d %b %Y %H:%M").removeprefix("0")
    expect(time).to_contain_text(local)
    # A round time of this zone is no round hour of UTC.
    axis = page.locator(".vega-embed svg").first
    expect(axis).to_be_visible()
    page.goto(f"{address}/canary?route=support-chat")
    expect(page.get_by_text(re.compile(r"updated [\d:]{8}\sUTC\+05:30"))).to_be_visible()
    for path in ("/audit", "/"):
        page.goto(address + path)
        expect(page.get_by_text("Copy as CLI")).to_be_visible()
        shown = page.locator("[data-testid=stMainBlockContainer]")
        expect(shown).to_contain_text("UTC+05:30", use_inner_text=True)
        of_utc = re.compile(r"\d{2}:\d{2}\s+UTC(?!\+05:30)")
        expect(shown).not_to_contain_text(of_utc, use_inner_text=True)
    context.close()


def test_markup_in_an_answer_is_never_run_and_filters_live_in_the_address(
    page: Page,
    house: Lived,
    address: str,
) -> None:
    listener = opened(
        page,
        f"{address}/compare?id={house.proposals['failed']}&show=regressed",
    )
    expect(page.locator(".sg-answers")).to_contain_text(XSS)
    page.get_by_role("radio", name="same").click()
    expect(page.locator(".sg-answers .sg-pill").last).not_to_contain_text("correct → wrong")
    expect(page).to_have_url(re.compile("show=same"))
    page.goto(f"{address}/proposals?state=decided")
    expect(page.get_by_text("Reason: cheaper")).to_contain_text(XSS)

    assert page.locator(".sg img, .sg script").count() == 0
    assert page.title() != "owned"
    listener.assert_quiet()


@pytest.mark.parametrize(
    ("path", "answer", "width", "theme"),
    [
        ("/compare?id={canary}&show=all", ".sg-verdict", 390, "dark"),
        *(
            later(path, answer, width, theme)
            for path, answer, width, theme in (
                (
                    "/compare?id={canary}&show=all",
                    ".sg-verdict",
                    390,
                    "light",
                ),
                (
                    "/compare?id={canary}&show=all",
                    ".sg-verdict",
                    1280,
                    "light",
                ),
                (
                    "/compare?id={canary}&show=all",
                    ".sg-verdict",
                    1280,
                    "dark",
                ),
                ("/canary?route=support-chat", ".sg-verdict", 1280, "light"),
                ("/canary?route=support-chat", ".sg-verdict", 1280, "dark"),
                ("/", ".sg tbody tr >> nth=0", 1280, "light"),
                ("/", ".sg tbody tr >> nth=0", 1280, "dark"),
            )
        ),
    ],
)
def test_a_page_answers_in_its_first_screen_and_fits_into_a_picture(
    page: Page,
    house: Lived,
    address: str,
    tmp_path: Path,
    *,
    path: str,
    answer: str,
    width: int,
    theme: Literal["light", "dark"],
) -> None:
    name = re.split(r"\W", path)[1] or "overview"
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 844})
    if name == "canary":
        # The picture is not to say that no request has arrived.
        counted(house.config, "support-chat")
    opened(page, address + path.format(**house.proposals))
    first_screen = page.locator(answer).bounding_box()
    assert first_screen is not None
    assert first_screen["y"] + first_screen["height"] <= 844, "what matters comes first"
    if name != "overview":
        chart = "[data-testid=stVegaLiteChart] canvas, .vega-embed svg"
        expect(page.locator(chart).first).to_be_visible()
    if name == "compare":
        expect(page.locator("[data-testid=stDataFrame] canvas").first).to_be_visible()
    assert_no_sideways_scroll(page)
    assert_accessible(page)

    # The page scrolls inside its own box, so that the window must be as high as that.
    block = page.locator("[data-testid=stMainBlockContainer]")
    page.set_viewport_size({"width": width, "height": block.evaluate("e => e.scrollHeight")})
    expect(page.get_by_text("Copy as CLI")).to_be_in_viewport()
    file = tmp_path / "picture.png"
    page.screenshot(path=file, animations="disabled")

    with Image.open(file) as picture:
        corner = picture.convert("RGB").getpixel((2, 300))
        assert corner == GROUND[theme]
        if os.environ.get(PICTURES) and width == 1280:
            target = ROOT / "docs" / "img" / f"{name}{'-dark' if theme == 'dark' else ''}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.convert("P", palette=Image.Palette.ADAPTIVE).save(target, optimize=True)


def test_no_other_site_reaches_the_buttons(address: str) -> None:
    """Another site, another port with our cookies, and a name made to point here."""
    stream = f"{address.replace('http', 'ws')}/_stcore/stream"
    with connect(stream, origin=Origin(address)) as ours:
        assert ours.response is not None
    port = address.rpartition(":")[2]
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": f"http://localhost:{port}"},
        {"Origin": "null"},
        {
            "Origin": f"http://evil.example:{port}",
            "Host": f"evil.example:{port}",
        },
    ):
        with pytest.raises(InvalidStatus, match="403"):
            connect(stream, additional_headers=headers)
    framed = httpx.get(f"{address}/compare").headers
    assert framed["content-security-policy"] == "frame-ancestors 'none'"
    assert framed["x-frame-options"] == "DENY"
    stranger = {"origin": "http://127.0.0.1:9999"}
    sent = httpx.put(f"{address}/_stcore/upload_file/a/b", headers=stranger)
    assert (sent.status_code, "not the dashboard's" in sent.text) == (403, True)


@pytest.mark.verify
def test_a_lost_database_and_a_lost_server_are_said_and_come_back(
    page: Page,
    house: Lived,
    tmp_path: Path,
) -> None:
    shutil.copytree(house.config.parent, tmp_path / "home")
    config = tmp_path / "home" / house.config.name
    database = config.parent / "state" / "swapproof.db"
    database.rename(database.with_suffix(".away"))
    database.mkdir()
    port = free_port()
    with dashboard(config, port) as broken:
        page.goto(broken)
        expect(page.get_by_role("alert")).to_contain_text("The database does not answer")
        assert status(f"{broken}/readyz") == 503

        database.rmdir()
        database.with_suffix(".away").rename(database)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("h1")).to_contain_text("1 route needs a decision")
        # Only a page that came whole has been told to refresh itself.
        expect(page.locator("[data-test-script-state=notRunning]")).to_have_count(1)
        assert status(f"{broken}/readyz") == 200

    # The open page says that nobody answers, and goes on by itself with what stands then.
    gone = page.get_by_role("dialog")
    expect(gone).to_contain_text("not responding")
    # What a reader sees names no tool that he does not know.
    assert "Streamlit" not in gone.inner_text()
    words = gone.locator("> div").evaluate("e => getComputedStyle(e, '::after').content")
    assert "The dashboard does not answer" in words
    paused(config, "support-chat")
    with dashboard(config, port):
        expect(page.locator("h1")).to_contain_text("2 routes need a decision")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert "Traceback" not in page.content()
