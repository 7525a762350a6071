"""Every page by a deep link on a cold server, as a browser shows it."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from harness.control.proposals import comparison
from tests.support.browser.agent_sessions import opened as reading
from tests.support.browser.dashboard_data import XSS, Lived, counted, lived_copy, paused
from tests.support.browser.dashboard_server import (
    Listener,
    assert_accessible,
    dashboard,
    status,
)
from tests.support.site.processes import free_port

ROOT = Path(__file__).parents[2]
expect.set_options(timeout=90_000)
# Set it to write the pictures of README and docs anew.
PICTURES = "SWAPGATE_WRITE_PICTURES"

GROUND = {"light": (255, 255, 255), "dark": (16, 21, 28)}

SEEN_LOADING = """
new MutationObserver(() => {
  const card = document.querySelector('[aria-busy="true"].sg-loading');
  if (card) window.seenLoading = card.getBoundingClientRect().height;
}).observe(document, {childList: true, subtree: true});
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return lived_copy(tmp_path_factory, datetime.now(UTC))  # noqa: TID251


@pytest.fixture(scope="module")
def address(house: Lived) -> Iterator[str]:
    with dashboard(house.config) as address:
        yield address


def opened(page: Page, url: str) -> Listener:
    listener = Listener(page)
    page.add_init_script(SEEN_LOADING)
    page.goto(url)
    expect(page.get_by_text("Copy as CLI")).to_be_visible()
    return listener


def assert_no_sideways_scroll(page: Page) -> None:
    """Charts and tables follow a new width a moment later."""
    for box in ("document.scrollingElement", "document.querySelector('.stMain')"):
        page.wait_for_function(f"{box}.scrollWidth <= innerWidth")


def assert_answered(page: Page, url: str, answer: str) -> None:
    listener = opened(page, url)

    expect(page.locator("h1")).to_contain_text(answer)
    assert page.locator("h1").evaluate("e => getComputedStyle(e).fontSize") == "24px"
    # Null where the page was ready before the browser drew the card.
    seen = page.evaluate("window.seenLoading")
    assert seen is None or seen >= 150
    assert page.locator(".sg-loading").count() == 0
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


@pytest.mark.verify
def test_a_deep_link_on_a_cold_server_answers_in_its_first_line(
    page: Page, house: Lived
) -> None:
    with dashboard(house.config) as cold:
        link = f"{cold}/compare?id={house.proposals['canary']}"
        assert_answered(page, link, "sim/sim-better instead of sim/sim-base")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", "1 route needs a decision: mail-triage"),
        ("/proposals?state=open", "1 proposal waits for approval: mail-triage"),
        ("/compare?id={mismatch}", "sim/sim-fenced instead of sim/sim-base"),
        ("/canary?route=support-chat", "sim/sim-better shows no harm so far, at 5 %"),
        ("/traffic", "No caller got an error in the last 24 hours"),
        ("/alerts", "1 alert is open, none critical"),
        ("/sessions", "No session yet"),
        # These had pages of their own.
        ("/shadows?route=quiet", "No canary on quiet"),
        ("/captures", "4 suites"),
        ("/spending", "No client has a key yet"),
        ("/first-steps", "1 route needs a decision: mail-triage"),
        ("/audit", "The audit log is intact"),
        ("/providers", "sim works"),
        ("/policies?route=support-chat", "sim/sim-base serves support-chat since"),
        ("/settings", "The settings are for admins"),
    ],
)
def test_every_page_answers_in_its_first_line(
    page: Page, house: Lived, address: str, path: str, answer: str
) -> None:
    """Wide and light, narrow and dark: axe-core objects to nothing serious."""
    assert_answered(page, address + path.format(**house.proposals), answer)


@pytest.mark.req("A7")
def test_a_comparison_shows_what_the_verdict_rests_on(
    page: Page, house: Lived, address: str
) -> None:
    opened(page, f"{address}/compare?id={house.proposals['canary']}")

    card = page.locator(".sg-verdict")
    expect(card).to_contain_text("PASSED: the candidate is proven")
    with reading(house.config) as installation:
        found = comparison.load_comparison(installation.context, house.proposals["canary"])
    assert found.verdict is not None
    primary = found.verdict.suites[-1]
    effect = f"{primary.delta * 100:+.1f} points, 95 % CI"
    expect(card).to_contain_text(f"Support-ticket routing: {effect}")
    expect(card).to_contain_text(f"must be better than 0; {primary.n_used} pairs")
    expect(card).to_contain_text("allowed loss 5.0")
    expect(card).to_contain_text("Next: watch the canary")
    expect(page.locator(".sg-tiles .figure")).to_have_count(4)
    expect(
        page.locator("[data-testid=stVegaLiteChart] canvas, .vega-embed svg")
    ).to_be_visible()
    expect(page.locator(".pairbars .bar")).to_have_count(8)


