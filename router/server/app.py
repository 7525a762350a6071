"""The router's ASGI application: it builds all parts of a worker and answers each path."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from harness.evals.month_spending import SpendingPurpose
from harness.frame.ports import Clock, RateBook
from harness.routing.settings import AgentSettings, RouterSettings
from harness.routing.table import KeyGrant
from harness.store.router_store import RouterStore
from router.access.admission import Admission, AsideKind
from router.access.front_door import SOON, Callers, FrontDoor, is_anthropics
from router.access.keys import FLAGS_PATH, list_models
from router.access.rate_limits import LocalRates
from router.frame.asgi import (
    BODY,
    HEAD_FACTS,
    ClientDisconnected,
    Message,
    Receive,
    Scope,
    Send,
    send_reply,
)
from router.frame.replies import JSON, Header, Reply, error_reply
from router.frame.timers import Timers
from router.health.provider_keys import EarlyRecovery, ProviderKeys
from router.health.target_health import TargetHealth
from router.health.worker_alerts import WorkerAlerts
from router.observers.canary_guard import CanaryGuards
from router.observers.capture import CaptureSampler
from router.observers.failover_log import FailoverLog
from router.observers.feedback import FEEDBACK_PATH, FeedbackIntake
from router.observers.guardrail_sampling import (
    GuardrailSampling,
    RolloutAdmission,
    ShortDeadlines,
)
from router.observers.health_checks import HealthChecks
from router.observers.judge import CanarySampleJudge
from router.observers.request_accounting import RequestAccounting, TokenSettlement
from router.observers.request_tracing import RequestTracing, Tracing
from router.observers.shadow import ShadowMirror
from router.observers.side_calls import (
    KEY_BUDGETS,
    SHADOW_BUDGETS,
    JudgeBudget,
    SideParts,
    TotalsRefresh,
    WorkerSpending,
)
from router.protocols.endpoints import COMPLETIONS, ENDPOINTS
from router.recording.event_log import EventLog
from router.recording.guard_files import GuardFiles
from router.recording.internal_errors import Background, InternalErrors, RouterPart
from router.recording.metrics import CONTENT_TYPE, MetricReading, RouterMetrics
from router.recording.port import MAX_BODY_BYTES, Recording
from router.recording.shared_marks import SharedMarks
from router.request.attempts import AttemptSettlement
from router.request.direct_request import DirectCycle, DirectRequest
from router.request.dispatch import Dispatcher
from router.request.model_endpoint import ModelEndpoint
from router.request.needs import COUNT_PATHS
from router.request.planner import Planner
from router.request.request_observers import RequestObserver, RequestObservers
from router.request.upstream_call import UpstreamCalls
from router.server.agents_pass_through import AGENTS_PATH, BELOW_AGENTS, AgentsPassThrough
from router.server.completions import as_chat
from router.server.flags import MAX_CONTEXT_BYTES, FlagCaller, FlagEvaluation
from router.server.paths import (
    AGENTS_METHODS,
    ASKED,
    METRICS,
    CrossOrigins,
    method_of,
    not_allowed,
    nothing_at,
)
from router.server.request_body import body_codings, is_json, read_request_body
from router.server.state_metrics import StateMetrics
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.holder import SnapshotHolder
from router.snapshot.route_names import RouteNames
from router.upstream.learned_repairs import LearnedFields
from router.upstream.transport import TransportFactory

log = logging.getLogger(__name__)

_ASKS_A_MODEL: Final = "asks_a_model"  # in the head's facts: whether it does, with JSON


class Router:
    """The application of a worker. holder: booted. rates, marks: shared by all workers; by
    default this process's own. direct: whole requests may go without a task. learned: which
    fields targets do not take.
    """

    def __init__(  # noqa: PLR0913 - the parts, one by one
        self,
        holder: SnapshotHolder,
        recorder: Recording,
        transport_factory: TransportFactory,
        settings: RouterSettings,
        secret: bytes,
        clock: Clock,
        *,
        on_stop: Callable[[], Awaitable[None]] | None = None,
        rates: RateBook | None = None,
        tracing: Tracing | None = None,
        guard_files: GuardFiles | None = None,
        agents: AgentSettings | None = None,
        direct: bool = True,
        learned: LearnedFields = dict,
        marks: SharedMarks | None = None,
    ) -> None:
        self._holder = holder
        self._recorder = recorder
        self._settings = settings
        self._timers = Timers()
        self._agents = (
            AgentsPassThrough(agents, settings, secret, clock, recorder.counters, self._timers)
            if agents is not None and agents.pass_through_url
            else None
        )
        self._health = TargetHealth(settings.breaker, clock.monotonic)
        self._events = EventLog()
        self._alarms = WorkerAlerts(
            holder, self._health, recorder, clock, self._events, learned
        )
        self._health.on_move = self._alarms.breaker_moved
        self._health.on_pause = self._alarms.paused
        self._metrics, self._cors = RouterMetrics(self._reading), CrossOrigins(settings.cors)
        self._names = RouteNames(settings.aliases, self._metrics.without_route)
        recorder.attach(self._metrics)
        self._errors = InternalErrors(
            self._metrics, recorder.counters, self._alarms.internal_error
        )
        failovers = FailoverLog(secret, clock, self._metrics, recorder, self._events)
        self._guards = CanaryGuards(
            holder,
            guard_files or GuardFiles(),
            clock,
            workers=settings.workers,
            worker=recorder.worker,
            announce=recorder.announce,
            on_abort=self._alarms.canary_aborted,
        )
        self._guards.boot()
        recorder.on_abort = self._guards.apply_abort
        self._feedback = FeedbackIntake(recorder, self._metrics)
        keys = ProviderKeys(clock.monotonic, self._alarms.key_moved)
        self._renewals = EarlyRecovery(self._health, keys)
        self._alarms.add_follower(self._renewals.evaluate)
        calls = UpstreamCalls(transport_factory, settings, self._timers)
        dispatcher = Dispatcher(
            calls,
            settings,
            self._health,
            keys,
            AttemptSettlement(self._health, keys, self._metrics),
            clock,
            random.random,
            self._errors,
        )
        self._admission = Admission(
            rates or LocalRates(), recorder.spent, recorder.counters, clock,
            self._alarms.raise_alert, worker=recorder.worker, rate_share=settings.rate_share,
            secret=secret,
        )  # fmt: skip
        callers = Callers(settings, secret, clock, self._admission, recorder.counters)
        self._spending = {
            purpose: WorkerSpending(purpose, clock)
            for purpose in (SpendingPurpose.SHADOW, SpendingPurpose.JUDGES)
        }
        parts = SideParts(
            holder, calls, self._health, keys, recorder, self._metrics, settings, clock
        )
        marks = marks or SharedMarks(secret)
        self._shadows = ShadowMirror(parts, self._spending[SpendingPurpose.SHADOW], marks)
        money = JudgeBudget(holder, clock)
        followers: list[Callable[[RouterStore], None]] = [
            TotalsRefresh(holder, recorder.spends, clock, *KEY_BUDGETS),
            TotalsRefresh(holder, recorder.shadows, clock, *SHADOW_BUDGETS),
            *self._spending.values(),
            money,
        ]
        for follower in followers:
            holder.add_follower(follower)
        self._judges = CanarySampleJudge(parts, money, self._spending[SpendingPurpose.JUDGES])
        self._checks = HealthChecks(
            holder,
            dispatcher,
            self._health,
            self._metrics,
            clock,
            settings.health_check_interval_s,
        )
        self._background = Background(
            (self._alarms.watch, self._checks.watch, self._guards.watch), self._errors
        )
        self._states = StateMetrics(
            holder, recorder, self._events, self._health, self._checks, learned
        )
        planner = Planner(
            self._health,
            clock,
            settings.breaker.when_all_open,
            marks,
            self._guards.stopped,
        )
        deadlines = ShortDeadlines()
        always: list[RequestObserver] = [
            self._feedback,
            CaptureSampler(secret, clock, recorder),
            self._shadows,
            TokenSettlement(self._admission),
            RequestAccounting(recorder, self._metrics, clock),
            failovers,
            deadlines,
        ]
        if tracing is not None:
            always.append(RequestTracing(tracing, self._errors))
        of_evidence: list[RequestObserver] = [
            self._judges,
            RolloutAdmission(recorder, self._guards),
            GuardrailSampling(),
            self._guards,
        ]
        self._calls = ModelEndpoint(
            planner,
            dispatcher,
            self._admission,
            deadlines.is_too_short,
            RequestObservers(always, of_evidence, self._errors),
            recorder.counters,
            settings,
            clock,
            self._errors,
            self._names,
            self._alarms.shares,
        )
        self._flags = FlagEvaluation(
            self._calls, recorder, self._feedback, self._guards, self._names
        )
        self._tracing, self._direct, self._on_stop = tracing, direct, on_stop
        self._door = FrontDoor(
            holder, recorder, settings.max_concurrent, callers, self._renewals, self._errors
        )
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        self._holder.start()
        self._recorder.start()
        self._events.start()
        self._background.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._background.stop()
        self._alarms.close()
        if self._agents is not None:
            self._agents.close()
        await self._shadows.aclose()
        await self._judges.aclose()
        self._holder.stop()
        for spending in self._spending.values():
            await asyncio.to_thread(spending.close)
        self._recorder.stop()
        self._events.stop()
        if self._tracing is not None:
            self._tracing.close()
        if self._on_stop is not None:
            await self._on_stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._door.next_id()
        send = self._cors.marked(scope, send)
        begun = False
        failed: Reply | None = None

        def noting_send(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = True
            return send(message)

        try:
            found = self._caller(scope)
            reply: Reply | None
            if isinstance(found, Reply):
                reply = found
            elif isinstance(found, AgentsPassThrough):
                reply = await found.serve(scope, receive, noting_send, request_id)
            else:
                reply = await self._allowed(scope, receive, noting_send, *found, request_id)
            if reply is not None:
                told = self._door.client_reply(scope, request_id, reply)
                await send_reply(send, told, (request_id,))
        except ClientDisconnected:
            return
        except Exception as error:
            failed = self._door.note_failure(request_id, error)
            if begun:
                raise
        # Not awaited within `except`: compiled by mypyc 2.4.1, it would raise the fault again.
        if failed is not None:
            told = self._door.client_reply(scope, request_id, failed)
            await send_reply(send, told, (request_id,))

    def serve_directly(self, scope: Scope, cycle: DirectCycle) -> bool:
        facts = scope.setdefault(HEAD_FACTS, {})
        is_ours = facts.get(_ASKS_A_MODEL)
        if is_ours is None:
            is_ours = facts[_ASKS_A_MODEL] = (
                scope["path"] in ENDPOINTS
                and scope["method"] == "POST"
                and is_json(scope)
                and not body_codings(scope)
                and not self._cors.concern(scope)
            )
        takes: bool = (
            self._direct and is_ours and len(scope[BODY]) <= self._settings.max_body_bytes
        )
        if takes:
            id_ = self._door.next_id()
            DirectRequest(self._door, self._calls, cycle, scope, id_).start()
        return takes

    def _caller(
        self, scope: Scope
    ) -> Reply | AgentsPassThrough | tuple[KeyGrant, CompiledSnapshot]:
        path, method = scope["path"], scope["method"]
        if path in HEALTH:
            return HEALTH[path](self) if method in ("GET", "HEAD") else not_allowed("GET")
        for_agents = path == AGENTS_PATH or path.startswith(BELOW_AGENTS)
        wanted = AGENTS_METHODS if self._agents and for_agents else method_of(path)
        if wanted is None:
            return nothing_at(method, path)
        if method == "OPTIONS" and (wanted != AGENTS_METHODS or self._cors.concern(scope)):
            return self._cors.answer_preflight(scope, wanted)
        if self._agents and for_agents:
            return self._agents
        if method != wanted and not (method == "HEAD" and wanted == "GET"):
            return not_allowed(wanted)
        return self._door.identify(scope)

    async def _allowed(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        grant: KeyGrant,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply | None:
        path = scope["path"]
        if path == METRICS:
            return await self.metrics()
        if path == FEEDBACK_PATH:
            return await self._take_feedback(scope, receive, grant)
        if path.startswith(FLAGS_PATH):
            return await self._evaluate_flags(scope, receive, grant, serving, request_id)
        if path not in ASKED:
            return list_models(
                serving, grant, path, self._names, anthropic=is_anthropics(scope)
            )
        if refusal := self._door.enter():
            return refusal
        try:
            return await self._complete(scope, receive, send, grant, serving, request_id)
        finally:
            self._door.leave()

    async def _take_feedback(self, scope: Scope, receive: Receive, grant: KeyGrant) -> Reply:
        body = await read_request_body(scope, receive, self._timers, MAX_BODY_BYTES)
        if isinstance(body, Reply):
            return body
        too_many = self._admission.admit_aside(AsideKind.FEEDBACK, grant.id, grant.limits)
        return too_many or await self._feedback.take(body, grant.id)

    async def _evaluate_flags(
        self,
        scope: Scope,
        receive: Receive,
        grant: KeyGrant,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply:
        body = await read_request_body(scope, receive, self._timers, MAX_CONTEXT_BYTES)
        if isinstance(body, Reply):
            return body
        too_many = self._admission.admit_aside(AsideKind.FLAGS, grant.id, grant.limits)
        caller = FlagCaller(scope, grant, serving, request_id[1].decode())
        return too_many or self._flags.answer(body, caller)

    async def _complete(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        grant: KeyGrant,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply | None:
        limit = self._settings.max_body_bytes
        body = await read_request_body(scope, receive, self._timers, limit)
        if isinstance(body, Reply):
            return body
        if scope["path"] in COUNT_PATHS:
            kind = AsideKind.COUNTS
            if too_many := self._admission.admit_aside(kind, grant.id, grant.limits):
                return too_many
            return await self._calls.count_tokens(scope, body, grant, serving, request_id)
        if scope["path"] == COMPLETIONS:
            chat = as_chat(scope, send, body)
            if isinstance(chat, Reply):
                return chat
            scope, send, body = chat
        return await self._calls.answer(
            scope,
            receive,
            send,
            body=body,
            grant=grant,
            serving=serving,
            request_id=request_id,
        )

    def note_fault(self, error: Exception) -> None:
        self._errors.note(RouterPart.BACKGROUND, error)

    def stop(self) -> None:
        self._stopping = True

    def healthz(self) -> Reply:
        return Reply(200, (JSON,), b'{"status":"ok"}')

    def readyz(self) -> Reply:
        """`degraded`, and why, while the snapshot may be an old one."""
        if self._stopping:
            return Reply(503, (JSON,), b'{"status":"stopping"}')
        serving = self._holder.current
        if serving is None:
            return Reply(503, (JSON,), b'{"status":"starting"}')
        if self._holder.refused:
            return Reply(200, (JSON,), b'{"status":"degraded","reason":"revision_refused"}')
        if self._holder.stale:
            return Reply(200, (JSON,), b'{"status":"degraded","reason":"database_away"}')
        return Reply(200, (JSON,), b'{"status":"ok"}')

    async def metrics(self) -> Reply:
        try:
            text = await self._recorder.text()
        except TimeoutError:
            message = "the router's parent process does not answer; try again in a second"
            return error_reply(503, message, "metrics_unavailable", headers=(SOON,))
        return Reply(200, ((b"content-type", CONTENT_TYPE),), text)

    def _reading(self) -> MetricReading:
        return self._states.reading(
            {
                "router_requests_under_way": self._door.under_way,
                "router_agents_under_way": self._agents.under_way if self._agents else 0,
                "router_tasks": len(asyncio.all_tasks(self._loop)) if self._loop else 0,
            }
        )


# Also what clients ask to find out whether anybody is there.
HEALTH: Final = {
    **dict.fromkeys(("/", "/v1", "/v1/", "/health", "/healthz"), Router.healthz),
    "/readyz": Router.readyz,
}
