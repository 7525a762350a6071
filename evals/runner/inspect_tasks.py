"""Turns a suite into an Inspect AI task, and reads its scores.

`DataSuite` has a data file and a scorer by name. `TaskSuite` is a user's Python file with
`@task`. Both have the same methods, so the runner does not distinguish them.
"""

import importlib.metadata
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from inspect_ai import Task, task_with
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.log import EvalSample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
)
from inspect_ai.scorer import (
    Score,
    Target,
    Value,
    mean,
    scorer,
    value_to_float,
)
from inspect_ai.scorer import Scorer as InspectScorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import EarlyStopping

from evals.runner.code_sandbox import find_sandbox, run_program
from evals.runner.inspect_model import CALLS, parse_tool_call
from evals.runner.judge_calibration import track_judge_bill
from evals.runner.questions import Question, answer_text
from evals.runner.record_check import AskedIncumbent
from evals.scorers import AnswerJudge, AnswerToolCall, NotJudged, ScoreResult
from evals.scorers.interface import UNSCORED
from evals.suites.conversation import message_text
from evals.suites.item_clusters import cluster_items, item_owners
from evals.suites.items import Item, file_sha256, is_answered
from evals.suites.suite import Suite, grouping, load_suite, task_file
from harness.evals.settings import SuiteSettings
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError, NotFound
from harness.frame.plain_data import digest
from harness.frame.suggestions import did_you_mean
from harness.gate.pins import ServedModel, named_models
from harness.gate.suite_plan import (
    ItemGroups,
    SuitePin,
    compared_texts,
    read_group,
    read_slice,
    texts_fingerprint,
)

NOT_JUDGED = "swapproof_not_judged"
JUDGE = "swapproof_judge"
LENIENT = "swapproof_lenient"
RULE = "swapproof_rule"
FIELDS = "swapproof_fields"
JUDGES = "swapproof_judges"
SPELLED = frozenset({"c", "i", "p", "n", "yes", "no", "true", "false"})


def inspect_suite(settings: SuiteSettings) -> "InspectSuite":
    """Loads a suite for the runner. Raises InputError, ConfigError, NotFound."""
    return load_task_suite(settings) if settings.task else DataSuite(load_suite(settings))


