"""Laws of the evidence from people's labels. The tests enumerate every possible draw of callers
from tiny traffics, and every drawn pair, so these laws are exact.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.gate.offline.label_evidence import (
    DrawnPair,
    LabelEvidence,
    PairBlock,
    PairWeights,
    judge_labels,
    plan_next_label,
)
from harness.gate.offline.label_forecast import forecast_labels
from harness.gate.offline.label_plan import (
    JUDGE_LEVELS,
    LabelDesign,
    LabelStep,
    judge_level,
    size_blocks,
)
from harness.gate.suite_plan import Claim

pytestmark = pytest.mark.req("F2", "F13")

SIZES = (2, 1, 1)  # callers of each block


@dataclass(frozen=True)
class Caller:
    """A kind of callers of a traffic. share: of the traffic. judged: index in JUDGE_LEVELS;
    None if both answers are mechanically equal.
    """

    share: float
    judged: int | None
    label: float
    unacceptable: float = 0.0
    is_skipped: bool = False

    @property
    def preference(self) -> float:
        return 0.5 if self.judged is None else self.label


@dataclass(frozen=True)
class Path:
    """A draw of callers with their labels, and its probability."""

    chance: float
    blocks: tuple[PairBlock, ...]
    drawn: tuple[DrawnPair, ...]


Traffic = tuple[Caller, ...]


def win_share(traffic: Traffic) -> float:
    return math.fsum(caller.share * caller.preference for caller in traffic)


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, 5),
                st.sampled_from([None, 0, 1, 2]),
                st.sampled_from([0.0, 0.25, 0.5, 1.0]),
                st.sampled_from([-1.0, 0.0, 1.0]),
                st.booleans(),
            ),
            min_size=2,
            max_size=3,
        )
    )
    total = sum(row[0] for row in rows)
    return tuple(Caller(row[0] / total, *row[1:]) for row in rows)


def build_block(callers: Sequence[Caller]) -> PairBlock:
    shares = [0.0] * 4
    for caller in callers:
        at = 0 if caller.judged is None else 1 + caller.judged
        shares[at] += 1.0 / len(callers)
    return PairBlock(len(callers), PairWeights(shares[0], (shares[1], shares[2], shares[3])))


def draw_pair(caller: Caller, step: LabelStep, *, skips: bool) -> DrawnPair:
    assert caller.judged is not None
    weight = 1.0 / sum(SIZES)
    if skips and caller.is_skipped:
        return DrawnPair(caller.judged, weight, step)
    label = caller.label
    return DrawnPair(caller.judged, weight, step, label, label, caller.unacceptable)


def paths(traffic: Traffic, design: LabelDesign, *, skips: bool) -> list[Path]:
    """Lists every draw of callers from the traffic, with every choice of a pair in a block."""
    found = []
    for callers in product(traffic, repeat=sum(SIZES)):
        chosen = [callers[:2], callers[2:3], callers[3:]]
        blocks = tuple(build_block(group) for group in chosen)
        chance = math.prod(caller.share for caller in callers)
        unfinished: list[Path] = [Path(chance, blocks, ())]
        for group in chosen:
            is_open = [caller for caller in group if caller.judged is not None]
            if not is_open:
                continue
            unfinished = [
                Path(
                    path.chance / len(is_open),
                    blocks,
                    (
                        *path.drawn,
                        draw_pair(
                            caller, plan_next_label(blocks, path.drawn, design), skips=skips
                        ),
                    ),
                )
                for path in unfinished
                for caller in is_open
            ]
        found += unfinished
    return found


def read_values(path: Path, bet: str, design: LabelDesign) -> list[tuple[LabelStep, float]]:
    """Recomputes the value of each block, without the product's code. The plan after a draw
    holds for all blocks up to the next draw.
    """
    left = list(path.drawn)
    found = []
    for block in path.blocks:
        ties = block.pairs.ties
        if ties == 1.0:
            drawn = path.drawn[: len(path.drawn) - len(left)]
            step = left[0].step if left else plan_next_label(path.blocks, drawn, design)
            found.append((step, 0.5))
            continue
        pair = left.pop(0)
        label = pair.low if bet == "passing" else pair.high
        predicted = pair.step.predicted
        expected = 0.5 * ties + float(np.asarray(block.pairs.open) @ predicted)
        found.append((pair.step, expected + (1.0 - ties) * (label - predicted[pair.judged])))
    return found


def last_capital(path: Path, bet: str, design: LabelDesign) -> float:
    """Recomputes the mean capital of the stakes after all blocks."""
    capital = np.ones(2)
    for step, value in read_values(path, bet, design):
        sign = 1.0 if bet == "passing" else -1.0
        factors = 1.0 + getattr(step, bet) * sign * (value - design.theta0)
        assert (factors > 0.05).all()
        capital = capital * factors
    return float(capital.mean())


claims = st.sampled_from([Claim.SUPERIOR, Claim.NON_INFERIOR])


@given(traffic=traffics(), skips=st.sampled_from([False, True]))
def test_under_the_null_of_the_traffic_no_bet_grows_in_expectation_whatever_the_judge_says(
    traffic: Traffic, *, skips: bool
) -> None:
    assume(0.0 < win_share(traffic) < 0.5)
    # Places the null hypothesis exactly at the truth: the hardest case.
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.5 - win_share(traffic))
    every = paths(traffic, design, skips=skips)

    assert math.fsum(path.chance for path in every) == pytest.approx(1.0)
    for bet in ("passing", "failing"):
        mean = math.fsum(path.chance * last_capital(path, bet, design) for path in every)
        assert mean <= 1.0 + 1e-9
        if not skips:
            assert mean == pytest.approx(1.0)


@given(traffic=traffics())
def test_the_value_of_every_block_is_unbiased(traffic: Traffic) -> None:
    design = LabelDesign(Claim.SUPERIOR, margin=0.1)
    means = np.zeros(len(SIZES))
    for path in paths(traffic, design, skips=False):
        values = [value for _, value in read_values(path, "passing", design)]
        means += path.chance * np.asarray(values)

    assert means == pytest.approx(win_share(traffic))


@given(traffic=traffics())
def test_unacceptable_answers_are_rarely_evidence_of_harm_if_the_incumbent_has_as_many(
    traffic: Traffic,
) -> None:
    harm = math.fsum(
        caller.share * caller.unacceptable for caller in traffic if caller.judged is not None
    )
    assume(harm <= 0.0)
    design = LabelDesign(Claim.SUPERIOR, margin=0.1)
    mean = math.fsum(
        path.chance
        for path in paths(traffic, design, skips=False)
        if judge_labels(path.blocks, path.drawn, design).harm.log_e_most > math.log(1.5)
    )

    assert mean <= 1 / 1.5  # Ville


@given(traffic=traffics(), claim=claims)
def test_a_late_label_changes_no_earlier_bet_and_only_raises_the_lower_bound(
    traffic: Traffic, claim: Claim
) -> None:
    design = LabelDesign(claim, margin=0.1)
    path = paths(traffic, design, skips=True)[0]
    before = judge_labels(path.blocks, path.drawn, design)
    late = [
        pair if pair.is_labelled else replace(pair, low=1.0, high=1.0, unacceptable=0.0)
        for pair in path.drawn
    ]
    after = judge_labels(path.blocks, late, design)

    assert after.log_e_passing >= before.log_e_passing - 1e-9
    assert after.log_e_failing <= before.log_e_failing + 1e-9


@given(traffic=traffics())
def test_a_stored_step_gives_the_same_evidence(traffic: Traffic) -> None:
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.1)
    path = paths(traffic, design, skips=True)[-1]
    stored = [
        replace(pair, step=LabelStep.from_json(json.loads(json.dumps(pair.step.as_json()))))
        for pair in path.drawn
    ]

    assert judge_labels(path.blocks, stored, design) == judge_labels(
        path.blocks, path.drawn, design
    )


@given(st.integers(1, 20_000), st.floats(0.01, 0.4), claims)
def test_blocks_shrink_to_single_callers_and_use_each_caller_once(
    callers: int, margin: float, claim: Claim
) -> None:
    design = LabelDesign(claim, margin)
    sizes = size_blocks(callers, design)

    assert sum(sizes) == callers
    assert list(sizes) == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert len(sizes) >= min(callers, design.reserve)


LIKED = [PairBlock(10, PairWeights(0.0, (0.1, 0.1, 0.8)))] * 500
MIXED = [PairBlock(6, PairWeights(0.0, (1 / 3, 1 / 3, 1 / 3)))] * 500


def judge_wins(
    judged: int, label: float, design: LabelDesign, pairs: int = 3_000
) -> tuple[str, int]:
    """Labels pairs of one kind until a verdict."""
    drawn: list[DrawnPair] = []
    while len(drawn) < 400:
        step = plan_next_label(MIXED, drawn, design)
        drawn.append(DrawnPair(judged, 1.0 / pairs, step, label, label, 0.0))
        found = judge_labels(MIXED, drawn, design)
        if found.outcome != "running":
            return found.outcome, found.labels
    return "running", len(drawn)


def test_people_who_prefer_the_candidate_throughout_pass_it_against_the_judge() -> None:
    design = LabelDesign(Claim.SUPERIOR, margin=0.05)

    outcome, labels = judge_wins(0, 1.0, design)

    assert outcome == "promote"
    assert labels < 40


def test_people_who_prefer_the_incumbent_throughout_fail_the_judge_s_favourite() -> None:
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.05)

    outcome, labels = judge_wins(2, 0.0, design)

    assert outcome == "reject"
    assert labels < 40


def test_skipped_pairs_count_against_the_candidate_and_pass_nothing() -> None:
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.05)
    drawn: list[DrawnPair] = []
    for _ in range(100):
        drawn.append(DrawnPair(2, 0.001, plan_next_label(MIXED, drawn, design)))

    found = judge_labels(MIXED, drawn, design)

    assert found.outcome == "running"
    assert (found.labels, found.drawn) == (0, 100)
    assert found.log_e_passing == 0.0
    assert found.log_e_failing == 0.0


def test_a_preferred_candidate_with_unacceptable_answers_shows_harm() -> None:
    design = LabelDesign(Claim.SUPERIOR, margin=0.05)
    drawn: list[DrawnPair] = []
    for at in range(40):
        step = plan_next_label(MIXED, drawn, design)
        drawn.append(DrawnPair(at % 3, 0.001, step, 1.0, 1.0, float(at % 3 == 0)))

    found = judge_labels(MIXED, drawn, design)

    assert found.outcome == "promote"
    assert found.harm.is_shown
    assert not found.passes


def label_wins(unacceptable: int, labels: int) -> LabelEvidence:
    """Labels pairs that the candidate wins; its first answers are unacceptable."""
    design = LabelDesign(Claim.SUPERIOR, margin=0.05)
    drawn: list[DrawnPair] = []
    for at in range(labels):
        step = plan_next_label(LIKED, drawn, design)
        drawn.append(DrawnPair(2, 0.001, step, 1.0, 1.0, float(at < unacceptable)))
    return judge_labels(LIKED, drawn, design)


def test_a_shown_claim_waits_while_unacceptable_answers_point_to_harm() -> None:
    few = label_wins(unacceptable=1, labels=40)
    many = label_wins(unacceptable=7, labels=40)
    most = label_wins(unacceptable=12, labels=40)

    assert few.outcome == many.outcome == "promote"
    assert few.passes
    assert not many.is_decided
    assert most.is_decided
    assert not most.passes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": 0.6}, "between 0 and .5"),
        ({"alpha": 1.0}, "alpha is between"),
        ({"correlation": -0.2}, "counts as 0"),
        ({"claim": Claim.CHEAPER}, "use superior or non_inferior"),
    ],
)
def test_a_wrong_design_is_refused(wrong: dict[str, object], message: str) -> None:
    right: dict[str, object] = {"claim": Claim.NON_INFERIOR, "margin": 0.05}

    with pytest.raises(InputError, match=message):
        LabelDesign(**{**right, **wrong})  # type: ignore[arg-type]


def test_a_better_judge_saves_labels() -> None:
    medians = [
        forecast_labels(
            3_000, 0, LabelDesign(Claim.NON_INFERIOR, 0.1, correlation=correlation)
        ).median
        for correlation in (0.0, 0.6, 0.8)
    ]

    assert None not in medians
    assert medians == sorted(medians, key=lambda count: -(count or 0))


def test_a_forecast_says_that_the_callers_are_too_few_for_the_margin() -> None:
    found = forecast_labels(200, 0, LabelDesign(Claim.NON_INFERIOR, 0.05))

    assert found.quantile_80 is None
    assert found.passed < 0.8


@pytest.mark.parametrize(
    ("preference", "level"), [(0.0, 0.0), (0.25, 0.0), (0.5, 0.5), (0.75, 1.0), (1.0, 1.0)]
)
def test_a_judge_prefers_one_model_or_neither(preference: float, level: float) -> None:
    assert JUDGE_LEVELS[judge_level(preference)] == level


def test_a_preference_that_is_no_share_is_refused() -> None:
    for wrong in (math.nan, -0.1, 1.1):
        with pytest.raises(InputError, match="from 0 to 1"):
            judge_level(wrong)


@pytest.mark.parametrize(
    ("claim", "callers", "outcome"),
    [
        (Claim.NON_INFERIOR, 60, "promote"),
        (Claim.NON_INFERIOR, 3, "inconclusive"),  # the traffic may have other callers
        (Claim.SUPERIOR, 60, "inconclusive"),
    ],
)
def test_equal_pairs_alone_need_no_label(claim: Claim, callers: int, outcome: str) -> None:
    blocks = [PairBlock(1, PairWeights(1.0, (0.0, 0.0, 0.0)))] * callers

    assert judge_labels(blocks, [], LabelDesign(claim, margin=0.1)).outcome == outcome


def label_each(blocks: int, losses: int) -> LabelEvidence:
    """Labels single callers: people prefer the incumbent in the first ones, neither later."""
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.1)
    single = [PairBlock(1, PairWeights(0.0, (0.0, 1.0, 0.0)))] * blocks
    drawn: list[DrawnPair] = []
    for at in range(blocks):
        label = 0.0 if at < losses else 0.5
        step = plan_next_label(single, drawn, design)
        drawn.append(DrawnPair(1, 1.0 / blocks, step, label, label, 0.0))
    return judge_labels(single, drawn, design)


def test_the_last_test_passes_few_callers_whom_no_e_value_passes() -> None:
    found = label_each(40, losses=2)

    assert found.outcome == "promote"
    assert found.p_passing < 0.05
    assert math.exp(found.log_e_passing) < 1.0 / (0.2 * 0.05)
    assert label_each(40, losses=5).outcome == "inconclusive"
