import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.online.guardrails import Guardrail
from harness.gate.online.observation import ASSIGNED
from harness.gate.online.outcome import (
    ANSWERED,
    BY_OUTCOME,
    OUTCOME_NAMES,
    READINGS,
    REASON_WORDS,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
    Reading,
    WaitLimits,
    outcome_key,
    outcome_name,
    read,
    settle_departure,
    split_key,
)

pytestmark = pytest.mark.req("F3", "F4")
KIND = OutcomeKind
REASON = OutcomeReason
seconds = st.floats(0.0, 1e6)
outcomes = st.builds(
    ExposureOutcome,
    st.sampled_from(KIND),
    st.none() | st.sampled_from(REASON),
    st.text(),
    seconds,
    st.booleans(),
    st.none() | seconds,
    seconds,
)
LIMITS = WaitLimits(first_s=4.0, stream_first_s=2.0, gap_s=1.0)


def left(
    waited_s: float,
    *,
    sent: bool = False,
    reason: OutcomeReason = REASON.EARLY,
) -> ExposureOutcome:
    return ExposureOutcome(
        KIND.LEFT,
        reason,
        waited_s=waited_s,
        sent=sent,
    )


@given(outcomes)
def test_an_outcome_comes_back_from_json_as_it_was(outcome: ExposureOutcome) -> None:
    assert ExposureOutcome.from_plain(json.loads(json.dumps(outcome.plain))) == outcome


@given(st.sampled_from(KIND), st.none() | st.sampled_from(REASON))
def test_a_key_names_kind_and_reason(kind: OutcomeKind, reason: OutcomeReason | None) -> None:
    assert split_key(outcome_key(kind, reason)) == (kind, reason)


def test_every_kind_and_reason_has_words() -> None:
    assert set(OUTCOME_NAMES) == set(KIND)
    assert set(REASON_WORDS) == set(REASON)
    assert outcome_name("limited: rate") == "Limited by the provider: rate limit"
    assert outcome_key(KIND.NOT_SENT, REASON.PAUSE).startswith(ASSIGNED)


def test_each_guardrail_reads_every_kind() -> None:
    assert set(READINGS) == set(Guardrail)
    assert all(set(row) == set(KIND) for row in READINGS.values())
    assert all(row[KIND.ANSWERED] is Reading.GOOD for row in READINGS.values())


def test_no_guardrail_reads_an_outcome_that_was_not_measured_as_good_or_bad() -> None:
    rows = READINGS.values()
    assert {row[KIND.NOT_MEASURED] for row in rows} == {Reading.UNKNOWN}


def test_a_missing_outcome_counts_as_bad_until_missing_outcomes_are_read_for_an_arm() -> None:
    missing = ExposureOutcome(KIND.NOT_MEASURED, REASON.MISSING)
    assert {read(guardrail, missing) for guardrail in Guardrail} == {Reading.BAD}


def test_guardrails_of_answers_depend_on_the_outcome_and_errors_do_not() -> None:
    assert Guardrail.TRUNCATION in BY_OUTCOME
    assert BY_OUTCOME.isdisjoint({Guardrail.ERRORS, Guardrail.LEAVING, Guardrail.LIMITS})


@pytest.mark.parametrize(
    ("departure", "streamed", "settled"),
    [
        (left(4.1), False, (KIND.LEFT, REASON.WAITED)),
        (left(4.0), False, (KIND.LEFT, REASON.EARLY)),
        (left(2.1), True, (KIND.LEFT, REASON.WAITED)),
        (left(1.1, sent=True), True, (KIND.LEFT, REASON.WAITED)),
        (left(1.0, sent=True), True, (KIND.STOPPED, None)),
        (
            left(4.1, reason=REASON.DEADLINE_EARLY),
            False,
            (KIND.LEFT, REASON.DEADLINE_WAITED),
        ),
        (
            left(0.1, reason=REASON.DEADLINE_EARLY),
            False,
            (KIND.LEFT, REASON.DEADLINE_EARLY),
        ),
        (ANSWERED, True, (KIND.ANSWERED, None)),
    ],
)
def test_a_caller_who_leaves_after_a_long_wait_is_told_from_one_who_stops_a_stream(
    departure: ExposureOutcome,
    streamed: bool,  # noqa: FBT001 - a parameter of the test
    settled: tuple[OutcomeKind, OutcomeReason | None],
) -> None:
    found = settle_departure(departure, LIMITS, streamed=streamed)
    assert (found.kind, found.reason) == settled


def test_while_the_limit_is_unknown_no_departure_is_harm() -> None:
    for sent in (False, True):
        found = settle_departure(left(900.0, sent=sent), WaitLimits(), streamed=True)
        assert read(Guardrail.LEAVING, found) is Reading.GOOD


@given(outcomes, st.booleans())
def test_a_departure_is_settled_once(outcome: ExposureOutcome, streamed: bool) -> None:  # noqa: FBT001
    settled = settle_departure(outcome, LIMITS, streamed=streamed)
    assert settle_departure(settled, LIMITS, streamed=streamed) == settled
