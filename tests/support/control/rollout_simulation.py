"""Simulates the history of two routes from a seed: swaps, harm, people's actions, crashes and
clocks that are set, with the invariants checked after every turn.

The same seed gives the same history; `python -m tests.support.control.rollout_simulation SEED`
prints it turn by turn.
"""

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import structlog

from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item
from harness.app.store.store import Store
from harness.canary import operations
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import (
    ProofRefused,
    RevisionConflict,
    SwapproofError,
)
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.runtime.clock import OLD_ROWS_PASS_FOR
from harness.gate.online.guardrails import Guardrails
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.gate.policy import (
    CanaryPolicy,
    CanaryStep,
    GatePolicy,
    Policy,
    PromotionMode,
)
from harness.gate.suite_plan import Claim
from harness.operations import alert_delivery, control_jobs
from harness.proposals import decisions, fallback_chain, submission
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.proposals.submission import ProposalRequest
from harness.providers.registry import targets
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.route_changes import RestoreIncumbent
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.crashing_store import Crash, CrashingStore
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN, BEN
from tests.support.control.rollout_invariants import (
    TurnConditions,
    Watcher,
    check_words,
)
from tests.support.control.rollout_traffic import (
    TURN_S,
    Fate,
    Harm,
    Routers,
    Trouble,
)
from tests.support.store.interrupted_store import InterruptedStore
from tests.support.store.sqlite_store import open_sqlite

ROUTES = ("chat", "mail")
ADA = Actor("ada", Role.ADMIN, "pr_ada")
LEVELS = 5
ITEMS_A_LEVEL = 14
SWAPS = 3
TURNS = 60
REST_TURNS = 150
BAKE_S = 1800.0
SHORT_S = 10.0
NIGHT_S = 3 * 3600.0
NIGHT_TURN_S = 1800.0
# Nobody catches these: a bug, and not somebody who was first.
UNEXPECTED = re.compile(r": \w+(Error|Exception|Exit): ")