@solver
def asked_as_written() -> Solver:
    """Sends the item's own fields. It does not run the answer's tool calls."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await generate(state, tool_calls="none", extra_body=state.metadata[FIELDS])

    return solve


def inspect_message(message: Mapping[str, Any]) -> ChatMessage:
    """Translates a message of an item into Inspect's. Unknown roles, such as developer, become
    system.
    """
    content = message_text(message)
    match message["role"]:
        case "user":
            return ChatMessageUser(content=content)
        case "tool":
            return ChatMessageTool(content=content, tool_call_id=message["tool_call_id"])
        case "assistant":
            calls = [
                parse_tool_call(
                    str(call.get("id") or ""),
                    call["function"]["name"],
                    call["function"].get("arguments", ""),
                )
                for call in message.get("tool_calls") or ()
            ]
            return ChatMessageAssistant(content=content, tool_calls=calls or None)
        case _:
            return ChatMessageSystem(content=content)


def calls_of(output: ModelOutput) -> list[AnswerToolCall]:
    """Returns the tool calls of an answer, with the arguments as the provider wrote them."""
    return [AnswerToolCall(*call) for call in (output.metadata or {}).get(CALLS, ())]


def served_labels(models: Iterable[ServedModel]) -> tuple[str, str]:
    """Returns the names and the builds of all models that answered for a sample."""
    models_by_name = named_models(models)
    builds = {model.build for model in models_by_name if model.build}
    return ", ".join(sorted({model.model for model in models_by_name})), ", ".join(
        sorted(builds)
    )


def first_score(sample: EvalSample) -> Score | None:
    return next(iter((sample.scores or {}).values()), None)


def notes_of(sample: EvalSample) -> Mapping[str, Any]:
    """Returns the metadata that our scorer adds to its score."""
    score = first_score(sample)
    return (score.metadata if score else None) or {}


def item_of(sample_id: str | int) -> str:
    """Returns the item's id from a sample's id, `ITEM#EPOCH`."""
    return str(sample_id).rpartition("#")[0]


@dataclass(frozen=True)
class DataSuite:
    """A suite with data file, template and a scorer by name.

    task: has one Inspect sample per question, with its id, in the questions' order.
    scored: returns the scores, or the reason for a missing score.
    judges: returns the judge's model and build, as its answers name them.
    spent: returns the reason why the judge can score no more answers, if any.
    """

    suite: Suite
    judging: AnswerJudge | None = None
    incumbent: AskedIncumbent | None = None  # for a suite of traffic

    @property
    def pin(self) -> SuitePin:
        return self.suite.pin

    @property
    def groups(self) -> ItemGroups:
        return self.suite.groups

    @property
    def unlabelled(self) -> Mapping[str, str]:
        return self.suite.unlabelled

    def prompt(self, item: str) -> str:
        return self.suite.prompt(item)

    def task(self, questions: Sequence[Question], stopping: EarlyStopping) -> Task:
        settings = self.suite.settings
        return Task(
            name=settings.name,
            dataset=MemoryDataset([self._build_sample(question) for question in questions]),
            solver=asked_as_written(),
            scorer=self._build_scorer(),
            config=GenerateConfig(
                temperature=settings.temperature, max_tokens=self.fixed_limit
            ),
            early_stopping=stopping,
            sandbox=self._choose_sandbox(),
        )

    @property
    def fixed_limit(self) -> int | None:
        """The token limit of an answer; None if the run's first answers determine it."""
        limit = self.suite.settings.max_output_tokens
        return None if limit == "auto" else limit

    def _choose_sandbox(self) -> str | tuple[str, str] | None:
        if self.suite.scorer.sandboxed is None:
            return None
        return find_sandbox(uncontained=self.suite.uncontained)

    def _build_sample(self, question: Question) -> InspectSample:
        prompt = self.prompt(question.item)
        system = self.suite.settings.system
        metadata = {FIELDS: dict(self.suite.fields(question.item))}
        context = self.suite.context(question.item)
        if not (system or context):
            return InspectSample(id=question.id, input=prompt, metadata=metadata)
        messages: list[ChatMessage] = [
            *([ChatMessageSystem(content=system)] if system else []),
            *(map(inspect_message, context) if context else [ChatMessageUser(content=prompt)]),
        ]
        return InspectSample(id=question.id, input=messages, metadata=metadata)

    def _build_scorer(self) -> InspectScorer:
        # A closure without parameters, because Inspect would log the parameters.
        @scorer(metrics=[mean()], name="swapproof")
        def by_name() -> InspectScorer:
            async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 - Inspect's
                notes: dict[str, Any]
                with track_judge_bill() as bill:
                    try:
                        result = await self._score_answer(state)
                        notes = {LENIENT: result.lenient, RULE: result.rule}
                    except NotJudged as error:
                        result = UNSCORED
                        notes = {NOT_JUDGED: str(error)}
                if self.judging is not None:
                    notes |= {
                        JUDGE: bill.noted,
                        JUDGES: served_labels(bill.served),
                    }
                value = math.nan if result.strict is None else result.strict
                return Score(value=value, metadata=notes)

            return score

        return by_name()

    def spent(self) -> str:
        return self.judging.spent if self.judging is not None else ""

    async def _score_answer(self, state: TaskState) -> ScoreResult:
        """Scores an answer: by the judge, in the sandbox, or by the scorer itself. Raises
        NotJudged.
        """
        item = item_of(state.sample_id)
        calls = calls_of(state.output)
        if self.judging is not None:
            return await self.suite.judge_answer(
                answer_text(state.output.completion, calls),
                await self._find_reference(self.suite.items[item]),
                self.judging,
            )
        if self.suite.scorer.sandboxed is not None:
            return await self.suite.scorer.sandboxed(
                state.output.completion,
                self.suite.items[item],
                self.suite.options,
                run_program,
            )
        return self.suite.score(state.output.completion, item, calls)

    async def _find_reference(self, item: Item) -> Item:
        """Returns the item with the answer to compare with: the incumbent's of now, if the log
        has none. Raises NotJudged if the incumbent does not answer either.
        """
        if not self.suite.is_traffic or is_answered(item):
            return item
        if self.incumbent is None:
            raise NotJudged(f"there is no provider of the incumbent {self.suite.answers_of}")
        return replace(item, target=await self.incumbent.answer(item))

    def judges(self, sample: EvalSample) -> tuple[str, str]:
        model, build = notes_of(sample).get(JUDGES, ("", ""))
        return str(model), str(build)

    def scored(self, sample: EvalSample) -> tuple[ScoreResult, str]:
        """Reads the score from Inspect's sample. Raises NotJudged if the judge or the sandbox
        gave no score.
        """
        score = first_score(sample)
        notes = notes_of(sample)
        if NOT_JUDGED in notes:
            raise NotJudged(notes[NOT_JUDGED])
        value = score.value if score else None
        if not isinstance(value, int | float) or math.isnan(value):
            return UNSCORED, ""
        return ScoreResult(float(value), float(notes[LENIENT]), str(notes[RULE])), ""


