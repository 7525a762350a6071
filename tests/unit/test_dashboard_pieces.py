import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from html import escape, unescape
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import labels, plots, serve, theme
from dashboard import markup as cards
from dashboard.labels import Tone
from dashboard.page_frame import to_csv
from dashboard.theme import LIGHT
from dashboard.views import keys, overview
from dashboard.views import routes as routes_page
from dashboard.views import samples as answers
from dashboard.views.suites import RunView, run_cells
from harness.frame.errors import ConfigError
from harness.gate.offline.decision_intervals import decision_intervals
from harness.gate.online.observation import TrafficMinute
from harness.gate.run import EvalRun, RunState, SampleError
from harness.gate.suite_plan import Claim, Looks, SuiteRole
from harness.gate.verdict import SliceFigures, SuiteFigures, SuiteReport, VerdictBasis
from harness.gate.verdict_sentences import list_reports, sort_for_reading
from harness.proposals.fallback_chain import ChainEntry
from harness.proposals.report.answer_examples import strip_common_start
from harness.providers.target import Target
from harness.routing.evidence import EvidenceKind, Waiver
from harness.routing.settings import OidcSettings
from tests.support.store.records import SAMPLE, TRAFFIC
from tests.unit.test_gate_verdicts import ask, leaning, named, plan, weighted

START = datetime(2026, 11, 20, tzinfo=UTC)
NOON = START + timedelta(hours=12)
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
    usual = {
        "requests": 100,
        "failed": 0,
        "charged": 0,
        "cost_usd": 0.2,
        "latency_ms": {},
    }
    return replace(TRAFFIC, minute=START + timedelta(minutes=at), **{**usual, **changes})


@given(st.floats(0.001, 100), st.floats(0.001, 100))
def test_more_of_a_cost_is_worse_less_is_better_and_an_unknown_one_is_not_compared(
    new: float, old: float
) -> None:
    words = ("cheaper", "dearer")
    change = labels.describe_change(new, old, labels.usd, words)
    unknown = labels.describe_change(None, old, labels.usd, words)

    assert change.tone is {"▲": Tone.WORSE, "▼": Tone.BETTER, "=": Tone.NEUTRAL}[change.symbol]
    if change.tone is not Tone.NEUTRAL:
        assert (new > old) == (change.tone is Tone.WORSE)
    assert (unknown.tone, unknown.words) == (
        Tone.NEUTRAL,
        "cannot be compared,",
    )
    assert change.was == f"was {labels.usd(old)}"


@pytest.mark.req("A7")
def test_each_fallback_says_why_it_may_serve_and_an_expired_waiver_is_a_banner() -> None:
    until = datetime(2026, 12, 1, tzinfo=UTC)
    waiver = Waiver("w_1", "chat", "t", "<no time>", "ada", until)
    one = Target("a", "one")
    two = Target("a", "two")
    three = Target("a", "three")
    chain = [
        ChainEntry(one, capable=True, evidence=EvidenceKind.BASELINE),
        ChainEntry(
            two,
            capable=False,
            evidence=EvidenceKind.VERDICT,
            verdict="v_7",
        ),
        ChainEntry(
            three,
            capable=False,
            evidence=EvidenceKind.WAIVER,
            waiver=waiver,
        ),
    ]
    shown = routes_page.fallback_table("chat", chain)
    for words in (
        "baseline",
        "verdict v_7",
        "waiver of ada, until",
        "&lt;no time&gt;",
    ):
        assert words in shown
    assert "expired" not in shown
    assert shown.index("a/one") < shown.index("a/two") < shown.index("a/three")

    assert not waiver.expired(until - timedelta(microseconds=1))
    assert waiver.expired(until)
    late = ChainEntry(
        three,
        capable=False,
        evidence=EvidenceKind.WAIVER,
        waiver=waiver,
        waiver_expired=True,
    )
    shown = routes_page.fallback_table("chat", [late])
    assert "A waiver has expired." in shown
    assert "swapproof route fallback remove chat" in shown
    assert routes_page.fallback_table("chat", ()) == ""


