"""A rollout: the canary's plan and where it stands.

State by state, as a table; `harness.gate.online.policy` decides which signal the data give.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from harness.domain.errors import IllegalTransition
from harness.domain.proposals.policy import CanaryPolicy, Step
from harness.domain.safe_time import later


class RolloutState(StrEnum):
    WAITING = "waiting"  # fewer exposures than the step's minimum
    MEASURING = "measuring"  # enough exposures; the evidence decides
    PAUSED = "paused"  # a person looks; same weight
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Signal(StrEnum):
    ENOUGH = "enough"
    STEP_DONE = "step_done"
    PROVEN = "proven"
    HARM = "harm"
    SILENT = "silent"
    UNDECIDED = "undecided"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ADVANCE = "advance"  # by hand: one step on, whatever the evidence still lacks
    PROMOTE = "promote"  # by hand: now, with the verdict
    BASE_CHANGED = "base_changed"
    STALE = "stale"  # the candidate's name stands for another model now
    BAKED = "baked"
    FINISH = "finish"  # by hand: the bake is over


class ActionKind(StrEnum):
    HOLD = "hold"
    ADVANCE = "advance"
    PAUSE = "pause"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


# What a person may ask for; the others are the data's.
BY_HAND: Final = frozenset(
    {
        Signal.PAUSE,
        Signal.RESUME,
        Signal.ABORT,
        Signal.ADVANCE,
        Signal.PROMOTE,
        Signal.FINISH,
    }
)

# Of these, what brings the candidate further, or ends the watch over it.
ONWARD_BY_HAND: Final = BY_HAND - {Signal.PAUSE, Signal.ABORT}

_S = RolloutState
TRANSITIONS: Final[Mapping[tuple[RolloutState, Signal], RolloutState]] = {
    (_S.WAITING, Signal.ENOUGH): _S.MEASURING,
    (_S.WAITING, Signal.SILENT): _S.PAUSED,
    (_S.WAITING, Signal.PAUSE): _S.PAUSED,
    (_S.WAITING, Signal.HARM): _S.ROLLED_BACK,
    (_S.WAITING, Signal.ABORT): _S.ROLLED_BACK,
    (_S.WAITING, Signal.ADVANCE): _S.WAITING,
    (_S.WAITING, Signal.PROMOTE): _S.PROMOTED,
    (_S.WAITING, Signal.BASE_CHANGED): _S.ROLLED_BACK,
    (_S.WAITING, Signal.STALE): _S.ROLLED_BACK,
    (_S.MEASURING, Signal.STEP_DONE): _S.WAITING,
    (_S.MEASURING, Signal.PROVEN): _S.PROMOTED,
    (_S.MEASURING, Signal.UNDECIDED): _S.PAUSED,
    (_S.MEASURING, Signal.PAUSE): _S.PAUSED,
    (_S.MEASURING, Signal.HARM): _S.ROLLED_BACK,
    (_S.MEASURING, Signal.ABORT): _S.ROLLED_BACK,
    (_S.MEASURING, Signal.ADVANCE): _S.WAITING,
    (_S.MEASURING, Signal.PROMOTE): _S.PROMOTED,
    (_S.MEASURING, Signal.BASE_CHANGED): _S.ROLLED_BACK,
    (_S.MEASURING, Signal.STALE): _S.ROLLED_BACK,
    (_S.PAUSED, Signal.RESUME): _S.WAITING,
    (_S.PAUSED, Signal.HARM): _S.ROLLED_BACK,
    (_S.PAUSED, Signal.ABORT): _S.ROLLED_BACK,
    (_S.PAUSED, Signal.ADVANCE): _S.WAITING,
    (_S.PAUSED, Signal.PROMOTE): _S.PROMOTED,
    (_S.PAUSED, Signal.BASE_CHANGED): _S.ROLLED_BACK,
    (_S.PAUSED, Signal.STALE): _S.ROLLED_BACK,
    # While it bakes: the incumbent before it is kept as a control (`Rollout.baking`).
    (_S.PROMOTED, Signal.HARM): _S.ROLLED_BACK,
    (_S.PROMOTED, Signal.ABORT): _S.ROLLED_BACK,
    (_S.PROMOTED, Signal.BASE_CHANGED): _S.PROMOTED,
    (_S.PROMOTED, Signal.BAKED): _S.PROMOTED,
    (_S.PROMOTED, Signal.FINISH): _S.PROMOTED,
}

LIVE: Final = frozenset({_S.WAITING, _S.MEASURING, _S.PAUSED})


def advance(state: RolloutState, signal: Signal) -> RolloutState:
    """The next state. Raises IllegalTransition for a pair not in the table."""
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        left = [each.value for of, each in TRANSITIONS if of is state and each in BY_HAND]
        raise IllegalTransition(
            f"a rollout that is {state.value} cannot take the signal {signal.value}; "
            f"a person can: {', '.join(left) or 'nothing, it has ended'}"
        ) from None


@dataclass(frozen=True)
class Rollout:
    """incumbent, candidate: target ids. step: index into policy.steps. verdict: its proof.

    step_started_at: restarts at every step and at every resume. bake_ends_at: until when a
    promoted candidate is compared with its predecessor; None when there is or was no bake.
    version: optimistic locking.
    """

    id: str
    proposal: str
    route: str
    incumbent: str
    candidate: str
    verdict: str
    policy: CanaryPolicy
    salt: str
    step: int
    state: RolloutState
    started_at: datetime
    step_started_at: datetime
    updated_at: datetime
    ended_because: str = ""
    version: int = 1
    bake_ends_at: datetime | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def baking(self) -> bool:
        """Promoted, and still watched against the incumbent before it."""
        return self.state is RolloutState.PROMOTED and self.bake_ends_at is not None

    @property
    def current(self) -> Step:
        return self.policy.steps[self.step]

    @property
    def last_step(self) -> bool:
        return self.step + 1 == len(self.policy.steps)


@dataclass(frozen=True)
class Action:
    """What the data ask for, and every figure that led to it.

    signal: the transition to take, None to stay. block: number of the block that tripped.
    """

    kind: ActionKind
    signal: Signal | None
    reason: str
    log_e: float
    distance_to_trip: float
    exposures: int
    step_exposures: int
    log_certificate: float
    block: int | None = None
    figures: Mapping[str, object] = field(default_factory=dict)


def moved(rollout: Rollout, signal: Signal, now: datetime, because: str = "") -> Rollout:
    """The rollout after `signal`; STEP_DONE and ADVANCE go one step on.

    Raises IllegalTransition: for a pair not in the table, past the last step, and for one that
    was promoted and bakes no more.
    """
    state = advance(rollout.state, signal)
    if rollout.state is RolloutState.PROMOTED and not rollout.baking:
        raise IllegalTransition(f"rollout {rollout.id} is promoted, and its bake is over")
    onward = signal in (Signal.STEP_DONE, Signal.ADVANCE)
    if onward and rollout.last_step:
        raise IllegalTransition(
            f"rollout {rollout.id} is at its last step: what comes next is the promotion"
        )
    new_step = onward or signal is Signal.RESUME
    return replace(
        rollout,
        state=state,
        step=rollout.step + 1 if onward else rollout.step,
        step_started_at=now if new_step else rollout.step_started_at,
        updated_at=now,
        ended_because=because if state not in LIVE else rollout.ended_because,
        bake_ends_at=_bake_end(rollout, state, now),
    )


def _bake_end(rollout: Rollout, state: RolloutState, now: datetime) -> datetime | None:
    begins = state is RolloutState.PROMOTED and rollout.live
    if begins and rollout.policy.bake_s:
        return later(now, rollout.policy.bake_s)
    return None
