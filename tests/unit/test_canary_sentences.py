"""Why a canary is where it is, what would move it, and its state in words: one for Overview,
Canary page and command line, trouble first.

Each situation has the words of tests/golden/canary_sentences.json. After a change that is
meant, write the file anew: `python -m tests.unit.test_canary_sentences`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from dashboard import labels
from harness.canary.audit import repeat_end
from harness.canary.canary_state import (
    CanaryState,
    describe_canary_state,
)
from harness.gate.canary_sentences import (
    CanaryStateKind,
    failed_callers,
    guard_details,
    guard_sentence,
)
from harness.gate.explain import explain_rollout
from harness.gate.online.guardrail_report import OpinionTotals
from harness.gate.online.guardrails import (
    ArmLevels,
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import (
    CanaryEnd,
    CanaryEnding,
    EndDecision,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.online.rollout_action import decide_action
from harness.gate.online.worker_guard import GuardCount, GuardError
from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.store.records import PLAIN_BLOCK
from tests.unit.test_canary_policy import START, rollout

pytestmark = pytest.mark.req("F3", "A7")

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "canary_sentences.json"
POLICY: Final = CanaryPolicy(
    steps=(CanaryStep(100, 20), CanaryStep(2500, 100, certify=True)),
    warm_up_s=0.0,
    warm_up_units=1,
)
HOLD: Final = "no router has recorded traffic of this route for 5 min"


def blocks(
    count: int,
    *,
    bps: int = 100,
    failing: bool = False,
    slow: bool = False,
) -> list[ObservationBlock]:
    canary = bps // 100
    latency = Guardrail.LATENCY
    return [
        replace(
            PLAIN_BLOCK,
            sequence=number,
            weight_bps=bps,
            canary_units=canary,
            failures=1 + canary * failing,
            canary_failures=canary * failing,
            opened_at=START + timedelta(minutes=number - 1),
            closed_at=START + timedelta(minutes=number),
            number=number,
            ranks={latency: (0.97,)} if slow else {},
            levels={latency: ArmLevels(2.0, 1.0)} if slow else {},
        )
        for number in range(1, count + 1)
    ]


def waiting(step: int = 0) -> Rollout:
    return rollout(RolloutState.WAITING, step, POLICY)


def with_classes(observation_blocks: list[ObservationBlock]) -> list[ObservationBlock]:
    """The canary's failures time out, but for its first; the incumbent's are the server's."""
    return [
        replace(
            block,
            counts={
                Guardrail.ERRORS: ErrorTally(
                    block.units,
                    block.canary_units,
                    block.failures,
                    block.canary_failures,
                    {
                        "malformed" if block.number == 1 else "timeout": ArmSplit(1, 1),
                        "server": ArmSplit(1, 0),
                    },
                )
            },
        )
        for block in observation_blocks
    ]


def with_feedback(
    observation_blocks: list[ObservationBlock],
    opinions: int | None,
    bad: int = 0,
) -> list[ObservationBlock]:
    """Adds feedback to blocks.

    Args:
        opinions: of the incumbent's units of a block, None for a block that does not tell.
    """

    def tally(block: ObservationBlock) -> FailureTally:
        units = (block.units, block.canary_units, bad, 0)
        return (
            FailureTally(*units)
            if opinions is None
            else FeedbackTally(*units, ArmSplit(opinions, 0))
        )

    return [
        replace(block, counts={Guardrail.FEEDBACK: tally(block)})
        for block in observation_blocks
    ]


def priced(observation_blocks: list[ObservationBlock]) -> list[ObservationBlock]:
    cost = Guardrail.COST_PER_SUCCESS
    levels = {cost: ArmLevels(1.11e-05, 2.21e-05)}
    return [replace(block, ranks={cost: (0.5,)}, levels=levels) for block in observation_blocks]


def skewed(observation_blocks: list[ObservationBlock]) -> list[ObservationBlock]:
    return [replace(block, canary_units=4) for block in observation_blocks]


