import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.frame.errors import InputError
from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.guardrails import (
    DEFAULT_EXPOSURE_RULE,
    ErrorTally,
    ExposureRule,
    Guardrail,
    Guardrails,
    SegmentCount,
)
from harness.gate.online.observation import (
    SEGMENTS,
    ObservationBlock,
    Segment,
)
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.online.segment_harm import describe_sources, find_segment
from harness.gate.policy import CanaryPolicy
from harness.providers.models.capabilities import Endpoint
from harness.routing.records.block_checks import check_block
from router.frame.body import read_request
from router.observers.guardrail_sampling import detect_segments
from router.recording.ledger import Ledger
from tests.support.canary.outcomes import outcome_of
from tests.support.canary.segmented_traffic import (
    SegmentTruth,
    simulate_segments,
)
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.counted_router import CallCounter
from tests.support.router.live_router import snapshot

pytestmark = pytest.mark.req("F3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = replace(CanaryPolicy(), guardrails=Guardrails.none())


def detected(
    body: dict[str, object],
    endpoint: Endpoint = Endpoint.CHAT,
    key: str = "user:u",
) -> set[Segment]:
    request = read_request(json.dumps({"model": "m", **body}).encode(), endpoint)
    bits = detect_segments(request, key)
    return {segment for n, segment in enumerate(SEGMENTS) if bits >> n & 1}


def test_a_request_is_in_one_segment_of_each_kind() -> None:
    said = {"messages": [{"role": "user", "content": "hi"}]}
    assert detected({**said, "stream": True}) == {
        Segment.STREAM,
        Segment.NO_TOOLS,
        Segment.CHAT,
        Segment.FIELD,
    }
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert detected({**said, **tools}, Endpoint.MESSAGES, "header:h") == {
        Segment.WHOLE,
        Segment.TOOLS,
        Segment.MESSAGES,
        Segment.HEADER,
    }
    assert detected({"input": []}, Endpoint.EMBEDDINGS, "req_1") == {
        Segment.WHOLE,
        Segment.NO_TOOLS,
        Segment.EMBEDDINGS,
        Segment.REQUEST,
    }


def test_it_costs_a_request_of_a_canary_a_dozen_calls_at_the_most() -> None:
    """Whatever its length; a request without a canary pays nothing."""
    said = [{"role": "user", "content": "What is the time? " * 5_000}] * 500
    request = read_request(json.dumps({"model": "m", "messages": said}).encode(), Endpoint.CHAT)

    with CallCounter() as counter:
        detect_segments(request, "user:u")

    assert counter.calls <= 12


RULE = replace(DEFAULT_EXPOSURE_RULE, block_size=4)


def closed_block(unit_rule: ExposureRule, *traits: int) -> ObservationBlock:
    """Four callers, one in the canary, which alone fails."""
    ledger = Ledger("r", "w", unit_rule)
    for number, trait in enumerate(traits):
        unit = ledger.admit(
            f"u{number}",
            canary=not number,
            weight_bps=2500,
            now=0.0,
            at=NOW,
            traits=trait,
        )
        assert unit is not None
        ledger.finish(unit, outcome=outcome_of(failed=not number))
    (block,) = ledger.close(1.0, NOW)
    return block


def bits(*segments: Segment) -> int:
    return sum(1 << SEGMENTS.index(segment) for segment in segments) << SEGMENTS_FROM


async def test_a_routers_blocks_tell_the_segments_of_what_it_served(tmp_path: Path) -> None:
    first = snapshot("http://up", weight_bps=10_000, rule=RULE)
    door = Door(tmp_path, first=first)

    await door.call(CHAT, ASK)
    door.recorder.flush(final=True)

    (block,) = door.kept.blocks.values()
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, ErrorTally)
    kinds = {Segment.WHOLE, Segment.NO_TOOLS, Segment.CHAT, Segment.OPENING}
    assert kinds == set(errors.segments)
    assert describe_sources([block]) == "1 by the conversation's opening"
    assert set(errors.segments.values()) == {SegmentCount(1, 1, 0, 0)}


@pytest.mark.parametrize(
    "count",
    [
        (5, 1, 1, 1),
        (2, 2, 1, 1),
        (2, 1, 2, 1),
        (2, 1, 1, 2),
    ],
)
def test_a_segment_with_more_than_its_block_is_refused(
    count: tuple[int, int, int, int],
) -> None:
    block = closed_block(RULE, *(bits(Segment.TOOLS),) * 4)
    told = ErrorTally(4, 1, 1, 1, segments={"tools": SegmentCount(*count)})

    with pytest.raises(InputError, match="contradict"):
        check_block(replace(block, counts={Guardrail.ERRORS: told}))


