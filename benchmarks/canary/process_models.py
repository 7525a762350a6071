"""Simulates one canary under two process models: one ledger in the parent of a router's workers
(ADR 7), or a ledger in each worker and only the database in common.

Both models see the same callers, arms and failures, on a simulated clock, with the router's
ledgers, the workers' guards and the gate's decisions. Chance draws a caller's worker, as the
kernel spreads connections. `process_model_run` prints the tables.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from harness.gate.online.capped_sums import CAP_TIMES
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.outcome import Reading
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from harness.gate.online.rollout import (
    Rollout,
    RolloutSignal,
    RolloutState,
    apply_signal,
    build_exposure_rule,
)
from harness.gate.online.rollout_action import decide_action
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.online.worker_guard import abort_log_e
from harness.gate.policy import CanaryPolicy
from router.observers.canary_guard import RolloutGuard
from router.recording.reporter import INTERVAL_S
from tests.support.canary.outcomes import outcome_of
from tests.support.canary.shared_ledgers import START, SharedLedgers

POLICY: Final = CanaryPolicy()
# Errors are the only guardrail with data; the others keep their weights in the evidence.
RULE: Final = replace(
    build_exposure_rule(POLICY, START, ledger_salt="salt", total_timeout_s=120.0),
    guardrails={},
)
USUAL: Final = 0.01  # the incumbent's failure rate
COST_USD: Final = 1e-3  # the incumbent's mean; costs are log-normal
COST_SIGMA: Final = 0.8
SERVED: Final = (RequestTraits.SERVED | RequestTraits.PRICED | RequestTraits.WORDS).value
FLUSH_S: Final = 1.0  # router.flush_interval_s, and how often the control plane decides
LEAST_CALLERS: Final = 4_000


@dataclass(frozen=True)
class ProcessModel:
    """Who keeps the ledgers of a router.

    is_parent: one ledger for all workers. is_small: the workers divide the policy's size of a
    block, so that a block fills as fast as the parent's.
    """

    workers: int
    is_parent: bool = True
    is_small: bool = False

    @property
    def name(self) -> str:
        if self.is_parent:
            return "parent"
        return "own, small blocks" if self.is_small else "own"

    @property
    def block_size(self) -> int:
        parts = self.workers if self.is_small else 1
        return math.ceil(RULE.block_size / parts)

    def open_ledgers(self, rule: ExposureRule) -> SharedLedgers:
        rule = replace(rule, block_size=self.block_size)
        return SharedLedgers(rule, 1 if self.is_parent else self.workers)

    def ledger_of(self, worker: int) -> int:
        return 0 if self.is_parent else worker


PARENT: Final = ProcessModel(1)


def own_models(workers: int) -> list[ProcessModel]:
    own = ProcessModel(workers, is_parent=False)
    return [own, replace(own, is_small=True)]


@dataclass(frozen=True)
class Caller:
    """A caller with one request. bucket, lot: chances from 0 to 1 of its arm and its worker.

    times: its cost, in means of the incumbent.
    """

    key: str
    at_s: float
    bucket: float
    lot: float
    luck: float  # the request fails if this is below the arm's failure rate
    times: float


def draw_callers(per_s: float, seed: Sequence[int], number: int) -> Iterator[Caller]:
    """Draws callers as a Poisson process, the same for all models."""
    rng = np.random.default_rng(seed)
    at_s = np.cumsum(rng.exponential(1.0 / per_s, number)).tolist()
    chances = rng.random((number, 3)).tolist()
    costs = rng.lognormal(-(COST_SIGMA**2) / 2.0, COST_SIGMA, number).tolist()
    for index, (at, chance, times) in enumerate(zip(at_s, chances, costs, strict=True)):
        bucket, lot, luck = chance
        yield Caller(f"k{index}", at, bucket, lot, luck, times)


@dataclass(frozen=True)
class Harm:
    """What a candidate does. errors: its failure rate. times: its cost, in the incumbent's.

    most: its callers that are simulated at most. part: of the rollouts, since slow harm takes
    many callers.
    """

    name: str
    most: int
    part: float = 1.0
    errors: float = USUAL
    times: float = 1.0

    @property
    def rule(self) -> ExposureRule:
        if self.times == 1.0:
            return RULE
        cost = Guardrail.COST_PER_SUCCESS
        return replace(
            RULE,
            guardrails={cost: POLICY.tolerated[cost]},
            caps={cost: CAP_TIMES * COST_USD},
        )


HARMS: Final = (
    Harm("100 % errors", 100, errors=1.0),
    Harm("20 % errors", 300, errors=0.2),
    Harm("5 % errors", 900, 0.4, errors=0.05),
    Harm("cost × 4", 400, 0.4, times=4.0),
)


@dataclass(frozen=True)
class Scene:
    """What the callers meet."""

    per_s: float
    share_bps: int
    harm: Harm

    @property
    def share(self) -> float:
        return self.share_bps / 10_000

    @property
    def callers(self) -> int:
        # Enough to fill several blocks of every worker.
        return max(LEAST_CALLERS, math.ceil(self.harm.most / self.share))

    def fails(self, caller: Caller, *, canary: bool) -> bool:
        return caller.luck < (self.harm.errors if canary else USUAL)

    def cost_usd(self, caller: Caller, *, canary: bool) -> float:
        return COST_USD * caller.times * (self.harm.times if canary else 1.0)


class Run:
    """One rollout's ledgers on a simulated clock. sent_s: when each block reached the store."""

    def __init__(self, model: ProcessModel, rule: ExposureRule = RULE) -> None:
        self.model = model
        self.ledgers = model.open_ledgers(rule)
        self.sent_s: list[float] = []
        self._next_s = FLUSH_S

    @property
    def now(self) -> float:
        return self.ledgers.now

    def until(self, at_s: float) -> Iterator[float]:
        """Lets the time pass to `at_s`; yields after each flush."""
        while self._next_s <= at_s:
            self.ledgers.now = self._next_s
            self.ledgers.tick()
            more = len(self.ledgers.blocks) - len(self.sent_s)
            self.sent_s += [self._next_s] * more
            self._next_s += FLUSH_S
            yield self.ledgers.now
        self.ledgers.now = at_s

    def ask(
        self,
        caller: Caller,
        *,
        canary: bool,
        failed: bool,
        weight_bps: int,
        cost_usd: float = COST_USD,
    ) -> None:
        worker = int(caller.lot * self.model.workers)
        ledger = self.ledgers.ledgers[self.model.ledger_of(worker)]
        now = self.now
        admitted = ledger.admit(
            caller.key,
            canary=canary,
            weight_bps=weight_bps,
            now=now,
            at=self.ledgers.at,
            traits=SERVED,
        )
        if admitted is None:
            return
        values = SampleValues(cost_per_success=cost_usd)
        sample = None if failed else GuardrailSample(values)
        ledger.finish(admitted, outcome=outcome_of(failed=failed), sample=sample, now=now)


