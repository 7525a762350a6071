"""`Spawner` runs the sub-tasks of a session. Each sub-task runs in its own child session, in
parallel. The end of the parent's turn or session ends all of them.

Calls of one answer form a set: they run in parallel and share the turn's budget. If sub-tasks
need literal models without a grant, one switch request covers the set, and the calls wait for
the person's decision.

A sub-task's turn is an ordinary turn of `turn_runner`. The tool's arguments and results are in
`sub_task`. A child session closes after its turn and cannot spawn.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

import structlog

from harness.agents import agents, switches
from harness.agents.agents import AgentsClient
from harness.agents.built_in_tools import BuiltInTool, ToolAnswer, build_tool
from harness.agents.context import AgentsContext
from harness.agents.conversation import PostedMessage, TurnRun, run_transaction
from harness.agents.message import FREE, IncomingMessage, MessageRole
from harness.agents.models import choose_model
from harness.agents.records import Agents, Sessions
from harness.agents.sub_task import (
    SpawnArguments,
    SubTask,
    SubTaskResult,
    describe_missing_approval,
    failed_result,
    read_outcome,
    share_bounds,
)
from harness.agents.switch_request import ModelSwitchRequest, SwitchState
from harness.agents.turn import ToolCaller
from harness.agents.turn_runner import TurnRunner
from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    SwapproofError,
)
from harness.frame.records.transaction import Transaction
from harness.routing.agent import SPAWN, AgentSession, ModelChoice
from harness.routing.settings import TurnBounds

log = structlog.get_logger("swapproof.agents")

MAX_ANSWERS_CHARS: Final = 100_000  # of all answers of a set together; longer answers are cut
WAIT_SHARE: Final = (
    0.5  # the share of a turn's time that may go to a wait for a person's decision
)
GATHER_S: Final = 0.2  # calls that arrive within this time form a set


@dataclass(eq=False, slots=True)
class SpawnCall:
    """One call of the tool, and its plan. The plan is empty until the call's set is planned."""

    tasks: Sequence[SubTask]
    models: Sequence[ModelChoice] = ()  # of the tasks
    lacking: Sequence[tuple[str, ModelChoice]] = ()  # tasks whose model has no grant
    error: SwapproofError | None = None  # why the call cannot run


@dataclass(eq=False, slots=True)
class SpawnSet:
    """The calls of one answer. `planned` returns the switch request for them; None if none is
    necessary.
    """

    planned: asyncio.Task[ModelSwitchRequest | None]
    calls: list[SpawnCall] = field(default_factory=list)
    count: int = 0  # number of all sub-tasks, once the set is planned


