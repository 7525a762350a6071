"""Can one client key end or save a rollout (statistics.md §2.18)? Is a candidate harmful whose
own circuit opens each minute (§2.16)? Seeded, with the router's ledger.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.gate.online.reading.scored_exposures import RequestTraits
from harness.gate.online.rollout_evidence import (
    collect_evidence,
    find_saving_key,
)
from harness.gate.policy import CanaryPolicy
from router.recording.ledger import Ledger
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import Place, Script
from tests.support.router.live_router import CANDIDATE, INCUMBENT

pytestmark = pytest.mark.req("F3")

POLICY = CanaryPolicy()
RULE = ExposureRule(guardrails=POLICY.guardrails.tolerated(), first_wait_s=1.0)
SHARE_BPS = 2_500
START = datetime(2026, 1, 1, tzinfo=UTC)
HANGS = ExposureOutcome(OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=9.0)


def blocks_of(
    callers: list[tuple[str, float, float]], rng: np.random.Generator
) -> list[ObservationBlock]:
    """One request of each caller: client key, chances of leaving in the canary and outside."""
    ledger = Ledger("r", "w", RULE)
    order = rng.permutation(len(callers))
    for number, caller in enumerate(order):
        client, in_canary, in_control = callers[caller]
        now = number / 100
        canary = bool(rng.random() < SHARE_BPS / 10_000)
        unit = ledger.admit(
            f"caller-{caller}",
            canary=canary,
            weight_bps=SHARE_BPS,
            now=now,
            at=START + timedelta(seconds=now),
            traits=RequestTraits.SERVED.value,
            client=client,
        )
        assert unit is not None
        leaves = rng.random() < (in_canary if canary else in_control)
        ledger.finish(unit, outcome=HANGS if leaves else ANSWERED, now=now)
    return ledger.close(len(callers) / 100, START + timedelta(hours=1))


HONEST = [("app", 0.01, 0.01)] * 1_500
ATTACKER = [("attacker", 1.0, 0.0)] * 1_000


@pytest.mark.parametrize("seed", range(3))
def test_one_key_with_a_thousand_users_cannot_end_a_rollout(seed: int) -> None:
    blocks = blocks_of([*HONEST, *ATTACKER], np.random.default_rng([71, seed]))
    assert collect_evidence(blocks, POLICY).block is None
    # With the same requests from two keys, the rollout ends.
    both = [
        *HONEST,
        *ATTACKER[:500],
        *[("second", 1.0, 0.0)] * 500,
    ]
    found = collect_evidence(blocks_of(both, np.random.default_rng([72, seed])), POLICY)
    assert found.tripped is Guardrail.LEAVING


@pytest.mark.parametrize("seed", range(3))
def test_one_key_cannot_save_a_harmful_candidate_silently(seed: int) -> None:
    harmed = [("app", 0.2, 0.02), ("other", 0.2, 0.02)] * 400
    saver = [("saver", 0.0, 0.9)] * 1_000
    blocks = blocks_of([*harmed, *saver], np.random.default_rng([73, seed]))
    found = collect_evidence(blocks, POLICY)
    assert found.block is None
    assert find_saving_key(blocks, POLICY) == "saver"


@pytest.mark.parametrize("seed", range(3))
def test_several_honest_keys_neither_end_nor_hold_a_healthy_rollout(seed: int) -> None:
    callers = [(f"key-{number % 5}", 0.03, 0.03) for number in range(3_000)]
    blocks = blocks_of(callers, np.random.default_rng([74, seed]))
    assert collect_evidence(blocks, POLICY).block is None
    assert find_saving_key(blocks, POLICY) == ""


async def test_a_candidate_that_is_down_a_third_of_each_minute_is_rolled_back(
    tmp_path: Path,
) -> None:
    script: Script = {INCUMBENT: completion(), CANDIDATE: completion()}
    place = Place(tmp_path, script, weight_bps=SHARE_BPS)
    for second in range(240):
        place.script[CANDIDATE] = error(500) if second % 60 < 20 else completion()
        await place.ask(times=2)
        place.clock.advance(1.0)
    place.recorder.flush(final=True)

    blocks = sorted(place.kept.blocks.values(), key=lambda block: block.sequence)
    found = collect_evidence(
        [replace(block, number=number) for number, block in enumerate(blocks, start=1)],
        POLICY,
    )
    assert found.tripped is Guardrail.ERRORS
    # Requests that its open circuit kept from it are failures, not exclusions.
    assert place.asked[CANDIDATE] < sum(block.canary_units for block in blocks)
