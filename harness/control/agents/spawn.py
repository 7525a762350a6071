"""Spawns the sub-tasks of a session: one child session for each, which take their turns at the
same time, and are closed at the end. Who cancels the spawning turn, or closes its session, ends
them all.

A route or `auto` needs no consent. Literal models that the agent was not granted are asked for
once, for all tasks; the sub-tasks begin with the call that comes after the approval.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from harness.control.agents import agents, sessions, switches
from harness.control.agents.built_in_tools import Arguments, BuiltInTool, ToolAnswer
from harness.control.agents.conversation import PostedMessage, TurnOutcome, run_unit
from harness.control.agents.model_matching import choose_model
from harness.control.agents.sessions import AgentsClient
from harness.control.agents.switches import SwitchSpec
from harness.control.agents.turn_runner import TurnRun, TurnRunner
from harness.control.context import Context
from harness.domain.agents.agent import SPAWN, AgentSession, ModelChoice
from harness.domain.agents.message import FREE, IncomingMessage, MessageRole, MessageUsage
from harness.domain.agents.model_call import ToolCaller
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.agents.turn import OfferedTool, TurnBounds
from harness.domain.errors import Conflict, InputError, NotAllowed, SwapgateError
from harness.store.transaction import Transaction

log = structlog.get_logger("swapgate.agents")
DONE: Final = "the sub-task has ended"
INTERRUPTED: Final = "turn_interrupted"
OUR_FAULT: Final = "the sub-task failed by a fault of Swapgate"


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
    """FAILED: no answer came, or a bound was reached. INTERRUPTED: its session was closed."""

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


class Spawner:
    """Belongs to the event loop of its turns."""

    def __init__(self, ctx: Context, turns: TurnRunner) -> None:
        self._ctx, self._turns = ctx, turns
        self._limits = ctx.agents.spawn
        self._spawning: set[str] = set()  # sessions

    def tool(self) -> BuiltInTool:
        return BuiltInTool(offer_spawn(self._limits.max_tasks), self.spawn)

    async def spawn(self, arguments: Arguments, caller: ToolCaller) -> ToolAnswer:
        """The results in the tasks' order, or what a person has to approve before.

        Raises InputError, NotAllowed, NotFound, Conflict while the session's sub-tasks run.
        """
        tasks = parse_sub_tasks(arguments, self._limits.max_tasks)
        if caller.session in self._spawning:
            raise Conflict("sub-tasks of this conversation run already: give all in one call")
        self._spawning.add(caller.session)
        try:
            return await self._spawn(tasks, caller)
        finally:
            self._spawning.discard(caller.session)

    async def _spawn(self, tasks: Sequence[SubTask], caller: ToolCaller) -> ToolAnswer:
        planned = await run_unit(lambda: self._plan(tasks, caller.session))
        if isinstance(planned, ModelSwitchRequest):
            return ToolAnswer(
                {
                    "status": "waits_for_approval",
                    "request": planned.id,
                    "models": planned.targets,
                    "expires_at": planned.expires_at,
                    "next": "go on without, or call again with the same tasks once approved",
                }
            )
        client, children = await run_unit(lambda: self._open(caller.session, planned))
        bounds = share_bounds(caller.left, self._limits.max_usd, len(tasks))
        try:
            results = await asyncio.gather(
                *(
                    self._run(client, child, task, bounds)
                    for child, task in zip(children, tasks, strict=True)
                )
            )
        finally:
            await run_unit(lambda: self._close(children))
        used = sum((result.usage for result in results), FREE)
        return ToolAnswer({"tasks": cut_answers(results)}, used)

    def _plan(
        self, tasks: Sequence[SubTask], session: str
    ) -> Sequence[ModelChoice] | ModelSwitchRequest:
        """The tasks' models; or the request that asks a person for those without a grant.

        Raises NotAllowed for a sub-task and for an agent whose key was revoked, InputError and
        NotFound for a model that no provider serves.
        """
        with self._ctx.store.read() as tx:
            parent = tx.sessions.get(session)
            agents.owner_of(tx, tx.agents.get(parent.agent))
        parent.require_open()
        if parent.parent is not None:
            raise NotAllowed("a sub-task has no sub-tasks: do the work here")
        models = [self._choose(task, parent) for task in tasks]
        with self._ctx.store.read() as tx:
            missing = [
                (task.task, model)
                for task, model in zip(tasks, models, strict=True)
                if model.is_literal and not self._is_granted(tx, parent, model)
            ]
        if not missing:
            return models
        wanted = SwitchSpec(
            session,
            tuple(model for _, model in missing),
            f"{len(tasks)} sub-tasks",
            tasks=tuple((task, model.target) for task, model in missing),
        )
        return switches.request_switch(self._ctx, wanted)

    def _choose(self, task: SubTask, parent: AgentSession) -> ModelChoice:
        if not task.model:
            return parent.model
        return choose_model(self._ctx, task.model)

    def _is_granted(self, tx: Transaction, parent: AgentSession, choice: ModelChoice) -> bool:
        found = sessions.find_grant(self._ctx, tx, parent.agent, parent.id, choice.target)
        return found is not None

    def _open(
        self, session: str, models: Sequence[ModelChoice]
    ) -> tuple[AgentsClient, Sequence[AgentSession]]:
        """Opens all children, or none; on behalf of the client whose agent it is."""
        children = []
        with self._ctx.store.write() as tx:
            parent = tx.sessions.lock(session)
            agent = tx.agents.get(parent.agent)
            client = agents.owner_of(tx, agent)
            for model in models:
                if not model.is_literal:
                    client.require_route(model.route)
                    agents.require_route(self._ctx, tx, agent, model.route)
                elif not self._is_granted(tx, parent, model):
                    raise NotAllowed(f"{model.target} is not approved any more: ask again")
                children.append(sessions.open_child(self._ctx, tx, parent, model))
        return client, children

    async def _run(
        self, client: AgentsClient, child: AgentSession, task: SubTask, bounds: TurnBounds
    ) -> SubTaskResult:
        incoming = IncomingMessage(MessageRole.USER, task.task)
        posted = PostedMessage(client, child.agent, child.id, incoming, bounds=bounds)
        run: TurnRun | None = None
        try:
            begun = await self._turns.start(posted)
            assert isinstance(begun, TurnRun)  # noqa: S101 - without a key there is no other
            run = begun
            return _result(child, await run.outcome())
        except SwapgateError as error:
            return _failed(child, str(error), interrupted=error.code == INTERRUPTED)
        except asyncio.CancelledError:
            if run is not None:
                run.cancel()
                await asyncio.wait({run.task})
            raise
        except Exception:
            log.exception("sub_task_failed", session=child.id)
            return _failed(child, OUR_FAULT, interrupted=False)

    def _close(self, children: Sequence[AgentSession]) -> None:
        for child in children:
            # Its session may be closed, or purged, with the parent.
            with suppress(SwapgateError), self._ctx.store.write() as tx:
                sessions.close_in_unit(self._ctx, tx, child.id, DONE)


def _failed(child: AgentSession, reason: str, *, interrupted: bool) -> SubTaskResult:
    status = SubTaskStatus.INTERRUPTED if interrupted else SubTaskStatus.FAILED
    return SubTaskResult(status, child.model.text, child.id, error=reason)


def _result(child: AgentSession, outcome: TurnOutcome) -> SubTaskResult:
    failure = outcome.failure
    if failure is not None:
        failed = _failed(child, failure.reason, interrupted=failure.code == INTERRUPTED)
        return replace(failed, usage=outcome.usage)
    content = outcome.message.content
    answer = content if isinstance(content, str) else ""
    return SubTaskResult(
        SubTaskStatus.DONE, child.model.text, child.id, answer, usage=outcome.usage
    )
