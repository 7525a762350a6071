"""A rollout is one canary, with its policy, step and state; this module is its state machine.

`TRANSITIONS` is the table of states and signals; `apply_signal` returns the rollout after a
signal. `harness.gate.online.rollout_action` derives signals from data; a person may give
`MANUAL_SIGNALS`. `CanaryEnding` stores how a canary ended without serving the route; its words
are in `harness.gate.canary_sentences`.

This module checks no role, no proof and no data; `harness.canary` checks them before it applies
a signal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from harness.frame.errors import IllegalTransition
from harness.frame.formatting import add_seconds
from harness.gate.online.guardrails import WINDOW_REQUESTS, ExposureRule, Guardrail
from harness.gate.online.outcome import UNKNOWN_LIMITS, WaitLimits
from harness.gate.online.worker_guard import GuardCount
from harness.gate.policy import CanaryPolicy, CanaryStep


class CanaryEnd(StrEnum):
    """The stored ways in which a canary ends without serving the route."""

    ABORTED = "aborted"  # a person ended it before its promotion
    PROMOTION_ROLLED_BACK = "promotion_rolled_back"  # a person restored the former model
    ROLLED_BACK = "rolled_back"  # the evidence ended it, or a change of the route or the model


class RolloutState(StrEnum):
    """The stored states. The bake is PROMOTED with `bake_ends_at`."""

    WAITING = "waiting"  # fewer exposures than the step's minimum
    MEASURING = "measuring"  # enough exposures; the evidence decides
    PAUSED = "paused"  # waits for a person; same weight
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class RolloutSignal(StrEnum):
    """The events that move a rollout, by evidence, by a change of the route, or by a person."""

    ENOUGH = "enough"
    STEP_DONE = "step_done"
    PROVEN = "proven"
    HARM = "harm"
    SILENT = "silent"
    UNDECIDED = "undecided"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ADVANCE = "advance"  # by hand: one step on, even if evidence is missing
    PROMOTE = "promote"  # by hand: at once, with the verdict
    BASE_CHANGED = "base_changed"
    STALE = "stale"  # the proof no longer holds: another model, a missing or changed proof
    BAKED = "baked"
    FINISH = "finish"  # by hand: the bake is over


class ActionKind(StrEnum):
    """The effect of a decision on the route's traffic."""

    HOLD = "hold"
    ADVANCE = "advance"
    PAUSE = "pause"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class ReasonCode(StrEnum):
    """The stored reasons of a decision; `canary_sentences` has a sentence for each."""

    ENDED = "ended"
    HARM = "harm"  # the evidence of harm reached the rollback level
    GUARD = "guard"  # a worker's guard stopped the canary
    PAUSED = "paused"
    BAKING = "baking"
    BAKE_OVER = "bake_over"
    COUNTING = "counting"  # the step lacks callers
    ENOUGH = "enough"  # the step has its callers, and its evidence decides from now on
    TOO_FEW = "too_few"  # the step's time is up without its callers
    OPEN = "open"  # a condition of the step is not met
    LATE = "late"  # the same, and the step's time is up
    PASSED = "passed"  # the step passed
    HELD = "held"  # the data, the clock or a freeze do not allow a move onward
    PROOF = "proof"  # the proof does not hold any more
    FIRST_CALLERS = "first_callers"  # the callers that the audience puts first fail too often


class StepCondition(StrEnum):
    """The conditions of a step, as decisions store the first one that is not met."""

    CALLERS = "callers"
    SAMPLE_RATIO = "sample_ratio"
    DURATION = "duration"
    WARM_UP = "warm_up"
    WINDOWS = "windows"
    MISSING_OUTCOMES = "missing_outcomes"
    NOT_SENT = "not_sent"
    UNSUPPORTED = "unsupported"
    COUNTED_SHARE = "counted_share"
    CERTIFICATE = "certificate"
    ONE_KEY = "one_key"
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class CanaryEnding:
    """How a canary ended, in codes: stored with its rollout and its proposal.

    by: the person's name; empty if no person ended it. why: the person's reason.
    """

    end: CanaryEnd
    signal: RolloutSignal
    by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class EndDecision:
    """The inputs and counts of the decision that ended a canary.

    at: the moment of the decision. state, bake_ends_at: of the rollout before its end.
    last_block: the number of the newest block that the decision read; 0 without a block. guard:
    the counts of the worker's guard that stopped the canary; None if no guard stopped it.
    """

    at: datetime
    state: RolloutState
    last_block: int
    bake_ends_at: datetime | None = None
    guard: GuardCount | None = None
    alert: str = ""  # the id of that guard's alert


