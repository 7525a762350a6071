from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.online.evidence_paths import error_tally
from harness.gate.online.guardrail_report import guardrail_totals
from harness.gate.online.guardrails import (
    RANK_GUARDRAILS,
    SUM_GUARDRAILS,
    ArmSplit,
    ExposureRule,
    FailureTally,
    FeedbackTally,
    Guardrail,
    Guardrails,
    scored_count,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import (
    ANSWERED,
    MISSING,
    READINGS,
    ROUTER_FAULT,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
    Reading,
)
from harness.gate.online.prompt_cache import CacheUse, saved_seconds
from harness.gate.online.reading.observation_builder import RankPool
from harness.gate.online.reading.scored_exposures import (
    NEEDS,
    AnswerFault,
    GuardrailSample,
    LedgerExposure,
    RequestTraits,
    SampleValues,
)
from harness.gate.online.rollout_evidence import (
    CanaryEvidence,
    collect_evidence,
)
from harness.gate.policy import CanaryPolicy
from harness.providers.target import Price
from harness.routing.records.block_checks import check_block
from tests.support.canary.outcomes import outcome_of
from tests.unit.test_router_ledger import Play as LedgerPlay

pytestmark = pytest.mark.req("F3")
ALL = (
    RequestTraits.WORDS
    | RequestTraits.STREAMS
    | RequestTraits.JSON
    | RequestTraits.TOOLS
    | RequestTraits.PRICED
    | RequestTraits.SERVED
)
CALLERS = ExposureRule(block_size=20, guardrails=Guardrails().tolerated())
traits = st.integers(0, int(ALL)).map(RequestTraits)
amounts = st.floats(0, 1e6)
cache_uses = st.builds(CacheUse, st.integers(100, 10**6), st.integers(0, 100), amounts, amounts)
seens = st.builds(
    GuardrailSample,
    st.builds(SampleValues, *(amounts,) * 5, cache_uses, amounts, st.booleans()),
    st.integers(0, 15),
)


class Play(LedgerPlay):
    """Requests that a guardrail may apply to, and words about them."""

    def begin(
        self,
        key: str,
        *,
        canary: bool = False,
        kind: RequestTraits = ALL,
    ) -> LedgerExposure:
        """Admits a caller as an exposure.

        Args:
            key: empty for a caller who was not here before.
        """
        unit = self.admit(key, canary=canary, traits=kind)
        assert unit is not None
        return unit

    def ask(
        self,
        key: str,
        sample: GuardrailSample | None = None,
        *,
        canary: bool = False,
        kind: RequestTraits = ALL,
        failed: bool = False,
    ) -> LedgerExposure:
        unit = self.begin(key, canary=canary, kind=kind)
        outcome = outcome_of(failed=failed)
        self.ledger.finish(
            unit,
            outcome=outcome,
            sample=sample or good(),
            now=self.now,
        )
        return unit

    def say(self, unit: LedgerExposure, *, bad: bool) -> bool:
        return self.ledger.note_feedback(unit, bad=bad, now=self.now)

    def only(self) -> ObservationBlock:
        (block,) = self.close()
        return block


def good(seconds: float = 1.0, bad: int = 0) -> GuardrailSample:
    return GuardrailSample(SampleValues(seconds, 0.2, 0.01, 50.0, 0.001), bad)


def failed() -> GuardrailSample:
    return GuardrailSample(SampleValues(output_tokens=3.0))


@pytest.mark.req("F3")
def test_values_without_a_providers_count_are_bounds_that_no_level_contains() -> None:
    """Equal arms: 8 of 20 canary units and 2 of 20 incumbent units have no count."""
    play = Play(ExposureRule(block_size=40, guardrails=CALLERS.guardrails))
    for canary, missing in ((True, 8), (False, 2)):
        for number in range(20):
            bounded = number < missing
            tokens, cost_usd = (2.0, 0.0001) if bounded else (50.0, 0.001)
            values = SampleValues(1.0, 0.2, None, tokens, cost_usd, bounded=bounded)
            play.ask("", GuardrailSample(values), canary=canary)
    block = play.only()

    for guardrail, level in (
        (Guardrail.OUTPUT_TOKENS, 50.0),
        (Guardrail.COST_PER_SUCCESS, 0.001),
    ):
        assert block.bounds[guardrail] == ArmSplit(10, 8)
        assert block.levels[guardrail].canary == pytest.approx(level)
        assert block.levels[guardrail].control == pytest.approx(level)
        totals = guardrail_totals([block], guardrail)
        assert (totals.canary_bounds, totals.control_bounds) == (8, 2)
    assert Guardrail.LATENCY not in block.bounds


@given(
    st.lists(
        st.tuples(st.booleans(), traits, st.none() | seens),
        min_size=1,
        max_size=20,
    )
)
def test_a_blocks_findings_fit_the_units_that_each_guardrail_applies_to(
    requests: list[tuple[bool, RequestTraits, GuardrailSample | None]],
) -> None:
    play = Play(CALLERS)
    for canary, kind, evidence in requests:
        play.ask(
            "",
            evidence or failed(),
            canary=canary,
            kind=kind,
            failed=evidence is None,
        )
    block = play.only()

    for guardrail in CALLERS.guardrails.keys() - {Guardrail.FEEDBACK}:
        needs = NEEDS[guardrail]
        failure = READINGS[guardrail][OutcomeKind.FAILED]
        arms = [
            canary
            for canary, kind, evidence in requests
            if kind & needs == needs
            and (evidence is not None or failure is not Reading.UNKNOWN)
        ]
        if guardrail in SUM_GUARDRAILS:
            assert guardrail not in block.counts
        elif guardrail in RANK_GUARDRAILS:
            fewer, more = sorted((sum(arms), len(arms) - sum(arms)))
            # The values of fewer wait for those of later blocks.
            ranked = len(requests) == CALLERS.block_size
            expected = scored_count(fewer, more) if ranked else 0
            assert len(block.ranks.get(guardrail, ())) == expected
        elif not arms:
            assert guardrail not in block.counts
        else:
            tally = block.counts[guardrail]
            assert (tally.units, tally.canary) == (len(arms), sum(arms))
            assert tally.fits
    assert all(0.0 <= u <= 1.0 for ranks in block.ranks.values() for u in ranks)


def test_an_error_is_an_error_alone_and_the_worst_value() -> None:
    play = Play(CALLERS)
    for _ in range(19):
        play.ask("")
    play.ask(
        "",
        failed(),
        canary=True,
        failed=True,
    )
    block = play.only()

    assert (block.failures, block.canary_failures, block.missing) == (1, 1, 0)
    counts = {name: t for name, t in block.counts.items() if name is not Guardrail.ERRORS}
    assert {tally.failures for tally in counts.values()} == {0}
    assert block.ranks[Guardrail.LATENCY][0] > 0.94
    assert block.ranks[Guardrail.COST_PER_SUCCESS][0] > 0.94
    assert Guardrail.OUTPUT_TOKENS not in block.ranks


@pytest.mark.req("F3")
def test_a_failed_request_gives_no_credit_to_guardrails_of_answers() -> None:
    play = Play(CALLERS)
    for _ in range(9):
        play.ask("", good(bad=AnswerFault.TRUNCATED.value), canary=True)
    for _ in range(6):
        play.ask(
            "",
            failed(),
            canary=True,
            failed=True,
        )
    play.ask("")
    block = play.only()

    assert block.counts[Guardrail.TRUNCATION] == FailureTally(10, 9, 9, 9)
    assert block.counts[Guardrail.LEAVING] == FailureTally(16, 15, 0, 0)
    assert block.outcomes == {
        "answered": (10, 9),
        "failed: provider": (6, 6),
    }


KINDS = st.sampled_from([*OutcomeKind])
waits = st.floats(0, 1e6)
REASONS = st.none() | st.sampled_from([*OutcomeReason])


@pytest.mark.req("F3")
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            # A unit without an outcome is missing: no end brings the reason of `MISSING`.
            st.none()
            | st.builds(ExposureOutcome, KINDS, REASONS, first_s=st.none() | waits).filter(
                lambda outcome: outcome.reason is not MISSING.reason
            ),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_in_each_arm_a_blocks_outcomes_sum_to_its_assigned_units(
    ends: list[tuple[bool, ExposureOutcome | None]],
) -> None:
    play = Play(replace(CALLERS, block_size=40))
    for number, (canary, outcome) in enumerate(ends):
        unit = play.begin(f"caller {number}", canary=canary)
        if outcome is not None:
            play.ledger.finish(
                unit,
                outcome=outcome,
                sample=good(),
                now=play.now,
            )
    block = play.only()

    assert (block.units, block.canary_units) == (
        len(ends),
        sum(canary for canary, _ in ends),
    )
    assert sum(split.failures for split in block.outcomes.values()) == block.units
    assert sum(split.canary for split in block.outcomes.values()) == block.canary_units
    assert block.assigned == (block.units, block.canary_units)
    check_block(replace(block, sequence=1))


@pytest.mark.req("F3")
@pytest.mark.parametrize(
    "outcome",
    [
        ROUTER_FAULT,
        ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.OTHER_TARGET),
    ],
)
def test_an_outcome_that_is_not_measured_is_no_success(outcome: ExposureOutcome) -> None:
    play = Play(CALLERS)
    play.ledger.finish(play.begin("a", canary=True), outcome=outcome, now=play.now)
    play.ask("b")
    block = play.only()

    assert error_tally(block) == FailureTally(1, 0, 0, 0)
    assert block.counts[Guardrail.LEAVING] == FailureTally(1, 0, 0, 0)
    assert block.counts[Guardrail.TRUNCATION] == FailureTally(1, 0, 0, 0)


