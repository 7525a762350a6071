"""An eval run sends a suite's items to one target, and has a sample for each answer.
`AnswerColumns` holds many answers' figures without an object for each answer.

This module holds values and their rules. `evals.runner` asks the models,
`harness.proposals.eval_queue` orders the runs, and `harness.gate.offline.pairs` compares two of
them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain, compress
from typing import Final, Self

from harness.frame.errors import AWAY
from harness.frame.failures import LONGEST_PAUSE_S, describe_absence
from harness.frame.plain_data import digest, hash_content
from harness.gate.pins import ServedModel

LEASE_S: Final = 10.0


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"  # every planned sample is stored
    STOPPED = "stopped"  # the gate had decided; can be continued
    OVER_BUDGET = "over_budget"
    FAILED = "failed"  # an infrastructure error remained after all retries


RUNNABLE_STATES: Final = (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class RunBudget:
    """The limits at which a run stops cleanly. None: no limit."""

    max_tokens: int | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class EvalRun:
    """The run of a suite on a target. order_seed sets the order of the items."""

    id: str
    suite: str
    suite_digest: str
    target: str
    order_seed: int
    epochs: int
    wanted: int  # number of items to ask, from the start of that order
    state: RunState
    created_at: datetime
    budget: RunBudget = RunBudget()
    # lease_owner, lease_until: the current worker; another may take over an expired lease.
    lease_owner: str | None = None
    lease_until: datetime | None = None
    failures: int = 0  # failed attempts of workers
    message: str = ""
    # waits_since, retry_at: start of the wait for an unavailable provider, and time of the next
    # try. `message` then contains the provider and the cause.
    waits_since: datetime | None = None
    retry_at: datetime | None = None
    patience_since: datetime | None = None  # waits_since, or when a person retried the run

    def is_waiting(self, now: datetime) -> bool:
        """Tells whether the run pauses until `retry_at`, because its provider is unavailable.

        A time further away than the longest pause comes from a clock that was set back, and
        does not count.
        """
        if self.state is not RunState.QUEUED or self.retry_at is None:
            return False
        return 0 < (self.retry_at - now).total_seconds() <= LONGEST_PAUSE_S

    def has_waited(self, patience_s: float, now: datetime) -> bool:
        """Tells whether it has waited for a provider for at least `patience_s`."""
        if self.state is not RunState.QUEUED or self.patience_since is None:
            return False
        return (now - self.patience_since).total_seconds() >= patience_s

    @property
    def is_manual(self) -> bool:
        """Tells whether a person started the run, outside any proposal and drift watch."""
        return self.order_seed == manual_order_seed(self.suite_digest)

    @property
    def fingerprint(self) -> str:
        """A hash of suite, target, order and epochs: runs with one hash may share samples."""
        return digest([self.suite_digest, self.target, self.order_seed, self.epochs])

    def is_leased(self, now: datetime) -> bool:
        """Tells whether a worker holds the run now.

        A lease that ends implausibly late does not count.
        """
        until = self.lease_until
        return until is not None and now < until <= latest_lease_end(now, LEASE_S)


def describe_waits(runs: Iterable[EvalRun], now: datetime) -> str:
    """Describes each provider that runs wait for: since when, why, and when they try again."""
    waiting = [run for run in runs if run.state in RUNNABLE_STATES and run.waits_since]
    by_provider: dict[str, list[EvalRun]] = {}
    for run in sorted(waiting, key=lambda run: (run.waits_since or now, run.id)):
        by_provider.setdefault(run.message.partition(AWAY)[0], []).append(run)
    texts = []
    for first, *others in by_provider.values():
        away = describe_absence(first.message, first.waits_since or now, now)
        pauses = all(run.is_waiting(now) for run in (first, *others))
        next_try = min(run.retry_at or now for run in (first, *others))
        next_text = f"next try {next_try:%H:%M:%S}" if pauses else "trying again now"
        texts.append(f"waits for {away}; {next_text}")
    return "; ".join(texts)


def manual_order_seed(suite_digest: str) -> int:
    """Returns the seed of manual runs. It differs from a proposal's seed, so that they never
    share samples.
    """
    return int(suite_digest[8:16], 16)


def latest_lease_end(now: datetime, lease_s: float) -> datetime:
    """The latest plausible end of a lease. A later end comes from a clock that was set back.

    Allows twice the lease, because the clocks of two machines differ a little.
    """
    return now + timedelta(seconds=2 * lease_s)


# Stands for an answer's text where only the existence of an answer counts.
ANSWER_PLACEHOLDER: Final = "…"


CUT: Final = "length"
LEAST_THINKING: Final = 4_096  # tokens; a limit that leaves room to think
# Format rules of unreadable answers, and a predicate for each.
UNREADABLE: Final[Mapping[str, str]] = {
    "empty_answer": "are empty",
    "no_label": "contain no label",
    "no_choice": "contain no choice",
    "no_number": "contain no number",
    "no_json": "contain no JSON object",
}
NO_TEXT: Final = frozenset(map(hash_content, ("", ANSWER_PLACEHOLDER)))
FIRST_ANSWERS: Final = 5  # a run ends after this many answers if no answer can be scored
HIGH_SHARE: Final = 0.2  # of a model's answers


class SampleError(StrEnum):
    """Why a sample has no score. The gate still counts the sample."""

    UNSCORED = "unscored"  # answered, but the scorer failed, or its judge gave no score
    INFRA = "infra"  # Swapproof's or the provider's infrastructure failed, after all retries
    FALLBACK = "fallback"  # a gateway marks the answer as its fallback's
    UNLABELLED = "unlabelled"  # not asked: the drawn record has no label to score by


# Errors of samples that have no answer of the target's own model.
_NOT_THE_MODELS: Final = frozenset(
    {SampleError.INFRA, SampleError.FALLBACK, SampleError.UNLABELLED}
)
# Begins the text of every UNLABELLED error. The gate finds unlabelled items by it, because a
# verdict's stored inputs have the reasons as texts, and are recomputed to the same bytes.
NO_LABEL: Final = "no label"
# In the message of a run whose suite of traffic no longer shows its incumbent.
RECORD_STALE: Final = "so its record is stale"
# The values of `error` that another attempt cannot change; None is a sample with a score.
LASTING: Final = frozenset({None, SampleError.UNLABELLED})


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of a target to one item, with its scores, usage and origin.

    A sample with `error` has no score that counts. Costs are in US dollars, None if the price
    is unknown.
    """

    run: str
    item: str
    epoch: int
    position: int  # of the item in the run's order, from 0
    answer: str
    # strict, lenient: scores in [0, 1]; None without a score (`error` gives the cause).
    strict: float | None
    lenient: float | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_s: float  # wall time of the model's answer
    error: SampleError | None = None
    error_text: str = ""
    served_model: str = ""  # served_model, served_build: as the provider named them
    prompt: str = ""
    rule: str = ""  # the broken format rule, if strict and lenient differ
    cached_tokens: int = 0  # input tokens read from the provider's cache
    # The judge's calls for this sample, and their cost; None if its price is unknown.
    judge_calls: int = 0
    judge_cost_usd: float | None = None
    served_build: str = ""
    # judge_model, judge_build: as the judge's provider named them; else empty.
    judge_model: str = ""
    judge_build: str = ""
    # Why the answer ended early: CUT, `content_filter` or `too_long`; else empty.
    finish: str = ""

    @property
    def is_own(self) -> bool:
        """Tells whether the target's own model answered."""
        return self.error not in _NOT_THE_MODELS

    @property
    def served(self) -> ServedModel:
        return ServedModel(self.served_model, self.served_build)

    @property
    def judge(self) -> ServedModel:
        return ServedModel(self.judge_model, self.judge_build)

    @property
    def answer_sha256(self) -> str:
        return hash_content(self.answer)

    @property
    def is_silent_cut(self) -> bool:
        """Tells whether it ended at the token limit while the model still thought."""
        return self.error is SampleError.UNSCORED and self.finish == CUT

    @property
    def is_unreadable(self) -> bool:
        """Tells whether the answer contains nothing of the requested form."""
        return self.error is None and self.rule in UNREADABLE


