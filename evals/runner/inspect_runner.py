"""Runs one eval per process with Inspect AI, because Inspect refuses a second eval.

The runner checks the judge, passes on each finished sample, then passes on samples that are
only in Inspect's log. The log contains prompts, so it is in a private temporary folder. The
runner also deletes the logs of killed runs.

The functions `leave_out_…` save imports that our evals do not need. They patch Inspect's
modules, so a new version of Inspect must be checked against them.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from inspect_ai import eval_async
from inspect_ai.agent._acp.transport import _acp_live_active as is_below_a_session
from inspect_ai.hooks import Hooks, SampleEnd, hooks
from inspect_ai.log import (
    EvalLog,
    read_eval_log_sample_async,
    read_eval_log_sample_summaries_async,
)
from inspect_ai.model import Model, _assistant_internal
from inspect_ai.util import display_type

from evals.runner.collector import Collector
from evals.runner.inspect_model import (
    MeasuredLimit,
    TargetConnection,
    open_model,
)
from evals.runner.inspect_tasks import DataSuite, InspectSuite, inspect_suite
from evals.runner.judge_calibration import (
    CalibrationCache,
    Judge,
    agreement_text,
    demand_agreement,
    measure_judge,
)
from evals.runner.provider_client import EvalProviderClient, ModelSpending
from evals.runner.questions import (
    GivenAnswer,
    Question,
    given_samples,
    labelled_questions,
    open_questions,
    suite_settings,
    unlabelled_samples,
)
from evals.runner.rate_gate import RateGate, RateGates
from evals.runner.record_check import (
    AskedIncumbent,
    RecordCheck,
    answer_items,
    check_record,
)
from evals.scorers import NotJudged
from evals.suites.items import is_answered, logged_tokens
from harness.evals.ports import CallSpending, EvalJob
from harness.evals.settings import SuiteSettings
from harness.frame.errors import JudgeUnfit, ProviderAway
from harness.gate.pins import ServedModel
from harness.gate.run import JudgeCalibration, RunState, Sample
from harness.providers.ports import ProviderCallsFactory
from harness.providers.target import Provider, Target
from harness.routing.reliability.users_first import account_of

AGENT_SERVER = "inspect_ai.agent._acp.server"


def leave_out_vendor_sdks() -> None:
    """Stops Inspect from importing the installed SDKs of OpenAI and Anthropic.

    The import takes seconds of each run, and our suites do not need them. A user's task may
    need them.
    """
    for flag in ("_HAS_OPENAI", "_HAS_ANTHROPIC"):
        setattr(_assistant_internal, flag, False)


def leave_out_agent_server() -> None:
    """Stops Inspect from importing its agent server, which takes half a second of each run."""
    if AGENT_SERVER in sys.modules:
        return
    module = ModuleType(AGENT_SERVER, "Replaces a server that our evals never start.")
    vars(module).update(
        acp_server=_start_no_server,
        acp_server_accepting_clients=lambda: False,
    )
    sys.modules[AGENT_SERVER] = module


@asynccontextmanager
async def _start_no_server(**_: object) -> AsyncIterator[None]:
    yield None


def leave_out_agent_sessions() -> None:
    """Stops Inspect from translating the samples' events for the agent server."""
    # With this mark Inspect assumes an outer session, and opens only sessions that do nothing.
    is_below_a_session.set(True)


log = logging.getLogger(__name__)
_collector: Collector | None = None


@hooks(
    name="swapproof",
    description="passes each finished sample to the collector",
)
class SampleHooks(Hooks):
    async def on_sample_end(self, data: SampleEnd) -> None:
        if _collector is not None:
            await _collector.take(data.sample)


