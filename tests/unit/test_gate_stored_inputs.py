"""What a verdict stores of its inputs, field by field, and reads back."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness.domain.evals.pins import ServedModel, ServedModels
from harness.domain.evals.suite_plan import Claim, ClaimPopulation
from harness.domain.evals.verdict import ScorePair
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.replay import (
    RULES_VERSION,
    claims_from_json,
    inputs_to_json,
    run_ids,
    served_from_json,
    verdict_times,
)
from harness.gate.offline.suite_claims import SuiteClaim
from tests.unit.test_gate_verdicts import NOW, plan

pytestmark = pytest.mark.req("F1", "F5")

LATER = NOW + timedelta(hours=1)
MARKED = PairedItem(
    ScorePair("q1", 0.5, 0.25, 1.0, 0.75),
    unscored_incumbent=1,
    unscored_candidate=2,
    unanswered=True,
    rules=("case", "quotes"),
)
PLAIN = PairedItem(ScorePair("q0", 1.0, 0.0, 1.0, 0.0))


def written(case: SuiteClaim) -> dict[str, Any]:
    return dict(inputs_to_json([case], NOW, LATER))


def through_json(inputs: Mapping[str, object]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(inputs)))


def test_the_inputs_of_a_plain_suite_are_these_fields_and_no_others() -> None:
    case = SuiteClaim(plan(n_max=9), PairedSuite((PLAIN, MARKED), "run_a", "run_b"))

    assert written(case) == {
        "rules": RULES_VERSION,
        "plans": [plan(n_max=9).as_json()],
        "pairs": {"math": [["q0", 1.0, 0.0, 1.0, 0.0], ["q1", 0.5, 0.25, 1.0, 0.75]]},
        "runs": {"math": {"incumbent": "run_a", "candidate": "run_b"}},
        "marks": {
            "math": {
                "q1": {"unscored": [1, 2], "unanswered": True, "rules": ["case", "quotes"]}
            }
        },
        "blocked": {},
        "stopped": {},
        "decided_at": NOW.isoformat(),
        "expires_at": LATER.isoformat(),
    }
    assert verdict_times(written(case)) == (NOW, LATER)
    assert run_ids(written(case), "math") == ("run_a", "run_b")


@pytest.mark.parametrize(
    "change",
    [
        {"unscored_incumbent": 1},
        {"unscored_candidate": 1},
        {"unanswered": True},
        {"rules": ("x",)},
    ],
)
def test_one_mark_is_enough_to_be_written(change: dict[str, Any]) -> None:
    asked = replace(plan(n_max=9), population=ClaimPopulation.THESE)
    odd = replace(PLAIN, **change, costs=(1.0, 2.0), variance=0.1)
    for item, marks in ((odd, ["q0"]), (replace(PLAIN, costs=(1.0, 2.0), variance=0.1), [])):
        case = SuiteClaim(asked, PairedSuite((item,), "a", "b"))
        assert list(written(case)["marks"]["math"]) == marks


CASES = [
    SuiteClaim(plan(n_max=9), PairedSuite((PLAIN, MARKED), "a", "b"), None),
    SuiteClaim(plan(n_max=9), PairedSuite((PLAIN,), "a", "b", "away"), ("infra_error", "died")),
    SuiteClaim(plan(n_max=9), PairedSuite((), "", "")),
    SuiteClaim(
        replace(plan(n_max=9, claim=Claim.CHEAPER), min_saving=0.2, cost_ceiling=3.0),
        PairedSuite(
            (replace(PLAIN, costs=(1.0, None)), replace(MARKED, costs=(0.0, 2.0))), "a", "b"
        ),
    ),
    SuiteClaim(
        replace(plan(n_max=2), population=ClaimPopulation.THESE, pool=3),
        PairedSuite((PLAIN, MARKED), "a", "b", pool=(1.0, 0.5, 0.25)),
    ),
    SuiteClaim(
        replace(plan(n_max=2), population=ClaimPopulation.THESE, pool=3),
        PairedSuite((PLAIN, MARKED), "a", "b", pool=()),
    ),
    SuiteClaim(
        replace(
            plan(n_max=2),
            pool=3,
            epochs=2,
            population=ClaimPopulation.THESE,
        ),
        PairedSuite(
            (replace(PLAIN, variance=0.1), replace(MARKED, variance=0.2)),
            "a",
            "b",
            pool=(1.0, 0.5, 0.25),
            pool_variances=(0.0, 0.25, 0.125),
        ),
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_a_case_comes_back_as_it_was_written(case: SuiteClaim) -> None:
    (again,) = claims_from_json(through_json(written(case)))

    assert again.plan == case.plan
    assert again.stopped == case.stopped
    assert again.paired == replace(case.paired, stored_served=ServedModels())


def test_only_what_concerns_a_suite_is_written() -> None:
    keys = [set(written(case)) - set(written(CASES[0])) for case in CASES]

    pooled = {"pool", "variances"}
    assert keys == [set(), set(), set(), {"costs"}, pooled, pooled, pooled]
    assert written(CASES[3])["costs"] == {"math": [[1.0, None], [0.0, 2.0]]}
    assert written(CASES[4])["pool"] == {"math": [1.0, 0.5, 0.25]}
    assert written(CASES[6])["variances"] == {"math": [[0.0, 0.25, 0.125], [0.1, 0.2]]}
    assert written(CASES[1])["blocked"] == {"math": "away"}
    assert written(CASES[1])["stopped"] == {"math": ["infra_error", "died"]}
    # A pool is of claims about these items alone, and one that is awaited is none.
    paired = SuiteClaim(plan(n_max=2), CASES[4].paired)
    assert "pool" not in written(paired)
    assert "pool" not in written(SuiteClaim(CASES[4].plan, CASES[0].paired))


def test_what_was_served_is_written_where_anything_is_known() -> None:
    served = ServedModels((ServedModel("m-1"),), (ServedModel("m-2", "fp"),), ())
    known = SuiteClaim(plan(n_max=9), replace(CASES[0].paired, stored_served=served))
    other = SuiteClaim(plan("law", n_max=9), CASES[0].paired)
    inputs = through_json(inputs_to_json([known, other], NOW, LATER))

    assert inputs["served"] == {
        "math": {"incumbent": [["m-1", ""]], "candidate": [["m-2", "fp"]], "judge": []},
        "law": {"incumbent": [], "candidate": [], "judge": []},
    }
    assert served_from_json(inputs, "math") == served
    assert served_from_json(inputs, "law") == served_from_json(inputs, "x") == ServedModels()
    assert claims_from_json(inputs)[0].paired.served == served
