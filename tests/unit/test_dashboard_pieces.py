"""Cards, frames, charts and colours: pure, and safe whatever a model writes."""

import io
import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from html import escape, unescape
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import serve, theme
from dashboard.charts import plots, route_timeline
from dashboard.data import frames
from dashboard.data.suites import RunView
from dashboard.downloads import to_csv, to_parquet
from dashboard.text import html as cards
from dashboard.text import key_text, labels, route_text, traffic_text
from dashboard.text.suite_text import run_cells
from dashboard.theme import DARK, LIGHT, Palette
from harness.control.proposals.recorded_answers import strip_common_start
from harness.control.routing.traffic_report import RouteTraffic, TrafficReport
from harness.domain.canary.observation import TrafficMinute, TrafficPoint
from harness.domain.errors import ConfigError
from harness.domain.evals.run import EvalRun, RunState, Sample, SampleError
from harness.domain.evals.suite_figures import SliceFigures, SuiteFigures
from harness.domain.evals.suite_plan import Claim, SuiteRole
from harness.domain.evals.verdict import SuiteReport
from harness.domain.settings import OidcSettings

START = datetime(2026, 11, 20, tzinfo=UTC)
MARK = re.compile(r"</?(?:ins|del)>")


def report(suite: str = "a", **changes: Any) -> SuiteReport:
    fields: dict[str, Any] = {
        "suite": suite,
        "role": SuiteRole.REQUIRED,
        "claim": Claim.NON_INFERIOR,
        "margin": 0.02,
        "outcome": "passed",
        "how": "final",
        "n_used": 500,
        "n_max": 500,
        "delta": 0.005,
        "ci_low": -0.01,
        "ci_high": 0.02,
        "ci_method": "tango",
        "log_e_bad": 0.0,
        "p_final": 0.01,
        "wins": 15,
        "ties": 468,
        "losses": 17,
        "reason": "",
    }
    return SuiteReport(**{**fields, **changes})


def minute(at: int, **changes: Any) -> TrafficMinute:
    fields: dict[str, Any] = {
        "route": "r",
        "minute": START + timedelta(minutes=at),
        "worker": "w",
        "arm": "incumbent",
        "target": "t",
        "revision": 1,
        "requests": 100,
        "failed": 0,
        "charged": 0,
        "streams": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "cost_usd": 0.2,
        "latency_ms": {},
    }
    return TrafficMinute(**{**fields, **changes})


def sample(**changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "run": "r",
        "item": "i",
        "epoch": 1,
        "position": 0,
        "answer": "a",
        "strict": 1.0,
        "lenient": 1.0,
        "input_tokens": 1,
        "output_tokens": 1,
        "cost_usd": None,
        "duration_s": 1.0,
    }
    return Sample(**{**fields, **changes})


@given(st.text(), st.text())
def test_a_difference_shows_both_answers_whole_and_no_markup_of_theirs(
    before: str, after: str
) -> None:
    went, came = cards.difference(before, after)

    assert unescape(MARK.sub("", went)) == unescape_of(before)
    assert unescape(MARK.sub("", came)) == unescape_of(after)
    assert "<" not in MARK.sub("", went + came)


def unescape_of(text: str) -> str:
    """As HTML itself reads a text back: some control characters have no reading."""
    return unescape(escape(text))


def test_words_that_went_are_struck_and_words_that_came_are_underlined() -> None:
    assert cards.difference("paid 42.50 now", "paid 42.5 now") == (
        "paid 42.<del>50</del> now",
        "paid 42.<ins>5</ins> now",
    )


def test_two_answers_without_a_word_in_common_have_no_marks() -> None:
    assert cards.difference("shipping", "an <outage>") == ("shipping", "an &lt;outage&gt;")
    assert cards.difference("I do not know.", "team 8.") == ("I do not know.", "team 8.")


@given(st.text(alphabet="<>&\"'abc "))
def test_no_card_lets_markup_through(text: str) -> None:
    label = labels.VERDICT_LABELS["failed"]
    html = "".join(
        [
            cards.verdict(cards.VerdictCard(label, text, [(text, text)], text, text)),
            cards.tiles([cards.Tile(text, text, below=text)]),
            cards.pair_bars([cards.PairCounts(text, 1, 2, 3)]),
            cards.banner(text, text),
            cards.failure(text, text, text),
            cards.empty(text, text),
            cards.note(text),
            cards.section(text, text),
            cards.steps([(text, text)], 0),
            cards.trend([1.0, 2.0], name=text),
            cards.loading(text),
        ]
    )

    assert not re.search(r"<(?!/?(?:div|p|b|span|i|h2|code)\b)", html)


def test_a_long_answer_is_cut_and_says_so() -> None:
    long = "word " * 5000
    html = cards.answer_panels(
        cards.AnswerPanel("Current", long, "✓ correct", labels.Tone.BETTER),
        cards.AnswerPanel("Candidate", "short", "✕ wrong", labels.Tone.WORSE),
    )

    assert "The first 6,000 of 25,000 characters." in html.replace("\xa0", " ")


