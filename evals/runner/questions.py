"""Plans a run's questions in seeded order, and builds the samples that a run stores.

Pure. A run's order follows from its seed and the suite's groups. So a later worker continues
where an earlier worker stopped, and both models of a comparison get the same items.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from evals.scorers import AnswerToolCall, ScoreResult
from harness.evals.ports import EvalJob
from harness.evals.settings import SuiteSettings, find_suite
from harness.frame.errors import NotFound, StaleEvidence
from harness.gate.pins import ServedModel
from harness.gate.run import NO_LABEL, Sample, SampleError
from harness.gate.suite_plan import ItemGroups, SuitePin

GIVE_UP_AFTER: Final = 24  # infrastructure errors in a row
EVEN: Final = 0.5  # the win share of an answer against itself


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a run: an item in one of its epochs."""

    position: int  # the item's place in the run's order, from 0
    item: str
    epoch: int  # from 1

    @property
    def id(self) -> str:
        return f"{self.item}#{self.epoch}"


def plan_questions(
    groups: ItemGroups,
    *,
    order_seed: int,
    wanted: int,
    epochs: int,
) -> tuple[Question, ...]:
    """Plans a run's questions.

    Args:
        wanted: the number of items from the beginning of the order.
    """
    return tuple(
        Question(position, item, epoch)
        for position, item in enumerate(groups.order(order_seed)[:wanted])
        for epoch in range(1, epochs + 1)
    )


@dataclass(frozen=True, slots=True)
class AnswerUsage:
    """The tokens, time and judge's calls of one answer. seconds: of the last attempt."""

    input_tokens: int = 0  # includes cached tokens
    output_tokens: int = 0
    seconds: float = 0.0
    cached_tokens: int = 0
    judge_calls: int = 0  # calls that scored the answer
    judge_cost_usd: float | None = None  # None if the judge's price is unknown


def suite_settings(suites: Mapping[str, SuiteSettings], job: EvalJob) -> SuiteSettings:
    """Finds the settings of a run's suite. Raises NotFound if this machine has no such
    suite.
    """
    settings = find_suite(suites, job.run.suite)
    if settings is None:
        raise NotFound(
            f"run {job.run.id}: suite {job.run.suite!r} is not configured on this machine"
        )
    return settings


class RunSuite(Protocol):
    """The parts of a suite that a run uses. unlabelled: item id → the reason for its missing
    label.
    """

    @property
    def pin(self) -> SuitePin: ...

    @property
    def groups(self) -> ItemGroups: ...

    @property
    def unlabelled(self) -> Mapping[str, str]: ...

    def prompt(self, item: str) -> str: ...


def open_questions(job: EvalJob, suite: RunSuite) -> tuple[Question, ...]:
    """Lists the questions without a stored sample, in the run's order.

    Raises StaleEvidence if the suite has changed since the run's registration.
    """
    pin = suite.pin
    if pin.digest != job.run.suite_digest:
        raise StaleEvidence(
            f"run {job.run.id}: suite {pin.name!r} has changed since the run was registered "
            f"({job.run.suite_digest[:12]} then, {pin.digest[:12]} now); start a new run"
        )
    run = job.run
    planned = plan_questions(
        suite.groups,
        order_seed=run.order_seed,
        wanted=run.wanted,
        epochs=run.epochs,
    )
    return tuple(
        question for question in planned if (question.item, question.epoch) not in job.stored
    )


def unlabelled_samples(
    job: EvalJob,
    suite: RunSuite,
    questions: Sequence[Question],
) -> Iterator[Sample]:
    """Yields samples for the questions without a label.

    The run does not ask the model these questions. No scorer could score the answers, so every
    model's scores are missing.
    """
    for question in questions:
        if reason := suite.unlabelled.get(question.item):
            sample = unscored_sample(job, question, AnswerUsage(), prompt="")
            text = f"{NO_LABEL}: {reason}"
            yield replace(sample, error=SampleError.UNLABELLED, error_text=text, cost_usd=0.0)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A logged answer. tokens: of request and answer; None if the log does not say."""

    text: str
    tokens: tuple[int, int] | None = None


def given_samples(
    job: EvalJob,
    suite: RunSuite,
    questions: Sequence[Question],
    answers: Mapping[str, GivenAnswer],
    served: ServedModel,
) -> Iterator[Sample]:
    """Yields the incumbent's samples in a suite of traffic, whose answers are given.

    Each answer is compared with itself, so its win share is ½. The run pays nothing for it: the
    costs are those of the log.

    Args:
        answers: by item; an item without an answer is asked beside the candidate.
    """
    for question in questions:
        if question.item in suite.unlabelled:
            continue
        given = answers.get(question.item, GivenAnswer(""))
        usage = AnswerUsage(*(given.tokens or (0, 0)))
        # Retention recognises a run that still has texts by its prompts.
        prompt = suite.prompt(question.item)
        sample = unscored_sample(job, question, usage, prompt=prompt)
        yield replace(
            sample,
            answer=given.text,
            strict=EVEN,
            lenient=EVEN,
            cost_usd=sample.cost_usd if given.tokens else None,
            error=None,
            error_text="",
            served_model=served.model,
            served_build=served.build,
        )


def labelled_questions(
    suite: RunSuite,
    questions: Sequence[Question],
) -> tuple[Question, ...]:
    """Returns the questions with a label. The run asks the model only these."""
    return tuple(question for question in questions if question.item not in suite.unlabelled)


def answer_text(text: str, calls: Sequence[AnswerToolCall]) -> str:
    """Writes an answer for storage: its text, or a JSON object with text and tool calls."""
    if not calls:
        return text
    entries = [{"name": call.name, "arguments": parse_arguments(call)} for call in calls]
    return json.dumps({"content": text, "tool_calls": entries}, ensure_ascii=False)


def parse_arguments(call: AnswerToolCall) -> object:
    """Reads a call's arguments as JSON; returns the text if they are not JSON."""
    try:
        return json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return call.arguments


def unscored_sample(
    job: EvalJob,
    question: Question,
    usage: AnswerUsage,
    *,
    prompt: str,
    text: str = "",
) -> Sample:
    """Builds the sample of an infrastructure error, without a score.

    Args:
        text: the reason.
    """
    price = job.provider.prices.get(job.target.model)
    tokens = usage.input_tokens, usage.output_tokens, usage.cached_tokens
    return Sample(
        run=job.run.id,
        item=question.item,
        epoch=question.epoch,
        position=question.position,
        answer="",
        strict=None,
        lenient=None,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=None if price is None else price.cost_usd(*tokens),
        duration_s=usage.seconds,
        error=SampleError.INFRA,
        error_text=text,
        prompt=prompt,
        cached_tokens=usage.cached_tokens,
        judge_calls=usage.judge_calls,
        judge_cost_usd=usage.judge_cost_usd,
    )


def scored_sample(
    sample: Sample,
    scored: ScoreResult,
    *,
    why_unscored: str = "",
) -> Sample:
    """Adds a score to a sample. Without a score, the sample says why."""
    unscored = scored.strict is None
    return replace(
        sample,
        strict=scored.strict,
        lenient=scored.lenient,
        rule=scored.rule,
        error=SampleError.UNSCORED if unscored else None,
        error_text=(why_unscored or "the scorer gave no score") if unscored else "",
    )
