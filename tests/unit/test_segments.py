"""In which part of the traffic a canary's errors are: what is counted, weighed and said."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.domain.canary.guardrails import (
    Guardrail,
    Guardrails,
    SegmentCount,
    SegmentedErrors,
    tallies_from_json,
)
from harness.domain.canary.key_ledger import KeyHistory
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.canary.rollout import build_unit_rule
from harness.domain.canary.segments import KINDS, SEGMENTS, Segment
from harness.domain.canary.unit_rule import DEFAULT_UNIT_RULE, ExposureUnit, UnitRule
from harness.domain.errors import InputError
from harness.domain.proposals.policy import CanaryPolicy, EvidenceRule, new_canary_policy
from harness.domain.routing.capabilities import Endpoint
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.online.segment_evidence import SLOTS, mix_segments
from harness.gate.online.segment_harm import find_segment
from harness.store.observation_rules import check_block
from router.observers.request_segments import detect_segments, guess_language
from router.recording.guardrail_sample import SEGMENTS_FROM
from router.recording.ledger import Ledger
from router.request.body import read_request
from tests.support.canary.segmented_traffic import SegmentTruth, simulate_segments
from tests.support.router.asgi_router import ASK, CHAT, Door
from tests.support.router.counted_router import CallCounter
from tests.support.router.live_router import snapshot

pytestmark = pytest.mark.req("F3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = replace(new_canary_policy(), guardrails=Guardrails.none())


def detected(
    body: dict[str, object], endpoint: Endpoint = Endpoint.CHAT, key: str = "key-0"
) -> set[Segment]:
    request = read_request(json.dumps({"model": "m", **body}).encode(), endpoint)
    bits = detect_segments(request, key)
    return {segment for n, segment in enumerate(SEGMENTS) if bits >> n & 1}


def chat(text: object) -> dict[str, object]:
    return {
        "messages": [{"role": "system", "content": "Sei"}, {"role": "user", "content": text}]
    }


def test_a_request_is_in_one_segment_of_each_kind() -> None:
    assert detected(chat("What is the capital of France?") | {"stream": True}) == {
        Segment.STREAM,
        Segment.NO_TOOLS,
        Segment.SHORT,
        Segment.KEY_0,
        Segment.ENGLISH,
    }
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert detected(chat("Was ist das? " * 200) | tools, key="key-f") == {
        Segment.WHOLE,
        Segment.TOOLS,
        Segment.MEDIUM,
        Segment.KEY_6,
        Segment.GERMAN,
    }
    assert Segment.LONG in detected(chat("x" * 20_001))


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        ({"input": [1, 2, 3]}, Endpoint.EMBEDDINGS),
        ({"input": []}, Endpoint.EMBEDDINGS),
        ({"messages": "none"}, Endpoint.CHAT),
        ({"messages": [None, 7]}, Endpoint.CHAT),
        ({"messages": [{"role": "user", "content": [{"text": 5}, None]}]}, Endpoint.CHAT),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, Endpoint.MESSAGES),
    ],
)
def test_whatever_a_client_sends_it_is_in_one_segment_of_each_kind(
    body: dict[str, object], endpoint: Endpoint
) -> None:
    found = detected(body, endpoint, key="")
    assert len(found) == KINDS
    assert Segment.OTHER_LANGUAGE in found


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Qual é a capital da França e por que?", Segment.PORTUGUESE),
        ("¿Cuál es la capital de Francia y por qué?", Segment.SPANISH),
        ("Quelle est la capitale de la France et pourquoi ?", Segment.FRENCH),
        ("Qual è la capitale della Francia e perché non è Lione?", Segment.ITALIAN),
        ("Столица Франции", Segment.CYRILLIC),
        ("法国的首都是哪里", Segment.CHINESE),
        ("フランスの首都はどこですか", Segment.JAPANESE),
        ("프랑스의 수도는 어디입니까", Segment.KOREAN),
        ("ما هي عاصمة فرنسا", Segment.ARABIC),
        ("hi", Segment.OTHER_LANGUAGE),
        ("", Segment.OTHER_LANGUAGE),
    ],
)
def test_the_language_is_guessed_by_script_and_by_common_words(
    text: str, language: Segment
) -> None:
    assert guess_language(text) is language


def test_parts_of_a_message_and_what_the_user_said_last_are_read() -> None:
    said = [
        {"role": "user", "content": "What is the time?"},
        {"role": "assistant", "content": "It is the time of the day"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Und was ist das für eine Zeit?"}],
        },
        {"role": "tool", "content": "{}"},
    ]
    assert Segment.GERMAN in detected({"messages": said})


def test_it_costs_a_request_of_a_canary_a_dozen_calls_at_the_most() -> None:
    """Whatever its length; a request without a canary pays nothing."""
    said = [{"role": "user", "content": "What is the time? " * 5_000}] * 500
    request = read_request(json.dumps({"model": "m", "messages": said}).encode(), Endpoint.CHAT)

    with CallCounter() as counter:
        detect_segments(request, "key-0")

    assert counter.calls <= 12


def rule(*, segments: bool) -> UnitRule:
    return replace(DEFAULT_UNIT_RULE, block_size=4, segments=segments)


def closed_block(unit_rule: UnitRule, *traits: int) -> ObservationBlock:
    """Four callers, one in the canary, which alone fails."""
    ledger = Ledger("r", "w", unit_rule)
    for number, trait in enumerate(traits):
        unit = ledger.admit(
            f"u{number}", canary=not number, weight_bps=2500, now=0.0, at=NOW, traits=trait
        )
        assert unit is not None
        ledger.finish(unit, failed=not number, first=True)
    (block,) = ledger.close(1.0, NOW)
    return block


def bits(*segments: Segment) -> int:
    return sum(1 << SEGMENTS.index(segment) for segment in segments) << SEGMENTS_FROM


def test_a_block_counts_both_arms_in_each_segment_and_survives_being_stored() -> None:
    with_tools, without = bits(Segment.TOOLS, Segment.SHORT), bits(Segment.NO_TOOLS)
    block = closed_block(rule(segments=True), with_tools, with_tools, without, without)

    errors = block.counts[Guardrail.ERRORS]

    assert isinstance(errors, SegmentedErrors)
    assert errors.segments == {
        Segment.TOOLS: SegmentCount(2, 1, 1, 1),
        Segment.NO_TOOLS: SegmentCount(2, 0, 0, 0),
        Segment.SHORT: SegmentCount(2, 1, 1, 1),
    }
    check_block(block)
    stored = json.loads(json.dumps({name: asdict(t) for name, t in block.counts.items()}))
    assert tallies_from_json(stored) == dict(block.counts)


def test_never_seen_callers_are_counted_by_segment_apart() -> None:
    ledger = Ledger("r", "w", replace(rule(segments=True), ledger_salt="salt"))
    traits = [bits(Segment.TOOLS), bits(Segment.TOOLS), bits(Segment.NO_TOOLS)]
    for key, trait in zip("abc", traits, strict=True):
        unit = ledger.admit(
            key, canary=key == "a", weight_bps=2500, now=0.0, at=NOW, traits=trait
        )
        assert unit is not None
        ledger.finish(unit, failed=key == "a", first=True)
    (claim,) = ledger.claims(0.0, NOW, final=True)
    ledger.enter_histories(
        claim.block, [KeyHistory.NEVER_SEEN, KeyHistory.RETURNED, KeyHistory.NEVER_SEEN]
    )
    (block,) = ledger.close(1.0, NOW)

    new = block.of_new_keys
    assert new is not None
    assert new.is_never_seen
    assert not block.is_never_seen
    check_block(block)
    told = [part.counts[Guardrail.ERRORS] for part in (block, new)]
    assert [errors.segments[Segment.TOOLS] for errors in told] == [  # type: ignore[attr-defined]
        SegmentCount(2, 1, 1, 1),
        SegmentCount(1, 1, 1, 1),
    ]


async def test_a_routers_blocks_tell_the_segments_of_what_it_served(tmp_path: Path) -> None:
    first = snapshot("http://up", weight_bps=10_000, rule=rule(segments=True))
    door = Door(tmp_path, first=first)

    await door.call(CHAT, ASK)
    door.recorder.flush(final=True)

    (block,) = door.kept.blocks.values()
    errors = block.counts[Guardrail.ERRORS]
    assert isinstance(errors, SegmentedErrors)
    assert len(errors.segments) == KINDS
    assert {Segment.WHOLE, Segment.NO_TOOLS, Segment.SHORT} < set(errors.segments)
    assert set(errors.segments.values()) == {SegmentCount(1, 1, 0, 0)}


@pytest.mark.parametrize("count", [(5, 1, 1, 1), (2, 2, 1, 1), (2, 1, 2, 1), (2, 1, 1, 2)])
def test_a_segment_with_more_than_its_block_is_refused(
    count: tuple[int, int, int, int],
) -> None:
    block = closed_block(rule(segments=True), *(bits(Segment.TOOLS),) * 4)
    told = SegmentedErrors(4, 1, 1, 1, segments={"tools": SegmentCount(*count)})

    with pytest.raises(InputError, match="contradict"):
        check_block(replace(block, counts={Guardrail.ERRORS: told}))


def test_a_policy_without_a_share_judges_no_segments() -> None:
    old = CanaryPolicy()
    blocks = simulate_segments(
        SegmentTruth(Segment.TOOLS, canary=0.5), blocks=40, rng=np.random.default_rng(1)
    )
    general = np.zeros(len(blocks))

    assert mix_segments(general, blocks, old) is general
    assert not build_unit_rule(old, NOW).segments
    assert build_unit_rule(NEW, NOW).segments


def one_caller_blocks(
    number: int, failing: Callable[[int, bool], bool]
) -> list[ObservationBlock]:
    """Callers who came back on the second day, one in a block; every fourth has the canary,
    every other one offers tools. failing: by the caller's number, and whether he has it.
    """
    found = []
    for n in range(number):
        canary = n % 8 in (0, 3)
        failed = int(failing(n, canary))
        count = SegmentCount(1, int(canary), failed, int(canary) * failed)
        segment = Segment.NO_TOOLS if n % 2 else Segment.TOOLS
        found.append(
            ObservationBlock(
                rollout="r", worker="w", sequence=n, weight_bps=2500, units=1,
                canary_units=int(canary), failures=failed,
                canary_failures=count.canary_failures, missing=0, opened_at=NOW, closed_at=NOW,
                number=n + 1, period=2, never_seen=NeverSeen(0, 0, 0, 0),
                counts={Guardrail.ERRORS: SegmentedErrors(*count, segments={segment: count})},
            )
        )  # fmt: skip
    return found


def test_on_a_quiet_route_a_harm_in_one_segment_of_returning_callers_is_seen() -> None:
    """With tools the canary fails always, without them nobody does."""
    blocks = one_caller_blocks(400, lambda n, canary: canary and not n % 2)
    nothing = np.zeros(len(blocks))

    before = mix_segments(nothing, blocks, replace(NEW, evidence=EvidenceRule.WEIGHTED))
    assert before.max() <= 1e-9
    assert mix_segments(nothing, blocks, NEW)[-1] > 10.0


def test_callers_who_come_back_into_a_segment_for_their_arm_do_not_blame_it() -> None:
    """Half of those with tools are the canary's, at a share of 25 %, and all fail alike."""
    blocks = one_caller_blocks(1_000, lambda n, _: n // 8 % 3 == 0)
    blocks = [block for n, block in enumerate(blocks) if n % 8 in (0, 2)]

    assert mix_segments(np.zeros(len(blocks)), blocks, NEW).max() < 1.0


def test_segments_leave_room_for_later_ones_and_only_known_ones_count() -> None:
    assert len(SEGMENTS) <= SLOTS
    told = SegmentedErrors(100, 1, 1, 1, segments={"invented": SegmentCount(1, 1, 1, 1)})
    block = simulate_segments(SegmentTruth(), blocks=1, rng=np.random.default_rng(1))[0]
    odd = replace(block, counts={Guardrail.ERRORS: told})

    assert mix_segments(np.zeros(1), [odd], NEW) == pytest.approx(0.0)
    assert find_segment([odd]) is None


def test_nothing_seen_in_any_segment_is_worth_1() -> None:
    assert mix_segments(np.zeros(0), [], NEW).shape == (0,)
    block = closed_block(rule(segments=False), 0, 0, 0, 0)
    assert mix_segments(np.zeros(1), [block], NEW) == pytest.approx(0.0)


def test_a_returning_callers_segment_is_judged_by_the_units_that_are_in_it() -> None:
    """The canary made its callers use tools: more of them there is no harm by itself."""
    shifted = SegmentedErrors(100, 10, 4, 4, segments={"tools": SegmentCount(8, 8, 4, 4)})
    block = simulate_segments(
        SegmentTruth(), blocks=1, rng=np.random.default_rng(1), share=0.1
    )[0]
    first = replace(block, counts={Guardrail.ERRORS: shifted})
    later = replace(first, period=2)

    assert mix_segments(np.zeros(1), [first], NEW)[0] > 0.0
    assert mix_segments(np.zeros(1), [later], NEW)[0] == pytest.approx(0.0)


def test_requests_as_units_have_no_planned_share_in_a_segment() -> None:
    shifted = SegmentedErrors(100, 10, 4, 4, segments={"tools": SegmentCount(8, 8, 4, 4)})
    block = simulate_segments(
        SegmentTruth(), blocks=1, rng=np.random.default_rng(1), share=0.1
    )[0]
    requests = replace(NEW, unit=ExposureUnit.REQUEST)

    found = mix_segments(
        np.zeros(1), [replace(block, counts={Guardrail.ERRORS: shifted})], requests
    )

    assert found[0] == pytest.approx(0.0)


def block_of(inside: SegmentCount, whole: SegmentCount) -> ObservationBlock:
    told = SegmentedErrors(*whole, segments={"tools": inside, "stream": whole})
    block = simulate_segments(SegmentTruth(), blocks=1, rng=np.random.default_rng(1))[0]
    return replace(block, counts={Guardrail.ERRORS: told})


def test_the_segment_that_carries_the_harm_is_named_with_its_figures() -> None:
    found = find_segment(
        [block_of(SegmentCount(912, 12, 12, 9), SegmentCount(10_022, 122, 112, 10))]
    )

    assert found is not None
    assert found.segment is Segment.TOOLS
    assert found.alone
    assert found.text == (
        "The harm is in requests with tools: 9 of the canary's 12 units failed there, "
        "1 of 110 elsewhere (incumbent: 3 of 900 and 99 of 9,000). Segments compared: 1; "
        "chance alone names one in at most 1 of 10 rollbacks"
    )
    assert found.as_json()["words"] == found.text


def test_harm_elsewhere_as_well_is_said() -> None:
    found = find_segment(
        [block_of(SegmentCount(912, 12, 15, 12), SegmentCount(10_022, 122, 130, 25))]
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
        SegmentTruth(Segment.TOOLS, canary=0.9), blocks=300, rng=np.random.default_rng(4)
    )

    errors = collect_evidence(harmed, NEW).guardrails[0]

    assert errors.segment is not None
    assert errors.segment.segment is Segment.TOOLS
    assert errors.as_json()["segment"] == errors.segment.as_json()
    healthy = simulate_segments(SegmentTruth(), blocks=50, rng=np.random.default_rng(4))
    assert "segment" not in collect_evidence(healthy, NEW).guardrails[0].as_json()


def raw_block(number: int, failed: int = 11, **changes: Any) -> ObservationBlock:
    """A block as someone may write it around the product."""
    errors = SegmentedErrors(100, 25, failed + 1, failed, segments={})
    told = replace(errors, segments=changes.pop("segments", {}))
    return ObservationBlock(
        "r", "w", number, 2_500, 100, 25, failed + 1, failed, 0, NOW, NOW, number,
        counts={Guardrail.ERRORS: told}, **changes,
    )  # fmt: skip


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


@pytest.mark.parametrize("rank", [float("nan"), 5.0, -3.0, float("-inf")])
def test_a_stored_rank_that_is_none_hides_no_harm(rank: float) -> None:
    policy = new_canary_policy()
    calm = [raw_block(number, failed=0) for number in range(1, 40)]
    odd = raw_block(40, failed=0, ranks={Guardrail.LATENCY: (rank,)})
    harmed = [raw_block(number) for number in range(41, 80)]

    found = collect_evidence([*calm, odd, *harmed], policy)
    assert found.tripped is Guardrail.ERRORS
    assert np.isfinite(found.path).all()
