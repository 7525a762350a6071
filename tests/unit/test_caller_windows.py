"""Later requests of a caller count in the caller's window, at whichever router they arrive, and
the windows of both arms end together (statistics.md §2.19).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from harness.gate.online.guardrails import (
    WINDOW_REQUESTS,
    ArmSplit,
    ExposureRule,
    Guardrail,
    WindowTally,
)
from harness.gate.online.late_outcomes import REPORT_S, compare_requests, find_windows
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.reading.block_streams import SPARE_S
from harness.gate.online.rollout import count_window_requests
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from tests.support.canary.shared_ledgers import SharedLedgers
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import CHAT, Place, Script
from tests.support.router.live_router import CANDIDATE, INCUMBENT

pytestmark = pytest.mark.req("F3")
RULE: Final = ExposureRule(
    block_size=2,
    ledger_salt="salt",
    window_s=100.0,
    window_requests=4,
    total_timeout_s=20.0,
    missing_s=50.0,
)
KNOWN_S: Final = RULE.window_known_s + SPARE_S
POLICY: Final = CanaryPolicy(missing_s=RULE.missing_s, warm_up_s=0.0)


def windows(play: SharedLedgers) -> list[WindowTally]:
    return [tally for block in play.blocks if (tally := find_windows(block))]


def pair(play: SharedLedgers, name: str = "", router: int = 0) -> None:
    """Two callers, one of each arm, fill a block."""
    play.ask(f"{name}c", canary=True, router=router)
    play.ask(f"{name}i", router=router)


@pytest.mark.spine
@pytest.mark.req("H7")
def test_a_failure_at_a_later_turn_fails_the_callers_window_and_not_the_first_request() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    play.wait(10.0)
    assert play.ask("c", canary=True, failed=True)
    play.ask("c", canary=True, failed=True)  # a caller fails once
    play.wait(KNOWN_S)

    first, late = play.blocks
    assert (first.units, first.failures, first.windows_known_s) == (2, 0, 120.0)
    assert (late.units, late.late_of, late.counted) == (0, first.sequence, (2, 1))
    tally = find_windows(late)
    assert tally == WindowTally(2, 1, 1, 1, requests=ArmSplit(4, 3), squares=ArmSplit(10, 9))
    assert late.never_seen is not None
    assert late.never_seen.units == 2


def test_no_window_is_known_before_its_time_though_all_failed() -> None:
    play = SharedLedgers(RULE)
    play.ask("c", canary=True, failed=True)
    play.ask("i", failed=True)
    play.wait(KNOWN_S - 1.0)
    assert windows(play) == []
    play.wait(1.0)
    assert [tally.failures for tally in windows(play)] == [2]


def test_a_window_ends_by_time_and_by_the_number_of_requests() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    counted = [play.ask("c", canary=True) for _ in range(RULE.window_requests)]
    assert counted == [True] * 3 + [False]
    play.wait(RULE.window_s)
    assert not play.ask("i", failed=True)
    play.wait(KNOWN_S)
    (tally,) = windows(play)
    assert (tally.failures, tally.requests) == (0, (5, 4))


@pytest.mark.parametrize("routers", [1, 2, 4])
def test_a_failure_at_any_router_fails_the_callers_window(routers: int) -> None:
    """Each turn of a caller goes to the next router, and the third one fails in the canary."""
    play = SharedLedgers(replace(RULE, block_size=20), routers)
    for turn in range(3):
        for caller in range(20):
            canary = caller % 2 == 0
            play.ask(
                f"caller {caller}",
                canary=canary,
                failed=canary and turn == 2,
                router=(caller + turn) % routers,
            )
        play.wait(10.0)
    play.wait(61.0)
    play.wait(KNOWN_S)

    found = windows(play)
    assert sum(tally.units for tally in found) == 20
    assert sum(tally.canary_failures for tally in found) == 10
    assert sum(tally.failures for tally in found) == 10
    assert sum(block.units for block in play.blocks) == 20


def test_a_change_of_the_share_ends_all_open_windows_of_both_arms() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    in_time = play.admit("i")
    play.wait(10.0)
    play.ask("new", weight_bps=6000)  # the first request at the new share
    assert not play.ask("c", canary=True, failed=True, weight_bps=6000)
    assert not play.ask("i", failed=True, weight_bps=6000)
    play.finish(in_time, failed=True)  # it arrived before
    play.wait(RULE.total_timeout_s + SPARE_S)

    (tally,) = windows(play)
    assert (tally.units, tally.failures, tally.canary_failures) == (2, 1, 0)


def test_other_routers_failures_after_the_end_of_the_windows_do_not_count() -> None:
    play = SharedLedgers(RULE, routers=2)
    pair(play)
    play.wait(10.0)
    play.ask("new", weight_bps=6000)
    play.now += 1.0
    play.ask("c", canary=True, failed=True, router=1)  # it does not know the new share yet
    play.wait(80.0)
    play.wait(KNOWN_S)
    assert windows(play)[0].failures == 0


def test_a_failure_of_the_other_arm_does_not_fail_the_callers_window() -> None:
    play = SharedLedgers(RULE, routers=2)
    pair(play)
    play.now += 1.0
    # The other router knows a new share already, which moves the caller to the candidate.
    play.ask("i", canary=True, failed=True, router=1, weight_bps=6000)
    play.wait(KNOWN_S)
    play.wait(KNOWN_S)

    assert [tally.failures for tally in windows(play)] == [0]


def test_a_caller_who_comes_at_an_older_share_has_no_later_turns() -> None:
    play = SharedLedgers(RULE)
    play.ask("new", weight_bps=6000)
    pair(play)  # a worker that does not know the new share yet
    assert not play.ask("c", canary=True, failed=True)
    assert not play.ask("i", failed=True)


def test_a_router_that_stops_in_good_order_ends_its_windows_and_loses_none() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    play.ask("c", canary=True, failed=True)
    play.wait(5.0)
    play.stop(0)
    (tally,) = windows(play)
    assert (tally.units, tally.canary_failures, tally.missing) == (2, 1, (0, 0))
    assert play.blocks[-1].late_of == play.blocks[0].sequence


def test_windows_of_a_killed_router_are_missing_and_never_left_out() -> None:
    play = SharedLedgers(RULE)
    for number in range(20):
        pair(play, f"{number}")
    play.wait(5.0)
    play.kill(0)
    play.wait(RULE.window_known_s)
    pair(play, "later")
    play.wait(RULE.missing_s + REPORT_S)
    pair(play, "last")
    play.wait(KNOWN_S)

    evidence = collect_evidence(play.blocks, POLICY)
    assert evidence.lost_windows == 40
    assert evidence.block is None
    assert evidence.rests_on_missing  # all against the canary, they would roll it back
    assert evidence.open_windows == {}


def test_windows_in_time_are_not_lost_though_outcomes_are_missing_soon() -> None:
    rule = replace(RULE, missing_s=1.0)
    play = SharedLedgers(rule)
    pair(play)
    play.now += rule.window_known_s + rule.missing_s + 0.5
    pair(play, "later")  # its block leaves before the windows of the first one
    play.tick()
    play.wait(SPARE_S)

    found = collect_evidence(play.blocks, replace(POLICY, missing_s=rule.missing_s))
    assert [block.late_of for block in play.blocks] == [0, 0, 1]
    assert found.lost_windows == 0


def test_a_later_request_without_an_outcome_leaves_its_window_missing() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    play.admit("c", canary=True)  # its worker was killed
    play.wait(KNOWN_S)
    (tally,) = windows(play)
    assert (tally.canary_failures, tally.missing) == (1, (1, 1))


def test_windows_that_the_store_cannot_join_are_missing_once_they_are_overdue() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    play.ask("c", canary=True, failed=True)
    play.wait(1.0)
    play.away = True
    play.wait(KNOWN_S + 1.0)
    assert windows(play) == []
    play.wait(RULE.missing_s)
    (tally,) = windows(play)
    assert (tally.failures, tally.missing) == (2, (1, 0))  # the canary's failure is known


def test_a_step_knows_which_of_its_callers_have_open_windows() -> None:
    play = SharedLedgers(RULE)
    pair(play)
    play.tick()
    assert collect_evidence(play.blocks, POLICY).open_windows == {5000: 1}
    play.wait(KNOWN_S)
    assert collect_evidence(play.blocks, POLICY).open_windows == {}


def test_harm_at_later_turns_alone_rolls_a_canary_back_without_any_one_client() -> None:
    def blocks(clients: int) -> list[ObservationBlock]:
        play = SharedLedgers(replace(RULE, block_size=20))
        for number in range(400):
            canary = number % 4 == 0
            client = f"key {number % clients}"
            play.ask(f"{number}", canary=canary, client=client)
            play.ask(f"{number}", canary=canary, failed=canary and client == "key 0")
        play.wait(KNOWN_S)
        return play.blocks

    all_harmed = collect_evidence(blocks(1), POLICY)
    assert all_harmed.tripped is Guardrail.CALLER_ERRORS
    of_one_key = collect_evidence(blocks(5), POLICY)
    assert of_one_key.block is None


def test_requests_per_caller_are_compared_and_a_difference_beyond_chance_is_named() -> None:
    play = SharedLedgers(replace(RULE, block_size=80))
    for number in range(80):
        canary = number % 2 == 0
        for _ in range(4 if canary and number % 8 else 1):
            play.ask(f"{number}", canary=canary)
    play.wait(KNOWN_S)
    found = compare_requests(play.blocks)
    assert found is not None
    assert (found.canary, found.control, found.canary_requests) == (40, 40, 130)
    assert "candidate 3.25, incumbent 1" in found.text
    assert "send more requests, beyond chance" in found.text


def test_a_window_counts_as_many_requests_as_the_slower_arm_can_answer() -> None:
    found = [count_window_requests(600.0, usual_s) for usual_s in (0.0, 1.0, 60.0, 400.0)]
    assert found == [WINDOW_REQUESTS, WINDOW_REQUESTS, 5, 1]
    assert count_window_requests(10.0, 1.0) == 5


async def test_a_router_rolls_back_a_candidate_that_fails_at_third_turns_alone(
    tmp_path: Path,
) -> None:
    """Its first and second turns are healthy: only the windows of its callers fail."""
    rule = replace(RULE, block_size=20, window_s=60.0)
    script: Script = {INCUMBENT: completion(), CANDIDATE: completion()}
    place = Place(tmp_path, script, weight_bps=5_000, rule=rule)
    for turn in range(3):
        place.script[CANDIDATE] = error(500) if turn == 2 else completion()
        for caller in range(60):
            body = {
                "model": "support",
                "messages": [{"role": "user", "content": "hi"}],
                "user": f"user-{caller}",
            }
            await place.call(CHAT, json.dumps(body).encode())
        place.recorder.flush()
        place.clock.advance(5.0)
    place.clock.advance(rule.window_known_s + SPARE_S)
    place.recorder.flush()

    blocks = sorted(place.kept.blocks.values(), key=lambda block: block.sequence)
    numbered = [replace(block, number=number) for number, block in enumerate(blocks, start=1)]
    found = collect_evidence(numbered, POLICY)
    assert found.canary_failures == 0
    assert found.tripped is Guardrail.CALLER_ERRORS
    assert "fails more of its callers" in found.guardrails[1].text