@given(st.text(), st.text())
def test_a_difference_shows_both_answers_whole_and_no_markup_of_theirs(
    before: str, after: str
) -> None:
    went, came = answers.difference(before, after)

    # As HTML itself reads a text back: some control characters have no reading.
    assert unescape(MARK.sub("", went)) == unescape(escape(before))
    assert unescape(MARK.sub("", came)) == unescape(escape(after))
    assert "<" not in MARK.sub("", went + came)


def test_words_that_went_are_struck_and_those_that_came_underlined_where_some_stayed() -> None:
    assert answers.difference("paid 42.50 now", "paid 42.5 now") == (
        "paid 42.<del>50</del> now",
        "paid 42.<ins>5</ins> now",
    )
    assert answers.difference("shipping", "an <outage>") == (
        "shipping",
        "an &lt;outage&gt;",
    )
    assert answers.difference("I do not know.", "team 8.") == (
        "I do not know.",
        "team 8.",
    )


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        (ZoneInfo("Asia/Kolkata"), "2 Nov 2026 11:11\u00a0UTC+05:30"),
        (ZoneInfo("America/New_York"), "2 Nov 2026 00:41\u00a0UTC-05:00"),
        (UTC, "2 Nov 2026 05:41\u00a0UTC"),
    ],
)
def test_a_text_has_its_times_in_the_readers_zone_and_utc_as_a_tooltip(
    monkeypatch: pytest.MonkeyPatch,
    zone: tzinfo,
    shown: str,
) -> None:
    monkeypatch.setattr(labels, "reader_zone", lambda: zone)
    expected = f'<time title="2026-11-02 05:41:00 UTC">{shown}</time>'
    at = datetime(2026, 11, 2, 5, 41, tzinfo=UTC)

    assert cards.rich("Frozen until 2 Nov 2026 05:41 UTC.") == f"Frozen until {expected}."
    assert cards.rich(labels.date_time(at)) == expected
    assert cards.rich("2026-11-02 05:41 UTC") == expected
    assert cards.rich("`at 2026-11-02 05:41 UTC`") == "<code>at 2026-11-02 05:41 UTC</code>"
    assert shown.split("\u00a0")[1] in labels.time_of_day(at)
    assert cards.rich("on 31 Feb 2026 05:41 UTC") == "on 31 Feb 2026 05:41 UTC"
    drawn: Any = plots.time_axis("at", at, at + timedelta(hours=6)).to_dict()
    axis = drawn["axis"]
    (first, *_) = axis["values"]
    local = labels.to_local(datetime.fromtimestamp(first / 1000.0, UTC))
    assert local.minute == 0, "ticks are at the reader's whole hours"
    assert ("utcFormat" in axis["labelExpr"]) is (zone is UTC)