def block_of(inside: SegmentCount, whole: SegmentCount) -> ObservationBlock:
    told = ErrorTally(*whole, segments={"tools": inside, "stream": whole})
    block = simulate_segments(SegmentTruth(), blocks=1, rng=np.random.default_rng(1))[0]
    return replace(block, counts={Guardrail.ERRORS: told})


def test_the_segment_that_carries_the_harm_is_named_with_its_figures() -> None:
    found = find_segment(
        [
            block_of(
                SegmentCount(912, 12, 12, 9),
                SegmentCount(10_022, 122, 112, 10),
            )
        ]
    )

    assert found is not None
    assert found.segment is Segment.TOOLS
    assert found.alone
    assert found.text == (
        "The harm is in requests with tools: 9 of the canary's 12 callers failed there, "
        "1 of 110 elsewhere (incumbent: 3 of 900 and 99 of 9,000). Segments compared: 1; "
        "in at most 1 of 10 rollbacks, chance alone names a segment"
    )
    assert found.as_json()["words"] == found.text


def test_a_block_that_noted_no_segments_is_in_no_comparison() -> None:
    told = block_of(SegmentCount(912, 12, 12, 9), SegmentCount(10_022, 122, 112, 10))
    untold = replace(told, counts={Guardrail.ERRORS: ErrorTally(400, 100, 90, 90)})

    assert find_segment([told, untold]) == find_segment([told])


def test_harm_elsewhere_as_well_is_said() -> None:
    found = find_segment(
        [
            block_of(
                SegmentCount(912, 12, 15, 12),
                SegmentCount(10_022, 122, 130, 25),
            )
        ]
    )

    assert found is not None
    assert not found.alone
    assert found.text.startswith("The harm is greatest in requests with tools: ")


def test_harm_that_is_everywhere_names_no_segment() -> None:
    everywhere = block_of(SegmentCount(1000, 10, 13, 3), SegmentCount(10_000, 100, 130, 30))
    hard_for_both = block_of(
        SegmentCount(1000, 10, 505, 10), SegmentCount(10_000, 100, 600, 15)
    )

    assert find_segment([everywhere]) is None
    assert find_segment([hard_for_both]) is None
    assert find_segment([]) is None


def test_a_rollback_by_errors_says_where_they_are() -> None:
    harmed = simulate_segments(
        SegmentTruth(Segment.TOOLS, canary=0.9),
        blocks=2_000,
        rng=np.random.default_rng(4),
    )

    errors = collect_evidence(harmed, NEW).guardrails[0]

    assert errors.segment is not None
    assert errors.segment.segment is Segment.TOOLS
    assert errors.as_json()["segment"] == errors.segment.as_json()
    healthy = simulate_segments(SegmentTruth(), blocks=50, rng=np.random.default_rng(4))
    assert "segment" not in collect_evidence(healthy, NEW).guardrails[0].as_json()


def raw_block(
    number: int,
    failed: int = 11,
    **changes: Any,
) -> ObservationBlock:
    errors = ErrorTally(100, 25, failed + 1, failed, segments={})
    told = replace(errors, segments=changes.pop("segments", {}))
    return ObservationBlock(
        "r",
        "w",
        number,
        2_500,
        100,
        25,
        failed + 1,
        failed,
        0,
        NOW,
        NOW,
        number,
        counts={Guardrail.ERRORS: told},
        **changes,
    )


@pytest.mark.parametrize(
    "count",
    [
        (10**30, 10**29, 0, 0),
        (float("nan"), 1, 1, 1),
        (10.5, 2.5, 0, 0),
        (2, 9, 0, 0),
        (-1, -2, 0, 0),
        ("3", 1, 1, 1),
    ],
)
@pytest.mark.parametrize("name", ["tools", "no segment"])
def test_a_segment_that_cannot_be_summed_up_keeps_no_harm_from_tripping(
    count: tuple[Any, ...], name: str
) -> None:
    odd = raw_block(1, failed=0, segments={name: SegmentCount(*count)})
    harmed = [raw_block(number) for number in range(2, 40)]

    assert find_segment([odd, *harmed]) is None
    if name != "tools" or count[0] == 10**30:
        assert collect_evidence([odd, *harmed], NEW).tripped is Guardrail.ERRORS


@pytest.mark.parametrize(
    "rank",
    [
        float("nan"),
        5.0,
        -3.0,
        float("-inf"),
    ],
)
def test_a_stored_rank_that_is_none_hides_no_harm(rank: float) -> None:
    policy = CanaryPolicy()
    calm = [raw_block(number, failed=0) for number in range(1, 40)]
    odd = raw_block(40, failed=0, ranks={Guardrail.LATENCY: (rank,)})
    harmed = [raw_block(number) for number in range(41, 80)]

    found = collect_evidence([*calm, odd, *harmed], policy)
    assert found.tripped is Guardrail.ERRORS
    assert np.isfinite(found.log_e)
