"""The open blocks of a rollout, and their units (statistics.md §2.1)."""

from datetime import datetime
from typing import Final

from harness.gate.online.guardrails import Guardrail
from harness.gate.online.key_ledger import KeyHistory
from harness.proposals.judge import JudgeOutcome
from router.recording.guardrail_sample import FAULTS, NEEDS, SampleValues

_JUDGED_TRAIT: Final = NEEDS[Guardrail.JUDGE]


class OpenBlock:
    """Holds a block that still admits units, or waits for outcomes. out: units without one yet.

    unjudged: units whose judge has not spoken yet. claimed: the rollout's ledger was asked for
    its keys.
    """

    __slots__ = (
        "claimed",
        "closed_at",
        "closed_s",
        "opened_at",
        "opened_s",
        "out",
        "period",
        "units",
        "unjudged",
        "weight_bps",
    )

    def __init__(self, weight_bps: int, now: float, at: datetime, period: int) -> None:
        self.weight_bps = weight_bps
        self.period = period
        self.opened_s, self.opened_at = now, at
        self.closed_s: float | None = None
        self.closed_at = at
        self.units: list[LedgerUnit] = []  # in the order of admission
        self.out = self.unjudged = 0
        self.claimed = False

    @property
    def share(self) -> float:
        return self.weight_bps / 10_000

    def release(self) -> list["LedgerUnit"]:
        """Returns the units that count. What is still out is a failure from now on."""
        units, self.units = self.units, []
        for unit in units:
            unit.block = None
            if unit.judging:
                unit.judge(JudgeOutcome.NO_VERDICT)
        return [unit for unit in units if unit.history is not KeyHistory.COUNTED]


class LedgerUnit:
    """Holds one scored unit: a sticky key's first request of a period.

    traits, values, bad: of its request. fixed: the outcome is in. heard: a user said something
    of it; heard_until_s: then it is too late. why: it failed, where that is known. judging: the
    judge has not answered yet. unjudged: it gave no verdict. key: its sticky key, or a hash of
    it. history: of the key, once the block is claimed.
    """

    __slots__ = (
        "bad",
        "block",
        "canary",
        "failed",
        "fixed",
        "heard",
        "heard_until_s",
        "history",
        "judging",
        "key",
        "traits",
        "unjudged",
        "values",
        "why",
    )

    def __init__(
        self,
        block: OpenBlock,
        *,
        key: str | int,
        canary: bool,
        traits: int,
    ) -> None:
        self.block: OpenBlock | None = block  # None once it is handed out
        self.key = key
        self.history: KeyHistory | None = None
        self.canary = canary
        self.traits = traits
        self.bad = 0
        self.heard_until_s = float("inf")
        self.values: SampleValues | None = None
        self.why = ""
        self.failed = self.fixed = self.heard = False
        self.judging, self.unjudged = bool(traits & _JUDGED_TRAIT), False

    @property
    def lost(self) -> bool:
        return not (self.fixed or self.failed)

    def note_feedback(self, *, bad: bool, now: float) -> bool:
        if self.block is None or now >= self.heard_until_s:
            return False
        self.heard = True
        if bad:
            self.bad |= FAULTS[Guardrail.FEEDBACK]
        return True

    def judge(self, judged: JudgeOutcome) -> None:
        """Enters a judgement; a unit without a verdict is as bad as one found bad."""
        self.judging = False
        if judged is not JudgeOutcome.GOOD:
            self.bad |= FAULTS[Guardrail.JUDGE]
        self.unjudged = judged is JudgeOutcome.NO_VERDICT
