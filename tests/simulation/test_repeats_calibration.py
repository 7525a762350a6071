"""Does the guardrail of repeated texts blame a route of labels, and how soon does it see one
error text (statistics.md §2.2)? Seeded.
"""

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import product

import pytest

from harness.gate.online.evidence_paths import counts_path, guardrail_weights
from harness.gate.online.guardrails import FailureTally, Guardrail, Guardrails
from harness.gate.online.outcome import ANSWERED
from harness.gate.online.reading.repeated_texts import RepeatedTexts
from harness.gate.online.reading.scored_exposures import AnswerFault, LedgerExposure, OpenBlock
from tests.support.sampling import one_in

pytestmark = pytest.mark.req("F3")

AT = datetime(2026, 1, 1, tzinfo=UTC)
BLOCK = 100
LONG = 60  # characters
TOLERATED = Guardrails().tolerated()
ALPHA = 0.04
_WEIGHT = guardrail_weights([Guardrail.ERRORS, *TOLERATED])[Guardrail.REPEATS]
# The evidence at which this guardrail alone rolls a default canary back.
ROLLBACK = math.log(1.0 / (ALPHA * _WEIGHT))
Draw = Callable[[random.Random], tuple[int, int]]


def labels(*weights: float, length: int = LONG) -> Draw:
    texts = [(number + 1, length) for number in range(len(weights))]
    return lambda draw: draw.choices(texts, weights)[0]


def varied(draw: random.Random) -> tuple[int, int]:
    return draw.getrandbits(40) + 100, 200


def error_text(share: float) -> Draw:
    return lambda draw: (7, 81) if draw.random() < share else varied(draw)


def rollout_evidence(
    canary: Draw, control: Draw, share: float, *, blocks: int, seed: Sequence[int]
) -> tuple[float, int]:
    """Returns the highest evidence of harm, and the exposures until the rollback."""
    draw, repeated = random.Random(repr(seed)), RepeatedTexts()
    tallies, exposures, question = list[FailureTally | None](), list[int](), 0
    opened = OpenBlock(int(share * 10_000), 0.0, AT, 1)
    for _ in range(blocks):
        units = []
        for _ in range(BLOCK):
            unit = LedgerExposure(opened, key=0, canary=draw.random() < share, traits=1)
            question += 1
            unit.outcome, unit.question = ANSWERED, question
            unit.text, unit.text_length = (canary if unit.canary else control)(draw)
            units.append(unit)
        repeated.mark(units)
        bad = [bool(unit.bad & AnswerFault.REPEATED.value) for unit in units]
        arms = [unit.canary for unit in units]
        both = [b and c for b, c in zip(bad, arms, strict=True)]
        tallies.append(FailureTally(BLOCK, sum(arms), sum(bad), sum(both)))
        exposures.append(sum(arms))
    path = counts_path(tallies, TOLERATED[Guardrail.REPEATS], shares=[share] * blocks)
    first = next((n for n, log_e in enumerate(path) if log_e >= ROLLBACK), blocks)
    return float(max(path)), sum(exposures[: first + 1])


ROUTES: dict[str, Draw] = {
    "ten labels": labels(*[0.1] * 10),
    "ten unequal labels": labels(0.3, 0.2, 0.1, 0.1, *[0.05] * 6),
    "a short label and a long one": labels(0.55, 0.45),
    "a canned text now and then": error_text(0.05),
    "no repeats": varied,
}


@pytest.mark.parametrize(("route", "share"), one_in(2, product(ROUTES, [0.05, 0.25, 0.99])))
def test_equal_models_are_not_rolled_back(route: str, share: float) -> None:
    answer = ROUTES[route]
    runs = [
        rollout_evidence(answer, answer, share, blocks=40, seed=(1, n))[0] for n in range(40)
    ]
    assert sum(log_e >= ROLLBACK for log_e in runs) <= 0.05 * len(runs)


def test_a_candidate_that_words_the_labels_at_length_is_not_rolled_back() -> None:
    short = labels(*[0.1] * 10, length=9)
    runs = [
        rollout_evidence(ROUTES["ten labels"], short, 0.25, blocks=60, seed=(2, n))[0]
        for n in range(60)
    ]
    assert sum(log_e >= ROLLBACK for log_e in runs) <= 3


@pytest.mark.parametrize(
    ("repeating", "share", "most"),
    [(0.98, 0.05, 60), (0.98, 0.25, 80), (0.3, 0.25, 200), (0.3, 0.05, 250)],
)
def test_one_error_text_is_found(repeating: float, share: float, most: int) -> None:
    runs = [
        rollout_evidence(error_text(repeating), varied, share, blocks=120, seed=(3, n))
        for n in range(20)
    ]
    assert all(log_e >= ROLLBACK for log_e, _ in runs)
    assert sorted(exposures for _, exposures in runs)[len(runs) // 2] <= most
