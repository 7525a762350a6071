"""Simulated router workers record traffic for rollouts, with harmful candidates and troubles:
lost, late or double reports, a wrong split, old snapshots.

Units, arms and outcomes are drawn; blocks, ranks and a worker's own guard are the product's.
Their clocks show the true time, wherever somebody sets the control plane's.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from harness.app.store.store import Store
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.gate.online.guardrails import (
    ArmLevels,
    ArmSplit,
    FailureTally,
    Guardrail,
    MeasuredUnit,
    rank_block,
)
from harness.gate.online.observation import ObservationBlock, TrafficMinute
from harness.gate.online.worker_guard import WorkerGuard, abort_log_e
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.table import Canary, Route, RoutingTable
from tests.support.canary.outcomes import outcome_of
from tests.support.control.manual_clock import ManualClock

WORKERS = ("router-1", "router-2")
UNITS = 100
TURN_S = 120.0
HEALTHY = 0.02
HARMED = 0.5
INCIDENT = 0.6


class Harm(StrEnum):
    """What is wrong with a candidate; every one but NONE is gross."""

    NONE = "none"
    ERRORS = "errors"
    SLOW = "slow"
    REFUSES = "refuses"


@dataclass(frozen=True, slots=True)
class Fate:
    """from_s: of the rollout's age, when the harm begins."""

    harm: Harm = Harm.NONE
    from_s: float = 0.0


class Trouble(StrEnum):
    INCIDENT = "incident"  # the provider fails in both arms alike
    SILENCE = "silence"  # nobody calls
    SPOOLED = "spooled"  # what routers record comes later
    LOST = "lost"  # it never comes
    WRONG_SPLIT = "wrong split"
    OLD_SNAPSHOT = "old snapshot"  # of one worker
    TWICE = "twice"  # every report comes again


# While one of them lasts, nothing new is known of the rollout.
DARK = frozenset({Trouble.SILENCE, Trouble.SPOOLED, Trouble.LOST})


@dataclass
class Report:
    blocks: list[ObservationBlock] = field(default_factory=list)
    traffic: list[TrafficMinute] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)


@dataclass(slots=True)
class Unit:
    canary: bool
    failed: bool
    refused: bool
    seconds: float


