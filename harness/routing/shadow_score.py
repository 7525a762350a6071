"""The score of a shadow's pair: the candidate's win share by the judge (statistics.md §2.9).
Pure.

Each caller has one score in a series of shadows with equal terms. A score has no content, so it
stays when its pair is deleted.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from harness.frame.errors import InputError
from harness.frame.plain_data import hash_content


class ScoreReason(StrEnum):
    """Why a pair has its score.

    JUDGED: by the judge's preference. EQUAL: equal by content, so a tie. ORDERS_DISAGREE: the
    judge prefers another answer in the other order. CANDIDATE_SILENT, INCUMBENT_SILENT: that
    model gave no answer. NOT_SHOWN: the pair lacks a picture, audio or file. NOT_JUDGED: the
    judge, the router or the store failed, so the score is unknown. DELETED: the pair was
    deleted before a judge had compared it, so the score is unknown.
    """

    JUDGED = "judged"
    EQUAL = "equal"
    ORDERS_DISAGREE = "orders_disagree"
    CANDIDATE_SILENT = "candidate_silent"
    INCUMBENT_SILENT = "incumbent_silent"
    NOT_SHOWN = "not_shown"
    NOT_JUDGED = "not_judged"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """The score of a caller's first pair. number: from 1, in the order of the pairs.

    low and high: bounds of the win share; 0 and 1 if it is unknown. calls, cost_usd: of the
    judge; cost_usd is None if its price is unknown.
    """

    series: str
    number: int
    shadow: str
    pair: str
    caller: str  # a pseudonym of this series
    reason: ScoreReason
    low: float
    high: float
    calls: int
    cost_usd: float | None
    at: datetime

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise InputError(f"a win share is from 0 to 1, not {self.low:g} to {self.high:g}")

    @property
    def is_known(self) -> bool:
        return self.low == self.high


def name_caller(series: str, caller: str, conversation: str, pair: str) -> str:
    """Returns the caller's pseudonym in a series: of the caller, else of the conversation, else
    of the pair.

    Args:
        caller: as the pair has it; empty if the pair has none.
        conversation: as the pair has it; empty if the pair has none.
    """
    return hash_content(f"{series}:{caller or conversation or pair}")[:24]
