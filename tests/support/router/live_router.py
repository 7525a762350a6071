"""Runs a router under uvicorn in a thread; `SwitchableStore` keeps what it records."""

import asyncio
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from harness.app.store.router_store import RouterStore
from harness.evals.month_spending import (
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
)
from harness.frame.alerts.alert import Alert
from harness.frame.errors import StoreUnavailable
from harness.frame.people.access import OptOut, key_hash
from harness.frame.people.limits import KeySpend
from harness.frame.ports import Clock
from harness.frame.redaction import Redactor
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.signed_rows import Lineage
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.late_outcomes import FailedTurn, FailedTurns
from harness.gate.online.observation import (
    AskedName,
    KeyClaim,
    KeyHistory,
    ObservationBlock,
    TrafficMinute,
    claim_keys,
)
from harness.gate.pins import Sighting
from harness.providers.credential import (
    ProviderKeySets,
    keys_from_environment,
)
from harness.providers.force import KillSwitch, SwitchSource, parse_force
from harness.providers.models.model_ends import EndSource, EndStatement
from harness.providers.target import (
    NO_DATA_CLASSES,
    DataClasses,
    Price,
    Provider,
    RequestPatch,
    Target,
)
from harness.routing.records.router_reports import RouterReport
from harness.routing.reliability.failover import Failover
from harness.routing.reliability.retry import RetryPolicy
from harness.routing.reliability.users_first import AccountLoad
from harness.routing.route_settings import RouteSettings
from harness.routing.settings import AgentSettings, RouterSettings
from harness.routing.shadow import Shadow, ShadowLimits, ShadowTally
from harness.routing.table import Canary, KeyGrant, Route, RoutingTable, Snapshot
from router.observers.request_tracing import Tracing
from router.recording.capture_writer import CaptureWriter
from router.recording.recorder import Recorder
from router.recording.spool import Spool
from router.recording.worker_aggregator import WorkerAggregator
from router.server.app import Router
from router.server.process import server
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.compiler import compile_snapshot
from router.snapshot.holder import SnapshotHolder
from router.upstream.transports import Transports
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.raw_server import abort_connections
from tests.wire.server import KEY as WIRE_KEY

SECRET = b"the server's secret"
KEY = "sk-sg-good"
NARROW_KEY = "sk-sg-narrow"
OPTED_OUT_KEY = "sk-sg-out"
UPSTREAM_KEY = "upstream-secret"
UPSTREAM_KEYS = {
    "UP_KEY": UPSTREAM_KEY,
    "UP_KEY_2": "second-secret",
    "UP_KEY_3": "third-secret",
    "WIRE_KEY": WIRE_KEY,
}
INCUMBENT = "m-incumbent"
CANDIDATE = "m-candidate"
FALLBACK = "m-fallback"
# Nothing is waited for; what takes long on a busy machine is no fault. There are no health
# checks: however long a test takes, a provider gets the clients' requests alone.
QUICK = RouterSettings(
    health_check_interval_s=0.0,
    first_token_timeout_s=30.0,
    between_chunks_timeout_s=30.0,
    total_timeout_s=120.0,
    connect_timeout_s=30.0,
    flush_interval_s=0.05,
    retry=RetryPolicy(base_s=0.02, cap_s=0.1, attempt_s=0.1),
)