def test_bars_of_all_suites_share_one_scale() -> None:
    html = cards.pair_bars([cards.PairCounts("a", 20, 10, 0), cards.PairCounts("b", 5, 0, 1)])

    widths = [float(match_) for match_ in re.findall(r"width:([\d.]+)%", html)]
    assert widths == [39.0, 78.0, 0.0, 19.5]


def test_few_pairs_carry_no_interval() -> None:
    frame = frames.suites([report(n_used=29), report("b", n_used=30)], {})

    assert frame["low"].isna().tolist() == [True, False]


def test_the_limit_is_zero_where_the_candidate_must_be_better() -> None:
    frame = frames.suites([report(), report("b", claim=Claim.SUPERIOR)], {"a": "Tool calls"})

    assert frame["limit"].tolist() == [-2.0, 0.0]
    assert frame["title"].tolist() == ["Tool calls", "b"]
    assert frame["label"].tolist() == ["+0.5", "+0.5"]


def test_the_primary_suite_is_read_first() -> None:
    primary = report("z", role=SuiteRole.PRIMARY)

    assert [r.suite for r in frames.in_reading_order([report("a"), primary])] == ["z", "a"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "✓ correct"),
        ({"strict": 0.0, "lenient": 0.0}, "✕ wrong"),
        ({"strict": 0.5, "lenient": 0.5}, "◐ 0.50"),
        ({"strict": 0.0, "rule": "code_fence"}, "✕ wrong form (code_fence)"),
        ({"strict": None, "lenient": None, "error": SampleError.UNSCORED}, "? not scored"),
        ({"strict": None, "lenient": None, "error": SampleError.INFRA}, "? no answer"),
    ],
)
def test_a_rating_has_a_shape_and_a_word(changes: dict[str, Any], says: str) -> None:
    assert frames.rating(sample(**changes)) == says


def test_cost_is_told_per_thousand_requests() -> None:
    trend = frames.cost_trend([minute(0), minute(1, cost_usd=0.4), minute(5)])

    assert trend == pytest.approx([3.0, 2.0])


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_a_forest_has_a_row_per_suite_and_a_shape_per_verdict(palette: Palette) -> None:
    reports = [report(), report("b", outcome="inconclusive"), report("c", n_used=10)]
    figure = plots.forest(frames.suites(reports, {}), palette)

    plain = figure.to_dict()
    assert plain["height"] == 3 * plots.ROW_HEIGHT + plots.EDGES
    text = json.dumps(plain, ensure_ascii=False)
    assert "✓ passed" in text
    assert "? not enough evidence" in text
    assert '"diamond"' in text
    assert palette.better in text


def test_nothing_measured_makes_an_empty_frame() -> None:
    assert frames.suites([report(n_used=0)], {}).empty


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of #RRGGBB."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_text_has_enough_contrast_on_its_ground(palette: Palette) -> None:
    tones = [palette.colour_for(tone) for tone in labels.Tone]
    washes = [getattr(palette, f"{tone.value}_wash") for tone in labels.Tone]
    for text, ground in itertools.product([*tones, palette.text], [palette.ground, *washes]):
        assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast("#FFFFFF", palette.primary) >= 4.5
    for tone in tones:
        assert contrast(palette.ground, tone) >= 4.5, "a symbol on its round"


@pytest.mark.req("F5")
def test_the_dashboard_without_single_sign_on_stays_on_loopback() -> None:
    oidc = OidcSettings("https://l.example", "swapgate", "SECRET", "https://s.example", {})
    for host in ("0.0.0.0", "192.0.2.1", "example.org"):  # noqa: S104 - refused
        with pytest.raises(ConfigError, match="loopback only"):
            serve.require_loopback(host)
        serve.require_loopback(host, oidc)
    for host in ("127.0.0.1", "::1", "localhost"):
        serve.require_loopback(host)


def test_nothing_remote_is_loaded_by_the_styles() -> None:
    assert "url(" not in theme.css()
    assert "@import" not in theme.css()
    assert "http" not in theme.css()


@pytest.mark.req("A3")
def test_a_last_hour_without_a_price_draws_no_trend() -> None:
    assert "cost per 1,000 requests" in route_text.last_hour([minute(0), minute(5)])
    unpriced = [minute(0), minute(1, cost_usd=0.0, unpriced=7), minute(5)]
    assert "cost per 1,000 requests" not in route_text.last_hour(unpriced)
    assert "no request" in route_text.last_hour([])


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_slices_are_a_chart_for_each_field(palette: Palette) -> None:
    named = [("language", "da", True), ("language", "en", False), ("product", "x", False)]
    found = tuple(
        SliceFigures(field, value, 60, 90, -0.2, -0.3, -0.1, 0.001, worse)
        for field, value, worse in named
    )

    charts = frames.slices(report(details=SuiteFigures(slices=found).as_json()))

    assert list(charts) == ["language", "product"]
    figure = json.dumps(plots.forest(charts["language"], palette).to_dict(), ensure_ascii=False)
    assert "da|60 items" in figure
    assert "✕ shown worse" in figure
    assert "= no loss shown" in figure
    assert frames.slices(report()) == {}