@dataclass
class Routers:
    """fates: by rollout. troubles: until when, by the monotonic clock. dark_s: for how long
    nothing has been recorded. harmed_s: by rollout, for how long recorded users met harm.
    """

    store: Store
    clock: ManualClock
    draw: Random
    fates: dict[str, Fate] = field(default_factory=dict)
    troubles: dict[Trouble, float] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    dark_s: float = 0.0
    harmed_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.clock.now()
        self._tables: dict[str, RoutingTable] = {}
        self._started: dict[str, float] = {}
        self._guards: dict[tuple[str, str], WorkerGuard] = {}
        self._sequence: Counter[tuple[str, str]] = Counter()
        self._spool: list[Report] = []
        self._again: list[Report] = []

    def set_clocks(self, seconds: float) -> None:
        """Somebody sets the whole machine's clock, the routers' as well."""
        self._began += timedelta(seconds=seconds)

    @property
    def true_now(self) -> datetime:
        return self._began + timedelta(seconds=self.clock.monotonic())

    def has(self, trouble: Trouble) -> bool:
        return self.troubles.get(trouble, 0.0) > self.clock.monotonic()

    @property
    def dark(self) -> bool:
        return any(map(self.has, DARK))

    def record_traffic(self, seconds: float) -> None:
        """What the last two minutes of traffic leave behind, after so much time."""
        report = Report()
        for worker in WORKERS:
            if worker not in self._tables or not self._is_behind(worker):
                with self.store.read() as tx:
                    self._tables[worker] = Routing(tx).table()
            if not self.has(Trouble.SILENCE):
                for route in self._tables[worker].routes.values():
                    self._serve(worker, route, report)
        self._deliver(report)
        self.dark_s = self.dark_s + seconds if self.dark else 0.0

    def _is_behind(self, worker: str) -> bool:
        return worker != WORKERS[0] and self.has(Trouble.OLD_SNAPSHOT)

    def _deliver(self, report: Report) -> None:
        if self.has(Trouble.SPOOLED):
            self._spool.append(report)
        elif self.has(Trouble.LOST):
            # What a worker stopped is on its disk as well.
            self._spool.append(Report(alerts=report.alerts))
        else:
            self._append([*self._again, *self._spool, report])
            self._spool = []
            self._again = [Report(report.blocks)] if self.has(Trouble.TWICE) else []

    def _append(self, reports: list[Report]) -> None:
        with self.store.write() as tx:
            for report in reports:
                Observations(tx).append(report.blocks, report.traffic)
                Alerts(tx).fold(report.alerts)

    def _serve(
        self,
        worker: str,
        route: Route,
        report: Report,
    ) -> None:
        report.traffic.append(self._minute(worker, route))
        canary = route.canary or route.holdback
        if canary is None or (canary.rollout in self.stopped and not canary.control):
            return
        fate = self.fates.get(canary.rollout, Fate())
        age_s = self.clock.monotonic() - self._started.setdefault(
            canary.rollout, self.clock.monotonic()
        )
        harmed = age_s >= fate.from_s
        units = self._units(canary, fate.harm if harmed else Harm.NONE)
        if harmed and fate.harm is not Harm.NONE and not self.dark:
            before_s = self.harmed_s.get(canary.rollout, 0.0)
            self.harmed_s[canary.rollout] = before_s + TURN_S / len(WORKERS)
        if not canary.control:
            self._guard(worker, route, canary, units, report)
        report.blocks.append(self._block(worker, canary, units))

    def _units(self, canary: Canary, harm: Harm) -> list[Unit]:
        share = canary.candidate_bps / 10_000
        if self.has(Trouble.WRONG_SPLIT):
            share *= 0.25
        base = INCIDENT if self.has(Trouble.INCIDENT) else HEALTHY
        chance = self.draw.random
        found = []
        for _ in range(UNITS):
            chosen = chance() < share
            worse = harm if chosen else Harm.NONE
            rate = max(base, HARMED) if worse is Harm.ERRORS else base
            found.append(
                Unit(
                    canary=chosen,
                    failed=chance() < rate,
                    refused=chance() < (HARMED if worse is Harm.REFUSES else HEALTHY),
                    seconds=(1.0 + chance()) * (3.0 if worse is Harm.SLOW else 1.0),
                )
            )
        return found

    def _guard(
        self,
        worker: str,
        route: Route,
        canary: Canary,
        units: list[Unit],
        report: Report,
    ) -> None:
        key = worker, canary.rollout
        guard = self._guards.get(key, WorkerGuard(canary.unit_rule.rho))
        for unit in units:
            if unit.failed:
                share = canary.weight_bps / 10_000
                guard = guard.after(canary=unit.canary, share=share)
        self._guards[key] = guard
        alpha = canary.unit_rule.local_alpha
        if guard.log_e < abort_log_e(alpha, workers=len(WORKERS), turn=0):
            return
        self.stopped.add(canary.rollout)
        report.alerts.append(
            Alert(
                AlertKind.LOCAL_ABORT,
                subject=f"route {route.name}",
                key=f"{AlertKind.LOCAL_ABORT.value}:{canary.rollout}",
                title=f"the router stopped the canary of route {route.name} by itself",
                text=f"Worker {worker} saw too many units fail.",
                at=self.true_now,
                source=worker,
            )
        )

    def _block(
        self,
        worker: str,
        canary: Canary,
        units: list[Unit],
    ) -> ObservationBlock:
        number = self._sequence[worker, canary.rollout]
        self._sequence[worker, canary.rollout] += 1
        ranks = rank_block(
            [
                MeasuredUnit(unit.canary, None if unit.failed else unit.seconds)
                for unit in units
            ],
            guardrail=Guardrail.LATENCY,
            tolerated=canary.unit_rule.guardrails[Guardrail.LATENCY],
            block=(canary.rollout, worker, number),
        )
        rule = canary.unit_rule
        return ObservationBlock(
            rollout=canary.rollout,
            worker=worker,
            sequence=number,
            weight_bps=canary.candidate_bps,
            units=len(units),
            canary_units=sum(unit.canary for unit in units),
            failures=sum(unit.failed for unit in units),
            canary_failures=sum(unit.failed and unit.canary for unit in units),
            missing=0,
            opened_at=self.true_now - timedelta(seconds=TURN_S),
            closed_at=self.true_now,
            period=1 + int(rule.age_s(self.true_now) // rule.period_s),
            counts={Guardrail.REFUSALS: _refusals(units)},
            ranks={Guardrail.LATENCY: ranks.u} if ranks.u else {},
            levels={Guardrail.LATENCY: ranks.level or ArmLevels(1.0, 1.0)} if ranks.u else {},
            outcomes=_outcomes(units),
        )

    def _minute(self, worker: str, route: Route) -> TrafficMinute:
        minute = self.true_now.replace(second=0, microsecond=0)
        target = route.incumbent
        return TrafficMinute(
            route.name,
            minute,
            worker,
            "incumbent",
            target,
            1,
            UNITS,
            0,
            0,
            0,
            0,
            0,
            0.0,
        )


def _outcomes(units: list[Unit]) -> dict[str, ArmSplit]:
    keys = [outcome_of(failed=unit.failed).key for unit in units]
    return {
        key: ArmSplit(
            keys.count(key),
            sum(unit.canary for own, unit in zip(keys, units, strict=True) if own == key),
        )
        for key in sorted(set(keys))
    }


def _refusals(units: list[Unit]) -> FailureTally:
    canary = [unit for unit in units if unit.canary]
    return FailureTally(
        units=len(units),
        canary=len(canary),
        failures=sum(unit.refused for unit in units),
        canary_failures=sum(unit.refused for unit in canary),
    )
