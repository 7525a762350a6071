"""Protocols of suites, eval runs, served-model sightings and drift watches as they are stored,
and of the workers and runners that evaluate (`EvalWorkers`, `RunQueue`, `SlotLocks`,
`EvalRunner`, with its `EvalJob`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from harness.domain.drift import DriftCheck, DriftWatch
from harness.domain.evals.item_groups import ItemGroups
from harness.domain.evals.pins import Sighting
from harness.domain.evals.run import AnswerColumns, EvalRun, JudgeCalibration, RunState, Sample
from harness.domain.evals.suite_plan import SuitePin
from harness.domain.pagination import MOST_LISTED
from harness.domain.routing.target import Provider, Target


class EvalRuns(Protocol):
    def add(self, run: EvalRun) -> None: ...

    def add_new(self, run: EvalRun) -> bool:
        """Adds a run unless one of its id is there; returns whether it was added."""
        ...

    def get(self, run: str) -> EvalRun:
        """Loads a run by id. Raises NotFound."""
        ...

    def list(
        self,
        *,
        states: Sequence[RunState] = (),
        limit: int = MOST_LISTED,
    ) -> Sequence[EvalRun]:
        """Lists the runs, newest first, `limit` at the most; those of all states when none is
        named.
        """
        ...

    def of_targets(self, targets: Collection[str]) -> Sequence[EvalRun]:
        """Lists the runs of these targets, newest first."""
        ...

    def of_suite(self, target: str, suite: str, suite_digest: str) -> Iterator[EvalRun]:
        """Yields a target's runs of one version of a suite, newest first. They are read some at
        a time: ask for no more than is needed.
        """
        ...

    def unfinished(self, fingerprint: str) -> Sequence[EvalRun]:
        """Lists the runs with this fingerprint that are queued or running."""
        ...

    def newest_of_targets(
        self, targets: Collection[str], states: Sequence[RunState]
    ) -> Sequence[EvalRun]:
        """Lists each target's newest run of each suite in these states, newest first."""
        ...

    def scored(self, run: str) -> bool:
        """Tells whether anything was learned of a run's target: one answer that can be read and
        has a score.
        """
        ...

    def shared(self, fingerprint: str, *, not_before: datetime) -> EvalRun | None:
        """The newest run with this fingerprint, not FAILED, created since `not_before`."""
        ...

    def set_state(self, run: str, state: RunState, message: str = "") -> None:
        """States but RUNNING clear the lease. FAILED adds one to `failures`."""
        ...

    def blank_texts(self, suite: str, before: datetime, *, limit: int) -> int:
        """Blanks the questions and answers of a suite's runs that were queued before a time and
        have ended; of how many runs. Scores, and the hashes of the texts, stay.
        """
        ...

    def want(self, run: str, items: int) -> None:
        """Raise the number of wanted items (never lower it); queue the run if it ended."""
        ...

    def lease(self, run: str, owner: str, *, now: datetime, until: datetime) -> bool:
        """Take or renew the lease; False when the run has ended, or another has it.

        Another's lease that has expired may be taken, and so may one that reaches further than
        `domain.evals.run.latest_lease_end`.
        """
        ...

    def leave(self, run: str, owner: str, state: RunState, message: str = "") -> bool:
        """`set_state` by the lease's owner; False, and nothing done, when it is not theirs."""
        ...

    def release(self, owner: str) -> Sequence[str]:
        """Give up every lease of a dead owner; the runs go back to QUEUED."""
        ...

    def store_sample(self, sample: Sample, *, owner: str | None = None) -> bool:
        """Stores a sample; False when that run, item and epoch is stored already: nothing
        counts twice.

        owner: of the lease that whoever stores it works by. Raises LeaseLost where it is
        not the run's any more; until the unit of work ends, nobody else gets the lease.
        """
        ...

    def done(self, run: str) -> frozenset[tuple[str, int]]:
        """Returns (item, epoch) of every stored sample of a run."""
        ...

    def samples(self, run: str, *, below: int | None = None) -> Sequence[Sample]:
        """Lists a run's samples in the run's order (position, epoch); only positions below
        `below` if given.
        """
        ...

    def outcomes(self, run: str, *, below: int) -> Sequence[Sample]:
        """Lists a run's samples for a gate that decides again and again: without prompts, and
        an answer is only ANSWER_PLACEHOLDER or empty.
        """
        ...

    def figures(self, run: str, *, below: int) -> AnswerColumns:
        """Loads the figures of a run's samples, in any order and without a check of their
        signatures: for sums over more samples than a page can check.
        """
        ...

    def samples_of(self, run: str, items: Collection[str]) -> Sequence[Sample]:
        """Lists a run's samples of some items in the run's order."""
        ...

    def count(self, run: str) -> int:
        """Counts a run's stored samples."""
        ...

    def progress(self, run: str) -> tuple[int, float, int, int]:
        """Counts a run's stored samples, USD (known prices), input tokens and output tokens."""
        ...


class Suites(Protocol):
    def put(self, pin: SuitePin, now: datetime) -> None:
        """Stores a suite's pin under its digest: the same digest again changes nothing."""
        ...

    def get(self, digest: str) -> SuitePin:
        """Loads the pin of a suite by its digest. Raises NotFound."""
        ...

    def all(self) -> Sequence[SuitePin]:
        """Lists the pins of all suites, newest first."""
        ...


