"""`ScriptedRunner` answers by a test's function; the real scorers score."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from evals.runner.provider_client import ProviderFailed
from evals.runner.questions import (
    GIVE_UP_AFTER,
    AnswerUsage,
    GivenAnswer,
    Question,
    given_samples,
    labelled_questions,
    open_questions,
    scored_sample,
    suite_settings,
    unlabelled_samples,
    unscored_sample,
)
from evals.scorers import NotJudged
from evals.scorers.interface import score_result
from evals.suites.items import Item
from evals.suites.suite import Suite
from harness.evals.ports import EvalJob
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from harness.gate.pins import ServedModel
from harness.gate.run import (
    FIRST_ANSWERS,
    JudgeCalibration,
    RunState,
    Sample,
    SampleError,
    refuse_first,
)
from harness.providers.target import Target
from tests.support.evals.remembered_suites import load_suite

Script = Callable[[Target, Item, int], str]
"""(target, item, epoch) → answer; raises ProviderFailed for an infrastructure error."""
Pace = Callable[[Target, Item], float]
"""(target, item) → seconds that the answer took."""
Served = Callable[[Target, Item], ServedModel]
"""(target, item) → what the provider says that it served."""


def right_answers(
    _target: Target,
    item: Item,
    _epoch: int,
) -> str:
    """The target itself, for items whose target is a text."""
    return str(item.target)


class ScriptedRunner:
    """Suites must have a data file and no judge, which needs the real runner. In a suite of
    traffic, the script's answer is the win share that a judge would give.
    """

    def __init__(
        self,
        suites: Mapping[str, SuiteSettings],
        script: Script = right_answers,
        pace: Pace = lambda _target, _item: 0.0,
        served: Served = lambda target, _item: ServedModel(target.model),
    ) -> None:
        self._suites = suites
        self._script = script
        self.remark = ""
        self.calibration: JudgeCalibration | None = None
        self._pace = pace
        self._served = served

    def run(
        self,
        job: EvalJob,
        on_sample: Callable[[Sample], bool],
        stop: Callable[[], bool],
    ) -> RunState:
        suite = load_suite(suite_settings(self._suites, job))
        if suite.settings.judge is not None and not suite.is_traffic:
            raise InputError(f"suite {suite.settings.name!r}: a judge needs the real runner")
        failed_in_a_row = 0
        first: list[Sample] = []
        self.remark = ""
        under_way = job.max_connections
        questions = open_questions(job, suite)
        given = [*unlabelled_samples(job, suite, questions)]
        if suite.answers_of == job.target.name:
            served = ServedModel(job.target.model)
            logged = {
                question.item: GivenAnswer(str(suite.items[question.item].target))
                for question in questions
            }
            given += given_samples(job, suite, questions, logged, served)
            questions = ()
        if not all(map(on_sample, given)):
            return RunState.OVER_BUDGET
        for question in labelled_questions(suite, questions):
            if stop():
                return RunState.STOPPED
            sample = self._sample(job, suite, question)
            infra = sample.error is SampleError.INFRA
            failed_in_a_row = failed_in_a_row + 1 if infra else 0
            if not on_sample(sample):
                return RunState.OVER_BUDGET
            if not job.stored and len(first) < FIRST_ANSWERS:
                first.append(sample)
                self.remark = refuse_first(first, job.target.model)
            # What was asked at once with the first answers comes after them.
            under_way -= bool(self.remark)
            if not under_way:
                return RunState.FAILED
            if failed_in_a_row >= GIVE_UP_AFTER:
                return RunState.FAILED
        return RunState.DONE

    def _sample(
        self,
        job: EvalJob,
        suite: Suite,
        question: Question,
    ) -> Sample:
        item = suite.items[question.item]
        prompt = suite.prompt(question.item)
        try:
            answer = self._script(job.target, item, question.epoch)
        except ProviderFailed as error:
            text = str(error)
            return unscored_sample(
                job,
                question,
                AnswerUsage(),
                prompt=prompt,
                text=text,
            )
        words = len(prompt.split()), len(answer.split())
        spent = AnswerUsage(*words, self._pace(job.target, item))
        served = self._served(job.target, item)
        came = replace(
            unscored_sample(job, question, spent, prompt=prompt),
            answer=answer,
            served_model=served.model,
            served_build=served.build,
        )
        if suite.is_traffic:
            return scored_sample(came, score_result(float(answer), float(answer)))
        try:
            return scored_sample(came, suite.score(answer, question.item))
        except NotJudged as error:
            return replace(came, error_text=str(error))
