"""Sends the same simulated requests to the router's ledgers, which build blocks, and to its
writers of rows, and lets the product decide by both.

The share is 5 % or more, so that every caller has a row: only the order of the exposures can
make a difference.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.guardrails import CanaryJudge, Guardrails
from harness.gate.online.observation import SEGMENTS, ObservationBlock, Segment
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    JudgeOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.gate.online.reading.block_fold import BlockFold
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    LaterTurn,
    LedgerExposure,
    RequestTraits,
    SampleValues,
)
from harness.gate.online.reading.seals import Seal, Watermark
from harness.gate.online.rollout import ActionKind, Rollout, RolloutState, build_exposure_rule
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.gate.online.rollout_evidence import CanaryEvidence, collect_evidence
from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.canary.row_processes import RowProcess, RowStore
from tests.support.canary.shared_ledgers import START, SharedLedgers
from tests.support.control.manual_clock import ManualClock

DAY_S: Final = 86_400.0
TICK_S: Final = 5.0
# After the last request, all windows, opinions and overdue outcomes are known.
REST_S: Final = 2_100.0
DECIDE_EVERY_S: Final = 120.0
SPREAD: Final = math.log(4.0) / 2.3263  # of the answers' times
PATIENCE_S: Final = 30.0
JUDGE: Final = CanaryJudge("up/judge", "It answers.", max_usd=50.0)
TRAITS: Final = (
    RequestTraits.WORDS | RequestTraits.PRICED | RequestTraits.SERVED
).value | 1 << SEGMENTS_FROM + SEGMENTS.index(Segment.CHAT)
FAILED: Final = ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER, "timeout")


@dataclass(frozen=True)
class Scene:
    """A candidate, and the callers of its route.

    control, canary: failing shares of the arms' requests; the candidate's from `from_turn` on.
    turns: requests of a caller, `pause_s` after each answer. hanging: share of the candidate's
    requests that hang until the caller leaves. disliked: the arms' shares of answers that users
    dislike. times: ratio of the candidate's times. lost: share of both arms' requests whose
    outcome never comes. workers: processes of a router; they share its ledger. days: the same
    callers come on each of them. burst: so many callers come at once. steps: when a share
    begins, in seconds, and the share. baking: the candidate is promoted.
    """

    name: str
    control: float = 0.01
    canary: float = 0.01
    from_turn: int = 1
    turns: int = 1
    pause_s: float = 20.0
    hanging: float = 0.0
    disliked: tuple[float, float] = (0.0, 0.0)
    times: float = 1.0
    lost: float = 0.0
    judged: bool = False
    routers: int = 1
    workers: int = 1
    days: int = 1
    burst: int = 1
    baking: bool = False
    callers: int = 1_500
    callers_per_s: float = 2.0
    steps: Sequence[tuple[float, int]] = ((0.0, 2_500),)


SCENES: Final = (
    Scene("healthy"),
    Scene("healthy, small share", steps=((0.0, 500),)),
    Scene("healthy, quiet route", callers=300, callers_per_s=0.1),
    Scene("healthy, later turns", turns=4),
    Scene("healthy, bursts", burst=60),
    Scene("healthy, judge", judged=True, callers=1_000),
    Scene("harm of 100 %", canary=1.0, callers=400),
    Scene("harm of 20 %", canary=0.2, callers=800),
    Scene("harm of 5 %", canary=0.05, callers=3_000),
    Scene("harm of 2 %", canary=0.02, callers=3_000),
    Scene("harm of 20 %, small share", canary=0.2, steps=((0.0, 500),)),
    Scene("harm at later turns", canary=0.1, from_turn=3, turns=4),
    Scene("hangs", hanging=0.3, callers=800),
    Scene("slow answers", times=2.0, callers=3_000),
    Scene("harm in bursts", canary=0.2, burst=60),
    Scene("disliked answers", disliked=(0.05, 0.2), callers=3_000),
    Scene("bad verdicts", judged=True, canary=0.1, callers=1_000),
    Scene("lost outcomes", lost=0.01),
    Scene("ramp", canary=0.03, steps=((0.0, 500), (400.0, 2_500))),
    Scene("bake", baking=True, canary=0.05, callers=3_000, steps=((0.0, 9_500),)),
    Scene("returning callers", days=2, canary=0.03),
    Scene("4 workers", workers=4, turns=3, canary=0.05),
    Scene("2 routers", routers=2, turns=3, canary=0.05),
    Scene("2 routers, one request a caller", routers=2, canary=0.05, callers=3_000),
)


class Decision(NamedTuple):
    """The decisions by blocks of the router and by blocks of rows, at one time."""

    at_s: float
    ledger: RolloutAction
    rows: RolloutAction

    @property
    def is_over(self) -> bool:
        return all(one.kind is ActionKind.ROLLBACK for one in (self.ledger, self.rows))

    @property
    def is_same(self) -> bool:
        return _key(self.ledger) == _key(self.rows)


def _key(action: RolloutAction) -> tuple[object, ...]:
    return action.kind, action.signal, action.code, action.condition


@dataclass(frozen=True)
class Comparison:
    """Both forms at the end of a scene, and their decisions."""

    scene: Scene
    policy: CanaryPolicy
    decisions: Sequence[Decision]
    ledger_blocks: Sequence[ObservationBlock]
    row_blocks: Sequence[ObservationBlock]
    store: RowStore
    seals: Sequence[Seal]

    @property
    def differences(self) -> int:
        """How many of the decisions differ."""
        return sum(not decision.is_same for decision in self.decisions)

    @property
    def ledger_evidence(self) -> CanaryEvidence:
        return collect_evidence(self.ledger_blocks, self.policy)

    @property
    def row_evidence(self) -> CanaryEvidence:
        return collect_evidence(self.row_blocks, self.policy)


@dataclass
class _Admitted:
    """A request, as both forms know it."""

    router: int
    process: RowProcess
    unit: LedgerExposure | LaterTurn | None
    ticket: int


@dataclass
class SideBySide:
    """Both forms of one rollout under way."""

    scene: Scene
    folder: Path
    seed: int
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        shares = sorted({bps for _, bps in self.scene.steps})
        self.policy = CanaryPolicy(
            steps=tuple(CanaryStep(bps, 300) for bps in shares),
            guardrails=Guardrails(judge=1.25) if self.scene.judged else Guardrails(),
            judge=JUDGE if self.scene.judged else None,
        )
        self.rule = build_exposure_rule(self.policy, START, ledger_salt="salt")
        self._rng = random.Random(self.seed)
        self._clock = ManualClock(START)
        self._ledgers = SharedLedgers(self.rule, self.scene.routers)
        self._processes = [
            RowProcess(self.folder, f"w-{n}", self._clock, self.rule)
            for n in range(self.scene.routers * self.scene.workers)
        ]
        self.store = RowStore()
        self.fold = BlockFold("r", self.rule)
        self.seals: list[Seal] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last_s = 0.0

    def run(self) -> Comparison:
        """Runs the scene to its end."""
        for day in range(self.scene.days):
            at_s = day * DAY_S
            for caller in range(self.scene.callers):
                if caller % self.scene.burst == 0:
                    rate = self.scene.callers_per_s / self.scene.burst
                    at_s += self._rng.expovariate(rate)
                self._plan(at_s, self._turn_of(f"caller {caller}", 1))
        next_tick_s = TICK_S
        next_decision_s = DECIDE_EVERY_S
        while self._events or next_tick_s <= self._last_s + REST_S:
            if self._events and self._events[0][0] > max(next_tick_s, self._last_s + REST_S):
                next_tick_s = math.ceil(self._events[0][0] / TICK_S) * TICK_S
            if self._events and self._events[0][0] < next_tick_s:
                at_s, _, action = heapq.heappop(self._events)
                self._pass_time(at_s)
                self._last_s = at_s
                action()
                continue
            self._pass_time(next_tick_s)
            self.tick()
            if next_tick_s >= next_decision_s:
                self._decide()
                next_decision_s = next_tick_s + DECIDE_EVERY_S
            next_tick_s += TICK_S
        self._decide()
        return Comparison(
            self.scene,
            self.policy,
            self.decisions,
            self._ledgers.blocks,
            self.fold.blocks,
            self.store,
            self.seals,
        )

    def _plan(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), action))

    def _pass_time(self, at_s: float) -> None:
        self._clock.advance(at_s - self._ledgers.now)
        self._ledgers.now = at_s

    def tick(self) -> None:
        """Both forms work, and the reader reads."""
        self._ledgers.tick()
        self.fold.add(self.store.flush(self._processes))
        watermark = Watermark(self.store.number, self._ledgers.at)
        self.seals += self.fold.read(watermark)

    def _decide(self) -> None:
        """Lets both forms decide, until both have rolled back."""
        if self.decisions and self.decisions[-1].is_over:
            return
        now = self._ledgers.at
        step = self._find_step()
        rollout = Rollout(
            id="r",
            proposal="p",
            route="x",
            incumbent="a",
            candidate="b",
            verdict="v",
            policy=self.policy,
            salt="s",
            step=[one.weight_bps for one in self.policy.steps].index(step[1]),
            state=RolloutState.PROMOTED if self.scene.baking else RolloutState.MEASURING,
            started_at=START,
            step_started_at=START + timedelta(seconds=step[0]),
            updated_at=START,
            bake_ends_at=START + timedelta(days=9) if self.scene.baking else None,
        )
        self.decisions.append(
            Decision(
                self._ledgers.now,
                decide_action(rollout, self._ledgers.blocks, now),
                decide_action(rollout, self.fold.blocks, now),
            )
        )

    def _find_step(self) -> tuple[float, int]:
        return max(step for step in self.scene.steps if step[0] <= self._ledgers.now)

    def _turn_of(self, key: str, turn: int) -> Callable[[], None]:
        return lambda: self._ask(key, turn)

    def _ask(self, key: str, turn: int) -> None:
        """Sends a request, and plans what follows."""
        scene = self.scene
        rng = self._rng
        _, weight_bps = self._find_step()
        canary = crc32(key.encode()) % 10_000 < weight_bps
        router = rng.randrange(scene.routers)
        worker = rng.randrange(scene.workers)
        process = self._processes[router * scene.workers + worker]
        traits = TRAITS | (RequestTraits.JUDGED.value if scene.judged else 0)
        admitted = _Admitted(
            router,
            process,
            self._ledgers.ledgers[router].admit(
                key,
                canary=canary,
                weight_bps=weight_bps,
                now=self._ledgers.now,
                at=self._ledgers.at,
                traits=traits,
                client=f"k-{crc32(key.encode()) % 7}",
            ),
            process.admit(
                key,
                canary=canary,
                weight_bps=weight_bps,
                traits=traits,
                client=f"k-{crc32(key.encode()) % 7}",
            ),
        )
        harmed = canary and turn >= scene.from_turn
        fails = rng.random() < (scene.canary if harmed else scene.control)
        hangs = canary and rng.random() < scene.hanging
        lasts_s = rng.lognormvariate(0.0, SPREAD) * (scene.times if canary else 1.0)
        outcome = ANSWERED._replace(first_s=lasts_s / 2.0)
        if fails:
            outcome = FAILED
        elif hangs:
            lasts_s = PATIENCE_S
            outcome = ExposureOutcome(
                OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=PATIENCE_S
            )
        now_s = self._ledgers.now
        if rng.random() >= scene.lost:
            self._plan(
                now_s + lasts_s, lambda: self._finish(admitted, outcome, lasts_s, canary)
            )
        if turn < scene.turns:
            self._plan(now_s + lasts_s + scene.pause_s, self._turn_of(key, turn + 1))

    def _finish(
        self,
        admitted: _Admitted,
        outcome: ExposureOutcome,
        lasts_s: float,
        canary: bool,  # noqa: FBT001
    ) -> None:
        rng = self._rng
        is_answer = outcome.kind is OutcomeKind.ANSWERED
        tokens = rng.lognormvariate(4.0, 0.5)
        values = SampleValues(lasts_s, lasts_s / 2.0, 0.01, tokens, tokens / 1e5)
        sample = GuardrailSample(values if is_answer else SampleValues())
        if admitted.unit is not None:
            self._ledgers.ledgers[admitted.router].finish(
                admitted.unit, outcome=outcome, sample=sample, now=self._ledgers.now
            )
        admitted.process.finish(admitted.ticket, outcome, sample)
        now_s = self._ledgers.now
        if is_answer and rng.random() < self.scene.disliked[canary]:
            after_s = 60.0 * rng.lognormvariate(0.0, 1.0)
            self._plan(now_s + after_s, lambda: self._dislike(admitted))
        if self.scene.judged:
            verdict = JudgeOutcome.GOOD if is_answer else JudgeOutcome.NO_VERDICT
            after_s = rng.expovariate(1 / 20)
            self._plan(now_s + after_s, lambda: self._judge(admitted, verdict))

    def _dislike(self, admitted: _Admitted) -> None:
        self._ledgers.hear(admitted.unit, bad=True, router=admitted.router)
        if isinstance(admitted.unit, LedgerExposure):
            admitted.process.note_feedback(admitted.ticket, bad=True)

    def _judge(self, admitted: _Admitted, verdict: JudgeOutcome) -> None:
        if isinstance(admitted.unit, LedgerExposure):
            ledger = self._ledgers.ledgers[admitted.router]
            ledger.judged(admitted.unit, verdict, 0.001)
            admitted.process.judged(admitted.ticket, verdict, 0.001)
