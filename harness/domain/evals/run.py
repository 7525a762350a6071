"""An eval run asks the items of a suite of one target: `EvalRun` with its lease and budget, and
`Sample`, each answer with its scores.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.domain.content_hash import digest
from harness.domain.evals.pins import ServedModel

LEASE_S: Final = 10.0


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"  # every planned sample is stored
    STOPPED = "stopped"  # the gate had decided; can be continued
    OVER_BUDGET = "over_budget"
    FAILED = "failed"  # infrastructure, after its retries


RUNNABLE_STATES: Final = (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class RunBudget:
    """Where a run stops cleanly. None: no limit."""

    max_tokens: int | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class EvalRun:
    """Describes a suite's run on a target. Items are asked in the order set by order_seed."""

    id: str
    suite: str
    suite_digest: str
    target: str
    order_seed: int
    epochs: int
    wanted: int  # how many items of that order are to be asked
    state: RunState
    created_at: datetime
    budget: RunBudget = RunBudget()
    # lease_owner, lease_until: who works on it now; an expired lease may be taken over.
    lease_owner: str | None = None
    lease_until: datetime | None = None
    failures: int = 0  # worker ends without success
    message: str = ""

    @property
    def is_manual(self) -> bool:
        """Tells whether a person asked for the run, outside any proposal and any watch."""
        return self.order_seed == manual_order_seed(self.suite_digest)

    @property
    def fingerprint(self) -> str:
        return digest([self.suite_digest, self.target, self.order_seed, self.epochs])

    def is_leased(self, now: datetime) -> bool:
        """Tells whether a worker has the run: another may take it when this lease is no good
        any more.
        """
        until = self.lease_until
        return until is not None and now < until <= latest_lease_end(now, LEASE_S)


def manual_order_seed(suite_digest: str) -> int:
    """Derives the seed of a manual run's order. A proposal's order differs, so that the two
    never share a run.
    """
    return int(suite_digest[8:16], 16)


def latest_lease_end(now: datetime, lease_s: float) -> datetime:
    """A lease that ends later was written by a clock that has been set back since.

    Twice the time it is given for: the clocks of two machines differ a little.
    """
    return now + timedelta(seconds=2 * lease_s)


ANSWER_PLACEHOLDER: Final = (
    "…"  # in place of an answer's text, where only that there is one counts
)


class SampleError(StrEnum):
    """Why a sample has no answer or no score. None of them is dropped."""

    UNSCORED = "unscored"  # answered, but no valid score came
    INFRA = "infra"  # ours or the provider's infrastructure, after R retries


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one target to one item in one epoch, scored."""

    run: str
    item: str
    epoch: int
    position: int  # of the item in the run's order, from 0
    answer: str
    # strict, lenient: scores in [0, 1], or None when there is none (then `error` says why).
    strict: float | None
    lenient: float | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_s: float  # wall time of the model's answer
    error: SampleError | None = None
    error_text: str = ""
    served_model: str = ""  # served_model, served_build: what the provider said that it served
    prompt: str = ""
    rule: str = ""  # the form rule that broke where strict and lenient differ
    cached_tokens: int = 0  # of the input, those read from the provider's cache
    # judge_calls, judge_cost_usd: what scoring took; None where the judge's price is unknown.
    judge_calls: int = 0
    judge_cost_usd: float | None = None
    served_build: str = ""
    # judge_model, judge_build: the same of the judge. Empty where it did not say.
    judge_model: str = ""
    judge_build: str = ""

    @property
    def served(self) -> ServedModel:
        return ServedModel(self.served_model, self.served_build)

    @property
    def judge(self) -> ServedModel:
        return ServedModel(self.judge_model, self.judge_build)