class Sightings(Protocol):
    def note(self, sightings: Iterable[Sighting]) -> None:
        """Adds sightings; of one that is known, `last_at` rises. The oldest of a target give
        way.
        """
        ...

    def for_target(self, target: str) -> Sequence[Sighting]:
        """Lists the sightings of a target, newest first, at most MAX_SIGHTINGS."""
        ...


class Drift(Protocol):
    """Watches of incumbents, and the runs that they compare."""

    def open(self, watch: DriftWatch) -> bool:
        """Opens a watch; False when that target and suite has an open one."""
        ...

    def save(self, watch: DriftWatch) -> bool:
        """Saves the state and end of a watch; False when it is closed already."""
        ...

    def watches(self, *, limit: int = MOST_LISTED) -> Sequence[DriftWatch]:
        """Lists the watches, newest first, `limit` at the most."""
        ...

    def open_watches(self) -> Sequence[DriftWatch]:
        """Lists the watches that go on, newest first."""
        ...

    def is_checking(self, run: str) -> bool:
        """Whether a check that goes on has this run."""
        ...

    def start(self, check: DriftCheck) -> bool:
        """Starts a check; False when the watch has a running one, or one of that number."""
        ...

    def end(self, check: DriftCheck) -> bool:
        """Stores how a check ended; False when it runs no more."""
        ...

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        """Lists the runs of a watch, oldest first."""
        ...


class EvalWorkers(Protocol):
    """One worker process per run and target."""

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
    """Places one run in the queue that the workers of all hosts share."""

    run: str
    provider: str  # of its target: a host takes the runs of its providers
    priority: int  # higher is sooner


class RunQueue(Protocol):
    """Hands eval runs to the workers of all hosts; each run to one at a time."""

    def replace(self, jobs: Sequence[QueuedJob]) -> Sequence[str]:
        """Makes these the jobs that wait: new ones are added, known ones get their priority,
        others go. What a worker has already stays. Returns the runs that were added.
        """
        ...

    def take_back_dead(self) -> Sequence[str]:
        """Takes the jobs from hosts whose heartbeat is missing; returns their runs."""
        ...

    def close(self) -> None: ...


class SlotLocks(Protocol):
    """Locks numbered slots for one holder each; a holder that dies loses them."""

    def try_lock(self, slot: int) -> bool:
        """Tells whether the slot is ours now. Raises OSError."""
        ...

    def unlock(self, slot: int) -> None: ...

    def close(self) -> None: ...


class CallAllowance(Protocol):
    """What a run's calls may cost, within the monthly cap."""

    @property
    def refusal(self) -> str:
        """Says why the last call was refused; empty while there is room."""
        ...

    def take(self, usd: float | None, model: str) -> Any:
        """Takes the most that a call can cost, None where nobody knows; None when the cap
        leaves too little. Raises StoreUnavailable.
        """
        ...

    def settle(self, taken: Any, cost_usd: float | None) -> None:
        """Puts what a call cost in the place of what it took."""
        ...

    def give_back(self, taken: Any) -> None:
        """Undoes a taking: the call brought nothing."""
        ...


@dataclass(frozen=True, slots=True)
class EvalJob:
    """What a worker is to do."""

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
    # allowance, judge_allowance: None where no cap is kept.
    allowance: CallAllowance | None = None
    judge_allowance: CallAllowance | None = None


class EvalRunner(Protocol):
    @property
    def remark(self) -> str:
        """Says why the last run failed, or how far its judge agrees with people; may be
        empty.
        """
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
        Raises JudgeUnfit when nothing can be measured with the suite's judge.
        """
        ...


@dataclass(frozen=True, slots=True)
class SuiteContent:
    """Says what a suite holds, without the hashes of its pin."""

    version: str
    items: int
    scorer: str  # its name


class SuiteCatalog(Protocol):
    """The suites that this installation knows."""

    def names(self) -> Sequence[str]: ...

    def pin(self, suite: str) -> SuitePin:
        """Builds the pin of a suite from its data and scorer. Raises NotFound, naming the
        nearest suite.
        """
        ...

    def content(self, suite: str) -> SuiteContent:
        """Says what a suite holds, sooner than `pin`. Raises as `pin` does."""
        ...

    def groups(self, suite: str) -> ItemGroups:
        """Says which items of a suite belong together. Raises as `pin` does."""
        ...

    def likely_clusters(self, suite: str) -> str:
        """Says that items seem to belong together where no cluster field is named; empty
        otherwise. Raises as `pin` does.
        """
        ...

    def title(self, suite: str) -> str: ...

    def data_class(self, suite: str) -> str:
        """Returns the class of a suite's data (D8), empty for none. Raises NotFound."""
        ...

    def tags(self, suite: str) -> Mapping[str, tuple[str, ...]]:
        """Returns item → tags, of the items that have any. Raises as `pin` does."""
        ...

    def shown(self, suite: str, item: str) -> tuple[str, str]:
        """An item's input and target, as people read them. Raises NotFound, and as pin()."""
        ...
