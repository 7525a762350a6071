"""The laws of reading blocks from rows: seals fix them, and only admission and time form them
(statistics.md §2.1).
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import StaleEvidence
from harness.gate.online.exposures import Exposure
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import LATE
from harness.gate.online.reading.block_fold import BlockFold, read_blocks
from harness.gate.online.reading.seals import BlockStream, Seal, Watermark
from harness.routing.records.block_checks import check_block
from tests.support.canary.row_journal import Journal, Row, at, read, rows_of

pytestmark = pytest.mark.req("F3", "F4")

RULE = ExposureRule(
    block_size=4,
    missing_s=100.0,
    guardrails={Guardrail.FEEDBACK: 1.25, Guardrail.LEAVING: 1.25},
    ledger_salt="salt",
    window_s=60.0,
    window_requests=3,
    total_timeout_s=30.0,
)
END_S = 10_000.0
# A reader waits this long for rows.
LAG_S = 30.0


class Step(NamedTuple):
    """A request of a caller, some time after the one before, and when its rows arrive.

    raises: the share is higher from now on. lasts_s: None if no outcome comes.
    """

    after_s: int
    worker: int
    caller: int
    raises: bool
    lasts_s: int | None
    failed: bool
    delay_s: int


steps = st.builds(
    Step,
    st.integers(0, 40),
    st.integers(0, 2),
    st.integers(0, 12),
    st.sampled_from((False,) * 9 + (True,)),
    st.one_of(st.none(), st.integers(0, 90)),
    st.booleans(),
    st.sampled_from((0, 0, 0, 1, 10, 80, 300)),
)
histories = st.lists(steps, max_size=50)


def journal_of(
    history: Sequence[Step], *, flip: bool = False, on_time: bool = False
) -> Journal:
    """Writes the rows of three processes.

    Args:
        flip: every outcome the other way round.
        on_time: each row arrives at once.
    """
    journal = Journal()
    known: dict[tuple[int, int, int], Exposure] = {}
    at_s = 0.0
    weight_bps = 500
    for number, step in enumerate(history):
        at_s += step.after_s
        weight_bps = min(5_000, weight_bps * 2) if step.raises else weight_bps
        period = 1 + int(at_s // 400.0)
        delay_s = 0 if on_time else step.delay_s
        failed = step.failed is not flip
        own = known.get((step.worker, period, step.caller))
        if own is None:
            own = journal.admit(
                at_s,
                step.caller,
                worker=f"w-{step.worker}",
                canary=step.caller % 3 == 0,
                weight_bps=weight_bps,
                period=period,
                client=f"k-{step.caller % 2}",
                arrives_s=at_s + delay_s,
            )
            known[step.worker, period, step.caller] = own
            if step.lasts_s is not None:
                ends_s = at_s + step.lasts_s
                journal.end(own, ends_s, failed=failed, arrives_s=ends_s + delay_s)
        elif step.lasts_s is not None:
            journal.turn(own, at_s, failed=failed, lasts_s=step.lasts_s)
        if number % 7 == 0:
            journal.dislike(own, at_s + 20.0)
    return journal


def read_often(
    journal: Journal, every_s: float, *, drop: random.Random | None = None
) -> tuple[list[list[ObservationBlock]], list[Seal]]:
    """Reads a journal many times. Returns the blocks after each reading, and all seals.

    Args:
        drop: drops the fold before half of the readings, and builds it again.
    """
    numbered = journal.numbered()
    fold = BlockFold("r", RULE)
    arrived: list[Row] = []
    seals: list[Seal] = []
    readings: list[list[ObservationBlock]] = []
    now_s = 0.0
    last_s = max((at_s for at_s, _ in numbered), default=0.0) + 2_000.0
    while now_s <= last_s:
        number = sum(at_s <= now_s for at_s, _ in numbered)
        new = [row for _, row in numbered[len(arrived) : number]]
        arrived += new
        if drop is not None and drop.random() < 0.5:
            fold = BlockFold("r", RULE)
            fold.add(rows_of(arrived), seals)
        else:
            fold.add(rows_of(new))
        seals += fold.read(Watermark(number, at(now_s - LAG_S)))
        readings.append([*fold.blocks])
        now_s += every_s
    return readings, seals


@given(histories, st.integers(0, 1_000))
def test_a_dropped_cache_between_any_two_readings_changes_no_block(
    history: list[Step], seed: int
) -> None:
    journal = journal_of(history)

    kept = read_often(journal, 25.0)
    dropped = read_often(journal, 25.0, drop=random.Random(seed))

    assert dropped == kept


@given(histories)
def test_later_rows_never_change_a_sealed_block(history: list[Step]) -> None:
    journal = journal_of(history)
    numbered = [row for _, row in journal.numbered()]

    readings, seals = read_often(journal, 25.0)

    for earlier, later in pairwise(readings):
        assert later[: len(earlier)] == earlier
    again = read_blocks("r", RULE, rows_of(numbered), seals, Watermark(len(numbered), at(0.0)))
    assert list(again.blocks) == readings[-1]
    assert not again.seals


@given(histories)
def test_no_block_overtakes_another_of_its_stream(history: list[Step]) -> None:
    readings, seals = read_often(journal_of(history), 25.0)

    opened_at = [block.opened_at for block in readings[-1] if not block.late_of]
    assert opened_at == sorted(opened_at)
    for stream in BlockStream:
        own = [seal.block for seal in seals if seal.stream is stream]
        assert own == sorted(set(own))
    members = [seal.block for seal in seals if seal.stream is BlockStream.MEMBERS]
    assert members == list(range(1, len(members) + 1))
    assert members == [seal.block for seal in seals if seal.stream is BlockStream.OUTCOMES]
    assert [seal.number for seal in seals] == sorted(seal.number for seal in seals)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_arrival_within_the_watermark_changes_nothing(
    history: list[Step], chance: random.Random
) -> None:
    rows = [row for _, row in journal_of(history).rows]
    shuffled = chance.sample(rows, len(rows))
    watermark = Watermark(len(rows), at(END_S))

    one, other = (
        read_blocks(
            "r",
            RULE,
            rows_of(replace(row, number=n) for n, row in enumerate(order, start=1)),
            (),
            watermark,
        )
        for order in (rows, shuffled)
    )

    assert one == other


@given(histories)
def test_outcomes_never_change_who_is_in_which_block(history: list[Step]) -> None:
    _, seals = read_often(journal_of(history), 25.0)
    _, flipped = read_often(journal_of(history, flip=True), 25.0)

    def members(of: list[Seal]) -> list[Seal]:
        return [seal for seal in of if seal.stream is BlockStream.MEMBERS]

    assert members(seals) == members(flipped)


@given(histories)
def test_each_caller_counts_once_a_period_and_the_counts_of_a_block_fit(
    history: list[Step],
) -> None:
    journal = journal_of(history, on_time=True)
    callers = {(row.period, row.caller) for _, row in journal.rows if isinstance(row, Exposure)}

    blocks, _ = read(journal, RULE, END_S)

    firsts = [block for block in blocks if not block.late_of]
    assert sum(block.units for block in firsts) == len(callers)
    for block in blocks:
        check_block(block)
    for block in firsts:
        assert block.units <= RULE.block_size
        assert (block.closed_at - block.opened_at).total_seconds() <= 60.0


@given(histories)
def test_late_callers_are_left_out_and_no_caller_counts_twice(history: list[Step]) -> None:
    journal = journal_of(history)
    callers = {(row.period, row.caller) for _, row in journal.rows if isinstance(row, Exposure)}

    readings, _ = read_often(journal, 25.0)

    firsts = [block for block in readings[-1] if not block.late_of]
    assert sum(block.units for block in firsts) <= len(callers)
    for block in readings[-1]:
        check_block(block)
    for block in firsts:
        late = block.outcomes.get(LATE.key)
        assert block.units - (late.failures if late else 0) <= RULE.block_size


def test_a_reader_reports_rows_that_no_longer_form_a_sealed_block() -> None:
    journal = Journal()
    for caller in range(4):
        journal.end(journal.admit(caller, caller), caller + 1.0)
    _, seals = read(journal, RULE, 1_000.0)
    rows = [row for _, row in journal.numbered()][:-2]

    with pytest.raises(StaleEvidence, match="no longer form block 1"):
        read_blocks("r", RULE, rows_of(rows), seals, Watermark(99, at(2_000.0)))