def until_rollback_s(model: ProcessModel, scene: Scene, seed: Sequence[int]) -> float:
    """Returns the seconds until the control plane rolls a rollout back; inf for never."""
    run = Run(model, scene.harm.rule)
    due = 8
    for caller in draw_callers(scene.per_s, seed, scene.callers):
        for _ in run.until(caller.at_s):
            blocks = run.ledgers.blocks
            if len(blocks) >= due:
                due = math.ceil(1.5 * len(blocks))
                found = collect_evidence(blocks, POLICY)
                if found.block is not None:
                    return run.sent_s[found.block]
        canary = caller.bucket < scene.share
        failed = scene.fails(caller, canary=canary)
        run.ask(
            caller,
            canary=canary,
            failed=failed,
            weight_bps=scene.share_bps,
            cost_usd=scene.cost_usd(caller, canary=canary),
        )
    for _ in run.until(run.now + 70.0):  # the open blocks close
        pass
    found = collect_evidence(run.ledgers.blocks, POLICY)
    return math.inf if found.block is None else run.sent_s[found.block]


def until_abort_s(workers: int, scene: Scene, seed: Sequence[int], by_s: float) -> float:
    """Returns the seconds until a worker's guard stops a canary; inf if not before `by_s`.

    The guard is the same in both models: each worker has one, with a part of the level.
    """
    alpha = RULE.local_alpha / 2
    guards = [
        RolloutGuard("r", RULE, abort_log_e(alpha, workers=workers, turn=turn), longest_s=120.0)
        for turn in range(workers)
    ]
    for caller in draw_callers(scene.per_s, seed, scene.callers):
        if caller.at_s > by_s:
            break
        canary = caller.bucket < scene.share
        guard = guards[int(caller.lot * workers)]
        begun = guard.begin(caller.key, canary=canary, share=scene.share, now_s=caller.at_s)
        if begun is None:
            continue
        failed = scene.fails(caller, canary=canary)
        begun[0].first = begun[0].window = Reading.BAD if failed else Reading.GOOD
        if guard.read(caller.at_s):
            return caller.at_s
    return math.inf


