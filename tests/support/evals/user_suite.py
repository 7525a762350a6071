"""These Inspect tasks are as a user would write them (epochs, a scorer that may fail, a tool,
two scores), for tests of suites that are Python files. Tests copy this file.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import (
    Score,
    Scorer,
    Target,
    accuracy,
    includes,
    mean,
    scorer,
)
from inspect_ai.solver import TaskState, generate, system_message, use_tools
from inspect_ai.tool import Tool, tool

DATA = [Sample(input=f"Say the number {n}", target=("red", "blue")[n % 2]) for n in range(12)]


@task
def graded() -> Task:
    brief = system_message("Be brief.")
    return Task(
        dataset=DATA,
        solver=[brief, generate()],
        scorer=fussy(),
        epochs=3,
    )


@scorer(metrics=[accuracy()])
def fussy() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        completion = state.output.completion
        if "rather not" in completion:
            raise ValueError(state.input_text)
        return Score(value="C" if target.text in completion else "I")

    return score


@tool
def add() -> Tool:
    async def execute(a: int, b: int) -> str:
        """Adds two numbers.

        Args:
            a: The first.
            b: The second.
        """
        return str(a + b)

    return execute


@task
def tooled() -> Task:
    data = [Sample(input="Use number 1 twice", target="sum 2")]
    return Task(
        dataset=data,
        solver=[use_tools(add()), generate()],
        scorer=includes(),
    )


@task
def two_scores() -> Task:
    return Task(dataset=DATA[:2], scorer=both())


@scorer(metrics={"first": [mean()], "second": [mean()]})
def both() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 - Inspect's
        return Score(
            value={
                "first": 3.0,
                "second": 0 if "1" in state.input_text else 0.5,
            }
        )

    return score