def test_a_lost_outcome_is_a_failure_of_every_guardrail_in_both_arms() -> None:
    play = Play(CALLERS)
    play.begin("a", canary=True)
    play.begin("b")
    play.ask("c")
    block = play.only()

    assert block.missing == 2
    lost = {
        guardrail: t
        for guardrail, t in block.counts.items()
        if guardrail is not Guardrail.ERRORS
    }
    assert set(lost.values()) == {FailureTally(3, 1, 2, 1)}


def test_feedback_counts_as_long_after_a_quick_answer_as_after_a_slow_one() -> None:
    play = Play(CALLERS)
    quick = play.ask("quick", canary=True)
    slow = play.begin("slow")
    play.now = 70.0
    play.ledger.finish(
        slow,
        outcome=ANSWERED,
        sample=good(70.0),
        now=play.now,
    )
    (block,) = play.ledger.tick(play.now, play.at)  # it waits for no feedback
    play.now = CALLERS.missing_s - 1.0
    assert play.say(quick, bad=False)
    play.now += 2.0
    assert not play.say(quick, bad=True)
    assert play.ledger.tick(play.now, play.at) == []  # the slow one may still be heard of
    play.now = CALLERS.missing_s + 69.0
    assert play.say(slow, bad=True)
    play.now += 2.0

    (late,) = play.ledger.tick(play.now, play.at)
    assert (late.late_of, late.counted, late.units) == (block.sequence, (2, 1), 0)
    assert late.counts == {Guardrail.FEEDBACK: FeedbackTally(2, 1, 1, 0, ArmSplit(2, 1))}
    check_block(replace(late, number=1))


