"""The Compare page of suites with slices or clusters, and of several candidates at once."""

import re
from collections.abc import Iterator

import pytest

from tests.support.browser.dashboard_data import Lived
from tests.support.browser.suite_comparisons import compared
from tests.unit.test_dashboard_page_states import forget, now, shown, text

pytestmark = [
    pytest.mark.req("A7", "F2", "F4"),
    pytest.mark.slow,
    # Streamlit says so wherever a script runs without its server.
    pytest.mark.filterwarnings("ignore:.*missing ScriptRunContext"),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return compared(tmp_path_factory.mktemp("compared"), now())


@pytest.fixture(autouse=True)
def fresh_installation() -> Iterator[None]:
    forget()
    yield
    forget()


def page_text(house: Lived, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the page of a comparison says, and how many charts it has."""
    app = shown(monkeypatch, house.config, "compare", {"id": house.proposals[name]})
    return f"{len(app.get('vega_lite_chart'))} charts\n{text(app)}"


def test_slices_without_a_loss_are_shown_and_never_called_proven(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page_text(house, "slices", monkeypatch)

    assert said.startswith("3 charts")
    assert "PASSED" in said
    assert "<h2>Slices of Customer mail</h2>" in said
    assert said.index("By <b>product</b>") < said.index("By <b>language</b>")
    assert re.search(r"decided on the first \d+ items; the slices were tested on more", said)
    assert "shown worse, which fails" not in said


def test_the_slice_that_fails_a_candidate_is_the_first_thing_its_card_names(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page_text(house, "failing-slice", monkeypatch)

    card = said[said.index('<div class="headline">') : said.index("Next:")]
    blamed = "<b>Customer mail, language = Danish</b>: −50.0 points, 95 % CI −63.0 to −37.0"
    assert "FAILED: do not swap" in card
    assert "Worse in a slice:" in card
    assert f"{blamed}; 60 items. It is shown worse, which fails the candidate" in card
    assert card.index(blamed) < card.index("<b>Customer mail, all slices</b>: +")


def test_a_suite_of_clusters_counts_them_and_its_items_and_has_no_slices(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page_text(house, "clusters", monkeypatch)

    assert said.startswith("1 charts")
    counted = re.search(r"(\d+) pairs in (\d+) clusters \(by document\)", said)
    assert counted is not None
    assert int(counted[1]) == 3 * int(counted[2])
    assert f"Paired test on {counted[1]} shared items" in said
    assert "Those of Handbook questions count clusters" in said
    assert "Slices of" not in said
    assert "The candidates side by side" not in said


def test_of_several_candidates_each_row_says_how_it_stands_and_leads_to_its_page(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page_text(house, "several", monkeypatch)

    rows = [
        re.findall(r"<td data-head=.*?>(.*?)</td>", row)
        for row in re.findall(r"<tr>(<td data-head=.*?)</tr>", said)
    ]
    link = '<a href="?id={}" target="_self">sim/{}</a>'
    assert [row[0] for row in rows] == [
        "sim/base (current)",
        link.format(house.proposals["several-worse"], "worse"),
        "<b>sim/better</b> (this page)",
        link.format(house.proposals["several-good"], "good"),
    ]
    assert [row[1] for row in rows] == ["–", "✕ FAILED", "✓ PASSED", "✓ PASSED"]
    assert re.fullmatch(r"\+\d+\.\d \(\+\d+\.\d to \+\d+\.\d\)", rows[2][2])
    assert [row[-1] for row in rows[:3]] == ["serves", "rejected", "in canary"]
    assert re.fullmatch(
        r"rejected: it passed with \S+ points, and sim/better with \S+ points", rows[3][-1]
    )


def test_one_that_passed_and_was_not_chosen_says_why(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page_text(house, "several-good", monkeypatch)

    assert re.search(
        r"Since then it was rejected: it passed with \S+ points, and sim/better", said
    )
    assert "A new proposal is measured again before it may get a canary." in said
