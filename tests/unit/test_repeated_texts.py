"""One text for unlike questions, in an arm that gives it more often than the other (F3)."""

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import pytest

from harness.gate.online.guardrails import Guardrail, Guardrails
from harness.gate.online.outcome import ANSWERED
from harness.gate.online.reading.repeated_texts import RepeatedTexts
from harness.gate.online.reading.scored_exposures import AnswerFault, LedgerExposure, OpenBlock
from harness.providers.models.capabilities import Endpoint
from router.frame.body import read_request
from router.request.guardrail_probe import hash_question

pytestmark = pytest.mark.req("F3")
AT = datetime(2026, 11, 20, tzinfo=UTC)
BLOCK = 100
ERROR = 7
Answer = tuple[int, int]  # text, length


def block(
    canaries: Iterable[Answer],
    controls: Iterable[Answer],
    first: int,
) -> list[LedgerExposure]:
    units = []
    open_block = OpenBlock(500, 0.0, AT, 1)
    answers = [
        *((a, True) for a in canaries),
        *((a, False) for a in controls),
    ]
    for number, ((text, length), canary) in enumerate(answers):
        unit = LedgerExposure(
            open_block,
            key=number,
            canary=canary,
            traits=1,
        )
        unit.outcome = ANSWERED
        unit.text = text
        unit.text_length = length
        unit.question = first + number + 1
        units.append(unit)
    return units


def marked(units: list[LedgerExposure], *, canary: bool) -> int:
    bad = AnswerFault.REPEATED.value
    return sum(bool(unit.bad & bad) for unit in units if unit.canary is canary)


def play(
    canary: Callable[[], Answer],
    control: Callable[[], Answer],
    *,
    blocks: int,
    canaries: int,
) -> tuple[int, int]:
    """Returns the marked units of canary and incumbent."""
    repeated = RepeatedTexts()
    found = [0, 0]
    for number in range(blocks):
        units = block(
            [canary() for _ in range(canaries)],
            [control() for _ in range(BLOCK - canaries)],
            number * BLOCK,
        )
        repeated.mark(units)
        found[0] += marked(units, canary=True)
        found[1] += marked(units, canary=False)
    return found[0], found[1]


def test_a_constant_text_for_unlike_questions_is_marked_in_its_arm_alone() -> None:
    draw = random.Random(3)
    found = play(
        lambda: (ERROR, 81),
        lambda: (draw.getrandbits(40), 200),
        blocks=10,
        canaries=5,
    )
    assert found[0] >= 35, "the first blocks only teach what the text is"
    assert found[1] == 0


def test_the_first_block_marks_nothing() -> None:
    assert play(
        lambda: (ERROR, 81),
        lambda: (1, 81),
        blocks=1,
        canaries=50,
    ) == (0, 0)


def test_a_short_text_of_the_canary_is_no_suspect() -> None:
    draw = random.Random(3)
    found = play(
        lambda: (ERROR, 39),
        lambda: (draw.getrandbits(40), 9),
        blocks=10,
        canaries=25,
    )
    assert found == (0, 0)


def test_one_question_that_many_callers_ask_is_no_repeat() -> None:
    repeated = RepeatedTexts()
    for _ in range(5):
        units = block([(ERROR, 81)] * 50, [(1, 81)] * 50, 0)
        for unit in units:
            unit.question = 9
        repeated.mark(units)
        assert marked(units, canary=True) == 0


@pytest.mark.parametrize("canaries", [5, 25, 50, 95])
def test_equal_arms_with_ten_labels_are_marked_alike(canaries: int) -> None:
    draw = random.Random(canaries)
    labels = [(number + 1, 60) for number in range(10)]
    found = play(
        lambda: draw.choice(labels),
        lambda: draw.choice(labels),
        blocks=60,
        canaries=canaries,
    )
    shares = found[0] / (60 * canaries), found[1] / (60 * (BLOCK - canaries))
    assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_a_constant_answer_of_both_arms_marks_both() -> None:
    found = play(
        lambda: (ERROR, 81),
        lambda: (1, 5),
        blocks=10,
        canaries=50,
    )
    assert found[0] == found[1] == 450


def chat(content: str) -> int:
    system = '{"role":"system","content":"be kind"}'
    body = f'{{"model":"r","messages":[{system},{{"role":"user","content":{content}}}]}}'
    return hash_question(read_request(body.encode(), Endpoint.CHAT))


def test_questions_that_differ_in_white_space_or_form_are_one() -> None:
    assert chat('"where  is\\n my parcel "') == chat('"where is my parcel"')
    assert chat('"caf\\u00e9"') == chat('"cafe\\u0301"')
    assert chat('"where is it"') != chat('"who are you"')
    assert chat('[{"type":"text","text":"where is it"}]') == chat('"where is it"')
    assert chat('[{"type":"image_url","image_url":{"url":"x"}}]') == 0


def test_every_block_of_a_policy_counts_repeats() -> None:
    assert Guardrail.REPEATS in Guardrails().tolerated()
