"""The incumbent's pool is made anew from the samples where a verdict is recomputed: nobody who
writes a verdict can leave it out, and have the test without it.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.domain.evals.verdict import Passed, Verdict
from harness.gate.offline.recomputation import Recomputation, recompute_verdict
from harness.gate.offline.verdicts import replay_verdict
from tests.unit.test_gate_adjusted import adjusted, drawn
from tests.unit.test_gate_combinations import AnsweredSuites, proposed
from tests.unit.test_gate_verdicts import Sides, ask, broken

pytestmark = pytest.mark.req("F1", "F2")

PLAN = adjusted(pool=500)
ENDED = {"math": ("inconclusive", "over budget")}


def whole() -> Sides:
    ours, theirs = drawn(0.4, pool=500)
    return in_runs(ours, theirs[:200])


def in_runs(ours: Any, theirs: Any) -> Sides:
    return (
        [replace(sample, run="run_a_math") for sample in ours],
        [replace(sample, run="run_b_math") for sample in theirs],
    )


def decided(found: Sides, stopped: Mapping[str, tuple[str, str]] | None = None) -> Passed:
    verdict = ask([PLAN], {"math": found}, stopped)
    assert isinstance(verdict, Passed)
    return verdict


def written_anew(verdict: Verdict, **inputs: object) -> Verdict:
    """The verdict that a writer makes who changes its inputs, consistent in itself."""
    return replay_verdict(replace(verdict, inputs={**verdict.inputs, **inputs}))


def recompute(verdict: Verdict, found: Sides, halted: Collection[str] = ()) -> Recomputation:
    suites = {"math": found}
    return recompute_verdict(verdict, proposed(AnsweredSuites((PLAN,), suites)), suites, halted)


def test_a_pool_that_was_left_out_is_found_in_the_samples() -> None:
    verdict = decided(whole())
    assert recompute(verdict, whole()).agrees

    forged = written_anew(verdict, pool={"math": []})

    assert isinstance(forged, Passed)
    found = recompute(forged, whole())
    assert not found.agrees
    assert "the incumbent's scores are not what the samples say" in found.text


def test_an_end_that_was_made_up_excuses_no_missing_pool() -> None:
    stopped = {"math": ["inconclusive", "over budget"]}

    forged = written_anew(decided(whole()), pool={"math": []}, stopped=stopped)

    assert (
        "the incumbent's scores are not what" in recompute(forged, whole(), ["run_a_math"]).text
    )


def test_a_pool_that_the_run_never_had_is_gone_without_while_it_is_over_budget() -> None:
    ours, theirs = whole()
    short = (ours[:300], theirs)
    verdict = decided(short, ENDED)
    assert verdict.inputs["pool"] == {"math": []}

    assert recompute(verdict, short, ["run_a_math"]).agrees
    assert "no run has ended early" in recompute(verdict, short).text


def test_a_pool_that_is_no_one_measurement_stays_left_out() -> None:
    ours, theirs = whole()
    flawed = [broken(sample) if sample.position >= 400 else sample for sample in ours]

    verdict = decided((flawed, theirs))

    assert verdict.inputs["pool"] == {"math": []}
    assert recompute(verdict, (flawed, theirs)).agrees
