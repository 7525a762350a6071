"""Builds the parts of a worker's application, starts and stops them, and reads their state.

Only this module joins the router's packages: it passes each part the parts that it needs, and
sets the order of the observers. `app` answers the paths, and `process` starts the process.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from harness.evals.account_meter import AccountMeter
from harness.evals.month_spending import SpendingPurpose
from harness.frame.ports import Clock, RateBook
from harness.routing.reliability.breaker import BreakerState
from harness.routing.settings import AgentSettings, RouterSettings
from router.access.admission import Admission
from router.access.front_door import Callers, FrontDoor
from router.access.rate_limits import LocalRates
from router.frame.database import RouterDatabase
from router.frame.limits import Timers
from router.health.account_watch import AccountWatch
from router.health.answered_ends import AnsweredEnds
from router.health.provider_keys import EarlyRecovery, ProviderKeys
from router.health.target_health import TargetHealth
from router.health.worker_alerts import WorkerAlerts
from router.observers.canary_guard import CanaryGuards
from router.observers.capture import CaptureSampler
from router.observers.feedback import FeedbackIntake
from router.observers.guardrail_sampling import (
    GuardrailSampling,
    RolloutAdmission,
)
from router.observers.health_checks import HealthChecks
from router.observers.judge import CanarySampleJudge
from router.observers.otlp_outcomes import OutcomeIntake
from router.observers.request_accounting import (
    FailoverLog,
    RequestAccounting,
    TokenSettlement,
)
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
from router.recording.internal_errors import (
    Background,
    EventLog,
    InternalErrors,
)
from router.recording.metrics import (
    RouterMetrics,
    StateSample,
    TargetCheck,
    counter_names,
)
from router.recording.port import Recording
from router.recording.shared_files import GuardFiles, SharedMarks
from router.request.dispatch import Dispatcher
from router.request.model_endpoint import ModelEndpoint
from router.request.planner import Planner
from router.request.request_observers import (
    RequestObserver,
    RequestObservers,
)
from router.request.settlement import AttemptSettlement
from router.request.upstream_call import UpstreamCalls
from router.server.agents_pass_through import AgentsPassThrough
from router.server.flags import FlagEvaluation
from router.server.kept_responses import KeptResponses
from router.server.paths import CrossOrigins
from router.snapshot.compiled import RouteNames
from router.snapshot.holder import SnapshotHolder
from router.upstream.learned_repairs import LearnedFields
from router.upstream.transport import TransportFactory

BREAKER_GAUGE: Final[Mapping[BreakerState, int]] = {
    BreakerState.CLOSED: 0,
    BreakerState.HALF_OPEN: 1,
    BreakerState.OPEN: 2,
}


class RouterParts:
    """Builds the parts of a worker's application.

    holder: already booted.
    secret: the installation's secret, which hashes keys and callers.
    on_stop: awaited at the end of the shutdown, after all parts have stopped.
    rates, marks: shared by all workers; by default, the worker's own.
    tracing: None if tracing is off.
    guard_files: where stopped canaries are kept; by default in memory.
    agents: None if the installation has no agents process.
    learned: returns the request fields that targets refuse.
    stopping: a shutdown began that no other worker replaces. `/readyz` then answers 503, so
    that load balancers send no more requests.
    """

    stopping: bool = False

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
        learned: LearnedFields = dict,
        marks: SharedMarks | None = None,
    ) -> None:
        self._holder = holder
        self._recorder = recorder
        self._settings = settings
        self._timers = Timers()
        self._agents = (
            AgentsPassThrough(
                agents,
                settings,
                secret,
                clock,
                recorder.counters,
                self._timers,
            )
            if agents is not None and agents.pass_through_url
            else None
        )
        marks = marks or SharedMarks(secret)
        rates = rates or LocalRates()
        self._health = TargetHealth(settings.breaker, clock.monotonic, rates, marks)
        self._events = EventLog()
        self._alerts = WorkerAlerts(
            holder, self._health, recorder, clock, self._events, learned
        )
        self._health.on_move = self._alerts.note_breaker_move
        self._health.on_pause = self._alerts.note_pause
        self._metrics = RouterMetrics(self._read_state)
        self._cors = CrossOrigins(settings.cors)
        self._names = RouteNames(settings.aliases, self._metrics.without_route)
        recorder.attach(self._metrics)
        self._errors = InternalErrors(
            self._metrics, recorder.counters, self._alerts.internal_error
        )
        failovers = FailoverLog(secret, clock, self._metrics, recorder, self._events)
        self._guards = self._boot_guards(guard_files or GuardFiles(), clock)
        self._feedback = FeedbackIntake(recorder, self._metrics)
        self._outcomes = OutcomeIntake(self._feedback)
        keys = ProviderKeys(clock.monotonic, self._alerts.note_key_change)
        self._renewals = EarlyRecovery(self._health, keys)
        self._alerts.add_follower(self._renewals.evaluate)
        accounts = self._watch_accounts(keys, clock)
        calls = UpstreamCalls(
            transport_factory, settings, self._timers, accounts, self._watch_ends(clock)
        )
        dispatcher = Dispatcher(
            calls,
            settings,
            self._health,
            keys,
            AttemptSettlement(self._health, keys, self._metrics),
            clock,
            random.random,  # noqa: S311 - spreads retries
            self._errors,
        )
        self._admission = Admission(
            rates,
            recorder.spent,
            recorder.counters,
            clock,
            self._alerts.raise_alert,
            worker=recorder.worker,
            rate_share=settings.rate_share,
            secret=secret,
        )
        callers = Callers(settings, secret, clock, self._admission, recorder.counters)
        self._spending = {
            purpose: WorkerSpending(purpose, clock)
            for purpose in (SpendingPurpose.SHADOW, SpendingPurpose.JUDGES)
        }
        side_parts = SideParts(
            holder,
            calls,
            self._health,
            keys,
            recorder,
            self._metrics,
            settings,
            clock,
            accounts,
        )
        self._shadows = ShadowMirror(
            side_parts, self._spending[SpendingPurpose.SHADOW], marks, secret
        )
        judge_budget = JudgeBudget(holder, clock)
        self._follow_store(clock, judge_budget)
        self._judges = CanarySampleJudge(
            side_parts, judge_budget, self._spending[SpendingPurpose.JUDGES]
        )
        self._checks = HealthChecks(
            holder,
            dispatcher,
            self._health,
            self._metrics,
            clock,
            settings.health_check_interval_s,
            accounts,
        )
        self._background = Background(
            (self._alerts.watch, self._checks.watch, self._guards.watch),
            self._errors,
        )
        self._learned = learned
        planner = Planner(
            self._health,
            clock,
            settings.breaker.when_all_open,
            marks,
            self._guards.stopped,
        )
        request_observers: list[RequestObserver] = [
            self._feedback,
            CaptureSampler(secret, clock, recorder),
            self._shadows,
            TokenSettlement(self._admission),
            RequestAccounting(recorder, self._metrics, clock),
            failovers,
        ]
        if tracing is not None:
            request_observers.append(RequestTracing(tracing, self._errors))
        evidence_observers: list[RequestObserver] = [
            self._judges,
            RolloutAdmission(recorder, self._guards),
            GuardrailSampling(),
            self._guards,
        ]
        self._calls = ModelEndpoint(
            planner,
            dispatcher,
            self._admission,
            RequestObservers(request_observers, evidence_observers, self._errors),
            recorder,
            settings,
            clock,
            self._errors,
            self._names,
            self._alerts.shares,
        )
        self._kept = KeptResponses(
            holder.store,
            secret,
            clock,
            self._names,
            self._admission,
            recorder.counters,
            settings.max_body_bytes,
        )
        self._flags = FlagEvaluation(
            self._calls, recorder, self._feedback, self._guards, self._names
        )
        self._tracing = tracing
        self._on_stop = on_stop
        self._front_door = FrontDoor(
            holder,
            recorder,
            settings.max_concurrent,
            callers,
            self._renewals,
            self._errors,
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def _boot_guards(self, files: GuardFiles, clock: Clock) -> CanaryGuards:
        guards = CanaryGuards(
            self._holder,
            files,
            clock,
            workers=self._settings.workers,
            worker=self._recorder.worker,
            announce=self._recorder.announce,
            on_abort=self._alerts.note_canary_abort,
        )
        guards.boot()
        self._recorder.on_abort = guards.apply_abort
        return guards

    def _watch_accounts(self, keys: ProviderKeys, clock: Clock) -> AccountWatch:
        meter = AccountMeter(clock, self._recorder.worker)
        accounts = AccountWatch(meter, self._metrics, keys, clock.monotonic)
        self._alerts.add_follower(accounts.update)
        self._holder.add_follower(accounts.share)
        return accounts

    def _watch_ends(self, clock: Clock) -> AnsweredEnds:
        ends = AnsweredEnds(self._holder.note_ends, self._recorder.counters, clock)
        self._holder.add_follower(ends.share)
        return ends

    def _follow_store(self, clock: Clock, judge_budget: JudgeBudget) -> None:
        """Registers the readers of spending, which run at each refresh of the snapshot."""
        followers: list[Callable[[RouterDatabase], None]] = [
            TotalsRefresh(self._holder, self._recorder.spends, clock, *KEY_BUDGETS),
            TotalsRefresh(self._holder, self._recorder.shadows, clock, *SHADOW_BUDGETS),
            *self._spending.values(),
            judge_budget,
        ]
        for follower in followers:
            self._holder.add_follower(follower)

    def _start(self) -> None:
        """Starts the threads and background tasks. Call it in the worker's event loop."""
        self._loop = asyncio.get_running_loop()
        self._holder.start()
        self._recorder.start()
        self._events.start()
        self._background.start()

    async def _stop(self) -> None:
        """Stops the parts that make records first, and then the recorder."""
        await self._background.stop()
        self._alerts.close(is_replaced=not self.stopping)
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

    def _read_state(self) -> list[StateSample]:
        """Reads the gauges and counters for a scrape."""
        holder = self._holder
        health = self._health
        serving = self._holder.current
        unlabelled: dict[str, float] = {
            "routing_revision": serving.revision if serving else 0,
            "snapshot_age_seconds": holder.age_s,
            "router_stale": int(holder.stale),
            "router_revision_refused": int(bool(holder.refused)),
            "router_requests_under_way": self._front_door.under_way,
            "router_agents_under_way": self._agents.under_way if self._agents else 0,
            "router_tasks": len(asyncio.all_tasks(self._loop)) if self._loop else 0,
            **counter_names(self._recorder.counters),
            "router_log_events_dropped": self._events.dropped,
        }
        targets = serving.snapshot.table.targets if serving else {}
        checks = self._checks.results()
        # Several targets may share a name. The metrics then show the worst state.
        state_by_target: dict[str, int] = {}
        pause_by_target: dict[str, float] = {}
        check_by_target: dict[str, TargetCheck] = {}
        for id_, target in sorted(targets.items()):
            name = target.name
            state = health.state(id_)
            pause_s = health.slowdowns.rest_s(id_)
            check = checks.get(id_)
            state_by_target[name] = max(state_by_target.get(name, 0), BREAKER_GAUGE[state])
            if pause_s > 0:
                pause_by_target[name] = max(pause_by_target.get(name, 0.0), pause_s)
            if check is not None:
                check_by_target[name] = min(check_by_target.get(name, check), check)
        return [
            *(StateSample(name, value) for name, value in unlabelled.items()),
            *(
                StateSample("breaker_state", level, (name,))
                for name, level in state_by_target.items()
            ),
            *(
                StateSample("target_pause_seconds", pause_s, (name,))
                for name, pause_s in pause_by_target.items()
            ),
            *(
                StateSample("health_check_up", check.up, (name,))
                for name, check in check_by_target.items()
            ),
            *(
                StateSample("health_check_duration_seconds", check.seconds, (name,))
                for name, check in check_by_target.items()
            ),
            *(
                StateSample("learned_repairs", 1, (name, field))
                for name, learned in self._learned().items()
                for field in sorted({entry.field for entry in learned})
            ),
        ]
