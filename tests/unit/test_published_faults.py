"""How a published scenario is judged, and that its provider breaks as it says."""

from dataclasses import replace

import pytest

from benchmarks.faults.published import SCENARIOS, WHOLE, Flap, Result, verdict
from benchmarks.faults.published_provider import DOWN_S

BY_ID = {scenario.id: scenario for scenario in SCENARIOS}
GOOD = Result(WHOLE, "", 1.0, "ok", usage=True, times=(0.0, 2.0))
TOLD = replace(GOOD, text="", error="APIError: it broke off")
CUT = replace(GOOD, text=WHOLE[:40])


@pytest.mark.parametrize(
    ("scenario", "seen", "outcome"),
    [
        ("s01", GOOD, "pass"),
        ("s01", replace(GOOD, times=(0.0, 0.1)), "partial"),
        ("s01", replace(GOOD, times=(0.0, 0.1, 0.2)), "fail"),
        ("s04", TOLD, "safe"),
        ("s04", replace(GOOD, took_s=41.0), "fail"),
        ("s07", replace(GOOD, took_s=16.0), "partial"),
        ("s08", CUT, "fail"),
        ("s08", TOLD, "safe"),
        ("s11", replace(GOOD, usage=False), "partial"),
        ("s12", replace(TOLD, times=(0.0,)), "safe"),
        ("s12", GOOD, "fail"),
        ("s13", replace(TOLD, times=(0.0,)), "pass"),
        ("s13", replace(GOOD, times=(0.0,)), "partial"),
        ("s16", replace(GOOD, model="s16"), "fail"),
    ],
)
def test_a_scenario_is_judged_by_what_its_client_and_its_provider_saw(
    scenario: str, seen: Result, outcome: str
) -> None:
    assert verdict(BY_ID[scenario], seen) == outcome


def test_an_outage_is_passed_by_who_answers_meanwhile_and_is_back_in_time() -> None:
    calls = [(0.0, GOOD), (DOWN_S + 4, GOOD)]

    assert Flap(calls, back_after_s=8.0).verdict == "pass"
    assert Flap(calls, back_after_s=31.0).verdict == "fail"
    assert Flap(calls).verdict == "fail"
    assert Flap([(0.0, TOLD), *calls], back_after_s=8.0).verdict == "fail"
    assert Flap([*calls, (DOWN_S + 8, TOLD)], back_after_s=8.0).verdict == "safe"
