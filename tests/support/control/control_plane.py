"""`SmallInstallation` is a control plane for tests: a real store, a manual clock, scripted
models and traffic, one route with one suite. `CrashingStore` lets the process die at a chosen
unit of work.

Every item's answer is right or wrong by a rule on its number, so that verdicts are known.
"""

import json
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.items import Item
from harness.app.eval_workers.worker import EvalWorker
from harness.app.store.store import Store
from harness.evals.settings import SuiteSettings
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertMessage
from harness.frame.errors import DeliveryFailed
from harness.frame.people.access import OPERATOR, SYSTEM, Actor, Role
from harness.frame.ports import Chance, Clock
from harness.frame.records.transaction import Transaction
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout
from harness.gate.order_seeds import InstallationSeeds
from harness.gate.pins import ServedModel
from harness.gate.policy import (
    CanaryPolicy,
    CanaryStep,
    DriftPolicy,
    GatePolicy,
    Policy,
    PromotionMode,
)
from harness.gate.run import JudgeCalibration
from harness.gate.suite_plan import Claim
from harness.operations import control_jobs, keys
from harness.operations.context import Context
from harness.proposals import submission
from harness.proposals.submission import ProposalRequest
from harness.providers.records import Targets
from harness.providers.registry import targets
from harness.providers.target import Price, Provider, Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from harness.routing.records.router_reports import RouterReport, RouterReports
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.table import BUCKETS, Route, RouteRecord
from router.request.item_requests import choose_override
from tests.support.control.counting_ids import CountingRandomIds
from tests.support.control.inline_workers import InlineWorkers
from tests.support.control.manual_clock import ManualClock
from tests.support.control.remembered_worlds import MEMORY
from tests.support.evals.scripted_runner import ScriptedRunner
from tests.support.store.sqlite_store import open_sqlite


class RecordingSinks:
    """Keeps the messages. down: names of sinks that take nothing. only: kinds by sink."""

    def __init__(self, *names: str) -> None:
        self.down: set[str] = set()
        self.only: dict[str, set[AlertKind]] = {}
        self.kept: dict[str, list[AlertMessage]] = {name: [] for name in names}

    def names(self) -> Sequence[str]:
        return list(self.kept)

    def takes(self, sink: str, kind: AlertKind) -> bool:
        return kind in self.only.get(sink, {kind})

    def send(self, sink: str, message: AlertMessage) -> None:
        if sink in self.down or sink not in self.kept:
            raise DeliveryFailed(f"the sink {sink!r} does not answer")
        self.kept[sink].append(message)


ITEMS = 60
ANN = Actor("ann", Role.PROPOSER, "pr_ann")
BEN = Actor("ben", Role.APPROVER, "pr_ben")
ENCRYPTION_KEYS = [new_key()]
SECRET = b"a secret of the tests"
# Share of items that each model answers rightly, in twelfths.
SKILL = {
    "base": 7,
    "good": 10,
    "better": 12,
    "worse": 2,
    "equal": 7,
}
STEPS = (
    CanaryStep(100, 3),
    CanaryStep(500, 5),
    CanaryStep(2500, 10, certify=True),
)
CANARY = CanaryPolicy(
    steps=STEPS,
    p0=0.2,
    alpha=0.05,
    bake_s=0.0,
)
POLICY = Policy(
    "default",
    gate=GatePolicy(claim=Claim.SUPERIOR, infra_patience_s=100),
    canary=CANARY,
)


def answer(
    target: Target,
    item: Item,
    _epoch: int,
) -> str:
    number = int(item.id.rpartition("-")[2])
    right = number * 5 % 12 < SKILL[target.model]
    return str(item.target) if right else "wrong"