MOST_STEP_CALLERS: Final = 600_000


def step_times(model: ProcessModel, per_s: float, seed: Sequence[int]) -> list[float]:
    """Returns the seconds at which a healthy rollout leaves each step; inf for never."""
    run = Run(model)
    rollout = _new_rollout()
    left: list[float] = []
    read = 0
    for caller in draw_callers(per_s, seed, MOST_STEP_CALLERS):
        for _ in run.until(caller.at_s):
            blocks = run.ledgers.blocks
            if len(blocks) == read or not _may_leave(run, rollout):
                continue
            read = len(blocks)
            action = decide_action(rollout, blocks, run.ledgers.at)
            if action.signal is RolloutSignal.ENOUGH:
                rollout = apply_signal(rollout, action.signal, run.ledgers.at)
                action = decide_action(rollout, blocks, run.ledgers.at)
            if action.signal is RolloutSignal.STEP_DONE:
                rollout = apply_signal(rollout, action.signal, run.ledgers.at)
                left.append(run.now)
            elif action.signal is not None:
                left.append(run.now if action.signal is RolloutSignal.PROVEN else math.inf)
                return left + [math.inf] * (len(POLICY.steps) - len(left))
        weight_bps = rollout.current.weight_bps
        canary = caller.bucket < weight_bps / 10_000
        run.ask(caller, canary=canary, failed=caller.luck < USUAL, weight_bps=weight_bps)
    return left + [math.inf] * (len(POLICY.steps) - len(left))


def _may_leave(run: Run, rollout: Rollout) -> bool:
    """Tells whether the step has its callers with known windows; deciding takes time."""
    weight_bps = rollout.current.weight_bps
    known = sum(
        block.late_canary_units
        for block in run.ledgers.blocks
        if block.weight_bps == weight_bps and Guardrail.CALLER_ERRORS in block.counts
    )
    return known >= rollout.current.min_exposures


def _new_rollout() -> Rollout:
    return Rollout(
        id="r",
        proposal="p",
        route="chat",
        incumbent="a",
        candidate="b",
        verdict="v",
        policy=POLICY,
        salt="s",
        step=0,
        state=RolloutState.WAITING,
        started_at=START,
        step_started_at=START,
        updated_at=START,
    )


def lose_worker(model: ProcessModel, per_s: float, seed: Sequence[int]) -> tuple[float, float]:
    """Returns the callers and the windows that are lost with one worker.

    With a parent, these are the callers of the last report's time, if the worker is killed
    just before the next report.
    """
    if model.is_parent:
        number = float(np.random.default_rng(seed).poisson(INTERVAL_S * per_s / model.workers))
        return number, number
    dies_s = 900.0 + float(np.random.default_rng(seed).random())
    run = Run(model)
    asked = 0
    for caller in draw_callers(per_s, seed, math.ceil(1.1 * per_s * dies_s)):
        for _ in run.until(caller.at_s):
            pass
        if caller.at_s >= dies_s:
            run.ledgers.kill(0)
            break
        canary = caller.bucket < 0.01
        run.ask(caller, canary=canary, failed=False, weight_bps=100)
        asked += 1
    for _ in run.until(run.now + 900.0):
        pass
    blocks = run.ledgers.blocks
    counted = sum(block.units for block in blocks)
    windows = sum(
        block.late_units for block in blocks if Guardrail.CALLER_ERRORS in block.counts
    )
    return float(asked - counted), float(asked - windows)
