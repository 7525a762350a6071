"""Stored reasons stay as they are; what people read is put right beside them."""

import pytest

from harness.domain.evals.run import VERDICTS
from harness.gate.text.sentences import outcome_text, polish_reason

pytestmark = pytest.mark.req("A7")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("Not measured: the judge is away.", "the judge is away."),
        ("tickets: Not measured: no reply.", "tickets: no reply."),
        ("The loss is open: you may have no access to it..", None),
        (
            "at most 1 points worse (the allowed loss)",
            "at most 1 point worse (the allowed loss)",
        ),
        (
            "the allowed loss of 1 points: +2.1 points",
            "the allowed loss of 1 point: +2.1 points",
        ),
        ("at most 0.1 points worse, 11 points, −1 points", ""),
        ("and so on...", ""),
    ],
)
def test_a_reason_is_said_plainly(stored: str, said: str | None) -> None:
    expected = stored[:-1] if said is None else said or stored
    assert polish_reason(stored) == expected
    assert polish_reason(expected) == expected


def test_an_outcome_is_called_as_its_verdict_is() -> None:
    assert outcome_text("infra_error") == "not measured"
    assert outcome_text("harness_mismatch") == "format mismatch"
    assert {outcome_text(verdict) for verdict in VERDICTS} == {
        kind.words.lower() for kind in VERDICTS.values()
    }
    assert outcome_text("running") == "running"
