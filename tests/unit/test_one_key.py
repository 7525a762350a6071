"""One client key can neither end nor save a rollout by leaving or disliking."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.gate.guardrail_rows import guardrail_row
from harness.gate.online.guardrails import (
    ArmSplit,
    FailureTally,
    Guardrail,
    WindowTally,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.one_key import (
    MAX_BLOCK_KEYS,
    count_keys,
    sole_key,
    without_key,
)
from harness.gate.online.rollout_evidence import (
    collect_evidence,
    find_saving_key,
)
from harness.gate.policy import CanaryPolicy

pytestmark = pytest.mark.req("F3")

POLICY = CanaryPolicy()
START = datetime(2026, 1, 1, tzinfo=UTC)
LEAVING = Guardrail.LEAVING
Keys = Mapping[str, FailureTally]


def block(number: int, keys: Keys) -> ObservationBlock:
    """A block of a quarter canary.

    Args:
        keys: leaving by client key.
    """
    sums = [
        sum(getattr(tally, name) for tally in keys.values())
        for name in ("units", "canary", "failures", "canary_failures")
    ]
    at = START + timedelta(minutes=number)
    return ObservationBlock(
        rollout="r",
        worker="w",
        sequence=number,
        number=number,
        weight_bps=2_500,
        units=sums[0],
        canary_units=sums[1],
        failures=0,
        canary_failures=0,
        missing=0,
        opened_at=at,
        closed_at=at,
        counts={LEAVING: FailureTally(*sums)},
        by_key={key: {LEAVING: tally} for key, tally in keys.items()},
    )


def rollout(keys: Keys, blocks: int = 40) -> list[ObservationBlock]:
    return [block(number, keys) for number in range(1, blocks + 1)]


HARMFUL = FailureTally(50, 12, 6, 6)  # half of its callers in the canary leave
HONEST = FailureTally(50, 13, 1, 0)


def test_one_key_among_two_cannot_end_a_rollout_by_leaving() -> None:
    assert (
        collect_evidence(rollout({"attacker": HARMFUL, "honest": HONEST}), POLICY).block is None
    )


def test_harm_that_two_keys_see_ends_it() -> None:
    found = collect_evidence(rollout({"a": HARMFUL, "b": HARMFUL}), POLICY)
    assert found.tripped is LEAVING


def test_the_only_key_ends_it_and_the_row_says_so() -> None:
    found = collect_evidence(rollout({"app": HARMFUL}), POLICY)
    assert found.tripped is LEAVING
    evidence = next(one for one in found.guardrails if one.guardrail is LEAVING)
    assert guardrail_row(evidence, found.limit, None).classes[0].startswith("one key: ")


def test_a_key_of_hardly_any_requests_does_not_make_a_second_key() -> None:
    tiny = [block(0, {"app": HARMFUL, "rare": FailureTally(1, 0, 0, 0)})]
    blocks = [*tiny, *rollout({"app": HARMFUL})]
    assert sole_key(blocks, LEAVING) == "app"
    assert collect_evidence(blocks, POLICY).tripped is LEAVING


def test_a_key_that_hides_harm_holds_the_step_and_is_named() -> None:
    hiding = FailureTally(400, 100, 300, 0)  # its callers of the incumbent leave
    blocks = rollout(
        {
            "app": HARMFUL,
            "other": HARMFUL,
            "hiding": hiding,
        }
    )
    assert collect_evidence(blocks, POLICY).block is None
    assert find_saving_key(blocks, POLICY) == "hiding"


def test_missing_windows_are_no_harm_that_a_key_hides() -> None:
    windows = Guardrail.CALLER_ERRORS
    known = {"a": FailureTally(50, 25, 0, 0), "b": FailureTally(50, 25, 0, 0)}
    blocks = [
        replace(
            block(number, {}),
            units=100,
            canary_units=50,
            weight_bps=5_000,
            counts={windows: WindowTally(100, 50, 31, 30, missing=ArmSplit(30, 30))},
            by_key={key: {windows: tally} for key, tally in known.items()},
        )
        for number in range(1, 41)
    ]

    assert collect_evidence(blocks, POLICY).block is None
    assert find_saving_key(blocks, POLICY) == ""


def test_equal_keys_save_and_end_nothing() -> None:
    blocks = rollout({"app": HONEST, "other": HONEST})
    assert collect_evidence(blocks, POLICY).block is None
    assert find_saving_key(blocks, POLICY) == ""


def test_a_key_is_removed_from_never_seen_keys_too() -> None:
    whole = block(1, {"a": HARMFUL, "b": HONEST})
    left = without_key(whole, "a", LEAVING)
    assert left.counts[LEAVING] == HONEST
    assert without_key(replace(whole, by_key={}), "a", LEAVING).counts == whole.counts


def test_a_block_keeps_the_keys_that_matter_and_a_single_one_always() -> None:
    good = FailureTally(1, 0, 0, 0)
    bad = FailureTally(2, 2, 2, 2)
    counts = {f"k{number}": {LEAVING: good} for number in range(100)}
    assert count_keys({"only": {LEAVING: good}}, MAX_BLOCK_KEYS) == {"only": {LEAVING: good}}
    assert count_keys({**counts, "bad": {LEAVING: bad}}, MAX_BLOCK_KEYS) == {
        "bad": {LEAVING: bad}
    }
    many = {f"k{number:03}": {LEAVING: bad} for number in range(100)}
    assert len(count_keys(many, MAX_BLOCK_KEYS)) == MAX_BLOCK_KEYS
