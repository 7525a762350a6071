"""The forecast of labels uses the correlation between judge and people, once it is known."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gate.offline.label_evidence import plan_next_label
from harness.gate.offline.label_forecast import forecast_labels
from harness.gate.offline.label_plan import JUDGE_LEVELS, USUAL_CORRELATION, LabelDesign
from harness.gate.suite_plan import Claim
from harness.proposals.labels.expected_labels import (
    FEWEST_LABELS,
    ExpectedCorrelation,
    estimate_correlation,
    forecast_labelling,
)
from harness.proposals.labels.label_progress import LabellingState
from harness.proposals.labels.labelling import (
    LabelChoice,
    LabelDraw,
    LabelledItem,
    Labelling,
    PairLabel,
    build_drawn_pairs,
    draw_item,
)

pytestmark = pytest.mark.req("F2", "F13")

NOW = datetime(2026, 11, 2, tzinfo=UTC)
DESIGN = LabelDesign(Claim.NON_INFERIOR, 0.1)


def labelled(
    count: int, prefer: Callable[[float, int], float], judged: Callable[[int], float]
) -> LabellingState:
    """A labelling of 300 pairs with some labels.

    Args:
        prefer: the person's label, by the judge's preference and the number of the pair.
    """
    items = tuple(LabelledItem(f"i{n}", 1 / 300, judged(n), n) for n in range(300))
    labelling = Labelling(
        id="lb_1",
        proposal="p_1",
        suite="traffic",
        suite_digest="d",
        candidate="t_1",
        run="run_1",
        people=("pr_ada",),
        design=DESIGN,
        items=items,
        seed="a seed",
        author="pr_ada",
        created_at=NOW,
    )
    state = LabellingState(labelling, (), ())
    blocks = labelling.list_blocks()
    for number in range(1, count + 1):
        pairs = build_drawn_pairs(labelling, state.draws, state.labels)
        step = plan_next_label([block.pairs for block in blocks], pairs, DESIGN)
        item = draw_item(labelling, blocks[number - 1], number)
        at = NOW + timedelta(seconds=number)
        draw = LabelDraw("lb_1", number, item.item, ("pr_ada",), step.as_json(), at)
        label = prefer(item.judged or 0.0, number)
        given_ = PairLabel(
            f"l_{number}", "lb_1", number, "pr_ada", LabelChoice.A, label, 0.0, at
        )
        state = LabellingState(labelling, (*state.draws, draw), (*state.labels, given_))
    return state


def spread(number: int) -> float:
    return JUDGE_LEVELS[number % 3]


def estimated(state: LabellingState, step: int = 1) -> ExpectedCorrelation:
    found = estimate_correlation(state, step)
    assert found is not None
    return found


def test_too_few_labels_show_no_correlation() -> None:
    state = labelled(FEWEST_LABELS - 1, lambda judged, _: judged, spread)

    assert estimate_correlation(state) is None


def test_a_judge_that_always_agrees_moves_the_usual_correlation_by_the_labels_share() -> None:
    found = estimated(labelled(60, lambda judged, _: judged, spread))

    assert found.labels == 60
    assert found.value == pytest.approx((60 * 1.0 + 40 * USUAL_CORRELATION) / 100)
    assert found.text == (
        "at the correlation of 0.84 between judge and people, from 60 labels of this labelling"
    )


def test_a_judge_of_random_preferences_falls_below_the_usual_correlation() -> None:
    random = Random(81)
    found = estimated(labelled(120, lambda _judged, _n: random.choice(JUDGE_LEVELS), spread))

    assert found.value < 0.35


def test_labels_that_are_all_the_same_look_like_a_judge_without_agreement() -> None:
    """Otherwise the sentence would tell a labeller that one model always wins."""
    found = estimated(labelled(30, lambda _judged, _n: 1.0, spread))

    assert found.value == pytest.approx(40 * USUAL_CORRELATION / 70)


def test_the_forecast_changes_only_with_every_thirtieth_label() -> None:
    at_sixty = labelled(60, lambda judged, _: judged, spread)
    later = labelled(75, lambda judged, n: judged if n <= 60 else 1.0 - judged, spread)

    assert estimated(later, FEWEST_LABELS) == estimated(at_sixty, FEWEST_LABELS)


@settings(max_examples=8)
@given(seed=st.integers(0, 1_000))
def test_the_correlation_is_the_same_if_both_models_change_places(seed: int) -> None:
    random = Random(seed)
    chosen = {n: random.choice([*JUDGE_LEVELS, None]) for n in range(1, 41)}

    def prefer(judged: float, number: int) -> float:
        own = chosen[number]
        return judged if own is None else own

    state = labelled(40, prefer, spread)
    swapped_items = tuple(
        LabelledItem(item.item, item.weight, 1.0 - (item.judged or 0.0), item.unit)
        for item in state.labelling.items
    )
    swapped = LabellingState(
        replace(state.labelling, items=swapped_items),
        [
            LabelDraw(
                draw.labelling,
                draw.number,
                draw.item,
                draw.people,
                {name: list(reversed(values)) for name, values in draw.step.items()},
                draw.at,
            )
            for draw in state.draws
        ],
        [
            PairLabel(
                label.id,
                label.labelling,
                label.number,
                label.person,
                label.choice,
                1.0 - (label.preference or 0.0),
                0.0,
                label.at,
            )
            for label in state.labels
        ],
    )

    assert estimated(swapped).value == pytest.approx(estimated(state).value)


def test_a_better_judge_needs_fewer_labels_than_the_design_expects() -> None:
    usual = forecast_labels(3_000, 0, DESIGN)
    better = forecast_labels(3_000, 0, DESIGN, correlation=0.8)

    assert usual == forecast_labels(3_000, 0, DESIGN, correlation=USUAL_CORRELATION)
    assert better.median is not None
    assert usual.median is not None
    assert better.median < usual.median


def drawn(callers: int, pairs_each: int, people: tuple[str, ...] = ("pr_ada",)) -> Labelling:
    """A labelling that has just begun: each caller has some pairs, of equal weight."""
    items = tuple(
        LabelledItem(f"{caller}-{pair}", 1 / (callers * pairs_each), spread(caller), caller)
        for caller in range(callers)
        for pair in range(pairs_each)
    )
    begun = labelled(0, lambda judged, _: judged, spread).labelling
    return replace(begun, items=items, people=people)


def test_more_pairs_of_the_same_callers_promise_no_earlier_verdict() -> None:
    """Each block of callers needs one label, however many pairs its callers have."""
    assert forecast_labelling(drawn(100, 5), 0.6) == forecast_labelling(drawn(100, 1), 0.6)
    assert forecast_labelling(drawn(100, 5), 0.6) == (
        "about 100 labels in the median, never more than 100 labels, 20 s each; a good model "
        "passes in 75 % of labellings"
    )


def test_a_forecast_names_the_label_after_which_a_labelling_ends() -> None:
    """Some pairs go to two people, so two people give more labels than one."""
    alone = forecast_labelling(drawn(500, 1), 0.6)
    together = drawn(500, 1, ("pr_ada", "pr_ben"))

    assert "never more than 307 labels" in alone
    assert together.count_most_labels() == pytest.approx(307 * 1.1, abs=15)
    assert f"never more than {together.count_most_labels()} labels" in forecast_labelling(
        together, 0.6
    )
