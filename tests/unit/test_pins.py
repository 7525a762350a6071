"""What was served: when it is one measurement, and when another model took its place (F6)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.evals.proof_validity import list_pin_differences
from harness.gate.offline.verdicts import (
    decide_verdict,
    replay_verdict,
    verdict_bytes,
)
from harness.gate.pins import (
    ServedModel,
    ServedPin,
    Sighting,
    find_replacement,
)
from harness.gate.run import Sample
from harness.gate.suite_plan import Claim, SuitePin, SuitePlan, SuiteRole

pytestmark = pytest.mark.req("F6")

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
A = ServedModel("m-1", "fp_1")
B = ServedModel("m-2", "fp_1")
PLAN = SuitePlan(
    "s",
    "d" * 64,
    SuiteRole.PRIMARY,
    Claim.SUPERIOR,
    0.05,
    0.05,
    30,
    1,
    7,
    served_pin=ServedPin.MODEL,
)
PIN = SuitePin("s", "1", "d" * 64, "exact@1/2+judge:t_1/3", "t", 30)


def sighting(served: ServedModel, at: datetime) -> Sighting:
    return Sighting("t", served, at, at)


def side(
    run: str,
    score: float,
    served: ServedModel,
    judge: str = "j-1",
) -> list[Sample]:
    return [
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
            served_model=served.model,
            served_build=served.build,
            judge_model=judge,
        )
        for n in range(30)
    ]


def test_a_newer_sighting_of_another_model_replaces_the_measured_one() -> None:
    both = [sighting(A, NOW), sighting(B, NOW + HOUR)]

    assert find_replacement([A], both, ServedPin.MODEL) == both[1]
    assert (
        find_replacement([A], [sighting(A, NOW), sighting(B, NOW - HOUR)], ServedPin.MODEL)
        is None
    )
    assert find_replacement([A, B], both, ServedPin.MODEL) is None
    assert find_replacement([A], both, ServedPin.NONE) is None


def test_a_model_that_comes_and_goes_after_the_decision_counts_too() -> None:
    both = [sighting(A, NOW + 2 * HOUR), sighting(B, NOW + HOUR)]

    assert find_replacement([A], both, ServedPin.MODEL, decided_at=NOW) == both[1]
    assert find_replacement([A], both, ServedPin.MODEL, decided_at=NOW + 2 * HOUR) is None


def test_a_build_counts_only_where_it_is_pinned_and_told() -> None:
    other = [sighting(ServedModel("m-1", "fp_2"), NOW)]

    assert find_replacement([A], other, ServedPin.MODEL) is None
    assert find_replacement([A], other, ServedPin.BUILD) == other[0]
    assert find_replacement([A], [sighting(ServedModel("m-1"), NOW)], ServedPin.BUILD) is None


def test_of_what_was_never_told_nothing_can_be_said() -> None:
    assert find_replacement([ServedModel("")], [sighting(B, NOW)], ServedPin.MODEL) is None
    assert find_replacement([], [sighting(B, NOW)], ServedPin.MODEL) is None


def test_what_was_served_is_part_of_the_verdict_and_of_its_id() -> None:
    def decided(served: ServedModel, plan: SuitePlan = PLAN) -> object:
        samples = {"s": (side("r1", 0.0, A), side("r2", 1.0, served))}
        return decide_verdict("chat", "t_1", "t_2", [plan], samples, NOW, 60.0)

    one = decided(B)
    other = decided(A)

    assert one is not None
    assert other is not None
    assert one.inputs["served"]["s"]["candidate"] == [["m-2", "fp_1"]]  # type: ignore[attr-defined]
    assert one.id != other.id  # type: ignore[attr-defined]
    assert verdict_bytes(replay_verdict(one)) == verdict_bytes(one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data_sha256": "e" * 64}, "data"),
        ({"scorer": "exact@9/2+judge:t_1/3"}, "scorer"),
        ({"scorer": "exact@1/2+judge:t_9/3"}, "judge"),
        ({"template": "u"}, "prompt or settings"),
        ({"version": "2"}, "version"),
    ],
)
def test_a_piece_that_differs_is_named(change: dict[str, str], says: str) -> None:
    changed = replace(PIN, **change)  # type: ignore[arg-type] # texts only

    (piece,) = list_pin_differences(PIN, changed)

    assert piece.startswith(f"{says}, ")
    assert changed.digest != PIN.digest