def test_an_answer_that_never_came_has_no_feedback_and_its_feedback_is_missing() -> None:
    play = Play(CALLERS)
    play.begin("a", canary=True)
    play.begin("b")
    heard = play.ask("c")
    assert play.say(heard, bad=False)
    play.now = 60.0
    assert play.ledger.tick(play.now, play.at) == []
    play.now += CALLERS.missing_s
    first, late = play.ledger.tick(play.now, play.at)

    assert first.missing == 2
    tally = late.counts[Guardrail.FEEDBACK]
    assert tally == FeedbackTally(3, 1, 2, 1, ArmSplit(1, 0), missing=ArmSplit(2, 1))
    for against, failures in ((True, (1, 1)), (False, (1, 0))):
        read = late.set_missing(against=against).counts[Guardrail.FEEDBACK]
        assert (read.failures, read.canary_failures) == failures


def test_values_of_small_blocks_are_ranked_together_once_there_are_enough() -> None:
    play = Play(replace(CALLERS, block_size=100))
    ranks = []
    for number in range(100):
        play.ask(f"caller {number}", good(float(number)), canary=number % 50 == 0)
        play.now += 120.0
        ranks += [block.ranks for block in play.ledger.tick(play.now, play.at)]

    assert len(ranks) == 100
    assert not any(ranks[:99])
    assert len(ranks[99][Guardrail.LATENCY]) == 2


# Input of 10,000 tokens at $2.5 a million, a tenth of that if the prompt cache had it.
PRICE = Price(2.5, 10.0, 0.25)