class SwitchableStore:
    """Snapshot and observations in memory; `away` makes every call raise."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.away = snapshot is None
        self.blocks: dict[tuple[str, str, int], ObservationBlock] = {}
        self.traffic: list[TrafficMinute] = []
        self.failovers: list[Failover] = []
        self.alerts: list[Alert] = []
        self.spends: list[KeySpend] = []
        self.asked_names: list[AskedName] = []
        self.spent: list[tuple[SpendingPurpose, float, int, int]] = []
        self.sightings: list[Sighting] = []
        self.shadows: list[ShadowTally] = []
        self.router_reports: dict[str, RouterReport] = {}
        self.account_loads: dict[tuple[str, str], AccountLoad] = {}
        self.end_statements: dict[tuple[str, EndSource], EndStatement] = {}
        self.pages: dict[tuple[str, int], bytes] = {}
        self.failed_turns: list[tuple[str, FailedTurn]] = []
        self.batches: set[str] = set()
        self._snapshot = snapshot
        self._changed = threading.Event()

    def put(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._changed.set()

    def snapshot(self) -> Snapshot:
        self._answer()
        assert self._snapshot is not None
        return self._snapshot

    def etag(self) -> str:
        return self.snapshot().etag

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        self._answer()
        assert self._snapshot is not None
        stored = self._snapshot.lineage.heads
        return [name for name, head in known.heads.items() if stored.get(name) != head]

    def wait_for_change(self, timeout_s: float) -> bool:
        self._answer()
        changed = self._changed.wait(min(timeout_s, 0.05))
        self._changed.clear()
        return changed

    @contextmanager
    def write(self) -> Iterator[SimpleNamespace]:
        self._answer()
        batches = set(self.batches)
        try:
            yield self._transaction()
        except BaseException:
            self.batches = batches
            raise

    def _transaction(self) -> SimpleNamespace:
        return SimpleNamespace(
            observations=SimpleNamespace(
                append=self._append,
                claim_keys=self._claim_keys,
                exchange_failures=self._exchange_failures,
                begin_batch=self._begin_batch,
                forget_batches=self.batches.difference_update,
            ),
            failovers=SimpleNamespace(append=self.failovers.extend),
            alerts=SimpleNamespace(fold=self.alerts.extend),
            sightings=SimpleNamespace(note=self.sightings.extend),
            end_statements=self._ends(),
            shadows=SimpleNamespace(append=self.shadows.extend),
            router_reports=SimpleNamespace(
                keep=self._keep_report,
                forget=self.router_reports.pop,
            ),
        )

    def _ends(self) -> SimpleNamespace:
        return SimpleNamespace(
            note=lambda new: self.end_statements.update(
                {(statement.target, statement.kind): statement for statement in new}
            ),
            all=lambda: list(self.end_statements.values()),
        )

    def _keep_report(self, report: RouterReport) -> None:
        self.router_reports[report.worker] = report

    def _begin_batch(self, id_: str, at: datetime) -> bool:
        del at
        is_new = id_ not in self.batches
        self.batches.add(id_)
        return is_new

    @property
    def spending(self) -> SimpleNamespace:
        return SimpleNamespace(month=self._month, add=self._add_spending)

    @property
    def loads(self) -> SimpleNamespace:
        return SimpleNamespace(read=self._read_loads, share=self._share_loads)

    def _read_loads(self, now: datetime) -> list[AccountLoad]:
        del now
        self._answer()
        return [*self.account_loads.values()]

    def _share_loads(self, loads: Iterable[AccountLoad], now: datetime) -> list[AccountLoad]:
        self._answer()
        self.account_loads |= {(load.account, load.source): load for load in loads}
        return self._read_loads(now)

    def _month(self, month: date) -> MonthSpending:
        self._answer()
        return MonthSpending(month, None, ())

    def _add_spending(self, costs: dict[date, PurposeSpending], month: date) -> MonthSpending:
        self._answer()
        self.spent += [(c.purpose, c.spent_usd, c.calls, c.unpriced) for c in costs.values()]
        return MonthSpending(month, None, ())

    @contextmanager
    def read(self) -> Iterator[SimpleNamespace]:
        self._answer()
        tallies = SimpleNamespace(tallies=lambda _, since: [*self.shadows])  # noqa: ARG005 - the port's name
        yield SimpleNamespace(
            observations=SimpleNamespace(spends=self._spends, blocks=self._blocks),
            shadows=tallies,
            end_statements=self._ends(),
        )

    def _blocks(self, rollout: str, *, after: int = 0) -> list[ObservationBlock]:
        of = [block for block in self.blocks.values() if block.rollout == rollout]
        return [replace(request, number=n) for n, request in enumerate(of, start=1)][after:]

    def _spends(self, *, since: date, keys: Collection[str]) -> list[KeySpend]:
        return [row for row in self.spends if row.day >= since and row.key in keys]

    def _claim_keys(self, claim: KeyClaim) -> Sequence[KeyHistory]:
        of = {page: kept for (name, page), kept in self.pages.items() if name == claim.rollout}
        changed, found = claim_keys(of, claim)
        self.pages |= {(claim.rollout, page): kept for page, kept in changed.items()}
        return found

    def _exchange_failures(
        self,
        rollout: str,
        failed: Sequence[FailedTurn],
        *,
        after: int,
        since: float,
    ) -> FailedTurns:
        self.failed_turns += [(rollout, turn) for turn in failed]
        turns = [
            turn for of, turn in self.failed_turns[after:] if of == rollout and turn.at >= since
        ]
        return FailedTurns(len(self.failed_turns), turns)

    def _append(
        self,
        blocks: Sequence[ObservationBlock],
        traffic: Sequence[TrafficMinute],
        spends: Sequence[KeySpend] = (),
        asked_names: Sequence[AskedName] = (),
    ) -> None:
        self.spends += spends
        self.asked_names += asked_names
        for block in blocks:
            self.blocks.setdefault((block.rollout, block.worker, block.sequence), block)
        self.traffic += traffic

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("the database is away (test)")


def upstream_keys(of: Snapshot) -> ProviderKeySets:
    """What this world's environment has; `SIM_KEY` is the contract tests' provider's."""
    environ = {**UPSTREAM_KEYS, "SIM_KEY": "sim-secret"}
    return {
        name: keys_from_environment(details, environ) for name, details in of.providers.items()
    }


