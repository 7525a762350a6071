import time

from harness.routing.reliability.repair_memory import FIRST_WAIT_S, KEPT_S
from router.upstream.learned_repairs import LearnedField, LearnedRepairs
from router.upstream.learned_ways import ToolWays

PLACE = ("o", "gpt-5.6")
OTHER = ("o", "gpt-5.4")


def test_each_learned_fact_has_an_end() -> None:
    now = [0.0]
    ways = ToolWays(lambda: now[0])
    ways.note_refusal(PLACE)
    ways.note_absence(PLACE, "o/gpt-5.6")

    assert ways.refuses_chat(PLACE)
    assert not ways.has_responses(PLACE)
    assert not ways.refuses_chat(OTHER)
    assert ways.has_responses(OTHER)

    now[0] = FIRST_WAIT_S
    assert ways.has_responses(PLACE)
    assert ways.without_responses() == []
    assert ways.refuses_chat(PLACE)

    now[0] = KEPT_S
    assert not ways.refuses_chat(PLACE)


def test_a_target_that_loses_its_effort_is_named_for_alerts() -> None:
    repairs = LearnedRepairs(time.monotonic)
    repairs.ways.note_absence(PLACE, "o/gpt-5.6")

    assert repairs.fields() == {"o/gpt-5.6": [LearnedField("reasoning_effort", ("tools",))]}
