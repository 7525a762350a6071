import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from dashboard.views import samples
from harness.app.installation import open_installation
from harness.control.proposals.comparison import load_comparison, with_texts
from harness.control.proposals.drawbacks import describe_absence, list_drawbacks
from harness.domain.evals.run import Sample
from harness.domain.evals.verdict import InfraError
from tests.support.browser.dashboard_data import Lived
from tests.support.browser.suite_comparisons import compared
from tests.unit.test_dashboard_page_states import forget, now, shown, text

pytestmark = [pytest.mark.req("A7", "F2", "F4"), pytest.mark.slow]


AGE = re.compile(r"\d+ (?:s|min|h) ago")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return compared(tmp_path_factory, now())


@pytest.fixture(autouse=True)
def fresh_installation() -> Iterator[None]:
    forget()
    yield
    forget()


def page_text(house: Lived, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
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
    assert "Worse in a slice: Customer mail, language = Danish." in card
    assert "No other slice looks worse." in said
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
    # Its samples open on what there is to read.
    assert "None regressed. Shown are those that improved." in said


def test_one_that_passed_and_was_not_chosen_says_why(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page_text(house, "several-good", monkeypatch)

    assert re.search(
        r"Since then it was closed: it passed with \S+ points, and sim/better", said
    )
    assert "A new proposal is measured again before it may get a canary." in said


def test_a_weighted_mean_and_at_least_one_are_one_claim_with_one_count_of_items(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighted = page_text(house, "weighted", monkeypatch)
    forget()
    either = page_text(house, "either", monkeypatch)

    named = "Better on the weighted mean of 2 suites (Ticket triage and Replies); both suites"
    assert f"{named} point the same way." in weighted
    counted = re.search(r"Paired test on (\d+) shared items", weighted)
    assert counted is not None
    assert f"{int(counted[1]) // 2} pairs of each suite" in weighted
    assert f"· {counted[1]} in all" in weighted
    assert "not enough evidence" not in weighted
    assert "Better on Ticket triage and Replies; one of 2 suites was enough." in either


def test_a_large_comparison_shows_the_same_and_its_figures_read_no_sample_whole(
    house: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = page_text(house, "failing-slice", monkeypatch)
    forget()
    monkeypatch.setattr(samples, "MOST_TEXTS", 0)
    light = page_text(house, "failing-slice", monkeypatch)
    made: list[str] = []
    init = Sample.__init__

    def count(sample: Sample, *given: Any, **named: Any) -> None:
        init(sample, *given, **named)
        made.append(sample.item)

    monkeypatch.setattr(Sample, "__init__", count)
    installation = open_installation(house.config)
    try:
        view = samples.load_comparison_view(
            installation.context, house.proposals["failing-slice"]
        )
        index = view.index
        assert view.comparison.incumbent_figures.samples > len(index) > 0
        assert made == []
        with_texts(
            installation.context, view.comparison, {"customer-mail": list(index["item"])[:20]}
        )
    finally:
        installation.close()

    # Between the two pages a minute may begin.
    assert AGE.sub("", light) == AGE.sub("", whole)
    assert len(made) == 2 * 20


def test_what_speaks_against_a_candidate_has_intervals_and_says_what_chance_explains(
    house: Lived,
) -> None:
    installation = open_installation(house.config)
    try:
        found = load_comparison(installation.context, house.proposals["slices"])
    finally:
        installation.close()
    swapped = replace(
        found,
        incumbent_figures=found.candidate_figures,
        candidate_figures=found.incumbent_figures,
    )
    fewer = replace(swapped.candidate_figures, p95_interval_s=None)

    assert list_drawbacks(found) == []
    assert describe_absence(found).endswith("No slice looks worse.")
    slower, _, dearer = list_drawbacks(swapped)
    assert (slower.what, slower.clear) == ("0.90 s slower at p95", True)
    assert slower.text == (
        "2.10 s (95 % CI 2.10 s to 2.10 s) against 1.20 s (95 % CI 1.20 s to 1.20 s)."
    )
    assert dearer.what == "130 % dearer"
    unsure = list_drawbacks(replace(swapped, candidate_figures=fewer))[-1]
    assert (unsure.what, unsure.clear) == ("0.90 s slower at p95", False)
    assert unsure.text.endswith("Too few answers for an interval.")
    verdict = InfraError(
        **{field.name: getattr(found.verdict, field.name) for field in fields(InfraError)}
    )
    unmeasured = replace(swapped, verdict=verdict)
    assert list_drawbacks(unmeasured) == []
    assert describe_absence(unmeasured) == "Nothing is known: it was not measured."