def served(
    of: Snapshot,
    standing: Sequence[KillSwitch] = (),
    classes: DataClasses = NO_DATA_CLASSES,
) -> CompiledSnapshot:
    return compile_snapshot(of, standing, upstream_keys(of), classes)


def provider(
    url: str,
    name: str = "up",
    **more: object,
) -> Provider:
    prices = {INCUMBENT: Price(1.0, 2.0)}
    made = Provider(name, "custom", url, "UP_KEY", {"x-team": "router"}, prices)
    return replace(made, **more)  # type: ignore[arg-type]  # a test's own fields


def snapshot(
    url: str,
    *,
    weight_bps: int = 0,
    fallback: bool = False,
    revision: int = 3,
    patch: RequestPatch | None = None,
    settings: RouteSettings | None = None,
    rule: ExposureRule | None = None,
    providers: Sequence[Provider] = (),
    candidate_provider: str = "up",
) -> Snapshot:
    incumbent = Target("up", INCUMBENT, request_patch=patch or RequestPatch())
    candidate = Target(candidate_provider, CANDIDATE)
    spare = Target("up", FALLBACK)
    canary = Canary(candidate.id, weight_bps, "salt", "r-1", rule or ExposureRule())
    route = Route(
        name="support",
        version=1,
        incumbent=incumbent.id,
        canary=canary if weight_bps else None,
        fallbacks=(spare.id,) if fallback else (),
        settings=settings or RouteSettings(),
    )
    other = replace(route, name="other", canary=None)
    all_ = (provider(url), *providers)
    return Snapshot(
        table=RoutingTable(
            revision,
            {"support": route, "other": other},
            {target.id: target for target in (incumbent, candidate, spare)},
        ),
        providers={configured.name: configured for configured in all_},
        keys=(
            KeyGrant("k-good", key_hash(KEY, SECRET)),
            KeyGrant(
                "k-narrow",
                key_hash(NARROW_KEY, SECRET),
                frozenset({"other"}),
            ),
            KeyGrant(
                "k-out",
                key_hash(OPTED_OUT_KEY, SECRET),
                opt_outs=frozenset({OptOut.CANARY}),
            ),
        ),
        etag=f"{revision}-{weight_bps}",
    )