OpenStores = Callable[[ManualClock], Sequence[Store]]


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a rollout. how: the moves that it took, people's with their name before.
    harmed_for_s: how long recorded users met harm before it ended; 0 for none.
    """

    rollout: str
    fate: Fate
    state: RolloutState
    how: tuple[str, ...]
    harmed_for_s: float

    @property
    def rolled_back_by_data(self) -> bool:
        return "canary.harm" in self.how

    @property
    def by_people(self) -> bool:
        """People, or the route itself, decided its end."""
        ended = ("canary.abort", "canary.finish", "canary.base_changed")
        forced = f"{BEN.name} canary.promote" in self.how
        return forced or any(move.rpartition(" ")[2] in ended for move in self.how)


def answer(
    target: Target,
    item: Item,
    _epoch: int,
) -> str:
    """Each level of model is right where the one below is, and on 14 items more."""
    right = int(item.id.rpartition("-")[2]) < 4 + ITEMS_A_LEVEL * int(target.model[1:])
    return str(item.target) if right else "wrong"


def policy_of(draw: Random, dice: Random) -> Policy:
    steps = (
        CanaryStep(
            500,
            10,
            min_s=draw.choice([0.0, 900.0]),
            deadline_s=draw.choice([7200.0, 36e3]),
        ),
        CanaryStep(
            2000,
            40,
            min_s=draw.choice([0.0, 900.0]),
            deadline_s=7200.0,
        ),
        CanaryStep(
            5000,
            100,
            certify=True,
            min_s=draw.choice([0.0, 900.0]),
            deadline_s=36e3,
        ),
    )
    canary = CanaryPolicy(
        steps=steps,
        p0=0.2,
        guardrails=replace(Guardrails.none(), latency=1.25, refusals=1.25),
        bake_s=draw.choice([0.0, BAKE_S, BAKE_S]),
        bake_bps=1000,
    )
    return Policy(
        "default",
        promotion=draw.choice([PromotionMode.AUTOMATIC, PromotionMode.APPROVED]),
        gate=GatePolicy(
            claim=Claim.SUPERIOR,
            infra_patience_s=100,
            verdict_ttl_s=dice.choice([14 * 86_400.0, 14 * 86_400.0, 2400.0]),
        ),
        canary=canary,
    )


def fate_of(draw: Random) -> Fate:
    if draw.random() < 0.5:
        return Fate()
    harm = draw.choice([Harm.ERRORS, Harm.ERRORS, Harm.SLOW, Harm.REFUSES])
    return Fate(harm, draw.choice([0.0, 0.0, draw.uniform(300.0, 5000.0)]))


class Life:
    """told: what happened, in words, for whoever looks into a seed."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        open_stores: OpenStores,
    ) -> None:
        self.draw = Random(seed)
        # What it decides moves none of the other draws.
        self.dice = Random(seed + 2)
        clock = ManualClock()
        self.stores = open_stores(clock)
        store = self.stores[0]
        self.world = SmallInstallation(
            folder,
            store,
            clock=clock,
            policy=policy_of(self.draw, self.dice),
            script=self._script,
        )
        self.provider_is_down = False
        # In every other life providers fail, chains and suites change, and candidates compete.
        self.is_varied = seed % 2 == 1
        self.ctx = self.world.context()
        self.other = self.world.context(self.stores[-1])
        self.processes = [self.ctx, self.other]
        self.routers = Routers(store, clock, Random(seed + 1))
        self.watcher = Watcher(ROUTES)
        self.swaps = dict.fromkeys(ROUTES, SWAPS)
        self.told: list[str] = []
        self.endings: Sequence[Ending] = ()
        self.turns = 0
        self.latest = self.new_from = clock.now()
        targets.put_provider(self.ctx, SYSTEM, Provider("sim", "sim", "http://127.0.0.1:9/v1"))
        settings = RouteSettings(suites=(RouteSuite("colours"),))
        for name in ROUTES:
            routes.create_route(self.ctx, SYSTEM, name, "sim/m0", settings=settings)

    def play(self) -> Sequence[Ending]:
        for _ in range(TURNS):
            self._chance_has_it()
            self._run_once()
        self._rest()
        return self._endings()

    @property
    def clock(self) -> ManualClock:
        return self.world.clock

    @property
    def ahead_s(self) -> float:
        return (self.clock.now() - self.routers.true_now).total_seconds()

    def _say(self, words: str) -> None:
        self.told.append(f"{self.turns:3d} {self.clock.now():%d %H:%M:%S} {words}")

    def _script(
        self,
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if self.provider_is_down:
            raise ProviderFailed("overloaded")
        return answer(target, item, epoch)

    def _maybe(self, probability: float) -> bool:
        return self.draw.random() < probability

    def _run_once(self) -> None:
        self.turns += 1
        night = self.routers.troubles.get(Trouble.SILENCE, 0.0) - self.clock.monotonic()
        seconds = NIGHT_TURN_S if night > NIGHT_TURN_S else TURN_S
        self.clock.advance(seconds)
        self.routers.record_traffic(seconds)
        self.processes = [self.ctx, self.other]
        self._control_turn()
        if self._maybe(0.05):
            self._attempt(lambda: alert_delivery.run_once(self.ctx))
        if self._maybe(0.05):
            for name in ROUTES:
                self._attempt(partial(check_words, self.ctx, name))
        if self.dice.random() < 0.1:
            self._a_late_writer(self.dice.choice(ROUTES))
        self._check()

    def _a_late_writer(self, name: str) -> None:
        """Whoever looked at an older version of a route changes nothing."""
        with self.stores[-1].read() as tx:
            route = Routing(tx).route(name)
        assert route is not None
        late = RestoreIncumbent(name, route.incumbent)
        with suppress(RevisionConflict), self.stores[-1].write() as tx:
            Routing(tx).commit(
                late,
                expected_version=route.version - 1,
                actor=BEN.name,
                reason="what was seen a while ago",
                now=self.clock.now(),
            )
            raise AssertionError(f"an older version of {name} was written over")

    def _check(self) -> None:
        self._give_fates()
        mono = self.clock.monotonic()
        lead = self.clock.now().timestamp() - mono
        began = [lead - process.clock_watch._jumps_s for process in self.processes]
        conditions = TurnConditions(
            dark_s=self.routers.dark_s,
            ahead_s=self.ahead_s,
            monotonic=mono,
            lead_s=lead,
            began_lead_s=began,
            relives=self._relives(),
        )
        self.watcher.check(self.ctx, conditions)

    def _relives(self) -> bool:
        """A time that comes again, or did within three minutes, of which not every process
        knows: one that began since may take old rows for new ones so long
        (docs/explanation/canary.md).
        """
        now = self.clock.now()
        if now < self.latest:
            self.new_from = self.latest + OLD_ROWS_PASS_FOR
        self.latest = max(now, self.latest)
        known = [
            process.clock_watch.old_rows_pass_until(now) or now for process in self.processes
        ]
        return now < self.new_from and min(known) < self.new_from - timedelta(seconds=SHORT_S)

    def _give_fates(self) -> None:
        with self.world.store.read() as tx:
            for rollout in reversed(Rollouts(tx).list()):
                if rollout.id not in self.routers.fates:
                    self.routers.fates[rollout.id] = fate_of(self.draw)
                    self._say(
                        f"{rollout.id} on {rollout.route}: {self.routers.fates[rollout.id]}"
                    )

    def _control_turn(self) -> None:
        chosen = self.draw.random()
        if chosen < 0.08:
            self._crash()
        elif chosen < 0.2:
            self._interrupted()
        else:
            leader = self.other if chosen < 0.3 else self.ctx
            done = self.world.run_once(leader)
            assert not done.failed, done.failed
            self._tell_of(done)

    def _tell_of(self, done: control_jobs.ReconcileResult) -> None:
        for words in (*done.did, *done.failed):
            self._say(words)

    def _crash(self) -> None:
        dying = CrashingStore(
            self.stores[0],
            at=self.draw.randint(1, 8),
            after_commit=self._maybe(0.5),
        )
        ctx = self.world.context(dying)  # type: ignore[arg-type]  # until it dies
        self.processes.append(ctx)
        with suppress(Crash):
            self._tell_of(self.world.run_once(ctx))
        if dying.died:
            self._say("the control process died")
            self.ctx = self.world.context()
            self.processes.append(self.ctx)

    def _interrupted(self) -> None:
        """Somebody else acts between two units of work of a turn."""
        act = self.draw.choice([self._other_leads, self._a_hand, self._routers_report])
        store = InterruptedStore(self.stores[0], at=self.draw.randint(1, 14), act=act)
        ctx = replace(self.world.context(store), clock_watch=self.ctx.clock_watch)  # type: ignore[arg-type]
        done = self.world.run_once(ctx)
        assert not any(map(UNEXPECTED.search, done.failed)), done.failed
        self._tell_of(done)

    def _other_leads(self) -> None:
        self._say("another control process takes its turn")
        self._tell_of(self.world.run_once(self.other))

    def _routers_report(self) -> None:
        self.routers.record_traffic(0.0)

    def _chance_has_it(self) -> None:
        if self._maybe(0.5):
            self._propose()
        if self._maybe(0.5):
            self._approve()
        if self._maybe(0.07):
            self._trouble()
        if self._maybe(0.06):
            self._a_hand()
        if self._maybe(0.05):
            self._set_a_clock()
        if self._maybe(0.04):
            self._say("the control process starts again")
            self.ctx = self.world.context()
        if self.is_varied:
            self.provider_is_down = self.dice.random() < 0.1
            if self.dice.random() < 0.06:
                self._change_a_chain(self.dice.choice(ROUTES))
            if self.dice.random() < 0.02:
                self._change_the_suite()

    def _attempt(self, act: Callable[[], object]) -> None:
        """People may be refused; nothing else may come of it."""
        with suppress(SwapproofError):
            act()

    def _propose(self) -> None:
        for name in ROUTES:
            if self.swaps[name]:
                self._attempt(partial(self._propose_one, name))

    def _propose_one(self, name: str) -> None:
        table = routes.load_table(self.ctx)
        serving = int(table.targets[table.routes[name].incumbent].model[1:])
        level = min(LEVELS - 1, serving + self.draw.choice([1, 1, 1, 2]))
        several = self.is_varied and self.dice.random() < 0.2
        rivals = (f"sim/m{LEVELS}",) if several else ()
        request = ProposalRequest(name, f"sim/m{level}", "better", rivals=rivals)
        submission.create_selection(self.ctx, ANN, request)
        self.swaps[name] -= 1

    def _change_a_chain(self, name: str) -> None:
        """A fallback comes, by a waiver or by evidence, or goes."""
        model = f"sim/m{self.dice.randrange(LEVELS)}"
        why = "an outage"
        self._say(f"a person changes the chain of {name}: {model}")
        if self.dice.random() < 0.3:
            remove = fallback_chain.remove_fallback
            self._attempt(partial(remove, self.ctx, ADA, name, model, reason=why))
        else:
            days = self.dice.choice([None, 1, 30])
            waive = WaiverRequest("a drill", timedelta(days=days)) if days else None
            wish = FallbackRequest(model, waive=waive)
            add = fallback_chain.add_fallback
            self._attempt(partial(add, self.ctx, ADA, name, wish, reason=why))

    def _change_the_suite(self) -> None:
        self._say("the suite changes")
        suite = self.world.suites["colours"]
        self.world.suites["colours"] = replace(suite, version=f"{suite.version}1")
        self.ctx = self.world.context()

    def _approve(self) -> None:
        for proposal in submission.list_proposals(self.ctx, open_only=True):
            if proposal.phase is ProposalPhase.AWAITING_APPROVAL:
                self._attempt(
                    partial(
                        decisions.approve_proposal,
                        self.ctx,
                        BEN,
                        proposal.id,
                    )
                )

    def _trouble(self) -> None:
        trouble = self.draw.choice(list(Trouble))
        lasts_s = self.draw.choice([1, 3, 8]) * TURN_S
        if trouble is Trouble.SILENCE and self._maybe(0.5):
            lasts_s = NIGHT_S
        self._say(f"{trouble.value} for {lasts_s:g} s")
        self.routers.troubles[trouble] = self.clock.monotonic() + lasts_s

    def _a_hand(self) -> None:
        name = self.draw.choice(ROUTES)
        signals = [
            RolloutSignal.PAUSE,
            RolloutSignal.RESUME,
            RolloutSignal.ADVANCE,
            RolloutSignal.ABORT,
        ]
        signal = self.draw.choice([*signals, RolloutSignal.PROMOTE, RolloutSignal.FINISH, None])
        self._say(f"a person: {signal.value if signal else 'rollback'} {name}")
        if signal is None:
            roll_back = partial(
                operations.roll_back,
                self.other,
                BEN,
                name,
                reason="an incident",
            )
            self._attempt(roll_back)
        else:
            by_hand = partial(operations.operate, self.other, BEN, name, signal, "a drill")
            self._attempt(by_hand)

    def _set_a_clock(self) -> None:
        seconds = self.draw.choice([-3600.0, -60.0, 60.0, 3600.0])
        everywhere = self._maybe(0.4)
        if abs(self.ahead_s) > 1.0:
            seconds = -self.ahead_s
            everywhere = False
        self._say(f"the clock is set by {seconds:g} s{' everywhere' if everywhere else ''}")
        self.clock.jump(seconds)
        if everywhere:
            self.routers.set_clocks(seconds)

    def _rest(self) -> None:
        """All troubles are over, and people do what they are asked for: then all ends."""
        self.routers.troubles.clear()
        self.provider_is_down = False
        self.clock.jump(-self.ahead_s)
        for _ in range(REST_TURNS):
            self._approve()
            with self.world.store.read() as tx:
                under_way = [*Rollouts(tx).live(), *Rollouts(tx).baking()]
                waiting = list(Proposals(tx).open())
            if not under_way and not waiting:
                break
            for proposal in under_way:
                self._look_into(proposal)
            self._run_once()
        else:
            raise AssertionError(f"it never ends: {under_way} {waiting}")
        alert_delivery.run_once(self.ctx)
        self._check()
        self.watcher.at_the_end(self.ctx)
        for rollout in self.watcher.rollouts.values():
            for kind in (
                AlertKind.CANARY_HELD,
                AlertKind.SAMPLE_RATIO,
                AlertKind.CANARY_PAUSED,
            ):
                assert not alerts.is_open(self.ctx, kind, rollout.id), (
                    kind,
                    rollout,
                )

    def _look_into(self, rollout: Rollout) -> None:
        """A person ends what a wrong split has spoilt or has no proof; the rest goes on."""
        if alerts.is_open(self.ctx, AlertKind.SAMPLE_RATIO, rollout.id) and rollout.live:
            operations.operate(self.ctx, BEN, rollout.route, RolloutSignal.ABORT, "a drill")
        elif rollout.state is RolloutState.PAUSED:
            try:
                operations.operate(
                    self.ctx,
                    BEN,
                    rollout.route,
                    RolloutSignal.RESUME,
                    "a drill",
                )
            except ProofRefused:
                operations.operate(
                    self.ctx,
                    BEN,
                    rollout.route,
                    RolloutSignal.ABORT,
                    "a drill",
                )

    def _endings(self) -> Sequence[Ending]:
        moves: dict[str, list[str]] = {}
        for event in self.watcher.events:
            if event.action.startswith("canary."):
                who = "" if event.actor == SYSTEM.name else f"{event.actor} "
                moves.setdefault(str(event.details["rollout"]), []).append(who + event.action)
        return [
            Ending(
                rollout.id,
                self.routers.fates[rollout.id],
                rollout.state,
                tuple(moves.get(rollout.id, ())),
                self.routers.harmed_s.get(rollout.id, 0.0),
            )
            for rollout in self.watcher.rollouts.values()
        ]


def one(seed: int, open_stores: OpenStores | None = None) -> Life:
    """The life of a seed, played; what goes wrong names the seed and how to see it again."""
    with tempfile.TemporaryDirectory() as folder:

        def on_sqlite(clock: ManualClock) -> Sequence[Store]:
            return [open_sqlite(Path(folder) / "life.db", clock, secret=SECRET)]

        life = Life(seed, Path(folder), open_stores or on_sqlite)
        try:
            life.endings = life.play()
        except BaseException as error:
            error.add_note("\n".join([*life.told[-12:], f"seed {seed}, turn {life.turns}"]))
            error.add_note(f"alone: python -m tests.support.control.rollout_simulation {seed}")
            raise
        finally:
            for store in life.stores:
                store.close()
    return life


def main(seeds: Iterable[str]) -> None:
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for seed in seeds:
        life = one(int(seed))
        sys.stdout.write("\n".join([*life.told, *map(str, life.endings), ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
