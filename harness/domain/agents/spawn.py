"""Sub-tasks are what a session has sessions below it do, each with a model of its own, at the
same time. They share what is left of the turn that spawned them. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.domain.agents.agent import SPAWN
from harness.domain.agents.message import FREE, MessageUsage
from harness.domain.agents.turn import OfferedTool, TurnBounds
from harness.domain.errors import InputError

MAX_TASK_CHARS: Final = 20_000
MAX_MODEL_CHARS: Final = 300
# Of what all answers together may have; a longer one is cut, and says so.
MAX_ANSWERS_CHARS: Final = 100_000
# The rest is for the turn that waits for them: it still has to answer.
SHARE_OF_TIME: Final = 0.8


@dataclass(frozen=True, slots=True)
class SubTask:
    task: str
    model: str = ""  # as the agent names it; empty for the session's own


class SubTaskStatus(StrEnum):
    """FAILED: nobody answered, or a bound was reached. INTERRUPTED: its session was closed."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class SubTaskResult:
    status: SubTaskStatus
    model: str  # in force
    session: str = ""  # the child's id; empty where none was opened
    answer: str = ""
    error: str = ""
    # Of `answer`, only the beginning is here; the whole is in the child's transcript.
    is_cut: bool = False
    usage: MessageUsage = FREE


def parse_sub_tasks(arguments: Mapping[str, object], most: int) -> tuple[SubTask, ...]:
    """The tasks of a call, and in a shorter form one: `{"task": …, "model": …}`.

    Raises InputError, naming the place.
    """
    given = arguments.get("tasks", [arguments] if "task" in arguments else None)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputError('tasks: give a list such as [{"task": "…", "model": "…"}]')
    if len(given) > most:
        raise InputError(f"tasks: there are {len(given)}, and one call takes {most}")
    return tuple(_parse(one, f"tasks[{number}]") for number, one in enumerate(given))


def _parse(given: object, place: str) -> SubTask:
    if not isinstance(given, Mapping):
        raise InputError(f'{place}: it is no object such as {{"task": "…", "model": "…"}}')
    task, model = given.get("task"), given.get("model") or ""
    if not isinstance(task, str) or not task.strip() or len(task) > MAX_TASK_CHARS:
        raise InputError(f"{place}.task: it is a text of 1 to {MAX_TASK_CHARS} characters")
    if not isinstance(model, str) or len(model) > MAX_MODEL_CHARS:
        raise InputError(f"{place}.model: it is a model's name, or left out")
    return SubTask(task, model.strip())


def share_bounds(left: TurnBounds, usd: float, count: int) -> TurnBounds:
    """What each of `count` sub-tasks may use up. usd: of all of them; left: of the turn that
    waits for them.
    """
    return replace(
        left,
        max_usd=min(left.max_usd, usd) / count,
        max_tokens=left.max_tokens // count,
        timeout_s=left.timeout_s * SHARE_OF_TIME,
    )


def cut_answers(results: Sequence[SubTaskResult]) -> list[SubTaskResult]:
    """Cuts the sub-tasks' answers to the same length, so that all of them fit."""
    most = MAX_ANSWERS_CHARS // max(1, len(results))
    return [
        result
        if len(result.answer) <= most
        else replace(result, answer=result.answer[:most], is_cut=True)
        for result in results
    ]


def offer_spawn(most: int) -> OfferedTool:
    """Describes the tool that runs sub-tasks, as a model is told of it."""
    return OfferedTool(
        SPAWN,
        f"Run 1 to {most} sub-tasks at the same time, each in a conversation of its own that "
        "sees nothing of this one: say in `task` all that it needs. Returns their answers in "
        "order, with a status each. `model` names a route or another model; without it, this "
        "conversation's answers. A model that is no route's needs a person's approval, one "
        "for all tasks: call again with the same tasks when it is there.",
        {
            "type": "object",
            "properties": {
                "tasks": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": most,
                    "items": {
                        "type": "object",
                        "properties": {
                            "task": {"type": "string"},
                            "model": {"type": "string"},
                        },
                        "required": ["task"],
                    },
                }
            },
            "required": ["tasks"],
        },
        runs_at_client=False,
    )
