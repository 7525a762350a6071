"""Reads a rollout's rows into blocks: rows → order → blocks → tallies (statistics.md §2.1).

Each stream of a block is read when its facts are known, and no block overtakes another in its
stream. A reading is fixed by a seal: `read_blocks` is a pure function of rows and seals. The
fold between two readings is a cache, which can be dropped at any time and built again.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from harness.frame.errors import StaleEvidence
from harness.gate.online.exposures import Exposure, ExposureCount, ExposureEvent
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.reading.block_forming import form_block
from harness.gate.online.reading.block_streams import (
    Due,
    ReadBlock,
    find_feedback_due,
    find_outcomes_due,
    find_windows_due,
    read_feedback,
    read_windows,
    score_block,
)
from harness.gate.online.reading.caller_order import CallerOrder, FormedBlock
from harness.gate.online.reading.event_index import EventIndex
from harness.gate.online.reading.late_outcome_blocks import LatePart, LateReading, build_late
from harness.gate.online.reading.minute_counts import MinuteCounts
from harness.gate.online.reading.observation_builder import ObservationBuilder
from harness.gate.online.reading.row_block import RowBlock
from harness.gate.online.reading.seals import BlockStream, Seal, Watermark

# The worker's name in blocks of rows: one reader reads the rows of all routers.
READER: Final = "rows"


@dataclass(frozen=True, slots=True)
class RolloutRows:
    """The rows of one rollout that have arrived. counts: all of them, at every reading."""

    exposures: Sequence[Exposure] = ()
    events: Sequence[ExposureEvent] = ()
    counts: Sequence[ExposureCount] = ()


class RowReading(NamedTuple):
    """The blocks of a rollout in the order of number, and the seals that are new."""

    blocks: Sequence[ObservationBlock]
    seals: Sequence[Seal]


def read_blocks(
    rollout: str,
    rule: ExposureRule,
    rows: RolloutRows,
    seals: Sequence[Seal],
    watermark: Watermark,
) -> RowReading:
    """Reads all blocks that the rows up to the watermark complete.

    Args:
        rows: all of the rollout's.
        seals: all earlier ones, in their order.

    Raises StaleEvidence if the rows no longer form a sealed block.
    """
    fold = BlockFold(rollout, rule)
    fold.add(rows, seals)
    new_seals = fold.read(watermark)
    return RowReading(tuple(fold.blocks), new_seals)


class BlockFold:
    """A rollout's blocks up to the last reading.

    blocks: all blocks that were read, in the order of number.
    """

    def __init__(self, rollout: str, rule: ExposureRule) -> None:
        self.blocks: list[ObservationBlock] = []
        self._rollout = rollout
        self._rule = rule
        self._order = CallerOrder()
        self._events = EventIndex()
        self._counts = MinuteCounts()
        self._builder = ObservationBuilder(rollout, READER, rule)
        self._unread = deque[Exposure | ExposureEvent]()  # by number
        self._formed: FormedBlock | None = None  # the next block, as far as it has arrived
        self._next_block = 1
        self._outcomes = deque[FormedBlock]()  # blocks whose outcomes are read next
        self._windows = deque[ReadBlock]()
        self._feedback = deque[ReadBlock]()

    def add(self, rows: RolloutRows, seals: Iterable[Seal] = ()) -> None:
        """Adds rows with higher numbers than all earlier ones, and reads sealed blocks again.

        Args:
            seals: of earlier readings that this fold has not made itself.
        """
        self._counts.set(rows.counts)
        self._unread.extend(sorted([*rows.exposures, *rows.events], key=lambda row: row.number))
        for seal in seals:
            self._arrive(seal.number)
            self._apply(seal)

    def read(self, watermark: Watermark) -> list[Seal]:
        """Reads all streams that are known, in the order in which they became known."""
        self._arrive(watermark.number)
        seals = []
        while due := self._find_due(watermark.complete_until):
            seal = self._make_seal(due, watermark.number)
            self._apply(seal)
            seals.append(seal)
        return seals

    def _arrive(self, number: int) -> None:
        """Enters the rows up to a number of arrival."""
        arrived = []
        while self._unread and self._unread[0].number <= number:
            arrived.append(self._unread.popleft())
        exposures = [row for row in arrived if isinstance(row, Exposure)]
        if exposures:
            self._order.add(exposures)
        self._events.add(row for row in arrived if isinstance(row, ExposureEvent))
        if exposures or self._formed is None:
            self._formed = form_block(self._order, self._rule, self._next_block)

    def _find_due(self, complete_until: datetime) -> "_Head | None":
        """Finds the stream that became known first; None if none is known."""
        known = [head for head in self._iter_heads() if head.due.is_over(complete_until)]
        return min(known, key=lambda head: head.due.at, default=None)

    def _iter_heads(self) -> Iterator["_Head"]:
        """Yields the next block of each stream."""
        if (formed := self._formed) is not None:
            yield _Head(BlockStream.MEMBERS, formed, Due(formed.ends_at))
        if self._outcomes:
            formed = self._outcomes[0]
            due = find_outcomes_due(formed, self._events, self._rule)
            yield _Head(BlockStream.OUTCOMES, formed, due)
        if self._windows:
            due = find_windows_due(self._windows[0], self._order, self._rule)
            yield _Head(BlockStream.WINDOWS, self._windows[0].formed, due)
        if self._feedback:
            due = find_feedback_due(self._feedback[0])
            yield _Head(BlockStream.FEEDBACK, self._feedback[0].formed, due)

    def _make_seal(self, head: "_Head", number: int) -> Seal:
        block = head.block
        return Seal(self._rollout, block.number, head.stream, *block.last, number)

    def _apply(self, seal: Seal) -> None:
        """Reads the next block of the seal's stream."""
        block = next(
            (head.block for head in self._iter_heads() if head.stream is seal.stream), None
        )
        if block is None or (block.number, block.last) != (seal.block, seal.last):
            raise StaleEvidence(
                f"rollout {self._rollout}: the rows no longer form block {seal.block} as it "
                f"was sealed ({seal.stream.value}); restore the rows from a backup"
            )
        match seal.stream:
            case BlockStream.MEMBERS:
                self._read_members(block)
            case BlockStream.OUTCOMES:
                self._read_outcomes()
            case BlockStream.WINDOWS:
                self._read_windows()
            case BlockStream.FEEDBACK:
                self._read_feedback()

    def _read_members(self, block: FormedBlock) -> None:
        self._outcomes.append(self._order.seal(block))
        self._next_block += 1
        self._formed = form_block(self._order, self._rule, self._next_block)

    def _read_outcomes(self) -> None:
        block = self._outcomes.popleft()
        counted = self._counts.take(block)
        scored = score_block(block, self._order, self._events, self._rule, counted.lost)
        self._builder.judge_usd += math.fsum(self._events.take_judge_usd())
        exposures = scored.release()
        built = self._builder.build(scored, exposures)
        row = RowBlock.from_block(
            replace(built, uncounted=counted.uncounted),
            kept_share=scored.share,
            new_share=scored.new_share,
        )
        self._append(row)
        read_block = ReadBlock(block, scored, exposures, row)
        if row.windows_known_s:
            self._windows.append(read_block)
        if Guardrail.FEEDBACK in self._rule.guardrails:
            self._feedback.append(read_block)
        self._forget_if_read(read_block)

    def _read_windows(self) -> None:
        block = self._windows.popleft()
        readings = read_windows(block, self._order, self._events, self._rule)
        self._append_late(Guardrail.CALLER_ERRORS, block, readings)
        self._forget_if_read(block)

    def _read_feedback(self) -> None:
        block = self._feedback.popleft()
        if self._events.has_feedback:
            readings = read_feedback(block, self._events)
            self._append_late(Guardrail.FEEDBACK, block, readings)
        self._forget_if_read(block)

    def _forget_if_read(self, block: ReadBlock) -> None:
        """Frees the memory of a block whose streams were all read."""
        if any(waiting is block for waiting in (*self._windows, *self._feedback)):
            return
        for exposure in (*block.formed.exposures, *block.formed.late):
            for own in self._order.list_of_caller(exposure):
                self._events.forget(own)
            self._order.forget(exposure)

    def _append_late(
        self, guardrail: Guardrail, block: ReadBlock, readings: Sequence[LateReading]
    ) -> None:
        part = LatePart(guardrail, block.open_block, block.scored, block.row, 0.0)
        late = self._builder.number(build_late(part, readings))
        scored = block.open_block
        self._append(
            RowBlock.from_block(late, kept_share=scored.share, new_share=scored.new_share)
        )

    def _append(self, block: ObservationBlock) -> None:
        self.blocks.append(replace(block, number=len(self.blocks) + 1))


class _Head(NamedTuple):
    """The next block of a stream, and when the stream is known."""

    stream: BlockStream
    block: FormedBlock
    due: Due