def name_end(signal: RolloutSignal, *, baking: bool) -> CanaryEnd:
    """Returns how a signal ends a canary.

    Args:
        baking: whether it was promoted before.
    """
    if signal is not RolloutSignal.ABORT:
        return CanaryEnd.ROLLED_BACK
    return CanaryEnd.PROMOTION_ROLLED_BACK if baking else CanaryEnd.ABORTED


def read_old_end(ended_because: str) -> CanaryEnd:
    """Returns how a canary ended whose row was stored before rows had a `CanaryEnding`.

    Such a row has only a text. No other code reads an end from a text.
    """
    if ended_because.startswith("abort by "):
        return CanaryEnd.ABORTED
    if ended_because.startswith("promotion taken back by "):
        return CanaryEnd.PROMOTION_ROLLED_BACK
    return CanaryEnd.ROLLED_BACK


def rollout_id(proposal: str) -> str:
    """Names a proposal's only rollout, so that the route's signed history identifies it."""
    return f"r_{proposal.removeprefix('p_')}"


FIRST_CALLERS: Final = ".first"


def name_first_callers(rollout: str) -> str:
    """Names the ledger of a rollout's callers that the audience puts into the canary first.

    Its blocks and keys are stored under this name, so that the comparison never reads them.
    """
    return f"{rollout}{FIRST_CALLERS}"


# Signals that a person may give; all other signals come from data.
MANUAL_SIGNALS: Final = frozenset(
    {
        RolloutSignal.PAUSE,
        RolloutSignal.RESUME,
        RolloutSignal.ABORT,
        RolloutSignal.ADVANCE,
        RolloutSignal.PROMOTE,
        RolloutSignal.FINISH,
    }
)

# Manual signals that help the candidate: they continue its canary, or end its bake.
MANUAL_ONWARD_SIGNALS: Final = MANUAL_SIGNALS - {
    RolloutSignal.PAUSE,
    RolloutSignal.ABORT,
}

_S = RolloutState
TRANSITIONS: Final[Mapping[tuple[RolloutState, RolloutSignal], RolloutState]] = {
    (_S.WAITING, RolloutSignal.ENOUGH): _S.MEASURING,
    (_S.WAITING, RolloutSignal.SILENT): _S.PAUSED,
    (_S.WAITING, RolloutSignal.PAUSE): _S.PAUSED,
    (_S.WAITING, RolloutSignal.HARM): _S.ROLLED_BACK,
    (_S.WAITING, RolloutSignal.ABORT): _S.ROLLED_BACK,
    (_S.WAITING, RolloutSignal.ADVANCE): _S.WAITING,
    (_S.WAITING, RolloutSignal.PROMOTE): _S.PROMOTED,
    (_S.WAITING, RolloutSignal.BASE_CHANGED): _S.ROLLED_BACK,
    (_S.WAITING, RolloutSignal.STALE): _S.ROLLED_BACK,
    (_S.MEASURING, RolloutSignal.STEP_DONE): _S.WAITING,
    (_S.MEASURING, RolloutSignal.PROVEN): _S.PROMOTED,
    (_S.MEASURING, RolloutSignal.UNDECIDED): _S.PAUSED,
    (_S.MEASURING, RolloutSignal.PAUSE): _S.PAUSED,
    (_S.MEASURING, RolloutSignal.HARM): _S.ROLLED_BACK,
    (_S.MEASURING, RolloutSignal.ABORT): _S.ROLLED_BACK,
    (_S.MEASURING, RolloutSignal.ADVANCE): _S.WAITING,
    (_S.MEASURING, RolloutSignal.PROMOTE): _S.PROMOTED,
    (_S.MEASURING, RolloutSignal.BASE_CHANGED): _S.ROLLED_BACK,
    (_S.MEASURING, RolloutSignal.STALE): _S.ROLLED_BACK,
    (_S.PAUSED, RolloutSignal.RESUME): _S.WAITING,
    (_S.PAUSED, RolloutSignal.HARM): _S.ROLLED_BACK,
    (_S.PAUSED, RolloutSignal.ABORT): _S.ROLLED_BACK,
    (_S.PAUSED, RolloutSignal.ADVANCE): _S.WAITING,
    (_S.PAUSED, RolloutSignal.PROMOTE): _S.PROMOTED,
    (_S.PAUSED, RolloutSignal.BASE_CHANGED): _S.ROLLED_BACK,
    (_S.PAUSED, RolloutSignal.STALE): _S.ROLLED_BACK,
    # During the bake the former incumbent stays as a control (`Rollout.baking`).
    (_S.PROMOTED, RolloutSignal.HARM): _S.ROLLED_BACK,
    (_S.PROMOTED, RolloutSignal.ABORT): _S.ROLLED_BACK,
    (_S.PROMOTED, RolloutSignal.BASE_CHANGED): _S.PROMOTED,
    (_S.PROMOTED, RolloutSignal.BAKED): _S.PROMOTED,
    (_S.PROMOTED, RolloutSignal.FINISH): _S.PROMOTED,
}