@dataclass(frozen=True)
class TaskSuite:
    """A user's `@task` with its dataset, solver and scorer. The run sets the epochs."""

    settings: SuiteSettings
    inner: Task
    samples: Mapping[str, InspectSample]
    pin: SuitePin
    groups: ItemGroups

    @property
    def unlabelled(self) -> Mapping[str, str]:
        return {}  # the user's scorer may need no target

    def prompt(self, item: str) -> str:
        return sample_text(self.samples[item])

    def task(self, questions: Sequence[Question], stopping: EarlyStopping) -> Task:
        samples = [
            self.samples[question.item].model_copy(update={"id": question.id}, deep=True)
            for question in questions
        ]
        dataset = MemoryDataset(samples, name=self.settings.name)
        return task_with(
            self.inner,
            dataset=dataset,
            epochs=1,
            early_stopping=stopping,
        )

    def spent(self) -> str:
        return ""

    def judges(self, sample: EvalSample) -> tuple[str, str]:  # noqa: ARG002 - no judge
        return "", ""

    def scored(self, sample: EvalSample) -> tuple[ScoreResult, str]:
        """Reads the score of the user's scorer, or the reason why it counts as no score.

        scorer_options may name one of several scorers and one of several metrics. A value must
        be a number from 0 to 1, or one of Inspect's words for it.
        """
        scorer_name = str(self.settings.scorer_options.get("scorer", ""))
        metric = str(self.settings.scorer_options.get("metric", ""))
        score = (sample.scores or {}).get(scorer_name) if scorer_name else first_score(sample)
        if score is None:
            return UNSCORED, f"scorer {scorer_name or 'of the task'} gave no score"
        value: Value = score.value
        if isinstance(value, dict):
            if not metric and len(value) > 1:
                names = ", ".join(value)
                return (
                    UNSCORED,
                    f"several scores; set scorer_options.metric: {names}",
                )
            metric_value = value.get(metric or next(iter(value), ""))
            value = math.nan if metric_value is None else metric_value
        number = as_share(value)
        if number is None:
            return UNSCORED, "the score is not a number from 0 to 1"
        return ScoreResult(number, number), ""


InspectSuite = DataSuite | TaskSuite


def as_share(value: Value) -> float | None:
    """Reads a score as a number from 0 to 1; None for anything else, because the gate needs
    shares.
    """
    if isinstance(value, str) and value.casefold() not in SPELLED:
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, str | int | float):
        return None
    number = value_to_float()(value)
    return number if 0 <= number <= 1 else None


def sample_text(sample: InspectSample) -> str:
    if isinstance(sample.input, str):
        return sample.input
    return "\n\n".join(f"{message.role}: {message.text}" for message in sample.input)