@given(st.text(alphabet="<>&\"'abc "))
def test_no_card_lets_markup_through(text: str) -> None:
    label = labels.VERDICT_LABELS["failed"]
    html = "".join(
        [
            cards.verdict(cards.VerdictCard(label, text, [(text, text)], text, text)),
            cards.tiles([cards.Tile(text, text, below=text)]),
            cards.pair_bars([(text, 1, 2, 3)]),
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


def test_a_long_answer_is_cut_and_says_so_and_bars_of_all_suites_share_one_scale() -> None:
    panels = answers.render(
        answers.AnswerPanel("Current", "word " * 5000, "✓ correct", Tone.BETTER),
        answers.AnswerPanel("Candidate", "short", "✕ wrong", Tone.WORSE),
    )
    assert "The first 6,000 of 25,000 characters." in panels.replace("\xa0", " ")
    bars = cards.pair_bars([("a", 20, 10, 0), ("b", 5, 0, 1)])
    assert re.findall(r"width:([\d.]+)%", bars) == [
        "39.00",
        "78.00",
        "0.00",
        "19.50",
    ]


@pytest.mark.parametrize("looks", list(Looks))
@pytest.mark.parametrize(
    ("claim", "won", "lost"),
    [(Claim.SUPERIOR, 40, 4), (Claim.NON_INFERIOR, 2, 90), (Claim.NON_INFERIOR, 5, 5)],
)
def test_the_plotted_whisker_is_the_interval_that_decides(
    looks: Looks,
    claim: Claim,
    won: int,
    lost: int,
) -> None:
    plans = [replace(plan(claim=claim), looks=looks)]
    verdict = ask(plans, {"math": leaning(won, lost)})
    assert verdict is not None
    basis = VerdictBasis.from_verdict(verdict)
    intervals = decision_intervals(verdict)

    frame = plots.suite_frame(verdict.suites, {"math": "Sums"}, basis, intervals)

    drawn = plots.forest(frame, LIGHT).to_dict()
    whisker = drawn["layer"][1]
    assert (whisker["encoding"]["x"]["field"], whisker["encoding"]["x2"]["field"]) == (
        "low",
        "high",
    )
    (row,) = drawn["datasets"][whisker["data"]["name"]]
    ends = intervals["math"]
    assert (row["low"], row["high"]) == (ends.low * 100, ends.high * 100)
    assert row["limit"] == verdict.suites[0].limit * 100
    assert (row["low"] >= row["limit"]) is (verdict.outcome == "passed")
    assert (row["high"] <= row["limit"]) is (verdict.outcome == "failed")
    assert row["row"] == "Sums"


def test_a_suite_of_a_mean_has_a_point_alone_and_the_primary_suites_come_first() -> None:
    verdict = ask(weighted(1.0, 1.0), named(leaning(20, 2), leaning(14, 5)))
    assert verdict is not None
    basis = VerdictBasis.from_verdict(verdict)
    reports = list_reports(basis)

    frame = plots.suite_frame(reports, {}, basis, decision_intervals(verdict))

    assert frame["low"].notna().tolist() == [True, False, False]
    assert frame["limit"].notna().tolist() == [True, False, False]
    assert plots.suite_frame([report(n_used=0)], {}, basis, {}).empty
    primary = report("z", role=SuiteRole.PRIMARY)
    assert [r.suite for r in sort_for_reading([report("a"), primary])] == ["z", "a"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "✓ correct"),
        ({"strict": 0.0, "lenient": 0.0}, "✕ wrong"),
        ({"strict": 0.5, "lenient": 0.5}, "◐ 0.50"),
        ({"strict": 0.0, "rule": "code_fence"}, "✕ wrong form (code_fence)"),
        (
            {
                "strict": None,
                "lenient": None,
                "error": SampleError.UNSCORED,
            },
            "? not scored",
        ),
        (
            {
                "strict": None,
                "lenient": None,
                "error": SampleError.INFRA,
            },
            "? no answer",
        ),
    ],
)
def test_a_rating_has_a_shape_and_a_word(changes: dict[str, Any], says: str) -> None:
    assert answers.rating(replace(SAMPLE, **changes)) == says


@pytest.mark.req("A3")
def test_cost_is_told_per_thousand_requests_and_draws_no_trend_without_a_price() -> None:
    trend = overview.cost_trend(
        [
            minute(0),
            minute(1, cost_usd=0.4),
            minute(5),
        ]
    )
    assert trend == pytest.approx([3.0, 2.0])
    assert "cost per 1,000 requests" in overview.last_hour([minute(0), minute(5)])
    unpriced = [
        minute(0),
        minute(1, cost_usd=0.0, unpriced=7),
        minute(5),
    ]
    assert "cost per 1,000 requests" not in overview.last_hour(unpriced)
    assert "no request" in overview.last_hour([])


def test_the_last_hour_of_a_route_counts_callers_who_left() -> None:
    shown = overview.last_hour([minute(0, unanswered=7)])

    assert "7 left without an answer" in shown
    assert "0 failed" not in shown