@pytest.mark.req("A8")
def test_a_format_mismatch_shows_what_broke_and_how_to_mend_it(
    page: Page, house: Lived, address: str
) -> None:
    opened(page, f"{address}/compare?id={house.proposals['mismatch']}")

    expect(page.locator(".sg-verdict")).to_contain_text("FORMAT MISMATCH")
    expect(page.get_by_text("The candidate puts its answer into a code fence")).to_be_visible()
    expect(page.locator(".stMain")).to_contain_text("swapgate model add sim/sim-fenced")
    expect(page.locator(".stMain")).to_contain_text("swapgate proposal create order-forms t_")
    expect(page.get_by_text("0 of 100, format ignored 100 of 100")).to_have_count(5)


def test_filters_and_the_sample_live_in_the_address(
    page: Page, house: Lived, address: str
) -> None:
    link = f"{address}/compare?id={house.proposals['canary']}&show=improved&suite=tickets"

    opened(page, link)
    first = page.locator(".sg-answers").inner_text()
    expect(page.get_by_role("radio", name="improved")).to_be_checked()
    page.get_by_role("radio", name="same").click()
    expect(page.locator(".sg-answers .sg-pill").last).to_contain_text("correct")

    assert "show=same" in page.url
    assert "suite=tickets" in page.url
    assert "✕ wrong" in first


def test_markup_in_an_answer_is_shown_and_never_run(
    page: Page, house: Lived, address: str
) -> None:
    listener = opened(page, f"{address}/compare?id={house.proposals['failed']}")
    expect(page.locator(".sg-answers")).to_contain_text(XSS)
    page.goto(f"{address}/proposals?state=decided")
    expect(page.get_by_text("Reason: cheaper")).to_contain_text(XSS)

    assert page.locator(".sg img, .sg script").count() == 0
    assert page.title() != "owned"
    listener.assert_quiet()


def test_a_running_comparison_shows_progress_and_no_difference(
    page: Page, house: Lived, address: str
) -> None:
    opened(page, f"{address}/compare?id={house.proposals['evaluating']}")

    expect(page.locator(".sg-verdict")).to_contain_text("NOT DECIDED YET: 12 of 200 items")
    expect(page.locator("[role=meter]")).to_have_count(1)
    assert "regressed" not in page.locator(".stMain").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "path", "answer", "width"),
    [
        ("compare", "/compare?id={canary}&show=all", ".sg-verdict", 1280),
        ("compare", "/compare?id={canary}&show=all", ".sg-verdict", 390),
        ("canary", "/canary?route=support-chat", ".sg-verdict", 1280),
        ("overview", "/", ".sg-route >> nth=0", 1280),
    ],
)
def test_a_page_answers_in_its_first_screen_and_fits_into_a_picture(
    page: Page,
    house: Lived,
    address: str,
    tmp_path: Path,
    *,
    name: str,
    path: str,
    answer: str,
    width: int,
    theme: Literal["light", "dark"],
) -> None:
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
    file = tmp_path / f"{name}-{theme}-{width}.png"
    page.screenshot(path=file, animations="disabled")

    with Image.open(file) as picture:
        corner = picture.convert("RGB").getpixel((2, 300))
        assert corner == GROUND[theme]
        if os.environ.get(PICTURES) and width == 1280:
            write_picture(picture, f"{name}{'-dark' if theme == 'dark' else ''}.png")


def write_picture(picture: Image.Image, name: str) -> None:
    target = ROOT / "docs" / "img" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(target, optimize=True)


def test_no_other_site_reaches_the_buttons(address: str) -> None:
    """A page of another site or of another port of this machine, which has our cookies, and a
    name that was made to point here (DNS rebinding).
    """
    stream = f"{address.replace('http', 'ws')}/_stcore/stream"
    with connect(stream, origin=Origin(address)) as ours:
        assert ours.response is not None
    port = address.rpartition(":")[2]
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": f"http://localhost:{port}"},
        {"Origin": "null"},
        {"Origin": f"http://evil.example:{port}", "Host": f"evil.example:{port}"},
    ):
        with pytest.raises(InvalidStatus, match="403"):
            connect(stream, additional_headers=headers)
    framed = httpx.get(f"{address}/compare").headers
    assert framed["content-security-policy"] == "frame-ancestors 'none'"
    assert framed["x-frame-options"] == "DENY"
    stranger = {"origin": "http://127.0.0.1:9999"}
    sent = httpx.put(f"{address}/_stcore/upload_file/a/b", headers=stranger)
    assert (sent.status_code, "another origin" in sent.text) == (403, True)


@pytest.mark.verify
def test_a_lost_database_and_a_lost_server_are_said_and_come_back(
    page: Page, house: Lived, tmp_path: Path
) -> None:
    shutil.copytree(house.config.parent, tmp_path / "home")
    config = tmp_path / "home" / house.config.name
    database = config.parent / "state" / "swapgate.db"
    database.rename(database.with_suffix(".away"))
    database.mkdir()
    port = free_port()
    with dashboard(config, port) as broken:
        page.goto(broken)
        expect(page.get_by_role("alert")).to_contain_text("The database does not answer")
        expect(page.get_by_role("alert")).to_contain_text("The router continues to serve")
        assert "Traceback" not in page.content()
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
