"""The canary's evidence: laws, states that can be stored, and the worked numbers."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.canary.guardrails import FailureTally
from harness.domain.canary.observation import ObservationBlock
from harness.domain.errors import InputError
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.evidence_paths import counts_path, odds_grid
from harness.gate.online.fisher import log_factors
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.store.records import PLAIN_BLOCK

pytestmark = pytest.mark.req("F3")

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@st.composite
def counts(draw: st.DrawFn) -> FailureTally:
    units = draw(st.integers(0, 120))
    canary = draw(st.integers(0, units))
    failures = draw(st.integers(0, units))
    low, high = max(0, failures - units + canary), min(canary, failures)
    return FailureTally(units, canary, failures, draw(st.integers(low, high)))


def block(number: int, counts: FailureTally, weight_bps: int = 100) -> ObservationBlock:
    return replace(
        PLAIN_BLOCK,
        sequence=number,
        number=number,
        weight_bps=weight_bps,
        units=counts.units,
        canary_units=counts.canary,
        failures=counts.failures,
        canary_failures=counts.canary_failures,
    )


@given(found=counts())
def test_the_factors_average_to_1_over_what_could_have_happened(found: FailureTally) -> None:
    """An e-value: its mean is 1 when the null is true, whatever the block's margins."""
    low = max(0, found.failures - found.units + found.canary)
    high = min(found.canary, found.failures)
    null, harm = 1.0, 3.0
    others = found.units - found.canary
    ways = [
        math.comb(found.canary, y) * math.comb(others, found.failures - y)
        for y in range(low, high + 1)
    ]
    mean = sum(
        way
        / sum(ways)
        * math.exp(
            log_factors(found.units, found.canary, found.failures, y, odds=(null, harm))[0]
        )
        for y, way in zip(range(low, high + 1), ways, strict=True)
    )
    assert mean == pytest.approx(1.0, rel=1e-9)


def log_e(found: FailureTally) -> float:
    return float(counts_path([found], weights=())[0])


@given(found=counts())
def test_a_block_without_a_choice_says_nothing(found: FailureTally) -> None:
    if found.canary in (0, found.units) or found.failures in (0, found.units):
        assert log_e(found) == 0.0


@given(found=counts())
def test_one_more_canary_failure_never_speaks_for_the_canary(found: FailureTally) -> None:
    more = FailureTally(
        found.units, found.canary, found.failures, min(found.canary, found.canary_failures + 1)
    )
    if more.canary_failures > min(more.failures, more.canary):
        return
    assert log_e(more) >= log_e(found) - 1e-12


def test_what_cannot_be_counted_is_refused() -> None:
    for bad in (
        FailureTally(10, 11, 0, 0),
        FailureTally(10, 1, 11, 0),
        FailureTally(10, 1, 5, 2),
        FailureTally(10, 9, 5, 2),
        FailureTally(-1, 0, 0, 0),
    ):
        with pytest.raises(InputError):
            log_e(bad)
    with pytest.raises(InputError, match="rho is an odds ratio"):
        odds_grid(math.nan)


def test_nothing_seen_is_no_evidence_of_anything() -> None:
    evidence = collect_evidence([], CanaryPolicy())
    assert (evidence.log_e, evidence.log_certificate) == pytest.approx((0.0, 0.0))
    assert not len(counts_path([], weights=()))
