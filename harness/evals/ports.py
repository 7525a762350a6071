"""Protocols of the workers and runners that evaluate, and of the suites that an installation
knows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.gate.item_groups import ItemGroups
from harness.gate.run import EvalRun, JudgeCalibration, RunState, Sample
from harness.gate.suite_plan import SuitePin
from harness.providers.target import Provider, Target


class EvalWorkers(Protocol):
    def start(self, run: str) -> str:
        """Starts a worker for a run, and returns its owner name for the lease."""
        ...

    def alive(self) -> Mapping[str, str]:
        """Run to owner, for workers that still run."""
        ...

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        """(run, owner, exit code, last words) of workers that ended since the last call."""
        ...

    def stop(self, run: str) -> None: ...

    def stop_all(self) -> None: ...


@dataclass(frozen=True, slots=True)
class QueuedJob:
    run: str
    provider: str  # of its target: a host takes the runs of its providers
    priority: int  # higher is sooner


class RunQueue(Protocol):
    """Hands eval runs to the workers of all hosts; each run to one at a time."""

    def replace(self, jobs: Sequence[QueuedJob]) -> Sequence[str]:
        """Makes these the waiting jobs; a worker keeps its job. Returns the added runs."""
        ...

    def take_back_dead(self) -> Sequence[str]:
        """Takes the jobs from hosts whose heartbeat is missing; returns their runs."""
        ...

    def close(self) -> None: ...


class CallSpending(Protocol):
    """Limits the cost of a run's calls to the monthly cap."""

    @property
    def refusal(self) -> str: ...

    def require_money(self, unpriced_model: str = "") -> None:
        """Checks the cap. unpriced_model: without a price. Raises SpendingPaused."""
        ...

    def pay(self, cost_usd: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class EvalJob:
    run: EvalRun
    target: Target
    provider: Provider
    api_key: str | None = field(repr=False)
    # (item, epoch) pairs that are stored already.
    done: frozenset[tuple[str, int]] = frozenset()
    max_connections: int = 8
    judge_provider: Provider | None = None
    judge_api_key: str | None = field(default=None, repr=False)
    # judge, judge_provider, judge_api_key: of the suite's judge, where it has one; judge is the
    # id of its target.
    judge: str = ""
    # spending, judge_spending: None where no cap is kept.
    spending: CallSpending | None = None
    judge_spending: CallSpending | None = None


class EvalRunner(Protocol):
    @property
    def remark(self) -> str:
        """Says why the last run failed, or how its judge agrees with people."""
        ...

    @property
    def calibration(self) -> JudgeCalibration | None:
        """How the last run's judge compared with people; None where it did not."""
        ...

    def run(
        self, job: EvalJob, on_sample: Callable[[Sample], bool], stop: Callable[[], bool]
    ) -> RunState:
        """Ask and score every sample that is missing, in order; hand each over as it finishes.

        on_sample: stores it; False ends the run (budget, lease lost). stop: asked between
        samples. Returns DONE, STOPPED, OVER_BUDGET or FAILED. Errors of samples are samples.
        Raises JudgeUnfit when nothing can be measured with the suite's judge; ProviderAway when
        no answer comes before the provider is back.
        """
        ...


class SuiteCatalog(Protocol):
    def names(self) -> Sequence[str]: ...

    def pin(self, suite: str) -> SuitePin:
        """Builds a pin. Raises NotFound, naming the nearest suite; InputError."""
        ...

    def groups(self, suite: str) -> ItemGroups: ...

    def likely_clusters(self, suite: str) -> str:
        """Says that items seem to belong together where no cluster field is named."""
        ...

    def describe_sample(self, suite: str) -> str:
        """Says what the sample behind a suite leaves out. Raises NotFound, InputError."""
        ...

    def guess_tokens(self, suite: str) -> tuple[float, float] | None:
        """Guesses the mean tokens of question and answer; None where no text is read."""
        ...

    def title(self, suite: str) -> str: ...

    def data_class(self, suite: str) -> str:
        """Returns the class of a suite's data (D8), empty for none. Raises NotFound."""
        ...

    def shown(self, suite: str, item: str) -> tuple[str, str]:
        """An item's input and target, as people read them. Raises NotFound, and as pin()."""
        ...
