"""The collector passes each sample that Inspect finishes to `on_sample`.

It ends the run if `on_sample` returns False (budget, lease), if `stop` returns True, or after
too many failures in a row. An ending run waits for answers in progress, at most `UNDER_WAY_S`,
because they cost money. `inspect_runner` cancels the eval afterwards.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.log import EvalSample, EvalSpec
from inspect_ai.scorer import SampleScore
from inspect_ai.util import EarlyStop
from pydantic import JsonValue

from evals.runner.inspect_model import FALLBACK, SECONDS, SERVED
from evals.runner.inspect_tasks import (
    JUDGE,
    InspectSuite,
    calls_of,
    notes_of,
)
from evals.runner.questions import (
    GIVE_UP_AFTER,
    AnswerUsage,
    Question,
    answer_text,
    scored_sample,
    unscored_sample,
)
from evals.scorers import NotJudged
from evals.scorers.interface import UNSCORED
from harness.evals.ports import EvalJob
from harness.frame.errors import SpendingPaused
from harness.gate.pins import ServedModel
from harness.gate.run import (
    CUT,
    FIRST_ANSWERS,
    RunState,
    Sample,
    SampleError,
    refuse_first,
)

CANCELLED = ("CancelledError", "Cancelled(")
STOP_CHECK_S = 0.5  # interval between calls of `stop` while no sample starts
UNDER_WAY_S = 20.0  # an ending run waits this long for answers in progress
FINISHES = {
    "max_tokens": CUT,
    "content_filter": "content_filter",
    "model_length": "too_long",
}
LAST_LINE = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)")


class Collector:
    """An Inspect EarlyStopping. Inspect's hook passes each finished sample to `take`.

    When the run ends, remaining samples wait in `schedule_sample` until the runner cancels the
    eval. (Inspect would need 12 ms to skip a sample.)

    on_sample and stop run on `thread`, one call at a time, because they may wait for a
    database while the event loop continues.
    away: error texts that mean that the provider is unavailable. The run then stops, and a
    later run repeats these samples.
    """

    def __init__(
        self,
        job: EvalJob,
        suite: InspectSuite,
        questions: Sequence[Question],
        *,
        on_sample: Callable[[Sample], bool],
        stop: Callable[[], bool],
        thread: Executor,
        away: Collection[str],
    ) -> None:
        self._job = job
        self._suite = suite
        self.asked = questions
        self._by_id = {question.id: question for question in questions}
        self._on_sample = on_sample
        self._stop = stop
        self.failures: set[str] = set()  # our texts of the provider's failures
        self._thread = thread
        self._away = away
        self.waits_for = ""  # the error text of an unavailable provider
        self._failed_in_a_row = 0
        self._first_samples: list[Sample] = []
        self.remark = ""
        self._ended: RunState | None = None
        self._under_way = 0
        self._ending = asyncio.Event()
        self._drained = asyncio.Event()
        self.taken: set[str] = set()
        self.error: Exception | None = None

    def state(self) -> RunState:
        """Returns the run's state. A run with a sample for every question is done, even if
        something stopped it.
        """
        if self._ended in (None, RunState.STOPPED) and len(self.taken) == len(self.asked):
            return RunState.DONE
        return self._ended or RunState.FAILED

    async def take(self, sample: EvalSample) -> None:
        """Passes a finished sample on, once. A later run asks a cancelled sample again."""
        await self._hand_over(sample)
        self._under_way -= 1
        self._check_drained()

    async def _hand_over(self, sample: EvalSample) -> None:
        """Passes a sample on, unless Inspect cancelled it, the run has it, or the monthly cap
        blocked it. Ends the run if the sample shows that it cannot go on.
        """
        question = self._by_id.get(str(sample.id))
        is_cancelled = sample.error is not None and sample.error.message.startswith(CANCELLED)
        # A later run asks the samples that the monthly cap blocked.
        is_unpaid = error_kind(sample).rpartition(".")[2] == SpendingPaused.__name__
        if (
            question is None
            or question.id in self.taken
            or is_cancelled
            or is_unpaid
            or self.error
        ):
            return
        stored = self._build_sample(question, sample)
        away_text = next((text for text in self._away if text in stored.error_text), "")
        if away_text:
            self.waits_for = away_text
            if self._ended is None:
                self._end(RunState.STOPPED)
            return
        self.taken.add(question.id)
        try:
            is_infra = not stored.is_own
            self._failed_in_a_row = self._failed_in_a_row + 1 if is_infra else 0
            may_continue = await self._call(self._on_sample, stored)
        except Exception as error:  # noqa: BLE001 - the runner raises it
            self.error = error
            self._end(RunState.FAILED)
            return
        if not may_continue:
            self._end(RunState.OVER_BUDGET)
        elif self._ended is None and (
            self._is_refused(stored)
            or self._failed_in_a_row >= GIVE_UP_AFTER
            or (is_infra and self._suite.spent())
        ):
            self._end(RunState.FAILED)

    def _is_refused(self, sample: Sample) -> bool:
        """Returns whether the first answers show that the model cannot answer this suite.
        Checks only runs without stored samples.
        """
        if self._job.stored or len(self._first_samples) == FIRST_ANSWERS:
            return False
        self._first_samples.append(sample)
        self.remark = refuse_first(self._first_samples, self._job.target.model)
        return bool(self.remark) and len(self.taken) < len(self.asked)

    async def _call(self, function: Callable[..., bool], *args: object) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def start_task(
        self,
        task: EvalSpec,  # noqa: ARG002 - Inspect's protocol, here and below
        samples: list[InspectSample],  # noqa: ARG002
        epochs: int,  # noqa: ARG002
    ) -> str:
        return "swapproof"

    async def schedule_sample(self, id: str | int, epoch: int) -> EarlyStop | None:  # noqa: A002 - Inspect's protocol
        """Admits a sample, or holds it until the eval is cancelled if the run has ended."""
        await self._ask_to_stop()
        if self._ended is None:
            self._under_way += 1
            return None
        await asyncio.Event().wait()  # until inspect_runner.py cancels the eval
        return EarlyStop(id=id, epoch=epoch)

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Marks a sample as waiting for a provider's slot; `ended` does not wait for it.

        A sample whose slot arrives after the end sends no request, which saves the cost.
        """
        self._under_way -= 1
        self._check_drained()
        try:
            yield
            if self._ended is not None:
                await asyncio.Event().wait()  # until inspect_runner.py cancels the eval
        finally:
            self._under_way += 1

    async def ended(self) -> None:
        """Returns after the run's end, when no answer is in progress or UNDER_WAY_S is over."""
        while self._ended is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_CHECK_S):
                    await self._ending.wait()
            await self._ask_to_stop()
        self._check_drained()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNDER_WAY_S):
                await self._drained.wait()

    async def _ask_to_stop(self) -> None:
        if self._ended is not None:
            return
        try:
            should_stop = await self._call(self._stop)
        except Exception as error:  # noqa: BLE001 - the runner raises it
            self.error = error
            self._end(RunState.FAILED)
            return
        # A sample may have ended the run during the call.
        if should_stop and self._ended is None:
            self._end(RunState.STOPPED)

    def _end(self, state: RunState) -> None:
        self._ended = state
        self._ending.set()

    def _check_drained(self) -> None:
        if self._ended is not None and self._under_way <= 0:
            self._drained.set()

    async def complete_sample(
        self,
        id: str | int,  # noqa: A002 - Inspect's protocol
        epoch: int,
        scores: dict[str, SampleScore],
    ) -> None:
        """Does nothing, because `take` gets the sample."""

    async def complete_task(self) -> dict[str, JsonValue]:
        return {}

    def _build_sample(self, question: Question, sample: EvalSample) -> Sample:
        """Builds our sample from Inspect's: scored, without a score and a reason, or failed.

        A failure of the provider is an infrastructure error. A failure of the scorer leaves the
        answer unscored, because the model has answered.
        """
        usage = sample_usage(sample)
        prompt = self._suite.prompt(question.item)
        unscored = unscored_sample(self._job, question, usage, prompt=prompt)
        answer = answer_text(sample.output.completion, calls_of(sample.output))
        failure = self._provider_failure(sample)
        if sample.error is not None and (failure or not answer):
            text = failure or f"the task failed with {error_kind(sample)}"
            return replace(unscored, error_text=text)
        stop_reason = sample.output.choices[0].stop_reason if sample.output.choices else ""
        served = ServedModel(
            *(sample.output.metadata or {}).get(SERVED, (sample.output.model,))
        )
        if (sample.output.metadata or {}).get(FALLBACK):
            reason = "a gateway's fallback answered, not the model"
            return replace(
                unscored,
                answer=answer,
                error=SampleError.FALLBACK,
                error_text=reason,
            )
        judge = ServedModel(*self._suite.judges(sample))
        answered = replace(
            unscored,
            answer=answer,
            served_model=served.model,
            served_build=served.build,
            judge_model=judge.model,
            judge_build=judge.build,
            finish=FINISHES.get(stop_reason, ""),
        )
        if sample.error is not None:
            reason = f"the scorer failed with {error_kind(sample)}"
            return scored_sample(answered, UNSCORED, why_unscored=reason)
        if answered.finish == CUT and not text_after_thinking(answer):
            limit = (
                f"{answered.output_tokens:,} tokens" if answered.output_tokens else "its limit"
            )
            reason = f"the answer was cut at {limit} before any text: thinking used all of them"
            return scored_sample(answered, UNSCORED, why_unscored=reason)
        try:
            scored, reason = self._suite.scored(sample)
        except NotJudged as error:
            return replace(answered, error_text=str(error))
        return scored_sample(answered, scored, why_unscored=reason)

    def _provider_failure(self, sample: EvalSample) -> str:
        """Returns only our failure text, because Inspect's message may contain the request."""
        message = sample.error.message if sample.error else ""
        return next((text for text in self.failures if text in message), "")


