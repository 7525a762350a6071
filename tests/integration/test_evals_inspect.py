"""What meets Inspect's own types: task files, messages, scores, and the end of a run.

Inspect is imported by the fixture, once: it takes seconds.
"""

import asyncio
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals.runner.chat_completions import ChatReply, ReplyToolCall
from evals.suites.configured_suites import ConfiguredSuites
from harness.evals.ports import EvalJob
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError, NotFound
from harness.gate.run import AnswerColumns, RunState, Sample, count_cut
from harness.providers.target import Provider, Target
from tests.support.store.records import PLAIN_RUN

pytestmark = pytest.mark.slow
GOOD = Path(__file__).parents[1] / "support/evals/user_suite.py"


@pytest.fixture(scope="module")
def inspect() -> SimpleNamespace:
    from evals.runner import collector  # noqa: PLC0415 - see above
    from evals.runner import inspect_model as model  # noqa: PLC0415 - as above
    from evals.runner import inspect_tasks as tasks  # noqa: PLC0415 - as above

    return SimpleNamespace(collector=collector, model=model, tasks=tasks)


def suite(task: str | Path, **more: Any) -> SuiteSettings:
    return SuiteSettings(name="mine", task=str(task), **more)


@pytest.mark.req("F6")
def test_a_tasks_pin_follows_its_file(inspect: SimpleNamespace, tmp_path: Path) -> None:
    assert inspect
    file = Path(shutil.copy(GOOD, tmp_path))
    catalog = ConfiguredSuites({"mine": suite(f"{file}:graded")})
    before = catalog.pin("mine")

    assert (before.items, catalog.pin("mine")) == (12, before)
    file.write_text(file.read_text().replace("range(12)", "range(13)"))
    after = catalog.pin("mine")
    assert (after.items, after.digest == before.digest) == (13, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "no function with Inspect's @task"),
        ("import nowhere_at_all", "cannot be imported: ModuleNotFoundError"),
        ("def (", "cannot be imported: SyntaxError"),
        (
            "from inspect_ai import task\n@task\ndef bad():\n    raise ValueError('no data')",
            "task 'bad' failed: ValueError: no data",
        ),
        (
            (
                "from inspect_ai import Task, task\nfrom inspect_ai.dataset import Sample\n"
                "@task\ndef twice():\n    return Task(dataset=[Sample(input='a', id='x')] * 2)"
            ),
            "two samples have the id 'x'",
        ),
    ],
)
def test_a_task_file_that_does_not_work_says_why(
    inspect: SimpleNamespace,
    tmp_path: Path,
    text: str,
    told: str,
) -> None:
    file = tmp_path / "suite.py"
    file.write_text(text)

    with pytest.raises(InputError, match=told):
        inspect.tasks.load_task_suite(suite(file))


def test_a_task_must_be_named_right_where_there_are_several(inspect: SimpleNamespace) -> None:
    with pytest.raises(InputError, match=r"several tasks; name one: .*user_suite\.py:graded"):
        inspect.tasks.load_task_suite(suite(GOOD))
    with pytest.raises(NotFound, match="no task 'grade'; did you mean 'graded'"):
        inspect.tasks.load_task_suite(suite(f"{GOOD}:grade"))
    with pytest.raises(InputError, match="are scorer and metric, not graded"):
        inspect.tasks.load_task_suite(suite(GOOD, scorer_options={"graded": True}))


@pytest.mark.parametrize(
    ("value", "share"),
    [
        ("C", 1),
        ("I", 0),
        ("P", 0.5),
        ("yes", 1),
        (True, 1),
        (0.25, 0.25),
        ("0.25", 0.25),
        (3, None),
        (-0.1, None),
        (float("nan"), None),
        ("excellent", None),
        ([1, 0], None),
    ],
)
def test_a_tasks_score_becomes_a_share_or_none(
    inspect: SimpleNamespace,
    value: object,
    share: float | None,
) -> None:
    assert inspect.tasks.as_share(value) == share


def test_messages_keep_text_images_and_tool_errors(inspect: SimpleNamespace) -> None:
    from inspect_ai.model import (  # noqa: PLC0415 - see above
        ChatMessageAssistant,
        ChatMessageTool,
        ChatMessageUser,
        ContentAudio,
        ContentImage,
        ContentText,
    )
    from inspect_ai.tool import ToolCallError  # noqa: PLC0415 - see above

    message_of = inspect.model.message_of
    text = ContentText(text="Look:")
    image = ContentImage(image="data:image/png;base64,AA==")
    failed = ToolCallError("timeout", "too slow")

    assert message_of(ChatMessageUser(content=[text, text]))["content"] == "Look:Look:"
    assert [
        part["type"] for part in message_of(ChatMessageUser(content=[text, image]))["content"]
    ] == ["text", "image_url"]
    assert message_of(ChatMessageAssistant(content="a")) == {
        "role": "assistant",
        "content": "a",
    }
    tool = ChatMessageTool(content="", tool_call_id="c", error=failed)
    assert message_of(tool)["content"] == "too slow"
    with pytest.raises(InputError, match="ContentAudio; use only text and images"):
        message_of(ChatMessageUser(content=[ContentAudio(audio="x", format="wav")]))