def sliced(*found: SliceFigures, **more: Any) -> dict[str, pd.DataFrame]:
    details = SuiteFigures(slices=found, **more).as_json()
    return dict(plots.slice_frames(report(details=details)))


def test_charts_of_one_suite_s_slices_share_a_scale_and_one_before_its_look_is_untested() -> (
    None
):
    charts = sliced(
        SliceFigures("language", "da", 60, 90, -0.5, -0.6, -0.4, 0.5),
        SliceFigures("product", "x", 60, 90, 0.01, -0.09, 0.11, 0.5),
    )
    everything = pd.concat(charts.values())
    drawn = [plots.forest(frame, LIGHT, everything).to_dict() for frame in charts.values()]
    one, other = (figure["layer"][1]["encoding"]["x"]["scale"]["domain"] for figure in drawn)
    assert one == other
    assert one[0] <= -60.0

    early = SliceFigures("language", "da", 12, 90, -0.2, -0.5, 0.1)
    (frame,) = sliced(early, cluster="document").values()
    assert list(frame["verdict"]) == ["? too few items"]
    assert list(frame["row"]) == ["da|12 clusters"]
    assert frame["limit"].isna().all()
    assert plots.slice_frames(report()) == {}


@pytest.mark.req("F5")
def test_the_dashboard_without_single_sign_on_stays_on_loopback_and_loads_nothing() -> None:
    oidc = OidcSettings("https://l.example", "swapproof", "SECRET", "https://s.example", {})
    for host in ("0.0.0.0", "192.0.2.1", "example.org"):  # noqa: S104 - refused
        with pytest.raises(ConfigError, match="loopback only"):
            serve.require_loopback(host)
        serve.require_loopback(host, oidc)
    for host in ("127.0.0.1", "::1", "localhost"):
        serve.require_loopback(host)
    for remote in ("url(", "@import", "http"):
        assert remote not in theme.css()


def test_what_every_prompt_begins_with_is_left_out_of_the_questions_whole_words_only() -> None:
    asked = {
        "a": "Answer shortly: where is it?",
        "b": "Answer shortly: who was it?",
    }

    assert strip_common_start(asked) == (
        {"a": "where is it?", "b": "who was it?"},
        "Answer shortly: ",
    )
    assert strip_common_start({"a": "Answer shortly: where?"})[1] == ""
    assert strip_common_start({"a": "The sun", "b": "The sea"})[1] == ""
    # A sentence that begins alike stays whole, unless its beginning is long.
    mails = {
        "a": "Be short. Which team answers mail 8?",
        "b": "Be short. Which team is it?",
    }
    assert strip_common_start(mails | {"c": "Be short. Which one?"})[1] == ""
    long = "Be short. Which team of the " + "very " * 12
    assert strip_common_start({"a": f"{long}old house?", "b": f"{long}new one?"})[1] == long


def test_a_download_runs_no_formula_and_keeps_every_column() -> None:
    frame = pd.DataFrame(
        {
            "item": ["a", "=1+1"],
            "answer": ["@SUM(A1)", "−2"],
            "s": [0.5, -1],
        }
    )

    assert to_csv(frame).decode("utf-8-sig").splitlines() == [
        '"item","answer","s"',
        '"a","\'@SUM(A1)",0.5',
        '"\'=1+1","−2",-1.0',
    ]


def test_a_price_that_is_unknown_stands_apart_from_the_sum_and_is_no_zero() -> None:
    assert ">and 2 requests of unknown price<" in keys.unpriced(2)
    assert (keys.unpriced(0), "and" in keys.unpriced(2, known=False)) == (
        "",
        False,
    )
    run = EvalRun("run_1", "tickets", "d", "t_a", 1, 1, 9, RunState.DONE, START)
    costs = (
        (9, 0.0, "no known cost"),
        (0, 0.0, "$0.00"),
        (9, 1.5, "$1.50"),
    )
    for samples, cost_usd, words in costs:
        assert run_cells(RunView(run, "a", samples, cost_usd), {}, START)["Cost"] == words