@dataclass(frozen=True)
class Situation:
    """What is known of a rollout, so many minutes after its beginning."""

    rollout: Rollout
    blocks: list[ObservationBlock]
    minutes: int = 10
    holds: Sequence[str] = ()
    pause_reason: str = ""

    def sentences(self) -> list[str]:
        now = START + timedelta(minutes=self.minutes)
        blocks: Sequence[ObservationBlock] = self.blocks
        action = decide_action(self.rollout, blocks, now)
        if self.rollout.decided is not None:
            action, blocks = repeat_end(self.rollout, self.rollout.decided, blocks)
        found = explain_rollout(self.rollout, action, blocks, now)
        state = describe_canary_state(
            self.rollout,
            self.holds,
            action,
            found,
            pause_reason=self.pause_reason,
        )
        pace = None if found.units_per_hour is None else round(found.units_per_hour)
        return [
            f"state: {state.kind}, {state.words}; it {state.predicate}; {state.of_route}",
            f"because: {state.reason}",
            f"next: {state.next_step}",
            f"failed: {failed_callers(action.figures)}",
            f"action: {action.code}, {action.signal}, {action.reason}",
            *([] if found.why == action.reason else [f"why: {found.why}"]),
            f"goes to {found.goes_to} {found.eta}, at {pace} an hour; {found.goes_back}",
            *(f"against: {words}" for words in found.against),
            *(
                f"needs: {need.words}, done {need.done}, {need.share:.3g}, {need.eta_s}"
                for need in found.needs
            ),
            *(
                f"{row.name}: {row.candidate} against {row.incumbent}, {row.says}, "
                f"allowed {row.allowed}, {row.exposures}, {row.distance:.3g} of "
                f"{row.furthest:.3g}, warns {row.warns} {' '.join(row.classes)}"
                for row in found.guardrails
                if row.exposures or ("yet" in row.says and row.says != "no data yet")
            ),
        ]