def text_after_thinking(answer: str) -> str:
    """Returns the answer, or an empty text if a self-hosted model's `<think>` never ends."""
    text = answer.strip()
    return "" if text.startswith("<think>") and "</think>" not in text else text


def error_kind(sample: EvalSample) -> str:
    """Returns the exception's name without its text, which may contain the prompt."""
    lines = sample.error.traceback.strip().splitlines() if sample.error else []
    matches = (LAST_LINE.match(line) for line in reversed(lines))
    return next((match[1] for match in matches if match), "an error")


def sample_usage(sample: EvalSample) -> AnswerUsage:
    """Sums the usage of the sample's calls; `seconds` is the last answer's time."""
    usages = list(sample.model_usage.values())
    judge = notes_of(sample).get(JUDGE)
    seconds = (sample.output.metadata or {}).get(SECONDS) or sample.working_time or 0.0
    return AnswerUsage(
        input_tokens=sum(
            usage.input_tokens
            + (usage.input_tokens_cache_read or 0)
            + (usage.input_tokens_cache_write or 0)
            for usage in usages
        ),
        output_tokens=sum(usage.output_tokens for usage in usages),
        seconds=float(seconds),
        cached_tokens=sum(usage.input_tokens_cache_read or 0 for usage in usages),
        judge_calls=judge["calls"] if judge else 0,
        judge_cost_usd=judge["cost_usd"] if judge else None,
    )
