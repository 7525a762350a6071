"""How a game day is judged: what counts as predicted, and what the books may lack."""

from dataclasses import replace
from pathlib import Path

import yaml

from benchmarks.gameday import prometheus, verdict
from benchmarks.gameday.acts import ACTS, Break
from benchmarks.gameday.prometheus import Firing
from benchmarks.gameday.traffic import Request

KILLED = next(act for act in ACTS if act.in_flight_fails)
OTHER = next(act for act in ACTS if not act.in_flight_fails and act.alerts)
AT = Break(begun_s=100.0, broken_s=100.1, mended_s=110.0, over_s=111.0, recovered_s=1.0)
ANSWERED = Request(1, "support", stream=False, start_s=50.0, end_s=50.2, error="")
CUT_OFF = Request(2, "support", stream=False, start_s=99.9, end_s=100.2, error="reset")
LATER = Request(3, "support", stream=False, start_s=100.2, end_s=100.4, error="reset")


def test_only_requests_that_were_under_way_at_a_routers_death_may_fail() -> None:
    requests = [ANSWERED, CUT_OFF, LATER]

    assert verdict.unpredicted(requests, [(KILLED, AT)]) == [LATER]
    assert verdict.unpredicted(requests, [(OTHER, AT)]) == [CUT_OFF, LATER]
    assert not verdict.check_requests(requests, [(KILLED, AT)]).good
    assert verdict.check_requests([ANSWERED, CUT_OFF], [(KILLED, AT)]).good


def test_an_act_answers_for_no_failure_that_another_one_predicts() -> None:
    breaks = [(KILLED, AT), (OTHER, AT)]
    killed, other = (
        verdict.judge_act(act, break_, [ANSWERED, CUT_OFF, LATER], breaks)
        for act, break_ in breaks
    )

    assert (killed.failed, killed.predicted) == (2, 1)
    assert (other.failed, other.predicted) == (1, 0)


def test_a_stream_may_break_off_with_its_providers_network_once_it_has_begun() -> None:
    lost = next(act for act in ACTS if act.streams_break_off)
    begun = replace(CUT_OFF, stream=True, error=f"APIError: {verdict.BROKE_OFF}: it is late")

    assert verdict.unpredicted([begun], [(lost, AT)]) == []
    assert verdict.unpredicted([replace(begun, start_s=100.2)], [(lost, AT)]) != []
    assert verdict.unpredicted([CUT_OFF, begun], [(lost, AT), (OTHER, AT)]) == [CUT_OFF]


def test_the_books_may_lack_what_a_killed_router_had_not_written_and_nothing_else() -> None:
    unwritten = replace(ANSWERED, number=4, start_s=98.5, end_s=98.9)
    requests = [ANSWERED, unwritten, CUT_OFF]

    for recorded, good in ((0, False), (1, True), (3, True), (4, False)):
        found = verdict.check_books(requests, {"support": recorded}, [(KILLED, AT)])
        assert found.good is good, found
    assert not verdict.check_books(requests, {"support": 1}, [(OTHER, AT)]).good


def test_a_run_that_is_done_may_lack_no_sample() -> None:
    for runs, good in (([(8, 8), (24, 24)], True), ([(8, 8), (24, 23)], False), ([], False)):
        assert verdict.check_samples(runs).good is good


def test_an_alert_has_to_fire_for_its_break_and_none_for_what_nobody_broke() -> None:
    (alert,) = OTHER.alerts
    during, before = Firing(alert, "10.0.0.21", 105.0), Firing(alert, "10.0.0.21", 20.0)
    wrong = Firing("SwapgateRequestsFail", "", 105.0)

    assert verdict.check_alerts([during], [(OTHER, AT)]).good
    assert not verdict.check_alerts([before], [(OTHER, AT)]).good
    assert not verdict.check_alerts([during, wrong], [(OTHER, AT)]).good


def test_the_rules_times_are_divided_and_their_bounds_are_not() -> None:
    rules = yaml.safe_load((prometheus.DEPLOYED / "rules.yaml").read_text("utf-8"))
    before = {rule["alert"]: rule["expr"] for rule in rules["groups"][0]["rules"]}
    after = {
        rule["alert"]: rule
        for rule in prometheus.scaled(rules, prometheus.factor(1200.0))["groups"][0]["rules"]
    }

    assert after["SwapgateCircuitOpen"]["for"] == "60s"  # of 15 minutes
    assert after["SwapgateControlStuck"]["expr"] == before["SwapgateControlStuck"]
    assert "[20s]" in after["SwapgateRequestsFail"]["expr"]


def test_every_act_names_a_page_that_is_there_and_a_rule_that_exists() -> None:
    docs = Path(__file__).parents[2] / "docs"
    rules = yaml.safe_load((prometheus.DEPLOYED / "rules.yaml").read_text("utf-8"))
    known = {rule["alert"] for rule in rules["groups"][0]["rules"]}

    for act in ACTS:
        assert (docs / act.page).is_file()
        assert set(act.alerts) <= known
    assert known >= verdict.NEVER