def test_generation_settings_and_tool_choices_have_their_fields(
    inspect: SimpleNamespace,
) -> None:
    from inspect_ai.model import GenerateConfig, ResponseSchema  # noqa: PLC0415 - see above
    from inspect_ai.tool import ToolFunction  # noqa: PLC0415 - see above
    from inspect_ai.util import JSONSchema  # noqa: PLC0415 - see above

    schema = ResponseSchema(name="n", json_schema=JSONSchema(type="object"), strict=True)
    config = GenerateConfig(
        top_p=0.5,
        stop_seqs=["."],
        response_schema=schema,
        max_tokens=3,
    )

    fields = inspect.model.generation_settings(config)

    assert (
        fields["top_p"],
        fields["stop"],
        fields["max_tokens"],
    ) == (
        0.5,
        ["."],
        3,
    )
    assert fields["response_format"]["json_schema"]["strict"] is True
    choice = inspect.model.tool_choice_of
    assert choice(ToolFunction(name="add"))["function"] == {"name": "add"}
    assert (choice("any"), choice("auto")) == ("required", "auto")


def test_arguments_of_a_tool_that_are_no_object_become_a_parse_error(
    inspect: SimpleNamespace,
) -> None:
    uses = (
        ReplyToolCall("1", "add", "[1"),
        ReplyToolCall("2", "add", "[1]"),
        ReplyToolCall("3", "add", ""),
    )
    reply = ChatReply("", uses, "tool_calls", 5, 0, 1, "m", "")

    calls = inspect.model.output_of(reply, 0.1).message.tool_calls

    assert [bool(call.parse_error) for call in calls] == [True, True, False]


def test_a_model_that_the_run_does_not_ask_is_refused(inspect: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="swapproof/judge is not the target of this run"):
        inspect.model.TargetAPI("judge")


def test_a_run_that_is_to_stop_does_not_wait_for_ever_for_an_answer(
    inspect: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect.collector, "UNDER_WAY_S", 0.01)

    async def one_hangs() -> RunState:
        with ThreadPoolExecutor(1) as thread:
            collector = stopping(inspect, thread)
            assert await collector.schedule_sample("i#1", 1) is None
            await collector.ended()
            state: RunState = collector.state()
            return state

    assert asyncio.run(one_hangs()) is RunState.STOPPED


@pytest.mark.req("F2")
def test_a_run_that_is_to_stop_asks_nothing_more_that_waited_for_its_turn(
    inspect: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNDER_WAY_S is for answers that are paid for already."""
    monkeypatch.setattr(inspect.collector, "UNDER_WAY_S", 600.0)
    sent = []

    async def one_waits() -> None:
        turn = asyncio.Event()

        async def call(collector: Any) -> None:
            async with collector.waiting():
                await turn.wait()
            sent.append(1)

        with ThreadPoolExecutor(1) as thread:
            collector = stopping(inspect, thread)
            assert await collector.schedule_sample("i#1", 1) is None
            calling = asyncio.create_task(call(collector))
            await collector.ended()
            turn.set()
            for _ in range(10):
                await asyncio.sleep(0)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling

    asyncio.run(one_waits())
    assert sent == []


@pytest.mark.req("F2")
@pytest.mark.parametrize(
    ("text", "score", "told"),
    [
        ("", None, "cut at 64 tokens before any text"),
        ("<think>so far, so", None, "cut at 64 tokens before any text"),
        ("<think>so</think>42", 0.0, ""),
    ],
)
def test_an_answer_that_was_cut_while_the_model_thought_is_not_a_wrong_one(
    inspect: SimpleNamespace,
    tmp_path: Path,
    text: str,
    score: float | None,
    told: str,
) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text('{"id": "i", "input": "6 * 7", "target": "42"}')
    from inspect_ai.log import EvalSample  # noqa: PLC0415 - see above
    from inspect_ai.scorer import Score  # noqa: PLC0415 - as above

    loaded = inspect.tasks.inspect_suite(SuiteSettings("mine", path=file))
    reply = ChatReply(text, (), "length", 9, 0, 64, "m", "")
    usage = {"m": inspect.model.output_of(reply, 0.1).usage}
    noted = {inspect.tasks.LENIENT: 0.0, inspect.tasks.RULE: "empty_answer"}
    answered = EvalSample(
        id="i#1",
        epoch=1,
        input="6 * 7",
        target="42",
        output=inspect.model.output_of(reply, 0.1),
        model_usage=usage,
        scores={"swapproof": Score(value=0.0, metadata=noted)},
    )
    taken: list[Sample] = []

    async def take() -> None:
        with ThreadPoolExecutor(1) as thread:
            collector = stopping(inspect, thread, loaded, taken.append)
            await collector.take(answered)

    asyncio.run(take())
    (sample,) = taken
    cut = count_cut(AnswerColumns.from_samples(taken))

    assert (sample.strict, sample.finish) == (score, "length")
    assert told in sample.error_text
    assert cut is not None
    assert (cut.silent, cut.limit) == (int(score is None), 64)
    assert "or to 4,096" in cut.advice


def test_a_limit_is_measured_on_the_first_answers(inspect: SimpleNamespace) -> None:
    limit = inspect.model.MeasuredLimit()
    for tokens in (900, *[20] * 8):
        limit.learn(tokens)
    assert limit.tokens is None
    for tokens in (30, 5_000):
        limit.learn(tokens)
    assert limit.tokens == 3_600


def stopping(
    inspect: SimpleNamespace,
    thread: Executor,
    suite: Any = None,
    on_sample: Callable[[Sample], object] = bool,
) -> Any:
    stops = iter([False, True])
    return inspect.collector.Collector(
        EvalJob(
            PLAIN_RUN,
            Target("sim", "m"),
            Provider("sim", "openai", "http://x"),
            None,
        ),
        suite,
        [inspect.collector.Question(0, "i", 1)],
        on_sample=lambda sample: bool(on_sample(sample)),
        stop=lambda: next(stops),
        thread=thread,
        away={},
    )