class InspectRunner:
    """Runs evals with Inspect, and deletes Inspect's log after each run.

    checks: recent calibrations of judges; without it each run checks its judge.
    paces: the providers' rate limits; without them the runner sends calls immediately.
    allowed: exceptions for addresses, as `api_base_rules` reads them.
    calls: makes the clients that send requests to a provider.
    """

    def __init__(
        self,
        suites: Mapping[str, SuiteSettings],
        *,
        calls: ProviderCallsFactory,
        checks: CalibrationCache | None = None,
        paces: RateGates | None = None,
        allowed: Collection[str] = (),
    ) -> None:
        self._suites = suites
        self._checks = checks
        self._paces = paces
        self._allowed = allowed
        self._calls = calls
        self.remark = ""
        self._full_disk = ""  # the message, if the disk of Inspect's log was full
        self.calibration: JudgeCalibration | None = None
        self._away: dict[str, tuple[str, float]] = {}

    def run(
        self,
        job: EvalJob,
        on_sample: Callable[[Sample], bool],
        stop: Callable[[], bool],
    ) -> RunState:
        """Asks the open questions of a job, and returns the run's state.

        Args:
            on_sample: stores a sample; False ends the run.
            stop: called between samples; True ends the run.

        Afterwards `remark` says why a run failed, and `calibration` is a new measurement of the
        judge.
        Raises the errors of on_sample, stop and the suite, StaleEvidence, JudgeUnfit, and
        ProviderAway if the provider is unavailable.
        """
        self.remark = ""
        self.calibration = None
        self._full_disk = ""
        self._away = {}
        plain = inspect_suite(suite_settings(self._suites, job))
        suite = self._attach_incumbent(job, self._attach_judge(job, plain))
        questions = open_questions(job, suite)
        if isinstance(suite, DataSuite) and suite.suite.answers_of == job.target.name:
            return self._give_answers(job, suite, questions, on_sample)
        if not all(map(on_sample, unlabelled_samples(job, suite, questions))):
            return RunState.OVER_BUDGET
        questions = labelled_questions(suite, questions)
        if not questions:
            return RunState.DONE
        with contextlib.ExitStack() as stack:
            # Inspect prints a greeting to stdout, which is for data.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            # eval_async uses the variable only if display_type() has read it.
            os.environ["INSPECT_DISPLAY"] = "none"
            display_type()
            leave_out_agent_server()
            if isinstance(suite, DataSuite):
                leave_out_vendor_sdks()
            folder = stack.enter_context(run_dir())
            thread = stack.enter_context(ThreadPoolExecutor(1, "samples"))
            collector = Collector(
                job,
                suite,
                questions,
                on_sample=on_sample,
                stop=stop,
                thread=thread,
                away=self._away,
            )
            asyncio.run(self._run(job, suite, collector, folder))
        if collector.error is not None:
            raise collector.error
        if collector.waits_for:
            raise self._build_away_error(collector.waits_for)
        state = collector.state()
        if state is RunState.FAILED:
            self.remark = self._full_disk or suite.spent() or collector.remark
        return state

    async def _run(
        self,
        job: EvalJob,
        suite: InspectSuite,
        collector: Collector,
        folder: Path,
    ) -> None:
        global _collector  # noqa: PLW0603 - Inspect creates the hook's only instance
        target_call = job.provider, job.api_key, job.target, job.spending
        client = self._build_client(job, *target_call, waiting=collector.waiting)
        _collector = collector
        try:
            await self._calibrate_judge(job, suite)
            target = job.provider.as_sent(job.target)
            is_measured = isinstance(suite, DataSuite) and suite.fixed_limit is None
            limit = MeasuredLimit() if is_measured else None
            model = open_model(TargetConnection(target, client, collector.failures, limit))
            evaluation = _evaluate(suite, collector, model, folder, job.max_connections)
            eval_ = asyncio.create_task(evaluation)
            ended = asyncio.create_task(collector.ended())
            await asyncio.wait({eval_, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not eval_.done():
                eval_.cancel()
            await asyncio.wait({eval_, ended})
            eval_log = None if eval_.cancelled() else eval_.result()
            if eval_log is not None:
                self._full_disk = _describe_full_disk(eval_log, folder)
                await _reconcile(eval_log, collector)
        finally:
            _collector = None
            await client.close()
            if isinstance(suite, DataSuite):
                for opened in (suite.judging, suite.incumbent):
                    if opened is not None:
                        await opened.close()

    def _attach_judge(self, job: EvalJob, suite: InspectSuite) -> InspectSuite:
        """Adds the judge's client to a suite with a judge. Raises JudgeUnfit if its provider is
        missing.
        """
        if not isinstance(suite, DataSuite) or suite.suite.settings.judge is None:
            return suite
        settings = suite.suite.settings.judge
        provider = job.judge_provider
        if provider is None:
            raise JudgeUnfit(
                f"suite {suite.pin.name}: there is no provider {settings.target.provider!r} "
                f"for its judge {settings.target.name}; name it under `providers` in the "
                "configuration"
            )
        judge_call = (
            provider,
            job.judge_api_key,
            settings.target,
            job.judge_spending,
        )
        client = self._build_client(job, *judge_call, timeout_s=settings.timeout_s)
        return replace(
            suite,
            judging=Judge(settings, provider, client, calls=len(job.stored)),
        )

    def _attach_incumbent(self, job: EvalJob, suite: InspectSuite) -> InspectSuite:
        """Adds the client of the incumbent to a suite of traffic, if this run has its
        provider.
        """
        if not isinstance(suite, DataSuite) or not suite.suite.is_traffic:
            return suite
        target, provider, api_key = job.incumbent, job.incumbent_provider, job.incumbent_api_key
        if target is None or provider is None:
            return suite
        client = self._build_client(job, provider, api_key, target, job.spending)
        asked = AskedIncumbent(provider.as_sent(target), client, suite.suite)
        return replace(suite, incumbent=asked)

    def _give_answers(
        self,
        job: EvalJob,
        suite: DataSuite,
        questions: Sequence[Question],
        on_sample: Callable[[Sample], bool],
    ) -> RunState:
        """Passes on the logged answers as the incumbent's samples, once the record is checked.

        Raises RecordStale, JudgeUnfit, ProviderAway.
        """
        try:
            check, new_answers = asyncio.run(self._ask_incumbent(job, suite, questions))
        except NotJudged as error:
            for text in self._away:
                raise self._build_away_error(text) from None
            self.remark = f"the record could not be checked: {error}"
            return RunState.FAILED
        self.remark = check.text
        logged = {
            item.id: GivenAnswer(str(item.target), logged_tokens(item))
            for item in suite.suite.items.values()
            if is_answered(item)
        }
        answers = {**logged, **new_answers}
        served = ServedModel(check.served, check.build)
        samples = given_samples(job, suite, questions, answers, served)
        open_samples = chain(unlabelled_samples(job, suite, questions), samples)
        return RunState.DONE if all(map(on_sample, open_samples)) else RunState.OVER_BUDGET

    async def _ask_incumbent(
        self, job: EvalJob, suite: DataSuite, questions: Sequence[Question]
    ) -> tuple[RecordCheck, Mapping[str, GivenAnswer]]:
        """Checks the record, and asks the items that the log has no answer to. Raises
        RecordStale, NotJudged.
        """
        assert suite.judging is not None  # noqa: S101 - load_suite requires a judge
        if suite.incumbent is None:
            raise NotJudged(f"there is no provider of the incumbent {suite.suite.answers_of}")
        connections = job.max_connections
        try:
            check = await check_record(
                suite.suite,
                suite.incumbent,
                suite.judging,
                checks=self._checks,
                connections=connections,
            )
            asked = [suite.suite.items[question.item] for question in questions]
            return check, await answer_items(suite.incumbent, asked, connections)
        finally:
            await suite.incumbent.close()
            await suite.judging.close()

    def _build_client(
        self,
        job: EvalJob,
        provider: Provider,
        api_key: str | None,
        target: Target,
        spending: CallSpending | None,
        **options: Any,
    ) -> EvalProviderClient:
        """Builds a client for the target or the judge, with the rate gate and the costs of its
        model.
        """
        price = provider.prices.get(target.model)
        return EvalProviderClient(
            provider,
            api_key,
            connections=job.max_connections,
            pace=self._find_gate(provider, api_key, target),
            allowed=self._allowed,
            calls=self._calls,
            spending=ModelSpending(spending, price, target.name) if spending else None,
            away=self._away,
            **options,
        )

    def _find_gate(
        self,
        provider: Provider,
        api_key: str | None,
        target: Target,
    ) -> RateGate | None:
        if self._paces is None:
            return None
        account = account_of(provider.api_base, api_key or "")
        return self._paces.gate_for(provider.name, target.model, account)

    def _build_away_error(self, text: str) -> ProviderAway:
        provider, first_failed = self._away[text]
        return ProviderAway(provider, text, time.perf_counter() - first_failed)

    async def _calibrate_judge(self, job: EvalJob, suite: InspectSuite) -> None:
        """Calibrates the judge unless it was done recently. Raises JudgeUnfit, ProviderAway."""
        if isinstance(suite, DataSuite) and suite.judging is not None:
            try:
                agreement = await measure_judge(
                    suite.suite,
                    suite.judging,
                    checks=self._checks,
                    connections=job.max_connections,
                )
            except JudgeUnfit:
                for text in self._away:
                    raise self._build_away_error(text) from None
                raise
            if agreement is None:
                return
            # Also store a refused judge's calibration, so that repeated attempts stay visible.
            self.calibration = JudgeCalibration(agreement.n, agreement.kappa)
            demand_agreement(suite.suite.settings, agreement)
            self.remark = agreement_text(suite.suite.settings, agreement)


async def _evaluate(
    suite: InspectSuite,
    collector: Collector,
    model: Model,
    folder: Path,
    connections: int,
) -> EvalLog | None:
    """Returns the log, or None if a cancellation prevented it."""
    if isinstance(suite, DataSuite):
        leave_out_agent_sessions()
    logs = await eval_async(
        suite.task(collector.asked, collector),
        model=model,
        log_dir=str(folder),
        log_level="error",
        log_header_only=True,
        log_images=False,
        log_model_api=False,
        log_realtime=False,
        log_buffer=50,
        max_samples=connections,
        max_connections=connections,
        max_tasks=1,
        fail_on_error=False,
        retry_on_error=0,
        score_on_error=False,
        score_display=False,
        ctl_server=False,
    )
    return logs[0] if logs else None


def _describe_full_disk(eval_log: EvalLog, folder: Path) -> str:
    """Returns our message if the disk was full, because Inspect's may contain the prompt."""
    message = eval_log.error.message if eval_log.error is not None else ""
    if not any(f"OSError({number}, " in message for number in FULL):
        return ""
    return (
        f"the disk of {folder.parent}, with Inspect's log, is full: free space there, "
        "or start the worker with TMPDIR on another disk; the run keeps its stored samples"
    )


async def _reconcile(eval_log: EvalLog, collector: Collector) -> None:
    """Passes on samples that are only in Inspect's log, for example after a cancelled hook."""
    if eval_log.status != "success" and not collector.taken:
        # Without Inspect's text, which may contain the prompt.
        log.error(
            "inspect ended the eval with status %s before any sample",
            eval_log.status,
        )
    for summary in await read_eval_log_sample_summaries_async(eval_log.location):
        if str(summary.id) not in collector.taken and summary.completed:
            sample = await read_eval_log_sample_async(eval_log.location, summary.id)
            await collector.take(sample)


FULL = (errno.ENOSPC, errno.EDQUOT)
PREFIX = "swapproof-eval-"
IN_USE = "in-use"


@contextlib.contextmanager
def run_dir() -> Iterator[Path]:
    """Creates a folder that only this user can read, and deletes it afterwards."""
    clear_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / IN_USE).open("w") as mark:
            # The kernel releases the lock, however the process ends.
            fcntl.flock(mark, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_abandoned() -> None:
    """Deletes the folders of runs whose process has ended without deleting them."""
    for mark in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{IN_USE}"):
        # The folder may belong to another user, or another run may just have deleted it.
        with contextlib.suppress(OSError), mark.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent, ignore_errors=True)
