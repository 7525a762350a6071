"""How a game day is judged: what counts as predicted, and what the books may lack."""

from dataclasses import replace
from pathlib import Path

from benchmarks.gameday import verdict
from benchmarks.gameday.acts import ACTS, Break
from benchmarks.gameday.traffic import Request

KILLED = next(act for act in ACTS if act.in_flight_fails)
OTHER = next(act for act in ACTS if not act.in_flight_fails and not act.streams_break_off)
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


def test_every_act_names_a_page_that_is_there() -> None:
    docs = Path(__file__).parents[2] / "docs"

    for act in ACTS:
        assert (docs / act.page).is_file()
