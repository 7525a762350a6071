"""Seals fix what a reader has read of a rollout's rows, so that later rows change no block.

The reader writes a seal when it reads one stream of a block. Later, it forms the same block
again from the rows up to the seal's number. All seals of a rollout are kept in their order.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Position(NamedTuple):
    """An exposure's place in the order of admission."""

    admitted_at: datetime
    worker: str
    ticket: int


class Watermark(NamedTuple):
    """How far the rows of a rollout can be read.

    number: the rows up to this number of arrival have arrived.
    complete_until: the rows of all earlier times have arrived, except lost and late ones.
    """

    number: int
    complete_until: datetime


class BlockStream(StrEnum):
    """The facts of a block that become known at different times."""

    MEMBERS = "members"  # its exposures
    OUTCOMES = "outcomes"  # the outcomes of its first requests
    WINDOWS = "windows"  # its callers' windows
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Seal:
    """The reading of one stream of a block.

    block: the block's number, from 1, in the order of its first exposure's admission.
    admitted_at, worker, ticket: the position of its last exposure.
    number: only rows up to this number of arrival were read.
    """

    rollout: str
    block: int
    stream: BlockStream
    admitted_at: datetime
    worker: str
    ticket: int
    number: int

    @property
    def last(self) -> Position:
        return Position(self.admitted_at, self.worker, self.ticket)
