"""Protocols of eval workers, eval runners and the catalogue of configured suites.

Use cases see only these protocols, so that no decision depends on Inspect, on processes or on
files. `harness.app` joins them with `evals.runner`, `evals.suites` and the job queue of
`harness.app.store`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from harness.evals.recorded_turn import RecordedTurn
from harness.gate.run import EvalRun, JudgeCalibration, RunState, Sample
from harness.gate.suite_plan import ItemGroups
from harness.providers.target import Provider, Target
from harness.routing.context import PinnedSuites


class EvalWorkers(Protocol):
    """Starts and ends worker processes on this host. Each works on one run."""

    def start(self, run: str) -> str:
        """Starts a worker for a run, and returns its owner name for the lease."""
        ...

    def alive(self) -> Mapping[str, str]:
        """Returns run → owner, for running workers."""
        ...

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        """Returns (run, owner, exit code, last output) of newly ended workers."""
        ...

    def stop(self, run: str) -> None:
        """Ends the run's worker. The run keeps its stored samples."""
        ...

    def stop_all(self) -> None:
        """Ends all workers of this host, when the process shuts down."""
        ...


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A run that waits for a worker."""

    run: str
    provider: str  # of the target; a host takes only the jobs of its own providers
    priority: int  # higher is sooner


class RunQueue(Protocol):
    """Hands eval runs to the workers of all hosts; each run to one worker at a time."""

    def replace(self, jobs: Sequence[QueuedJob]) -> Sequence[str]:
        """Replaces all waiting jobs; workers keep their jobs. Returns the added runs."""
        ...

    def remove_dead_jobs(self) -> Sequence[str]:
        """Takes jobs back from hosts without a heartbeat; returns their runs."""
        ...

    def close(self) -> None: ...


class CallSpending(Protocol):
    """Limits the cost of a run's calls to the monthly cap."""

    @property
    def refusal(self) -> str:
        """Explains why the last call was refused; empty if it was not."""
        ...

    def require_money(self, unpriced_model: str = "") -> None:
        """Checks the cap.

        Args:
            unpriced_model: the model's name if its price is unknown.

        Raises SpendingPaused.
        """
        ...

    def pay(self, cost_usd: float | None) -> None:
        """Records a call's cost in US dollars; None if it is unknown."""
        ...


@dataclass(frozen=True, slots=True)
class EvalJob:
    """The data that a worker needs for one run. Its `repr` omits the API keys."""

    run: EvalRun
    target: Target
    provider: Provider
    api_key: str | None = field(repr=False)
    # (item, epoch) pairs of the samples that the database has already.
    stored: frozenset[tuple[str, int]] = frozenset()
    max_connections: int = 8
    judge_provider: Provider | None = None
    judge_api_key: str | None = field(default=None, repr=False)
    # judge, judge_provider, judge_api_key: the target's id, the provider and the key of the
    # suite's judge; empty without a judge.
    judge: str = ""
    # spending, judge_spending: None without a cap.
    spending: CallSpending | None = None
    judge_spending: CallSpending | None = None
    # incumbent, incumbent_provider, incumbent_api_key: of a suite of traffic, whose incumbent
    # is asked again; None for other suites.
    incumbent: Target | None = None
    incumbent_provider: Provider | None = None
    incumbent_api_key: str | None = field(default=None, repr=False)

    @property
    def gives_answers(self) -> bool:
        """Tells whether the answers are those of a log, which the run does not pay for."""
        return self.incumbent is not None and self.incumbent.id == self.target.id


class EvalRunner(Protocol):
    """Asks a target a suite's items, and scores the answers."""

    @property
    def remark(self) -> str:
        """Describes why the last run failed, or how its judge agrees with people."""
        ...

    @property
    def calibration(self) -> JudgeCalibration | None:
        """Describes how well the last run's judge agreed with people; None without a
        calibration.
        """
        ...

    def run(
        self,
        job: EvalJob,
        on_sample: Callable[[Sample], bool],
        stop: Callable[[], bool],
    ) -> RunState:
        """Asks and scores every missing sample, in order, and passes each sample on as it ends.

        Args:
            on_sample: stores a sample, whether it failed or not.
            stop: called between samples; returns True to end the run.

        Returns False to end the run, because the budget is spent or the lease is lost.
        Returns DONE, STOPPED, OVER_BUDGET or FAILED. Raises JudgeUnfit if the suite's judge
        cannot measure, ProviderAway if the provider is unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class ItemRequest:
    """The request by which a client would ask an item, as far as an override reads it.

    endpoint: the name of an Endpoint. headers: by name in lower case.
    """

    endpoint: str
    body: Mapping[str, object]
    headers: Mapping[str, str]


class SuiteCatalog(PinnedSuites, Protocol):
    """The configured suites. Reads files, so a pin may change between two calls."""

    def names(self) -> Sequence[str]: ...

    def list_own_names(self) -> Sequence[str]:
        """Lists the suites that do not ship with Swapproof. A shipped suite shows how Swapproof
        works, and says nothing about your feature.
        """
        ...

    def groups(self, suite: str) -> ItemGroups:
        """Returns the suite's items with their clusters and slices. Raises the errors of
        `pin`.
        """
        ...

    def split(self, suite: str) -> Mapping[str, str]:
        """Returns the slices that may get a route of their own, with the predicate of their
        requests, in the declared order. Raises NotFound.
        """
        ...

    def requests(self, suite: str) -> Mapping[str, ItemRequest]:
        """Returns each item's request. Raises NotFound, ConfigError, InputError."""
        ...

    def describe_dependence(self, suite: str) -> str:
        """Describes why items may not be independent: equal items, detected clusters and large
        clusters. Empty if there are none.
        """
        ...

    def describe_sample(self, suite: str) -> str:
        """Describes the requests that a suite's sample excludes. Raises NotFound,
        InputError.
        """
        ...

    def answers_of(self, suite: str) -> str:
        """Returns the name of the target whose logged answers a suite of traffic has; empty for
        any other suite. Raises NotFound.
        """
        ...

    def oldest_record(self, suite: str) -> datetime | None:
        """Returns the time of the oldest record of a suite of traffic; None for any other
        suite. Raises NotFound, InputError.
        """
        ...

    def conversation(self, suite: str, item: str) -> Sequence[Mapping[str, object]]:
        """Returns the messages of an item's request; empty for an item that is one text.
        Raises NotFound, InputError.
        """
        ...

    def recorded_turns(self, suite: str) -> Mapping[str, RecordedTurn]:
        """Returns the turns of agents' runs by item; empty for a suite without runs. Raises
        NotFound, InputError.
        """
        ...

    def judge_reason(self, suite: str) -> str:
        """Returns why a suite's judge may be of a compared model's maker; empty without a
        reason. Raises NotFound.
        """
        ...

    def guess_tokens(self, suite: str) -> tuple[float, float] | None:
        """Guesses the mean tokens of question and answer; None if texts cannot be read."""
        ...

    def title(self, suite: str) -> str:
        """Returns the suite's title for people. Raises NotFound."""
        ...

    def item_texts(self, suite: str, item: str) -> tuple[str, str]:
        """Returns an item's input and target as text. Raises NotFound, and the errors of
        `pin`.
        """
        ...