BACK: Final = rollout(RolloutState.ROLLED_BACK, 0, POLICY)
PAUSED: Final = replace(waiting(), state=RolloutState.PAUSED)
BAKING: Final = replace(
    rollout(RolloutState.PROMOTED, 1, POLICY),
    bake_ends_at=START + timedelta(hours=5),
)
LATE: Final = replace(POLICY, steps=(replace(POLICY.steps[0], deadline_s=700.0),))
FLOORS: Final = replace(
    POLICY,
    steps=(
        CanaryStep(
            100,
            1,
            min_s=3600.0,
            min_peak_s=7200.0,
        ),
    ),
)
ABORTED: Final = replace(
    BACK,
    ended_because="aborted by ana: the customer asked",
    ending=CanaryEnding(CanaryEnd.ABORTED, RolloutSignal.ABORT, "ana", "the customer asked"),
)
OLD_ABORT: Final = replace(BACK, ended_because="abort by ana: the customer asked")
GUARDED: Final = replace(
    BACK,
    ended_because="a sentence of an older version",
    ending=CanaryEnding(CanaryEnd.ROLLED_BACK, RolloutSignal.HARM),
    decided=EndDecision(
        START + timedelta(minutes=3),
        RolloutState.WAITING,
        last_block=2,
        guard=GuardCount(
            8,
            3,
            0,
            log_e=7.0,
            log_limit=6.0,
            control_exposures=24,
            error=GuardError("overloaded", 503, 3),
        ),
    ),
)
HARMED: Final = replace(BACK, ended_because="errors are more frequent")
SITUATIONS: Final[Mapping[str, Situation]] = {
    "a warm-up lasts for a time and for units": Situation(
        replace(
            waiting(),
            policy=replace(POLICY, warm_up_s=600.0, warm_up_units=9),
        ),
        blocks(3),
        3,
    ),
    "what is missing is counted and timed from the current pace": Situation(
        waiting(), blocks(10)
    ),
    "without traffic there is no time and no claim of health": Situation(waiting(), []),
    "what comes after the deadline says that it will pause": Situation(
        rollout(RolloutState.WAITING, 0, LATE), blocks(10)
    ),
    "strong evidence that does not act yet speaks against a step by hand": Situation(
        waiting(), blocks(12, slow=True), 12
    ),
    "errors are told by class": Situation(
        waiting(), with_classes(blocks(19, failing=True)), 19
    ),
    "with harm shown it goes back and nothing else is waited for": Situation(
        waiting(), blocks(19, failing=True), 19
    ),
    "a wrong split speaks against a step by hand": Situation(
        waiting(), skewed(blocks(300)), 300
    ),
    "the certificate has a time of its own": Situation(waiting(1), blocks(10, bps=2500)),
    "a paused one waits for a person": Situation(PAUSED, blocks(10)),
    "floors of time and peak hours have an end": Situation(
        rollout(RolloutState.MEASURING, 0, FLOORS), blocks(10)
    ),
    "a fraction of a cent is told by the thousand answers": Situation(
        waiting(), priced(blocks(3)), 3
    ),
    "no user said anything": Situation(waiting(), with_feedback(blocks(12), 0), 12),
    "feedback says of how many there was an opinion": Situation(
        waiting(), with_feedback(blocks(12), 5, bad=2), 12
    ),
    "a hold is said before that no harm shows": Situation(
        waiting(), blocks(10), 20, holds=(HOLD,)
    ),
    "harm is said before a hold": Situation(
        waiting(), blocks(19, failing=True), 20, holds=(HOLD,)
    ),
    "a pause says who paused it and what else holds it": Situation(
        PAUSED,
        blocks(10),
        20,
        holds=(HOLD,),
        pause_reason="pause by ben: lunch",
    ),
    "an aborted one says so whatever else is known": Situation(
        ABORTED, blocks(10), holds=(HOLD,)
    ),
    "an abort of an older version is shown as stored": Situation(OLD_ABORT, blocks(10)),
    "a rollback by a worker's guard shows the counts of the guard": Situation(
        GUARDED, blocks(10)
    ),
    "too few callers pause it at its deadline": Situation(
        rollout(RolloutState.WAITING, 0, LATE), blocks(10), 12
    ),
    "a step that passed": Situation(rollout(RolloutState.MEASURING, 0, POLICY), blocks(30), 30),
    "one that was rolled back says why and needs nothing": Situation(
        HARMED, blocks(10, failing=True)
    ),
    "a bake tells when it ends": Situation(BAKING, blocks(10), 60),
    "a bake on hold": Situation(BAKING, blocks(10), 60, holds=(HOLD,)),
    "after its bake it needs nothing": Situation(
        replace(BAKING, bake_ends_at=None), blocks(10), 60
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_has_the_words_of_the_golden_file(name: str) -> None:
    assert SITUATIONS[name].sentences() == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


GUARD: Final = GuardCount(8, 3, 0, log_e=7.0, log_limit=6.0, control_exposures=24)
GUARDS: Final[Mapping[str, GuardCount]] = {
    "each caller met one error": replace(GUARD, error=GuardError("overloaded", 503, 3)),
    "some callers met another error": replace(GUARD, error=GuardError("timeout", None, 2)),
    "no error is known": GUARD,
    "the incumbent fails, too": replace(GUARD, control_failures=2),
    "an older router counted one arm": replace(
        GUARD, control_failures=2, control_exposures=None
    ),
    "later turns count": replace(GUARD, window_s=600.0),
}


def sentences_of_guards() -> dict[str, str]:
    found = {f"guard: {name}": guard_sentence(count) for name, count in GUARDS.items()}
    return {**found, "guard: its details": guard_details(GUARD)}


@pytest.mark.parametrize("name", sentences_of_guards())
def test_a_worker_s_guard_has_the_sentences_of_the_golden_file(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert sentences_of_guards()[name] == golden[name]


def test_a_row_of_an_older_version_tells_its_end_by_its_words_alone() -> None:
    ends = ("abort by ana: late", "promotion taken back by ben: too slow", "errors are up")
    stored = [replace(BACK, ended_because=words).end for words in ends]
    assert stored == [
        CanaryEnd.ABORTED,
        CanaryEnd.PROMOTION_ROLLED_BACK,
        CanaryEnd.ROLLED_BACK,
    ]
    # A row with codes is never read from its words.
    ending = CanaryEnding(CanaryEnd.ROLLED_BACK, RolloutSignal.HARM)
    assert replace(BACK, ended_because=ends[0], ending=ending).end is CanaryEnd.ROLLED_BACK


def test_classes_and_opinions_explain_the_evidence_and_are_none() -> None:
    plain = blocks(19, failing=True)
    figures = []
    for block_lists in (
        (plain, with_classes(plain)),
        (with_feedback(plain, None, bad=2), with_feedback(plain, 7, bad=2)),
    ):
        without, told = (
            decide_action(waiting(), one, START + timedelta(minutes=19)) for one in block_lists
        )
        assert (without.log_e, without.block, without.signal) == (
            told.log_e,
            told.block,
            told.signal,
        )
        figures.append(told.figures.guardrails[Guardrail.FEEDBACK].opinions)
    assert figures == [None, OpinionTotals(0, 14)]


def test_strong_evidence_is_said_beside_a_hold_and_alone() -> None:
    action = decide_action(waiting(), blocks(10), START + timedelta(minutes=20))
    strong = replace(action, distance_to_trip=0.6)

    alone, held = (describe_canary_state(waiting(), holds, strong) for holds in ((), (HOLD,)))

    assert alone.words == "may be harming callers, at 1 %"
    assert held.words == "on hold at 1 %, and may be harming callers"


def test_who_has_no_evidence_at_hand_claims_none() -> None:
    assert describe_canary_state(waiting(), ()).words == "running at 1 %"
    assert describe_canary_state(waiting(), (HOLD,)).words == "on hold at 1 %"


@pytest.mark.parametrize("kind", CanaryStateKind)
def test_every_state_has_a_sign_of_its_own_kind(kind: CanaryStateKind) -> None:
    label = labels.canary_label(CanaryState(kind, "words", "is so", "because"))

    assert len(label.symbol) == 1
    calm = kind in (
        CanaryStateKind.HEALTHY,
        CanaryStateKind.BAKING,
        CanaryStateKind.PROMOTED,
    )
    assert (label.tone is labels.Tone.BETTER) is calm


if __name__ == "__main__":
    words: dict[str, object] = {
        name: situation.sentences() for name, situation in SITUATIONS.items()
    }
    words |= sentences_of_guards()
    text = json.dumps(words, indent=1, ensure_ascii=False)
    GOLDEN.write_text(f"{text}\n", encoding="utf-8")