def cached(
    tokens: int,
    *,
    price: Price = PRICE,
    first_s: float = 0.2,
) -> GuardrailSample:
    """Builds the values of an answer with cached tokens.

    Args:
        tokens: of the input, what the prompt cache had.
    """
    cost_usd = price.cost_usd(10_000, 20, tokens)
    use = CacheUse(
        10_000,
        tokens,
        price.cache_worth_usd(10_000, tokens, 0, 0),
        saved_seconds(10_000, tokens, first_s),
    )
    return GuardrailSample(SampleValues(first_s + 0.5, first_s, 0.01, 20.0, cost_usd, use))


def evidence_of(*, canary: GuardrailSample, incumbent: GuardrailSample) -> CanaryEvidence:
    """Collects the evidence of 600 callers, half of them in the canary."""
    play = Play(replace(CALLERS, block_size=50))
    blocks = []
    for number in range(600):
        in_canary = number % 2 == 0
        play.ask(
            f"caller {number}",
            canary if in_canary else incumbent,
            canary=in_canary,
        )
        blocks += play.ledger.tick(play.now, play.at)
    numbered = [replace(block, number=n) for n, block in enumerate(blocks)]
    return collect_evidence(numbered, CanaryPolicy(warm_up_s=0.0, warm_up_units=30))


def opened(sample: GuardrailSample, opening_s: float) -> GuardrailSample:
    values = sample.values
    assert values.latency is not None
    assert values.time_to_first_token is not None
    return sample._replace(
        values=values._replace(
            latency=values.latency + opening_s,
            time_to_first_token=values.time_to_first_token + opening_s,
            opening_s=opening_s,
        )
    )


COLD = cached(0, first_s=0.6)
WARM = cached(9_500)
SLOW = cached(9_500, first_s=0.6)
DEAR = Price(5.0, 20.0, 0.5)
COST = Guardrail.COST_PER_SUCCESS
FIRST_TOKEN = Guardrail.TIME_TO_FIRST_TOKEN


@pytest.mark.parametrize(
    ("canary", "tripped"),
    [
        pytest.param(COLD, None, id="cold"),
        pytest.param(WARM, None, id="warm"),
        pytest.param(cached(0, price=DEAR), COST, id="cold-and-dear"),
        pytest.param(cached(9_500, price=DEAR), COST, id="dear"),
        pytest.param(cached(0, price=Price(2.5, 10.0)), COST, id="without-cache"),
        pytest.param(cached(0, first_s=4.0), FIRST_TOKEN, id="cold-and-slow"),
        pytest.param(SLOW, FIRST_TOKEN, id="slow"),
        pytest.param(opened(WARM, 0.4), None, id="opened"),
        pytest.param(opened(SLOW, 0.4), FIRST_TOKEN, id="opened-and-slow"),
    ],
)
def test_a_cold_prompt_cache_is_no_harm_and_a_loss_at_an_equal_share_is(
    canary: GuardrailSample, tripped: Guardrail | None
) -> None:
    assert evidence_of(canary=canary, incumbent=WARM).tripped is tripped


def test_the_report_says_for_which_share_of_each_arm_a_connection_was_opened() -> None:
    found = evidence_of(canary=opened(cached(0), 0.4), incumbent=cached(0)).guardrails
    first = next(e for e in found if e.guardrail is Guardrail.TIME_TO_FIRST_TOKEN)

    assert first.cache is not None
    assert (first.cache.canary_opened, first.cache.control_opened) == (1.0, 0.0)
    assert first.is_cold
    assert first.cache_text == (
        "100 % of the candidate's answers and 0 % of the incumbent's needed a new "
        "connection: as observed 3 × (0.6 s against 0.2 s), once connected 1 ×; the "
        "remaining 3 × come from new connections"
    )
    assert all(e.cache is None for e in found if e.guardrail is Guardrail.COST_PER_SUCCESS)


def test_values_are_not_ranked_over_two_shares_of_traffic() -> None:
    pool = RankPool(100)
    units = [Play(CALLERS).ask("a") for _ in range(60)]

    assert pool.take(units, (1, 100), 0.01).units == ()
    assert pool.take(units, (1, 500), 0.05).units == ()
    assert len(pool.take(units, (1, 500), 0.05).units) == 120


@given(seens | st.just(failed()))
def test_what_was_seen_comes_back_from_the_wire(seen: GuardrailSample) -> None:
    assert GuardrailSample.from_plain(list(seen.plain)) == seen