def load_task_suite(settings: SuiteSettings) -> TaskSuite:
    """Runs the user's file and its task. Raises InputError if either fails, NotFound for an
    unknown task.

    The pin covers the file, the dataset and Inspect's version, but not modules that the file
    imports.
    """
    file, name = task_file(settings)
    sha256 = file_sha256(file)
    unknown = set(settings.scorer_options) - {"scorer", "metric"}
    if unknown:
        raise InputError(
            f"suite {settings.name!r}: a task's scorer_options are scorer and metric, "
            f"not {', '.join(sorted(unknown))}"
        )
    module = _import_file(settings)
    functions = {
        function_name: function
        for function_name, function in vars(module).items()
        if getattr(getattr(function, "__registry_info__", None), "type", None) == "task"
    }
    if not functions:
        raise InputError(f"{file}: has no function with Inspect's @task")
    if not name and len(functions) > 1:
        raise InputError(f"{file}: has several tasks; name one: {file}:{next(iter(functions))}")
    task_name = name or next(iter(functions))
    if task_name not in functions:
        hint = did_you_mean(task_name, functions, cutoff=0.0)
        raise NotFound(f"{file}: no task {task_name!r}{hint}")
    try:
        inner: Task = functions[task_name]()
    except Exception as error:
        raise InputError(
            f"{file}: task {task_name!r} failed: {_describe_error(error)}"
        ) from error
    samples = _collect_samples(settings, inner)
    groups = _group_items(settings, samples)
    version = importlib.metadata.version("inspect_ai")
    grouping_terms = grouping(settings)
    options = digest(
        [dict(settings.scorer_options), *grouping_terms]
        if grouping_terms
        else dict(settings.scorer_options)
    )[:8]
    pin = SuitePin(
        name=settings.name,
        version=settings.version,
        data_sha256=digest(
            [
                sha256,
                [
                    _list_hashed_parts(function_name, sample)
                    for function_name, sample in samples.items()
                ],
                *([dict(groups.clusters)] if groups.clusters else []),
            ]
        ),
        scorer=f"task:{task_name}@{sha256[:12]}/{options}",
        template=f"inspect_ai {version}",
        items=len(samples),
        texts=texts_fingerprint(
            compared_texts(
                [*map(_join_spoken_texts, samples.values())],
                [*map(_join_texts, samples.values())],
            )
        ),
    )
    return TaskSuite(settings, inner, samples, pin, groups)


def _group_items(settings: SuiteSettings, samples: Mapping[str, InspectSample]) -> ItemGroups:
    def values(field: str, read_field: Callable[..., str]) -> dict[str, str]:
        return {
            item: read_field(
                sample.metadata or {},
                field,
                f"suite {settings.name!r}, item {item!r}",
            )
            for item, sample in samples.items()
        }

    declared = ItemGroups(
        tuple(samples),
        values(settings.cluster, read_group) if settings.cluster else {},
        settings.cluster,
        {field: values(field, read_slice) for field in settings.slices},
    )
    texts = {item: _join_texts(sample) for item, sample in samples.items()}
    owners = item_owners(
        {item: sample.metadata or {} for item, sample in samples.items()},
        {item: _list_turns(sample) for item, sample in samples.items()},
    )
    return cluster_items(declared.items, texts, owners, declared)


def _list_turns(sample: InspectSample) -> Sequence[str]:
    if isinstance(sample.input, str):
        return [sample.input]
    return [message.text for message in sample.input]


def _join_spoken_texts(sample: InspectSample) -> str:
    """Joins a sample's texts as `_input_text` does, without system messages."""
    texts = (
        _list_turns(sample)
        if isinstance(sample.input, str)
        else [message.text for message in sample.input if message.role != "system"]
    )
    return "\n".join([*texts, *sorted(sample.choices or ())])


def _join_texts(sample: InspectSample) -> str:
    """Joins a sample's texts and its sorted choices, to compare items of several suites."""
    return "\n".join([*_list_turns(sample), *sorted(sample.choices or ())])


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class _SourceLoader(SourceFileLoader):
    """Ignores Python's cache: a cached file of equal time and size may differ."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the base class's
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_file(settings: SuiteSettings) -> ModuleType:
    """Imports the user's file afresh. Raises InputError with the error of its code."""
    file, _ = task_file(settings)
    name = f"swapproof_task_{digest(str(file))[:12]}"
    loader = _SourceLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # The file may import modules of its folder.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{file}: cannot be imported: {_describe_error(error)}") from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module


def _collect_samples(settings: SuiteSettings, task: Task) -> Mapping[str, InspectSample]:
    """Lists the samples by id. A sample without an id is `NAME-0001`, by its place."""
    samples: dict[str, InspectSample] = {}
    for number, sample in enumerate(task.dataset, start=1):
        key = f"{settings.name}-{number:04}" if sample.id is None else canonical(str(sample.id))
        if key in samples:
            raise InputError(f"suite {settings.name!r}: two samples have the id {key!r}")
        samples[key] = sample
    if not samples:
        raise InputError(f"suite {settings.name!r}: the task's dataset is empty")
    return samples


def _list_hashed_parts(key: str, sample: InspectSample) -> list[Any]:
    """Returns the parts of a sample that its hash covers. Inspect draws message ids at random,
    so the hash excludes them.
    """
    metadata = json.loads(json.dumps(sample.metadata, default=str, sort_keys=True))
    return [
        key,
        sample_text(sample),
        sample.target,
        sample.choices,
        metadata,
    ]
