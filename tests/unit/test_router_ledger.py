"""The laws of units and blocks (statistics.md §2.1)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.gate.online.guardrails import (
    ArmSplit,
    ErrorTally,
    ExposureRule,
    Guardrail,
)
from harness.gate.online.observation import (
    KeyHistory,
    NeverSeen,
    ObservationBlock,
)
from harness.gate.online.outcome import ANSWERED
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    LedgerExposure,
    RequestTraits,
    SampleValues,
)
from router.recording.ledger import MAX_BLOCK_AGE_S, Ledger
from tests.support.canary.outcomes import outcome_of

pytestmark = pytest.mark.req("F3", "F4")
START = datetime(2026, 1, 1, tzinfo=UTC)
CALLERS = ExposureRule(block_size=5, missing_s=100.0)
CARRIED = replace(CALLERS, ledger_salt="ledger_a")
NEW, BACK, COUNTED = KeyHistory
NO_TRAITS = RequestTraits(0)


class Play:
    def __init__(self, rule: ExposureRule, max_keys: int = 1000) -> None:
        self.ledger = Ledger("r-1", "w-1", rule, max_keys=max_keys)
        self.now = 0.0
        self.blocks: list[ObservationBlock] = []
        self.units: set[LedgerExposure] = set()

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def admit(
        self,
        key: str = "",
        *,
        canary: bool = False,
        weight_bps: int = 100,
        traits: RequestTraits = NO_TRAITS,
    ) -> LedgerExposure | None:
        """Admits a caller.

        Args:
            key: of a caller who was not here before, unless it is given.
        """
        unit = self.ledger.admit(
            key or f"caller {len(self.units)}",
            canary=canary,
            weight_bps=weight_bps,
            now=self.now,
            at=self.at,
            traits=traits,
        )
        if unit is None:
            return None
        assert isinstance(unit, LedgerExposure)
        self.units.add(unit)
        return unit

    def finish(self, unit: LedgerExposure | None, *, failed: bool = False) -> None:
        if unit:
            self.ledger.finish(unit, outcome=outcome_of(failed=failed))

    def wait(self, seconds: float) -> list[ObservationBlock]:
        self.now += seconds
        self.blocks += (found := self.ledger.tick(self.now, self.at))
        return found

    def claim(self, *histories: KeyHistory) -> None:
        """Answers the claims of the blocks that have closed, key by key."""
        answers = iter(histories)
        for closed in self.ledger.unclaimed(self.now, self.at):
            keys = self.ledger.claim_of(closed).fingerprints
            self.ledger.enter_histories(closed, [next(answers) for _ in keys])
        assert not [*answers]

    def close(self) -> list[ObservationBlock]:
        self.blocks += (found := self.ledger.close(self.now, self.at))
        return found


# What may happen: a request of a key (arm by key), an end with or without failure, time.
events = st.one_of(
    st.tuples(st.just("admit"), st.integers(0, 12), st.sampled_from([100, 500])),
    st.tuples(st.just("finish"), st.integers(0, 50), st.booleans()),
    st.tuples(st.just("wait"), st.integers(0, 70), st.none()),
)
histories = st.lists(events, max_size=120)


def played(
    history: Sequence[tuple[str, int, object]],
    rule: ExposureRule,
    *,
    flip: bool,
) -> Play:
    """Plays a history.

    Args:
        flip: every outcome the other way round.
    """
    play = Play(rule)
    under_way: list[LedgerExposure | None] = []
    weight = 100
    for what, number, more in history:
        if what == "admit":
            weight = max(weight, int(str(more)))
            canary = number * 100 < weight
            under_way.append(play.admit(str(number), canary=canary, weight_bps=weight))
        elif what == "finish" and under_way:
            failed = bool(more) is not flip
            play.finish(under_way.pop(number % len(under_way)), failed=failed)
        elif what == "wait":
            play.wait(number)
    play.close()
    return play


@given(histories)
def test_every_blocks_counts_fit_together(history: list[tuple[str, int, object]]) -> None:
    play = played(history, CALLERS, flip=False)

    for block in play.blocks:
        n = block.units
        m = block.canary_units
        total = block.failures
        canary = block.canary_failures
        assert 1 <= n <= CALLERS.block_size
        assert 0 <= m <= n
        assert 0 <= canary <= min(m, total)
        assert total - canary <= n - m
        assert 0 <= block.missing <= total
        assert block.opened_at <= block.closed_at
        assert sum(split.failures for split in block.outcomes.values()) == n
        assert sum(split.canary for split in block.outcomes.values()) == m
    assert [block.sequence for block in play.blocks] == list(range(1, len(play.blocks) + 1))
    assert sum(block.units for block in play.blocks) == len(play.units)
    assert play.ledger.idle


@given(histories)
def test_outcomes_never_change_who_is_in_which_block(
    history: list[tuple[str, int, object]],
) -> None:
    def shape(play: Play) -> list[tuple[int, int, int, datetime]]:
        return [(b.units, b.canary_units, b.weight_bps, b.opened_at) for b in play.blocks]

    assert shape(played(history, CALLERS, flip=False)) == shape(
        played(history, CALLERS, flip=True)
    )


def outcomes(play: Play) -> tuple[int, int]:
    """Units and failures so far handed out, after everything closed."""
    play.close()
    return sum(b.units for b in play.blocks), sum(b.failures for b in play.blocks)


def test_of_a_caller_the_first_request_alone_counts_however_quick_the_answers_are() -> None:
    play = Play(CALLERS)
    play.finish(play.admit("quick"))
    assert play.admit("quick") is None
    slow = play.admit("slow", canary=True)
    play.wait(61)
    assert play.admit("slow", canary=True) is None
    play.finish(slow, failed=True)

    assert outcomes(play) == (2, 1)


def test_a_missing_outcome_is_a_failure_in_both_arms_and_counts_once() -> None:
    play = Play(CALLERS)
    lost = [play.admit(canary=canary) for canary in (True, False)]
    for _ in range(3):
        play.finish(play.admit())

    assert play.wait(99) == []
    (block,) = play.wait(1)
    assert (block.failures, block.canary_failures, block.missing) == (2, 1, 2)
    for unit in lost:
        play.finish(unit, failed=True)
    assert play.close() == []


def test_a_slow_block_holds_those_behind_it() -> None:
    play = Play(CALLERS)
    slow = [play.admit() for _ in range(5)]
    for _ in range(5):
        play.finish(play.admit())

    assert play.wait(1) == []
    for unit in slow:
        play.finish(unit)
    assert [block.sequence for block in play.wait(0)] == [1, 2]


def test_a_worker_that_is_behind_with_the_weight_does_not_break_up_the_blocks() -> None:
    play = Play(CALLERS)
    for weight in (100, 500, 100, 500, 100):
        play.finish(play.admit(weight_bps=weight))
    play.close()

    assert [(b.weight_bps, b.units) for b in play.blocks] == [
        (100, 1),
        (500, 2),
        (100, 2),
    ]


def test_a_block_of_a_quiet_route_closes_by_age() -> None:
    play = Play(CALLERS)
    play.finish(play.admit("a"))

    assert play.wait(MAX_BLOCK_AGE_S - 1) == []
    (block,) = play.wait(1)
    assert block.units == 1
    assert play.wait(MAX_BLOCK_AGE_S * 3) == []


def test_past_the_limit_of_keys_new_ones_are_served_and_not_scored() -> None:
    play = Play(CALLERS, max_keys=2)
    units = [play.admit(key) for key in "abc"]

    assert [unit is not None for unit in units] == [True, True, False]
    assert play.ledger.unscored == 1


def test_periods_count_from_the_rollouts_beginning_and_no_block_spans_two() -> None:
    """A second router, or one that starts again, counts the same periods."""
    began = START - timedelta(days=1, hours=23)
    rule = replace(CALLERS, began_s=began.timestamp())
    play = Play(rule)
    play.finish(play.admit("a"))
    play.now += 3600.0
    play.finish(play.admit("b"))
    play.close()

    assert [(block.period, block.units) for block in play.blocks] == [
        (2, 1),
        (3, 1),
    ]


def test_a_jump_of_the_wall_clock_moves_no_period() -> None:
    play = Play(replace(CALLERS, began_s=START.timestamp()))
    play.finish(play.admit("a"))
    jumped = play.at + timedelta(days=400)
    unit = play.ledger.admit(
        "b",
        canary=False,
        weight_bps=100,
        now=1.0,
        at=jumped,
    )
    assert isinstance(unit, LedgerExposure)
    play.finish(unit)
    play.close()

    assert [block.period for block in play.blocks] == [1]


def test_a_block_tells_by_class_how_each_arm_failed() -> None:
    play = Play(CALLERS)
    units = {key: play.admit(key, canary=key in "ab") for key in "abcde"}
    for key, why in {
        "a": FailureClass.TIMEOUT,
        "c": FailureClass.TIMEOUT,
    }.items():
        unit = units[key]
        assert unit is not None
        play.ledger.finish(unit, outcome=outcome_of(failed=True, why=why))
    for key in "de":
        play.finish(units[key])
    play.wait(CALLERS.missing_s)  # nobody says what became of b

    (block,) = play.blocks
    assert block.counts == {
        Guardrail.ERRORS: ErrorTally(
            5,
            2,
            3,
            2,
            {"missing": ArmSplit(1, 1), "timeout": ArmSplit(2, 1)},
        )
    }


def test_a_block_waits_for_the_rollouts_ledger_and_leaves_out_what_was_counted_elsewhere() -> (
    None
):
    play = Play(CARRIED)
    for key in "abcde":
        play.finish(play.admit(key, canary=key in "ab"), failed=key in "ac")
    assert not play.wait(1)

    play.claim(NEW, COUNTED, BACK, NEW, COUNTED)

    (block,) = play.wait(1)
    assert (block.units, block.canary_units) == (3, 1)
    assert (block.failures, block.canary_failures) == (2, 1)
    assert block.never_seen == NeverSeen(2, 1, 1, 1, counts={})


def test_who_claims_a_key_first_has_nothing_to_do_with_its_outcome() -> None:
    """A block asks as soon as it closes: its slow answers do not make it the second."""
    play = Play(CARRIED)
    units = [play.admit(key) for key in "abcde"]

    play.claim(NEW, NEW, NEW, NEW, NEW)

    assert not play.wait(50)
    for unit in units:
        play.finish(unit)
    (block,) = play.wait(1)
    assert block.never_seen == NeverSeen(5, 0, 0, 0)
    assert block.of_new_keys == block


def test_a_block_of_keys_that_were_all_counted_elsewhere_is_none() -> None:
    play = Play(CARRIED)
    play.finish(play.admit("a"))
    play.wait(MAX_BLOCK_AGE_S)
    play.claim(COUNTED)
    assert not play.wait(1)

    play.finish(play.admit("b"))
    play.wait(MAX_BLOCK_AGE_S)
    play.claim(BACK)

    (block,) = play.wait(1)
    assert (block.sequence, block.units) == (1, 1)
    assert block.never_seen == NeverSeen(0, 0, 0, 0, counts={})
    assert block.of_new_keys is None


def test_a_block_whose_claim_gets_no_answer_counts_without_one_when_it_is_overdue() -> None:
    play = Play(CARRIED)
    for key in "abcde":
        play.finish(play.admit(key))
    assert not play.wait(99)

    (block,) = play.wait(1)
    assert (block.units, block.never_seen) == (5, None)


def test_a_block_without_a_claim_ranks_no_value_that_is_ranked_among_never_seen_keys() -> None:
    rule = ExposureRule(
        ledger_salt="ledger_a",
        missing_s=100.0,
        guardrails={Guardrail.LATENCY: 1.5},
    )
    ledger = Ledger("r-1", "w-1", rule)
    now = 0.0
    blocks = list[ObservationBlock]()
    for name, answered in (
        ("a", True),
        ("b", False),
        ("c", True),
    ):
        for n in range(12):  # 20 at a share of half are ranked together
            unit = ledger.admit(
                f"{name}{n}",
                canary=n % 2 == 0,
                weight_bps=5000,
                now=now,
                at=START,
            )
            assert unit is not None
            sample = GuardrailSample(SampleValues(latency=0.5 + n / 100))
            ledger.finish(
                unit,
                outcome=ANSWERED,
                sample=sample,
                now=now,
            )
        now += MAX_BLOCK_AGE_S
        for closed in ledger.unclaimed(now, START):
            if answered:
                ledger.enter_histories(closed, [KeyHistory.NEVER_SEEN] * len(closed.units))
        now += rule.missing_s
        blocks += ledger.tick(now, START)

    parts = [block.of_new_keys for block in blocks]
    assert [part.units for part in parts if part] == [12, 12, 12]
    # The first twelve were kept for the second block, which got no answer.
    assert [len(part.ranks) for part in parts if part] == [0, 0, 0]


@pytest.mark.req("F3")
@pytest.mark.parametrize(
    ("rollout", "weight_bps", "number"),
    [("r-1", 5_000, 2), ("r-1", 9_900, 0), ("r-1.first", 10_000, 2)],
)
def test_a_claim_names_the_candidate_s_callers_unless_they_are_most_callers(
    rollout: str, weight_bps: int, number: int
) -> None:
    ledger = Ledger(rollout, "w", ExposureRule(ledger_salt="salt"))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for place in range(4):
        canary = place % 2 == 1
        ledger.admit(f"u{place}", canary=canary, weight_bps=weight_bps, now=0.0, at=at)
    (block,) = ledger.unclaimed(0.0, at, final=True)
    claim = ledger.claim_of(block)
    assert claim.candidates == frozenset(claim.fingerprints[1::2][:number])