LIVE_STATES: Final = frozenset({_S.WAITING, _S.MEASURING, _S.PAUSED})


def next_state(state: RolloutState, signal: RolloutSignal) -> RolloutState:
    """Returns a rollout's next state. Raises IllegalTransition for a pair not in the table."""
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        left = [
            other.value
            for origin, other in TRANSITIONS
            if origin is state and other in MANUAL_SIGNALS
        ]
        raise IllegalTransition(
            f"a rollout that is {state.value} cannot take the signal {signal.value}; "
            f"a person can: {', '.join(left) or 'give no signal, because it has ended'}"
        ) from None


@dataclass(frozen=True)
class Rollout:
    """One canary of one proposal. Shares are in basis points, times in UTC.

    Invariant: `step` is an index into `policy.steps`; the policy is the proposal's copy and
    never changes.
    """

    id: str
    proposal: str
    route: str
    incumbent: str  # incumbent, candidate: target ids
    candidate: str
    verdict: str  # id of the verdict that proves the candidate
    policy: CanaryPolicy
    salt: str
    step: int  # index into policy.steps
    state: RolloutState
    started_at: datetime
    step_started_at: datetime  # restarts at every step and at every resume
    updated_at: datetime
    ended_because: str = ""
    version: int = 1  # optimistic locking
    # End of the comparison of a promoted candidate with its predecessor; None without a bake.
    bake_ends_at: datetime | None = None
    # The causes of `left_out.ExclusionCause` that an approver acknowledged; None for none.
    acknowledged: tuple[str, ...] | None = None
    # How it ended, and the decision behind it; None while it serves, and in older rows.
    ending: CanaryEnding | None = None
    decided: EndDecision | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES

    @property
    def baking(self) -> bool:
        """Tells whether it is promoted and still compared with the former incumbent."""
        return self.state is RolloutState.PROMOTED and self.bake_ends_at is not None

    @property
    def end(self) -> CanaryEnd | None:
        """How the canary ended; None while it is live, and after a promotion that stays."""
        if self.state is not RolloutState.ROLLED_BACK:
            return None
        return self.ending.end if self.ending else read_old_end(self.ended_because)

    @property
    def current(self) -> CanaryStep:
        return self.policy.steps[self.step]

    @property
    def last_step(self) -> bool:
        return self.step + 1 == len(self.policy.steps)


