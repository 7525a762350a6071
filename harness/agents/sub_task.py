"""The arguments and results of `spawn`. Pure; `spawner` runs the sub-tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from harness.agents.built_in_tools import ToolArguments
from harness.agents.conversation import TurnOutcome
from harness.agents.message import FREE, MessageUsage
from harness.agents.switch_request import (
    ModelSwitchRequest,
    SwitchState,
    decision_text,
)
from harness.routing.agent import AgentSession
from harness.routing.settings import TurnBounds

TIME_SHARE: Final = 0.8  # of the parent's time; the parent needs the rest for its own answer

TaskText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000),
]
ModelName = Annotated[str, Field(max_length=300)]
MODEL_HELP: Final = "a route or another model; without it, this conversation's model answers"


class SubTask(ToolArguments):
    task: TaskText
    # None for the session's model.
    model: ModelName | None = Field(default=None, description=MODEL_HELP)


class SpawnArguments(ToolArguments):
    task: TaskText | None = Field(
        default=None,
        description="the sub-task, with everything that it needs to know",
    )
    model: ModelName | None = Field(default=None, description=f"of `task`: {MODEL_HELP}")
    tasks: Annotated[list[SubTask], Field(min_length=1)] | None = Field(
        default=None,
        description="instead of `task` and `model`: several sub-tasks",
    )
    wait_s: float | None = Field(
        default=None,
        ge=0,
        description="longest wait in seconds for a person's decision; 0 to continue at once",
    )

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if (self.task is None) == (self.tasks is None):
            raise ValueError("give either `task`, or several sub-tasks in `tasks`")
        if self.tasks is not None and self.model is not None:
            raise ValueError("`model` belongs to `task`: name a model in each of `tasks`")
        return self

    @property
    def sub_tasks(self) -> Sequence[SubTask]:
        single = () if self.task is None else (SubTask(task=self.task, model=self.model),)
        return single or self.tasks or ()


@dataclass(frozen=True, slots=True)
class SubTaskResult:
    """A sub-task's result as the parent's model reads it."""

    # failed: no answer, or a bound was reached. interrupted: its session was closed.
    status: Literal["done", "failed", "interrupted"]
    model: str
    session: str  # the child's id
    answer: str = ""
    error: str = ""
    is_cut: bool = False  # the child's transcript has the whole answer
    usage: MessageUsage = FREE


def share_bounds(
    bounds_left: TurnBounds,
    usd: float,
    count: int,
) -> TurnBounds:
    """Returns the bounds of each of `count` sub-tasks.

    Args:
        bounds_left: the rest of the parent's budget.
        usd: the limit for all sub-tasks together.
    """
    return replace(
        bounds_left,
        max_usd=min(bounds_left.max_usd, usd) / count,
        max_tokens=bounds_left.max_tokens // count,
        timeout_s=bounds_left.timeout_s * TIME_SHARE,
    )


def describe_missing_approval(request: ModelSwitchRequest, state: SwitchState) -> object:
    """Tells the agent why its sub-tasks did not run."""
    answer = {"request": request.id, "models": request.targets}
    if state is SwitchState.PENDING:
        return {
            "status": "waits_for_approval",
            **answer,
            "expires_at": request.expires_at,
            "next": "continue without the answers, or call again with the same tasks after the "
            "approval",
        }
    return {
        "status": state.value,
        "message": decision_text(request, state),
        **answer,
    }


def failed_result(
    child: AgentSession,
    reason: str,
    code: str = "",
) -> SubTaskResult:
    """Describes a sub-task without an answer.

    Args:
        code: the error's code, which distinguishes an interruption from a failure.
    """
    status: Any = "interrupted" if code == "turn_interrupted" else "failed"
    return SubTaskResult(status, child.model.text, child.id, error=reason)


def read_outcome(
    child: AgentSession,
    outcome: TurnOutcome,
    max_chars: int,
) -> SubTaskResult:
    """Summarizes a sub-task's outcome.

    Args:
        max_chars: the limit of the answer's characters.
    """
    if (error := outcome.error) is not None:
        return replace(failed_result(child, str(error), error.code), usage=outcome.usage)
    answer = str(outcome.message.content)
    model = child.model.text
    is_cut = len(answer) > max_chars
    return SubTaskResult(
        "done",
        model,
        child.id,
        answer[:max_chars],
        is_cut=is_cut,
        usage=outcome.usage,
    )