def test_charts_of_one_suite_s_slices_share_a_scale() -> None:
    named = [("language", "da", -0.5), ("product", "x", 0.01)]
    found = tuple(
        SliceFigures(field, value, 60, 90, delta, delta - 0.1, delta + 0.1, 0.5)
        for field, value, delta in named
    )
    charts = frames.slices(report(details=SuiteFigures(slices=found).as_json()))
    everything = pd.concat(charts.values())

    domains = [
        plots.forest(frame, LIGHT, everything).to_dict()["layer"][1]["encoding"]["x"]["scale"][
            "domain"
        ]
        for frame in charts.values()
    ]

    assert domains[0] == domains[1]
    assert domains[0][0] <= -60.0


def test_a_slice_before_its_first_look_is_called_untested() -> None:
    found = (SliceFigures("language", "da", 12, 90, -0.2, -0.5, 0.1),)

    (frame,) = frames.slices(
        report(details=SuiteFigures(slices=found, cluster="document").as_json())
    ).values()

    assert list(frame["verdict"]) == ["? too few items"]
    assert list(frame["row"]) == ["da|12 clusters"]
    assert frame["limit"].isna().all()


def test_what_every_prompt_begins_with_is_left_out_of_the_questions_whole_words_only() -> None:
    asked = {"a": "Answer shortly: where is it?", "b": "Answer shortly: who was it?"}

    assert strip_common_start(asked) == (
        {"a": "where is it?", "b": "who was it?"},
        "Answer shortly: ",
    )
    assert strip_common_start({"a": "Answer shortly: where?"})[1] == ""
    assert strip_common_start({"a": "The sun", "b": "The sea"})[1] == ""
    # A sentence that begins alike stays whole, unless its beginning is long.
    mails = {"a": "Be short. Which team answers mail 8?", "b": "Be short. Which team is it?"}
    assert strip_common_start(mails | {"c": "Be short. Which one?"})[1] == ""
    long = "Be short. Which team of the " + "very " * 12
    assert strip_common_start({"a": f"{long}old house?", "b": f"{long}new one?"})[1] == long


def test_a_download_runs_no_formula_and_keeps_every_column() -> None:
    frame = pd.DataFrame({"item": ["a", "=1+1"], "answer": ["@SUM(A1)", "−2"], "s": [0.5, -1]})

    assert to_csv(frame).decode("utf-8-sig").splitlines() == [
        '"item","answer","s"', '"a","\'@SUM(A1)",0.5', '"\'=1+1","−2",-1.0',
    ]  # fmt: skip
    assert pd.read_parquet(io.BytesIO(to_parquet(frame)))["item"][1] == "'=1+1"


def test_the_timeline_of_a_young_route_has_times_too() -> None:
    began = datetime(2026, 11, 23, 2, 22, 19, tzinfo=UTC)
    for minutes in (2, 7, 40, 600, 60_000):
        ticks = route_timeline._ticks(began, began + timedelta(minutes=minutes))
        assert 1 <= len(ticks) <= 9, minutes


def test_a_price_that_is_unknown_stands_apart_from_the_sum_before_it() -> None:
    assert key_text._unpriced(2).startswith(" <")
    assert ">and 2 requests of unknown price<" in key_text._unpriced(2)
    assert ">2 requests of unknown price<" in key_text._unpriced(2, known=False)


@pytest.mark.parametrize(
    ("minutes", "requests", "unpriced", "pace", "below"),
    [
        (600, 1200, 1200, "120 an hour on average, since 20 Nov 2026", "1,200 requests of "),
        (10, 1200, 3, "since 11:50 UTC", "3 requests more of unknown price"),
        (1440, 2400, 3, "100 an hour on average<", "3 requests more of unknown price"),
    ],
)
def test_the_pace_of_traffic_is_that_of_the_time_in_which_it_came(
    minutes: int, requests: int, unpriced: int, pace: str, below: str
) -> None:
    now = START + timedelta(hours=12)
    first = now - timedelta(minutes=minutes)
    whole = RouteTraffic("", requests, 0, 0, 0.5, unpriced, now)
    seen = TrafficReport(
        window=timedelta(hours=24),
        since=now - timedelta(hours=24),
        now=now,
        all=whole,
        routes=[whole],
        step=timedelta(minutes=10),
        course=[TrafficPoint(first, requests, 0, 0)],
        last_request=now,
    )
    shown = traffic_text.tiles(seen, ())
    assert f">{pace}" in shown
    assert f">{below}" in shown


def test_a_run_without_a_known_price_has_no_cost_of_zero() -> None:
    run = EvalRun("run_1", "tickets", "d", "t_a", 1, 1, 9, RunState.DONE, START)
    assert run_cells(RunView(run, "a", 9, 0.0), {}, START)[-1] == ("no known cost")
    assert run_cells(RunView(run, "a", 0, 0.0), {}, START)[-1] == "$0.00"
    assert run_cells(RunView(run, "a", 9, 1.5), {}, START)[-1] == "$1.50"
