"""`TurnRunner` starts the turns of this process, renews their leases, and ends them. `Spawner`
spawns the sub-tasks of a session. Each runs in a child session of its own, in parallel; the
end of the parent's turn or session ends them all.

If sub-tasks need literal models without a grant, one switch request covers them all. The agent
calls the tool again after the approval.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import structlog
from pydantic import Field, StringConstraints, model_validator

from harness.agents import agents, switches, turns
from harness.agents.agents import AgentsClient
from harness.agents.auto import AutoTargets
from harness.agents.built_in_tools import BuiltInTool, ToolAnswer, ToolArguments, build_tool
from harness.agents.conversation import PostedMessage, TurnOutcome, TurnRun, run_unit
from harness.agents.message import FREE, IncomingMessage, MessageRole, MessageUsage
from harness.agents.models import ModelsInForce, PaidCalls, choose_model, find_models
from harness.agents.records import Agents, Sessions
from harness.agents.switch_request import ModelSwitchRequest
from harness.agents.turn import ModelCalls, ToolCaller, ToolRuntime
from harness.agents.turns import BegunTurn
from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    StoreUnavailable,
    SwapgateError,
)
from harness.frame.records.transaction import Transaction
from harness.routing.agent import SPAWN, AgentSession, ModelChoice
from harness.routing.context import Context
from harness.routing.settings import TurnBounds

log = structlog.get_logger("swapgate.agents")

RENEW_S: Final = 5.0


class TurnRunner:
    def __init__(
        self,
        ctx: Context,
        calls: ModelCalls,
        tools: ToolRuntime,
        owner: str,
        auto: AutoTargets,
    ) -> None:
        """owner: `PLACE#START`. A place has one live process, and each start is unique."""
        self._ctx, self._calls, self._tools = ctx, PaidCalls(ctx, calls), tools
        self._owner, self._auto = owner, auto
        self._runs: dict[str, TurnRun] = {}  # by the turn's id
        self._is_closing = False

    async def start(self, posted: PostedMessage) -> TurnRun | str:
        """Stores the message and begins its turn; for a repeated idempotency key, returns the
        stored answer. If this raises, it has stored nothing.

        Raises SessionBusy, NotFound, NotAllowed, InputError, Conflict, StoreUnavailable.
        """
        if self._is_closing:
            raise StoreUnavailable("the agents process is ending: send the message again")
        begun = await run_unit(lambda: self._begin(posted))
        if isinstance(begun, str):
            return begun
        turn, models = begun
        run = TurnRun(self._ctx, turn, models, self._calls, self._tools, posted)
        self._runs[turn.session.turn] = run
        run.task.add_done_callback(lambda _: self._runs.pop(turn.session.turn))
        return run

    def _begin(self, posted: PostedMessage) -> tuple[BegunTurn, ModelsInForce] | str:
        ctx = self._ctx
        agent = agents.load_agent(ctx, posted.client, posted.agent)
        session = agents.load_session(ctx, posted.client, agent.id, posted.session)
        # A stored answer is returned even if the consent to its model has ended.
        if posted.key and (kept := turns.load_answer(ctx, session.id, posted.key)):
            return kept
        models = find_models(ctx, agent, session, posted.incoming, self._auto)
        begun = turns.begin_turn(ctx, self._owner, session.id, posted.incoming, posted.key)
        return begun if isinstance(begun, str) else (begun, models)

    async def keep_leases(self) -> None:
        """Renews the leases of this process's turns and ends the turns of dead processes,
        until it is cancelled.
        """
        while True:
            try:
                await self.renew_leases()
            except Exception:
                # An error, such as a database outage, must not end this loop. Without it, all
                # leases would expire and end their turns.
                log.exception("leases_not_renewed")
            await asyncio.sleep(RENEW_S)

    async def renew_leases(self) -> None:
        ids = tuple(self._runs)
        for id_ in await run_unit(lambda: turns.renew(self._ctx, self._owner, ids)):
            if id_ in self._runs:
                self._runs[id_].cancel()
        await run_unit(lambda: turns.interrupt_lapsed(self._ctx, self._owner))
        await run_unit(self._calls.meter.refresh)

    async def close(self, drain_s: float) -> None:
        self._is_closing = True
        runs = list(self._runs.values())
        if runs:
            await asyncio.wait({run.task for run in runs}, timeout=drain_s)
            for run in runs:
                run.cancel()
            await asyncio.wait({run.task for run in runs})
        await run_unit(self._calls.close)


MAX_ANSWERS_CHARS: Final = 100_000  # of all answers together; longer answers are cut
SHARE_OF_TIME: Final = 0.8  # the parent's turn needs the rest for its own answer


class SubTask(ToolArguments):
    task: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)
    ]
    # None for the session's model.
    model: Annotated[str, Field(max_length=300)] | None = None


class SpawnArguments(ToolArguments):
    tasks: Annotated[list[SubTask], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _accept_one(cls, given: Any) -> Any:
        is_one = isinstance(given, dict) and "task" in given and "tasks" not in given
        return {"tasks": [given]} if is_one else given


@dataclass(frozen=True, slots=True)
class SubTaskResult:
    # failed: no answer, or a bound was reached. interrupted: its session was closed.
    status: Literal["done", "failed", "interrupted"]
    model: str
    session: str  # the child's id
    answer: str = ""
    error: str = ""
    is_cut: bool = False  # the child's transcript has the whole answer
    usage: MessageUsage = FREE


def share_bounds(left: TurnBounds, usd: float, count: int) -> TurnBounds:
    """Returns the bounds of each of `count` sub-tasks. left: the rest of the parent's budget.
    usd: for all sub-tasks together.
    """
    return replace(
        left,
        max_usd=min(left.max_usd, usd) / count,
        max_tokens=left.max_tokens // count,
        timeout_s=left.timeout_s * SHARE_OF_TIME,
    )


class Spawner:
    def __init__(self, ctx: Context, turns: TurnRunner) -> None:
        self._ctx, self._turns = ctx, turns
        self._limits = ctx.agents.spawn
        self._spawning: set[str] = set()  # sessions

    def tool(self) -> BuiltInTool:
        return build_tool(
            SPAWN,
            f"Run 1 to {self._limits.max_tasks} sub-tasks in parallel, each in a conversation "
            "of its own. A sub-task does not see this conversation, so `task` must contain "
            "everything that it needs. Returns the answers in order, each with a status. "
            "`model` names a route or another model; without it, this conversation's model "
            "answers. A model that is not a route needs a person's approval, one for all "
            "tasks: after the approval, call the tool again with the same tasks.",
            SpawnArguments,
            self.spawn,
        )

    async def spawn(self, given: SpawnArguments, caller: ToolCaller) -> ToolAnswer:
        """Returns the results in the tasks' order, or the request that waits for a person.

        Raises InputError, NotAllowed, NotFound, Conflict while the session's sub-tasks run.
        """
        count, most = len(given.tasks), self._limits.max_tasks
        if count > most:
            raise InputError(f"tasks: there are {count}, and one call may have {most}")
        if caller.session in self._spawning:
            raise Conflict(
                "sub-tasks of this conversation are running: give all tasks in one call"
            )
        self._spawning.add(caller.session)
        try:
            return await self._spawn(given.tasks, caller)
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
                    "next": "continue without the answers, or call again with the same tasks "
                    "after the approval",
                }
            )
        client, children = await run_unit(lambda: self._open(caller.session, planned))
        bounds = share_bounds(caller.left, self._limits.max_usd, len(tasks))
        most = MAX_ANSWERS_CHARS // len(tasks)
        pairs = zip(children, tasks, strict=True)
        try:
            results = await asyncio.gather(
                *(self._run(client, child, task.task, bounds, most) for child, task in pairs)
            )
        finally:
            await run_unit(lambda: self._close(children))
        return ToolAnswer({"tasks": results}, sum((r.usage for r in results), FREE))

    def _plan(
        self, tasks: Sequence[SubTask], session: str
    ) -> Sequence[ModelChoice] | ModelSwitchRequest:
        """Returns the tasks' models, or the switch request for models without a grant.

        Raises NotAllowed for a sub-task, and for an agent whose key is revoked.
        """
        with self._ctx.store.read() as tx:
            parent = Sessions(tx).get(session)
            agents.owner_of(tx, Agents(tx).get(parent.agent))
        parent.require_open()
        if parent.parent is not None:
            raise NotAllowed("a sub-task cannot have sub-tasks: do the work here")
        names = [(task.model or "").strip() for task in tasks]
        models = [choose_model(self._ctx, name) if name else parent.model for name in names]
        with self._ctx.store.read() as tx:
            missing = [
                (task.task, model)
                for task, model in zip(tasks, models, strict=True)
                if model.is_literal and not self._is_granted(tx, parent, model)
            ]
        if not missing:
            return models
        return switches.request_switch(
            self._ctx,
            session,
            [model for _, model in missing],
            f"{len(tasks)} sub-tasks",
            [(task, model.target) for task, model in missing],
        )

    def _is_granted(self, tx: Transaction, parent: AgentSession, choice: ModelChoice) -> bool:
        found = agents.find_grant(self._ctx, tx, parent.agent, parent.id, choice.target)
        return found is not None

    def _open(
        self, session: str, models: Sequence[ModelChoice]
    ) -> tuple[AgentsClient, Sequence[AgentSession]]:
        children = []
        with self._ctx.store.write() as tx:
            parent = Sessions(tx).lock(session)
            agent = Agents(tx).get(parent.agent)
            client = agents.owner_of(tx, agent)
            for model in models:
                if not model.is_literal:
                    client.require_route(model.route)
                    agents.require_route(self._ctx, tx, agent, model.route)
                elif not self._is_granted(tx, parent, model):
                    raise NotAllowed(
                        f"the approval of {model.target} has ended: request it again"
                    )
                children.append(agents.open_child(self._ctx, tx, parent, model))
        return client, children

    async def _run(
        self,
        client: AgentsClient,
        child: AgentSession,
        task: str,
        bounds: TurnBounds,
        most: int,
    ) -> SubTaskResult:
        incoming = IncomingMessage(MessageRole.USER, task)
        posted = PostedMessage(client, child.agent, child.id, incoming, bounds=bounds)
        run: TurnRun | None = None
        try:
            begun = await self._turns.start(posted)
            assert isinstance(begun, TurnRun)  # noqa: S101 - `posted` has no idempotency key
            run = begun
            return read_outcome(child, await run.outcome(), most)
        except SwapgateError as error:
            return _failed(child, str(error), error.code)
        except asyncio.CancelledError:
            if run is not None:
                run.cancel()
                await asyncio.wait({run.task})
            raise
        except Exception:
            log.exception("sub_task_failed", session=child.id)
            return _failed(child, "the sub-task failed because of an error in Swapgate")

    def _close(self, children: Sequence[AgentSession]) -> None:
        for child in children:
            # The parent's end may have closed or deleted the child.
            with suppress(SwapgateError), self._ctx.store.write() as tx:
                agents.close_in_unit(self._ctx, tx, child.id, "the sub-task has ended")


def _failed(child: AgentSession, reason: str, code: str = "") -> SubTaskResult:
    status: Any = "interrupted" if code == "turn_interrupted" else "failed"
    return SubTaskResult(status, child.model.text, child.id, error=reason)


def read_outcome(child: AgentSession, outcome: TurnOutcome, most: int) -> SubTaskResult:
    """Summarizes a sub-task's outcome. most: characters of the answer."""
    if (error := outcome.error) is not None:
        return replace(_failed(child, str(error), error.code), usage=outcome.usage)
    answer = str(outcome.message.content)
    model, is_cut = child.model.text, len(answer) > most
    return SubTaskResult(
        "done", model, child.id, answer[:most], is_cut=is_cut, usage=outcome.usage
    )
