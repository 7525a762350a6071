"""Do conversations under way mislead the check of the split or the guardrail of errors?

Cells of requests whose conversations began before the step. Seeded.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.guardrails import Guardrail
from tests.support.canary.conversations import LIMIT
from tests.support.canary.handed_over_traffic import (
    Conversation,
    HandoverScene,
    count_moved,
    place_all,
    simulate_handovers,
)
from tests.support.sampling import sampled

pytestmark = pytest.mark.req("B7", "F3")

REQUESTS = 30_000
# The default policy's steps last an hour or more, and its handover half an hour.
HALF = HandoverScene(handed_over=0.5)


def false_splits(scene: HandoverScene, rollouts: int) -> int:
    """Counts rollouts whose split of callers looks wrong although it is right."""
    found = 0
    for index in range(rollouts):
        rng = np.random.default_rng([71, index])
        blocks = simulate_handovers(scene, requests=REQUESTS, rng=rng)
        found += worst_log_srm(blocks) >= ALARM_LOG_E
    return found


def rollbacks(scene: HandoverScene, rollouts: int) -> int:
    """Counts rollouts that errors of first requests end, alone, by the default policy."""
    found = 0
    for index in range(rollouts):
        rng = np.random.default_rng([72, index])
        blocks = simulate_handovers(scene, requests=REQUESTS, rng=rng)
        path = counts_path(
            [block.counts[Guardrail.ERRORS] for block in blocks],
            shares=[block.weight_bps / 10_000 for block in blocks],
        )
        found += bool(path.max() >= LIMIT)
    return found


@pytest.mark.parametrize("unseen", sampled((0.2, 0.3, 0.5, 0.6), (0.3, 0.6)))
@pytest.mark.parametrize("earlier", [0.0, 0.3])
def test_conversations_under_way_raise_no_alarm_about_the_split(
    unseen: float, earlier: float
) -> None:
    """At 1 of 1,000, two of 40 come once in 1,300 runs of a cell."""
    assert false_splits(HandoverScene(unseen=unseen, earlier=earlier), 40) <= 1


EQUAL = {
    f"{unseen:.0%} under way, failing {how}": replace(
        HALF, unseen=unseen, new=new, running=running
    )
    for unseen in (0.2, 0.3, 0.5, 0.6)
    for how, new, running in (("less", 0.05, 0.01), ("more", 0.01, 0.05))
}


@pytest.mark.parametrize("name", sampled(EQUAL, ("30% under way, failing less",)))
def test_equal_models_are_rarely_rolled_back_if_running_conversations_fail_at_another_rate(
    name: str,
) -> None:
    trials = 40
    # A rate of .05 shows more once in a thousand.
    limit = 0.05 * trials + 3.1 * math.sqrt(0.05 * 0.95 * trials)
    assert rollbacks(EQUAL[name], trials) <= limit


@pytest.mark.parametrize("unseen", sampled((0.2, 0.3, 0.5, 0.6), (0.3,)))
def test_twice_as_many_failures_are_found_beside_conversations_under_way(unseen: float) -> None:
    scene = replace(HALF, unseen=unseen, new=0.01, running=0.05, harm=2.0)
    assert rollbacks(scene, 20) >= 15


def test_both_arms_leave_out_the_same_conversations() -> None:
    for (_, kind), placed in place_all(100, 500).items():
        assert placed.scored is (kind in {Conversation.NEW, Conversation.HERE})


def test_no_conversation_leaves_the_incumbent_at_the_step_after_it_began() -> None:
    assert count_moved(800, (0, 100, 500)) == 0