def apply_signal(
    rollout: Rollout,
    signal: RolloutSignal,
    now: datetime,
    because: str = "",
    ending: CanaryEnding | None = None,
    decided: EndDecision | None = None,
) -> Rollout:
    """Returns the rollout after `signal`; STEP_DONE and ADVANCE go one step on.

    Args:
        because: kept if the signal ends the rollout.
        ending: kept if the signal ends the rollout.
        decided: kept if the signal ends the rollout.

    Raises IllegalTransition for a pair not in the table, past the last step, and for a promoted
    rollout after its bake.
    """
    state = next_state(rollout.state, signal)
    if rollout.state is RolloutState.PROMOTED and not rollout.baking:
        raise IllegalTransition(f"rollout {rollout.id} is promoted, and its bake is over")
    onward = signal in (RolloutSignal.STEP_DONE, RolloutSignal.ADVANCE)
    if onward and rollout.last_step:
        raise IllegalTransition(f"rollout {rollout.id} is at its last step: promote it instead")
    new_step = onward or signal is RolloutSignal.RESUME
    return replace(
        rollout,
        state=state,
        step=rollout.step + 1 if onward else rollout.step,
        step_started_at=now if new_step else rollout.step_started_at,
        updated_at=now,
        ended_because=because if state not in LIVE_STATES else rollout.ended_because,
        bake_ends_at=_bake_end(rollout, state, now),
        ending=ending if state is RolloutState.ROLLED_BACK else None,
        decided=decided if state is RolloutState.ROLLED_BACK else None,
    )


def _bake_end(
    rollout: Rollout,
    state: RolloutState,
    now: datetime,
) -> datetime | None:
    begins = state is RolloutState.PROMOTED and rollout.live
    if begins and rollout.policy.bake_s:
        return add_seconds(now, rollout.policy.bake_s)
    return None


@dataclass(frozen=True, slots=True)
class IncumbentHistory:
    """Figures of the incumbent's traffic before a rollout, see the fields of `ExposureRule`."""

    waits: WaitLimits = UNKNOWN_LIMITS
    caps: Mapping[Guardrail, float] = field(default_factory=dict)
    usual_rates: Mapping[Guardrail, float] = field(default_factory=dict)


NO_HISTORY: Final = IncumbentHistory()


def build_exposure_rule(
    policy: CanaryPolicy,
    began_at: datetime,
    *,
    ledger_salt: str = "",
    history: IncumbentHistory = NO_HISTORY,
    counts_usage: Iterable[str] = (),
    usual_s: float = 0.0,
    total_timeout_s: float = 120.0,
) -> ExposureRule:
    """Returns the exposure rule for routers.

    Args:
        ledger_salt: for the rollout's key ledger.
        counts_usage: the targets whose measured answers reported tokens.
        usual_s: how long an answer of the slower arm usually takes, in seconds; 0 if unknown.
        total_timeout_s: the route's limit for a request.
    """
    return ExposureRule(
        block_size=policy.block_size,
        missing_s=policy.missing_s,
        began_s=began_at.timestamp(),
        rho=policy.rho,
        local_alpha=policy.local_alpha,
        guardrails=policy.guardrails.tolerated(),
        judge=policy.judge,
        ledger_salt=ledger_salt,
        first_wait_s=history.waits.first_s,
        stream_wait_s=history.waits.stream_first_s,
        gap_wait_s=history.waits.gap_s,
        counts_usage=tuple(sorted(counts_usage)),
        window_s=policy.window_s,
        window_requests=count_window_requests(policy.window_s, usual_s),
        total_timeout_s=total_timeout_s,
        caps=history.caps,
        usual_rates=history.usual_rates,
        audiences=policy.audiences,
    )


def count_window_requests(window_s: float, usual_s: float) -> int:
    """Returns how many requests of a caller a window counts: as many as the slower arm answers
    in half of the window, at least 1 and at most WINDOW_REQUESTS.

    The number is fixed before the rollout, so that a slower arm has the same chances to fail.

    Args:
        usual_s: see `build_exposure_rule`.
    """
    if usual_s <= 0.0:
        return WINDOW_REQUESTS
    return max(1, min(WINDOW_REQUESTS, int(window_s / 2.0 / usual_s)))