def parents_books(
    folder: Path, store: SwitchableStore, clock: Clock | None = None
) -> tuple[Recorder, WorkerAggregator]:
    recorder = Recorder(
        cast("RouterStore", store),
        Spool(folder / "spool.jsonl"),
        worker="parent",
        clock=clock or SystemClock(),
    )
    return recorder, WorkerAggregator(recorder)


def switch_of(force: str, **more: object) -> KillSwitch:
    at = ManualClock().now()
    made = KillSwitch(
        "sw_1",
        None,
        parse_force(force),
        "a drill",
        "ada",
        at,
        None,
        SwitchSource.CLI,
    )
    return replace(made, **more)  # type: ignore[arg-type]  # a test's own fields


def shadow_of(
    route: str,
    incumbent: str,
    candidate: Target,
    **more: object,
) -> Shadow:
    """Every request is mirrored, for a year."""
    at = ManualClock().now()
    limits = ShadowLimits(share_bps=10_000, requests_per_day=1_000_000, usd_per_day=None)
    until = at + timedelta(days=365)
    made = Shadow(
        f"s_{route}",
        route,
        incumbent,
        candidate,
        "",
        limits,
        None,
        "",
        "",
        at,
        until,
    )
    return replace(made, **more)  # type: ignore[arg-type]  # a test's own fields


@dataclass
class World:
    store: SwitchableStore
    holder: SnapshotHolder
    recorder: Recorder
    url: str

    def wait_for_traffic(self, requests: int) -> list[TrafficMinute]:
        """Everything recorded, once that many requests are in the store."""
        wait_until(lambda: sum(row.requests for row in self.store.traffic) >= requests)
        return self.store.traffic


def wait_until(condition: object, *, timeout_s: float = 60.0) -> None:
    assert callable(condition)
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@contextmanager
def running_router(
    first: Snapshot | None,
    folder: Path,
    settings: RouterSettings = QUICK,
    tracing: Tracing | None = None,
    agents: AgentSettings | None = None,
) -> Iterator[World]:
    """Runs a router.

    Args:
        first: None for a store that does not answer.
    """
    store = SwitchableStore(first)
    running = running_router_on(
        cast("RouterStore", store),
        folder,
        settings,
        tracing=tracing,
        agents=agents,
    )
    with running as (url, holder, recorder):
        yield World(store, holder, recorder, url)


@contextmanager
def running_router_on(
    store: RouterStore,
    folder: Path,
    settings: RouterSettings = QUICK,
    *,
    worker: str = "w1",
    tracing: Tracing | None = None,
    classes: DataClasses = NO_DATA_CLASSES,
    agents: AgentSettings | None = None,
    clock: Clock | None = None,
) -> Iterator[tuple[str, SnapshotHolder, Recorder]]:
    """A router on any store; its URL and what follows the store.

    Args:
        clock: by default the system's.
    """
    clock = clock or SystemClock()
    holder = SnapshotHolder(
        store,
        folder / "snapshot.json",
        keys_of=upstream_keys,
        classes=classes,
    )
    holder.boot()
    recorder = Recorder(
        store,
        Spool(folder / "spool.jsonl"),
        worker=worker,
        clock=clock,
        live_rollouts=lambda: holder.current.rollouts if holder.current else frozenset(),
        flush_interval_s=settings.flush_interval_s,
        captures=partial(CaptureWriter, store, Redactor(), SECRET),
    )
    transports = Transports(settings)
    app = Router(
        holder,
        recorder,
        transports,
        settings,
        SECRET,
        clock,
        on_stop=transports.aclose,
        tracing=tracing,
        agents=agents,
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    runner = server(app, drain_s=2)

    async def serve() -> None:
        await runner.serve([listener])
        await abort_connections()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    wait_until(lambda: runner.started)
    try:
        yield url, holder, recorder
    finally:
        runner.should_exit = True
        thread.join(60)
        listener.close()