class Spawner:
    """Runs sub-tasks for all sessions of this process. One session's running and waiting
    sub-tasks never exceed `agents.spawn.max_tasks`.
    """

    def __init__(self, ctx: AgentsContext, turns: TurnRunner) -> None:
        self._ctx = ctx
        self._turns = turns
        self._limits = ctx.agents.spawn
        self._sets: dict[str, SpawnSet] = {}  # by session; later calls join the set
        self._running_tasks: Counter[str] = Counter()  # number of sub-tasks, by session

    def tool(self) -> BuiltInTool:
        return build_tool(
            SPAWN,
            "Run a sub-task in a conversation of its own, and get its answer. For several "
            "sub-tasks in parallel, call the tool several times at once, or give "
            f"`tasks`: at most {self._limits.max_tasks} together. A sub-task does not see this "
            "conversation, so `task` must contain everything that it needs. Returns the "
            "answers in order, each with a status. A model that is not a route needs a "
            "person's approval: the call waits for the decision, and one approval covers all "
            "sub-tasks that begin together.",
            SpawnArguments,
            self.spawn,
        )

    async def spawn(self, arguments: SpawnArguments, caller: ToolCaller) -> ToolAnswer:
        """Returns the results in the tasks' order, or why a person's approval is missing.

        Raises InputError, NotAllowed, NotFound, Conflict for too many sub-tasks at once.
        """
        call = SpawnCall(arguments.sub_tasks)
        session = caller.session
        self._require_room(len(call.tasks), session)
        self._running_tasks[session] += len(call.tasks)
        try:
            return await self._spawn(call, arguments.wait_s, caller)
        finally:
            self._running_tasks[session] -= len(call.tasks)
            self._running_tasks += Counter()  # removes the zero counts

    def _require_room(self, count: int, session: str) -> None:
        """Raises InputError for a call with too many sub-tasks, Conflict for too many sub-tasks
        at once.
        """
        limit = self._limits.max_tasks
        running = self._running_tasks[session]
        if count > limit:
            raise InputError(f"tasks: there are {count}, and one call may have {limit}")
        if count + running > limit:
            raise Conflict(
                f"{running} sub-tasks of this conversation run or wait for an approval, and "
                f"it may have {limit} at the same time: call again after their end"
            )

    async def _spawn(
        self,
        call: SpawnCall,
        wait_s: float | None,
        caller: ToolCaller,
    ) -> ToolAnswer:
        """Waits for the set's plan, and for a person's decision if one is needed. Then runs the
        tasks.

        In a turn, the wait takes at most `WAIT_SHARE` of the remaining time, and shortens the
        tasks' time. An MCP client sets its own wait.
        """
        call_set = self._add_call(caller.session, call)
        try:
            request = await asyncio.shield(call_set.planned)
        finally:
            self._remove_call(caller.session, call_set, call)
        if call.error is not None:
            raise call.error
        bounds_left = caller.left
        if request is not None and call.lacking:
            patience_s = bounds_left.timeout_s * WAIT_SHARE if caller.is_in_turn else inf
            began_s = self._ctx.clock.monotonic()
            request = await switches.wait_for_decision(
                self._ctx,
                request.id,
                min(patience_s, inf if wait_s is None else wait_s),
            )
            state = request.state_at(self._ctx.clock.now())
            if state is not SwitchState.APPROVED:
                return ToolAnswer(describe_missing_approval(request, state))
            if caller.is_in_turn:
                waited_s = self._ctx.clock.monotonic() - began_s
                bounds_left = replace(
                    bounds_left, timeout_s=max(0.0, bounds_left.timeout_s - waited_s)
                )
        return await self._run_tasks(call, caller.session, bounds_left, call_set.count)

    def _add_call(self, session: str, call: SpawnCall) -> SpawnSet:
        call_set = self._sets.get(session)
        if call_set is None:
            call_set = SpawnSet(asyncio.create_task(self._plan_after_gathering(session)))
            self._sets[session] = call_set
        call_set.calls.append(call)
        return call_set

    def _remove_call(
        self,
        session: str,
        call_set: SpawnSet,
        call: SpawnCall,
    ) -> None:
        """Removes a call from its set. Cancels the plan of an empty set."""
        call_set.calls.remove(call)
        if not call_set.calls and not call_set.planned.done():
            call_set.planned.cancel()
            if self._sets.get(session) is call_set:
                del self._sets[session]

    async def _plan_after_gathering(self, session: str) -> ModelSwitchRequest | None:
        """Waits `GATHER_S` for further calls of the same answer, then plans all these calls."""
        await asyncio.sleep(GATHER_S)
        call_set = self._sets.pop(session)
        calls = tuple(call_set.calls)
        call_set.count = sum(len(call.tasks) for call in calls)
        return await run_transaction(lambda: self._plan(session, calls))

    def _plan(self, session: str, calls: Sequence[SpawnCall]) -> ModelSwitchRequest | None:
        """Chooses the models of all calls. Creates one switch request for all models without a
        grant.
        """
        try:
            parent = self._require_parent(session)
        except SwapproofError as error:
            for call in calls:
                call.error = error
            return None
        for call in calls:
            try:
                self._choose_models(parent, call)
            except SwapproofError as error:
                call.error = error
        lacking = [pair for call in calls for pair in call.lacking]
        if not lacking:
            return None
        try:
            return switches.request_switch(
                self._ctx,
                session,
                [model for _, model in lacking],
                f"{len(lacking)} sub-tasks",
                [(task, model.target) for task, model in lacking],
            )
        except SwapproofError as error:
            for call in calls:
                call.error = call.error or (error if call.lacking else None)
            return None

    def _require_parent(self, session: str) -> AgentSession:
        """Raises NotAllowed for a sub-task, and for an agent whose key is revoked."""
        with self._ctx.store.read() as tx:
            parent = Sessions(tx).get(session)
            agents.owner_of(tx, Agents(tx).get(parent.agent))
        parent.require_open()
        if parent.parent is not None:
            raise NotAllowed("a sub-task cannot have sub-tasks: do the work here")
        return parent

    def _choose_models(self, parent: AgentSession, call: SpawnCall) -> None:
        names = [(task.model or "").strip() for task in call.tasks]
        call.models = [
            choose_model(self._ctx, name) if name else parent.model for name in names
        ]
        with self._ctx.store.read() as tx:
            call.lacking = [
                (task.task, model)
                for task, model in zip(call.tasks, call.models, strict=True)
                if model.is_literal and not self._is_granted(tx, parent, model)
            ]

    def _is_granted(
        self,
        tx: Transaction,
        parent: AgentSession,
        choice: ModelChoice,
    ) -> bool:
        grant = agents.find_grant(self._ctx, tx, parent.agent, parent.id, choice.target)
        return grant is not None

    async def _run_tasks(
        self,
        call: SpawnCall,
        session: str,
        bounds_left: TurnBounds,
        count: int,
    ) -> ToolAnswer:
        """Runs the call's sub-tasks.

        Args:
            count: number of sub-tasks that share `left`.
        """
        client, children = await run_transaction(
            lambda: self._open_children(session, call.models)
        )
        bounds = share_bounds(bounds_left, self._limits.max_usd, count)
        max_chars = MAX_ANSWERS_CHARS // count
        pairs = zip(children, call.tasks, strict=True)
        try:
            results = await asyncio.gather(
                *(
                    self._run_sub_task(client, child, task.task, bounds, max_chars)
                    for child, task in pairs
                )
            )
        finally:
            await run_transaction(lambda: self._close_children(children))
        return ToolAnswer({"tasks": results}, sum((r.usage for r in results), FREE))

    def _open_children(
        self, session: str, models: Sequence[ModelChoice]
    ) -> tuple[AgentsClient, Sequence[AgentSession]]:
        """Opens a child session for each task, in one transaction: either all tasks start, or
        no task.

        Raises NotAllowed if a grant ended between the plan and now.
        """
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

    async def _run_sub_task(
        self,
        client: AgentsClient,
        child: AgentSession,
        task: str,
        bounds: TurnBounds,
        max_chars: int,
    ) -> SubTaskResult:
        """Runs a sub-task to its end. Returns a failure as a result; raises only a
        cancellation.
        """
        incoming = IncomingMessage(MessageRole.USER, task)
        posted = PostedMessage(client, child.agent, child.id, incoming, bounds=bounds)
        run: TurnRun | None = None
        try:
            started = await self._turns.start(posted)
            assert isinstance(started, TurnRun)  # noqa: S101 - `posted` has no idempotency key
            run = started
            return read_outcome(child, await run.outcome(), max_chars)
        except SwapproofError as error:
            return failed_result(child, str(error), error.code)
        except asyncio.CancelledError:
            if run is not None:
                run.cancel()
                await asyncio.wait({run.task})
            raise
        except Exception:
            log.exception("sub_task_failed", session=child.id)
            return failed_result(child, "the sub-task failed because of an error in Swapproof")

    def _close_children(self, children: Sequence[AgentSession]) -> None:
        for child in children:
            # The parent's end may have closed or deleted the child.
            with suppress(SwapproofError), self._ctx.store.write() as tx:
                agents.close_in_transaction(self._ctx, tx, child.id, "the sub-task has ended")
