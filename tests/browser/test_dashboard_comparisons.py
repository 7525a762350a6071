"""Slices as small multiples and several candidates as a table, as a browser shows them."""

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.test_dashboard_pages import assert_no_sideways_scroll, opened
from tests.support.browser.dashboard_data import Lived
from tests.support.browser.dashboard_server import dashboard
from tests.support.browser.suite_comparisons import compared
from tests.support.sampling import later

expect.set_options(timeout=90_000)
pytestmark = [
    pytest.mark.req("A7", "F2", "F4"),
    pytest.mark.parametrize("width", [1280, later(390)]),
]

SUITES_AND_SLICES = 3


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return compared(tmp_path_factory, datetime.now(UTC))  # noqa: TID251


@pytest.fixture(scope="module")
def address(house: Lived) -> Iterator[str]:
    with dashboard(house.config) as address:
        yield address


def sides(element: Locator) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    box = element.bounding_box()
    assert box is not None
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def assert_inside(page: Page, elements: Locator, width: int) -> None:
    for element in elements.all():
        left, _, right, _ = sides(element)
        assert left >= 0
        assert right <= width
    assert_no_sideways_scroll(page)


def test_a_chart_for_each_slice_field_and_the_slice_that_failed_comes_first(
    page: Page, house: Lived, address: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    listener = opened(page, f"{address}/compare?id={house.proposals['failing-slice']}")

    verdict = page.locator(".sg-verdict")
    expect(verdict).to_contain_text("Customer mail, language = Danish: −50.0 points")
    assert sides(verdict)[3] <= 844, "verdict and next step come first"
    charts = page.locator("[data-testid=stVegaLiteChart]")
    expect(charts).to_have_count(SUITES_AND_SLICES)
    expect(charts.locator("canvas, svg.marks")).to_have_count(SUITES_AND_SLICES)
    by_product, by_language = (page.get_by_text(re.compile(f"^By {name}$")) for name in
                               ("product", "language"))  # fmt: skip
    beside = sides(by_product)[1] == sides(by_language)[1]
    assert beside is (width > 640), "side by side, and below each other on a phone"
    assert_inside(page, charts, width)
    listener.assert_quiet()


def test_several_candidates_are_a_table_that_no_width_cuts(
    page: Page, house: Lived, address: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    listener = opened(page, f"{address}/compare?id={house.proposals['several']}")

    cells = page.locator("table.stacked td")
    expect(cells).to_have_count(4 * 7)
    assert_inside(page, cells, width)
    for row in page.locator("table.stacked tbody tr").all():
        boxes = [sides(cell) for cell in row.locator("td").all()]
        for one, following in itertools.pairwise(boxes):
            # The next cell is beside it; on a phone it is below.
            assert following[0] >= one[2] - 1 if width > 640 else following[1] >= one[3] - 1
    listener.assert_quiet()

    page.get_by_role("link", name="sim/good").click()
    expect(page.locator("h1")).to_contain_text("sim/good instead of sim/base")
    expect(page.locator(".sg-verdict")).to_contain_text("and sim/better with")
    expect(page).to_have_url(re.compile(house.proposals["several-good"]))