def is_nothing_readable(answers: Iterable[tuple[str | None, str]]) -> bool:
    """Tells whether all answers without an error are unreadable; False if every answer has an
    error.

    Args:
        answers: (error, rule) each.
    """
    has_answer = False
    for error, rule in answers:
        if error is None and rule not in UNREADABLE:
            return False
        has_answer = has_answer or error is None
    return has_answer


CALIBRATED: Final = "judge.calibrated"  # an action of the audit log
EVER: Final = datetime.fromtimestamp(0, UTC)  # earlier than any calibration


@dataclass(frozen=True, slots=True)
class JudgeCalibration:
    """How well a judge's scores agree with people's scores of the same answers."""

    references: int
    kappa: float | None  # Cohen's kappa; None if all references have the same score


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The figures of answers in any order. Each column is a field of `Sample`."""

    item: Sequence[str] = ()
    epoch: Sequence[int] = ()
    position: Sequence[int] = ()
    strict: Sequence[float | None] = ()
    error: Sequence[str | None] = ()
    duration_s: Sequence[float] = ()
    cost_usd: Sequence[float | None] = ()
    input_tokens: Sequence[int] = ()
    output_tokens: Sequence[int] = ()
    cached_tokens: Sequence[int] = ()
    judge_calls: Sequence[int] = ()
    judge_cost_usd: Sequence[float | None] = ()
    served_model: Sequence[str] = ()
    served_build: Sequence[str] = ()
    judge_model: Sequence[str] = ()
    judge_build: Sequence[str] = ()
    error_text: Sequence[str] = ()
    rule: Sequence[str] = ()
    finish: Sequence[str] = ()
    answer_sha256: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[object]]) -> Self:
        """Builds columns from rows whose values are in the order of COLUMNS.

        Needs at least one row.
        """
        columns: Iterable[Sequence[object]] = zip(*rows, strict=True)
        return cls(*columns)  # type: ignore[arg-type]

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Self:
        return cls(*([getattr(sample, name) for sample in samples] for name in COLUMNS))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """Puts the answers of several parts after one another."""
        filled = [part for part in parts if len(part)]
        if len(filled) == 1:
            return filled[0]
        return cls(
            *(list(chain(*(getattr(part, name) for part in filled))) for name in COLUMNS)
        )

    @property
    def answered(self) -> Self:
        """The answers that came from the model: without failures of the infrastructure and
        answers of a gateway's fallback.
        """
        if _NOT_THE_MODELS.isdisjoint(self.error):
            return self
        wanted = [error not in _NOT_THE_MODELS for error in self.error]
        return type(self)(*(list(compress(getattr(self, name), wanted)) for name in COLUMNS))

    @property
    def served(self) -> frozenset[ServedModel]:
        """The models that the provider named in these answers, each once."""
        return _models(self.served_model, self.served_build)

    @property
    def judges(self) -> frozenset[ServedModel]:
        """The models that scored these answers, each once."""
        return _models(self.judge_model, self.judge_build)


def describe_faults(
    answers: AnswerColumns,
    model: str,
    *,
    first: bool = False,
) -> Sequence[str]:
    """Describes why answers are poor evidence.

    Args:
        first: only a run's first answers.
    """
    total = len(answers)
    faults = []

    answered = f"{model}'s {'first ' if first else ''}{total} answers"

    def say(number: int, problem: str) -> None:
        if number > HIGH_SHARE * total:
            share = answered if number == total else f"{number} of {answered}"
            faults.append(f"{share} {problem}")

    whole = zip(answers.rule, answers.finish, strict=True)
    rules = Counter(rule for rule, end in whole if rule in UNREADABLE and end != CUT)
    if cut := count_cut(answers):
        faults.append(f"{cut.number} of {answered} were {cut.text}: {cut.advice}")
    for rule, number in rules.most_common():
        say(
            number,
            f"{UNREADABLE[rule]}: the model may lack a chat template, or the suite a format "
            "prompt",
        )
    ends = zip(answers.error, answers.error_text, answers.finish, strict=True)
    lost = [why for error, why, end in ends if error and end != CUT]
    if lost:
        (why, _), *_ = Counter(lost).most_common(1)
        say(len(lost), f"have no score: {why.rstrip('. ') or 'no reply'}")
    texts = set(answers.answer_sha256)
    if total >= FIRST_ANSWERS and len(texts) == 1 and not texts & NO_TEXT:
        say(total, "are all the same text")
    return faults


@dataclass(frozen=True, slots=True)
class CutAnswers:
    """Cut answers. silent: number without any text. limit: 0 if no usage was reported."""

    number: int
    silent: int
    limit: int

    @property
    def text(self) -> str:
        at = f"{self.limit:,} tokens" if self.limit else "the token limit"
        before = f", {self.silent} of them before any answer" if self.silent else ""
        return f"cut at {at} (finish reason: length){before}"

    @property
    def advice(self) -> str:
        least = max(LEAST_THINKING, 4 * self.limit)
        return f"set the suite's max_output_tokens to `auto`, or to {least:,}"


def count_cut(answers: AnswerColumns) -> CutAnswers | None:
    """Counts the answers that ended at the token limit; None if no answer did."""
    rows = zip(answers.finish, answers.error, answers.output_tokens, strict=True)
    cut = [(error, tokens) for finish, error, tokens in rows if finish == CUT]
    if not cut:
        return None
    silent = sum(error == SampleError.UNSCORED for error, _ in cut)
    return CutAnswers(len(cut), silent, max(tokens for _, tokens in cut))


def refuse_first(answers: Sequence[Sample], model: str) -> str:
    """Explains why a run ends after its first answers; empty if it continues."""
    if len(answers) < FIRST_ANSWERS or not all(
        one.error or one.is_unreadable for one in answers
    ):
        return ""
    return "; ".join(describe_faults(AnswerColumns.from_samples(answers), model, first=True))


COLUMNS: Final = tuple(column.name for column in fields(AnswerColumns))


def _models(names: Sequence[str], builds: Sequence[str]) -> frozenset[ServedModel]:
    return frozenset(
        ServedModel(name, build) for name, build in set(zip(names, builds, strict=True))
    )
