"""A verdict compares the models that were asked, or it is NOT MEASURED (F3, F6)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.canary.decision import describe_fallback_answers
from harness.frame.plain_data import canonical_json
from harness.gate.offline.verdicts import (
    decide_verdict,
    replay_verdict,
    verdict_bytes,
)
from harness.gate.online.guardrails import ArmSplit
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout
from harness.gate.pins import ServedPin
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.gate.run import Sample, SampleError
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from harness.gate.verdict import InfraError, Passed, Verdict
from tests.support.store.records import rollout as stored_rollout

pytestmark = pytest.mark.req("F3", "F6")

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ITEMS = 60
PLAN = SuitePlan(
    "s",
    "d" * 64,
    SuiteRole.PRIMARY,
    Claim.SUPERIOR,
    0.05,
    0.05,
    ITEMS,
    1,
    7,
    served_pin=ServedPin.MODEL,
)


def side(
    run: str,
    score: float,
    model: str,
    *,
    marked: int = 0,
) -> list[Sample]:
    """The first `marked` answers come from a gateway's fallback."""
    whole = [
        Sample(
            run,
            f"i{n}",
            0,
            n,
            "a",
            score,
            score,
            1,
            1,
            None,
            0.1,
            served_model=model,
        )
        for n in range(ITEMS)
    ]
    lost = {
        "strict": None,
        "lenient": None,
        "error": SampleError.FALLBACK,
        "served_model": "",
    }
    return [replace(sample, **lost) for sample in whole[:marked]] + whole[marked:]  # type: ignore[arg-type]


def decided(
    incumbent: list[Sample],
    candidate: list[Sample],
    *,
    models: tuple[str, str] = ("old", "new"),
    confirmed: bool = False,
) -> Verdict:
    verdict = decide_verdict(
        "chat",
        "t_1",
        "t_2",
        [PLAN],
        {"s": (incumbent, candidate)},
        NOW,
        60.0,
        models=models,
        same_model_confirmed=confirmed,
    )
    assert verdict is not None
    assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)
    return verdict


def test_answers_that_a_gateway_marks_are_not_measured() -> None:
    found = decided(side("r1", 0.0, "old"), side("r2", 1.0, "new", marked=ITEMS))
    assert isinstance(found, InfraError)
    assert "marks 60 of the candidate's 60 answers" in found.reason


def test_marks_of_the_incumbent_count_as_well() -> None:
    found = decided(side("r1", 0.0, "old", marked=10), side("r2", 1.0, "new"))
    assert isinstance(found, InfraError)
    assert "of the incumbent's" in found.reason


def test_a_few_marked_answers_are_missing_scores() -> None:
    found = decided(side("r1", 0.0, "old"), side("r2", 1.0, "new", marked=1))
    assert isinstance(found, Passed)


def test_one_model_behind_two_names_is_not_measured_until_it_is_confirmed() -> None:
    sides = side("r1", 0.0, "old"), side("r2", 1.0, "old")
    found = decided(*sides)
    assert isinstance(found, InfraError)
    assert "old and new were asked, but both were served by old" in found.reason
    assert "confirm-same-model" in found.reason

    assert isinstance(decided(*sides, confirmed=True), Passed)


def test_one_name_may_serve_both_arms_if_one_name_was_asked() -> None:
    sides = side("r1", 0.0, "m"), side("r2", 1.0, "m")
    found = decided(*sides, models=("m", "m"))
    assert isinstance(found, Passed)
    assert "same_model" not in found.inputs


def test_answers_without_a_name_say_nothing() -> None:
    assert isinstance(decided(side("r1", 0.0, ""), side("r2", 1.0, "")), Passed)


def test_a_verdict_without_these_facts_has_the_inputs_that_it_had() -> None:
    found = decided(side("r1", 0.0, "old"), side("r2", 1.0, "new"))
    assert "fallback" not in canonical_json(found.inputs)
    assert "same_model" not in found.inputs


def block(
    rollout: Rollout,
    *,
    canary: int,
    marked: int,
) -> ObservationBlock:
    key = "not_measured: gateway_fallback"
    return ObservationBlock(
        rollout=rollout.id,
        worker="w",
        sequence=1,
        weight_bps=500,
        units=100,
        canary_units=canary,
        failures=0,
        canary_failures=0,
        missing=0,
        opened_at=NOW,
        closed_at=NOW,
        outcomes={
            "answered": ArmSplit(100 - marked, canary - marked),
            key: ArmSplit(marked, marked),
        },
    )


@pytest.mark.parametrize(
    ("marked", "holds"),
    [
        (0, False),
        (1, False),
        (2, True),
        (20, True),
    ],
)
def test_a_step_holds_if_a_gateway_marks_more_than_a_twentieth_of_an_arm(
    marked: int,
    holds: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    policy = CanaryPolicy(steps=(CanaryStep(500, 50),))
    rollout = stored_rollout(policy=policy)
    why = describe_fallback_answers(rollout, [block(rollout, canary=20, marked=marked)])
    assert bool(why) is holds
    assert not holds or f"{marked} of the candidate's 20 answers" in why