def suite_file(folder: Path) -> Path:
    file = folder / "colours.jsonl"
    lines = [
        json.dumps(
            {
                "id": f"colour-{n}",
                "input": f"Colour number {n}?",
                "target": f"c{n}",
            }
        )
        for n in range(ITEMS)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@dataclass
class SmallInstallation:
    """given: the store; without one, the world has a SQLite file in its folder, and closes it.

    boot: what a worker's process does before its work; it is told the run.
    """

    folder: Path
    given: InitVar[Store | None] = None
    clock: ManualClock = field(default_factory=ManualClock)
    chance: Chance = field(default_factory=CountingRandomIds)
    policy: Policy = POLICY
    policies: dict[str, Policy] = field(default_factory=dict)  # besides that one
    script: Callable[[Target, Item, int], str] = answer
    boot: Callable[[str], None] = lambda _run: None
    pace: Callable[[Target, Item], float] = lambda _target, _item: 0.0
    served: Callable[[Target, Item], ServedModel] = lambda target, _: ServedModel(target.model)
    calibration: JudgeCalibration | None = None  # what the runners say of a suite's judge
    drift: dict[str, DriftPolicy] = field(default_factory=dict)
    observe_only: bool = False
    sinks: RecordingSinks = field(default_factory=lambda: RecordingSinks("chat", "mail"))
    store: Store = field(init=False)

    def __post_init__(self, given: Store | None) -> None:
        self.store = given or self._own_store()
        self.suites = {
            "colours": SuiteSettings(
                name="colours", path=suite_file(self.folder), scorer="exact"
            )
        }

    def _own_store(self) -> Store:
        opened = open_sqlite(self.folder / "world.db", self.clock, secret=SECRET)
        weakref.finalize(self, opened.close)
        return opened

    def context(self, store: Store | None = None) -> Context:
        chosen = store or self.store
        return Context(
            store=chosen,
            clock=self.clock,
            chance=self.chance,
            suites=ConfiguredSuites(self.suites),
            policies={**self.policies, self.policy.name: self.policy},
            sinks=self.sinks,
            drift=self.drift,
            observe_only=self.observe_only,
            cipher=FernetCipher(lambda: ENCRYPTION_KEYS),
            order_seeds=InstallationSeeds(SECRET),
            choose_override=choose_override,
            workers=InlineWorkers(lambda run, owner: self._work(chosen, run, owner)),
        )

    def _work(
        self,
        store: Store,
        run: str,
        owner: str,
    ) -> None:
        self.boot(run)
        runner = ScriptedRunner(self.suites, self.script, self.pace, self.served)
        runner.calibration = self.calibration
        EvalWorker(
            store=store,
            clock=self.clock,
            runner=runner,
            owner=owner,
            parent=os.getppid(),
            secrets={},
        ).work(run)

    def set_up(self) -> None:
        MEMORY.after(self, "set up", self._set_up)

    def _set_up(self) -> None:
        ctx = self.context()
        prices = {model: Price(1.0, 2.0) for model in SKILL}
        targets.put_provider(
            ctx,
            SYSTEM,
            Provider("sim", "sim", "http://127.0.0.1:9/v1", prices=prices),
        )
        self.add_route("chat")
        let_router_serve(self.store)

    def add_route(self, name: str, incumbent: str = "sim/base") -> Route:
        settings = RouteSettings(suites=(RouteSuite("colours"),))
        return routes.create_route(self.context(), SYSTEM, name, incumbent, settings=settings)

    def propose(
        self,
        candidate: str = "sim/better",
        actor: Actor = ANN,
        route: str = "chat",
        reason: str = "a test",
        ctx: Context | None = None,
        **wish: Any,
    ) -> Proposal:
        request = ProposalRequest(route, candidate, reason, **wish)
        return submission.create_proposal(ctx or self.context(), actor, request)

    def decided(
        self,
        candidate: str = "sim/better",
        actor: Actor = ANN,
        **wish: Any,
    ) -> Proposal:
        def live() -> Proposal:
            proposal = self.propose(candidate, actor, **wish)
            return self.until_decided(proposal.id)

        step = f"decided {candidate} {actor}"
        # A wish may hold a context, whose parts no key names.
        return live() if wish else MEMORY.after(self, step, live)

    def preview(
        self,
        candidate: str = "sim/better",
        actor: Actor | None = None,
        route: str = "chat",
    ) -> submission.ProposalPreview:
        request = ProposalRequest(route, candidate, "a test")
        return submission.preview_proposal(self.context(), request, actor)

    def get(self, proposal: str) -> Proposal:
        return submission.get_proposal(self.context(), proposal)

    def route(self, name: str = "chat") -> Route:
        with self.store.read() as tx:
            return Routing(tx).table().routes[name]

    def serving(self, name: str = "chat") -> str:
        with self.store.read() as tx:
            return Targets(tx).all()[self.route(name).incumbent].model

    def rollout(self, route: str = "chat") -> Rollout:
        with self.store.read() as tx:
            return Rollouts(tx).list(route=route, limit=1)[0]

    def person(
        self,
        name: str,
        role: Role = Role.ADMIN,
        by: Actor = OPERATOR,
        **also: Any,
    ) -> Actor:
        _, text = keys.create_key(
            self.context(),
            by,
            name,
            secret=SECRET,
            role=role,
            **also,
        )
        return keys.authenticate(self.store, text, secret=SECRET)

    def run_once(
        self, ctx: Context | None = None, *, turns: int = 1
    ) -> control_jobs.ReconcileResult:
        """Returns what the last turn did."""
        for _ in range(turns):
            done = control_jobs.reconcile(ctx or self.context())
            self.clock.advance(1)
        return done

    def until_decided(self, proposal: str, turns: int = 10) -> Proposal:
        """Turn until the evals have a verdict."""
        for _ in range(turns):
            self.run_once()
            if self.get(proposal).verdict:
                break
        return self.get(proposal)

    def in_canary(self, candidate: str = "sim/better", actor: Actor = ANN) -> Proposal:
        proposal = self.decided(candidate, actor)
        assert proposal.phase is ProposalPhase.CANARY, proposal.closed_because
        return proposal

    def promoted(self, candidate: str = "sim/better") -> Proposal:
        return MEMORY.after(self, f"promoted {candidate}", lambda: self._promoted(candidate))

    def _promoted(self, candidate: str) -> Proposal:
        proposal = self.in_canary(candidate)
        for _ in range(40):
            self.run_once()
            if not self.get(proposal.id).open:
                break
            self.feed(blocks=4)
        found = self.get(proposal.id)
        assert found.phase is ProposalPhase.PROMOTED, found.closed_because
        return found

    def feed(self, *, failing: bool = False, blocks: int = 1) -> None:
        """Traffic for the rollout, live or in its bake, as a router would record it."""
        with self.store.read() as tx:
            rollouts = [*Rollouts(tx).live(), *Rollouts(tx).baking()]
            counts = {r.id: len(Observations(tx).blocks(r.id)) for r in rollouts}
        new = [
            block_of(
                rollout,
                counts[rollout.id] + number,
                self.clock,
                failing=failing,
            )
            for rollout in rollouts
            for number in range(blocks)
        ]
        with self.store.write() as tx:
            Observations(tx).append(new, [])


def block_of(
    rollout: Rollout,
    number: int,
    clock: Clock,
    *,
    failing: bool,
) -> ObservationBlock:
    weight = BUCKETS - rollout.policy.bake_bps if rollout.baking else rollout.current.weight_bps
    canary = max(1, weight // 100)
    lost = min(canary, 50) if failing else 0
    return ObservationBlock(
        rollout=rollout.id,
        worker="router-test",
        sequence=number,
        weight_bps=weight,
        units=100,
        canary_units=canary,
        # Of a bake, the one that is held back never fails.
        failures=lost + (1 if number % 3 == 0 and not rollout.baking else 0),
        canary_failures=lost,
        missing=0,
        opened_at=clock.now(),
        closed_at=clock.now(),
    )


def read_history(ctx: Context, route: str) -> Sequence[RouteRecord]:
    with ctx.store.read() as tx:
        return Routing(tx).history(route)


def approved(policy: Policy = POLICY) -> Policy:
    return replace(policy, promotion=PromotionMode.APPROVED)


def let_router_serve(store: Store) -> None:
    """Stores the report of a router that serves at any time of a clock."""
    with store.write() as tx:
        report = RouterReport("router", tx.now(), datetime.max.replace(tzinfo=UTC))
        RouterReports(tx).keep(report)


class Crash(BaseException):
    """The process dies here; nothing may catch it."""


class CrashingStore:
    """A store whose n-th unit of work is the process's last: before its commit, or after."""

    def __init__(
        self,
        store: Store,
        *,
        at: int,
        after_commit: bool,
    ) -> None:
        self._store = store
        self._left = at
        self._after = after_commit

    @property
    def died(self) -> bool:
        return self._left <= 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        self._left -= 1
        with self._store.write() as tx:
            yield tx
            if self._left == 0 and not self._after:
                raise Crash
        if self._left == 0 and self._after:
            raise Crash
