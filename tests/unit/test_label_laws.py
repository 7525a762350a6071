"""Laws of the evidence from people's labels. The tests enumerate every possible draw from tiny
populations, so these laws are exact.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.gate.offline.label_evidence import (
    DrawnPair,
    LabelEvidence,
    PairWeights,
    judge_labels,
    plan_next_label,
)
from harness.gate.offline.label_forecast import forecast_labels
from harness.gate.offline.label_plan import (
    JUDGE_LEVELS,
    UNIFORM_SHARE,
    LabelDesign,
    LabelStep,
    check_drawn_pairs,
    draw_error,
    judge_level,
)
from harness.gate.suite_plan import Claim

pytestmark = pytest.mark.req("F2", "F13")


@dataclass(frozen=True)
class TruePair:
    """A pair of a population whose labels are known to the test."""

    judged: int  # index in JUDGE_LEVELS
    label: float
    weight: float
    unacceptable: float = 0.0
    is_skipped: bool = False


@dataclass(frozen=True)
class Population:
    pairs: tuple[TruePair, ...]
    ties: float = 0.0

    @property
    def win_share(self) -> float:
        return 0.5 * self.ties + math.fsum(pair.weight * pair.label for pair in self.pairs)

    @property
    def unacceptable(self) -> float:
        return math.fsum(pair.weight * pair.unacceptable for pair in self.pairs)

    @property
    def weights(self) -> PairWeights:
        levels = [
            math.fsum(pair.weight for pair in self.pairs if pair.judged == level)
            for level in range(3)
        ]
        return PairWeights(self.ties, (levels[0], levels[1], levels[2]))


@st.composite
def populations(draw: st.DrawFn) -> Population:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from([0.0, 0.25, 0.5, 1.0]),
                st.integers(1, 5),
                st.sampled_from([-1.0, 0.0, 1.0]),
                st.booleans(),
            ),
            min_size=2,
            max_size=4,
        )
    )
    ties = draw(st.integers(0, 3))
    total = ties + sum(row[2] for row in rows)
    pairs = tuple(
        TruePair(judged, label, weight / total, unacceptable, skipped)
        for judged, label, weight, unacceptable, skipped in rows
    )
    return Population(pairs, ties / total)


def draw_pair(pair: TruePair, step: LabelStep, *, skips: bool) -> DrawnPair:
    if skips and pair.is_skipped:
        return DrawnPair(pair.judged, pair.weight, step)
    return DrawnPair(pair.judged, pair.weight, step, pair.label, pair.label, pair.unacceptable)


def paths(
    population: Population,
    design: LabelDesign,
    *,
    skips: bool,
) -> list[tuple[float, list[DrawnPair]]]:
    """Lists every order of draws, with its probability."""
    found: list[tuple[float, list[DrawnPair]]] = []
    unfinished: list[tuple[float, list[DrawnPair], tuple[TruePair, ...]]] = [
        (1.0, [], population.pairs)
    ]
    while unfinished:
        chance, drawn, left = unfinished.pop()
        if not left:
            found.append((chance, drawn))
            continue
        step = plan_next_label(population.weights, drawn, design)
        chances = [pair.weight * float(step.rates[pair.judged]) for pair in left]
        assert math.fsum(chances) == pytest.approx(1.0)
        open_weight = math.fsum(pair.weight for pair in left)
        for at, pair in enumerate(left):
            assert chances[at] >= UNIFORM_SHARE * pair.weight / open_weight - 1e-12
            unfinished.append(
                (
                    chance * chances[at],
                    [*drawn, draw_pair(pair, step, skips=skips)],
                    (*left[:at], *left[at + 1 :]),
                )
            )
    return found


def last_capital(
    population: Population, drawn: Sequence[DrawnPair], bet: str, null: float
) -> float:
    """Recomputes the mean capital of the stakes after all draws, without the product's code."""
    known = 0.5 * population.ties
    open_weight = np.array(population.weights.open)
    capital = np.ones(2)
    for pair in drawn:
        step = pair.step
        label = pair.low if bet == "passing" else pair.high
        value = (
            known
            + float(open_weight @ step.predicted)
            + (label - step.predicted[pair.judged]) / step.rates[pair.judged]
        )
        sign = 1.0 if bet == "passing" else -1.0
        factors = 1.0 + getattr(step, bet) * sign * (value - null)
        assert (factors > 0.05).all()
        capital = capital * factors
        known += pair.weight * label
        open_weight[pair.judged] -= pair.weight
    return float(capital.mean())


claims = st.sampled_from([Claim.SUPERIOR, Claim.NON_INFERIOR])


@given(population=populations(), skips=st.sampled_from([False, True]))
def test_under_the_null_no_bet_grows_in_expectation_whatever_the_judge_says(
    population: Population,
    *,
    skips: bool,
) -> None:
    assume(0.0 < population.win_share < 0.5)
    # Places both null hypotheses exactly at the truth: the hardest case.
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.5 - population.win_share)
    every = paths(population, design, skips=skips)

    assert math.fsum(chance for chance, _ in every) == pytest.approx(1.0)
    for bet in ("passing", "failing"):
        mean = math.fsum(
            chance * last_capital(population, drawn, bet, population.win_share)
            for chance, drawn in every
        )
        assert mean <= 1.0 + 1e-9
        if not skips:
            assert mean == pytest.approx(1.0)


@given(population=populations())
def test_the_estimate_of_every_draw_is_unbiased(population: Population) -> None:
    design = LabelDesign(Claim.SUPERIOR, margin=0.1)
    means = np.zeros(len(population.pairs))
    for chance, drawn in paths(population, design, skips=False):
        known = 0.5 * population.ties
        open_weight = np.array(population.weights.open)
        for at, pair in enumerate(drawn):
            predicted = pair.step.predicted
            rest = (pair.low - predicted[pair.judged]) / pair.step.rates[pair.judged]
            means[at] += chance * (known + float(open_weight @ predicted) + rest)
            known += pair.weight * pair.low
            open_weight[pair.judged] -= pair.weight

    assert means == pytest.approx(population.win_share)


@given(population=populations(), claim=claims, skips=st.sampled_from([False, True]))
def test_a_wrong_verdict_on_the_labels_is_never_certain(
    population: Population,
    claim: Claim,
    *,
    skips: bool,
) -> None:
    design = LabelDesign(claim, margin=0.1)
    for _, drawn in paths(population, design, skips=skips):
        found = judge_labels(population.weights, drawn, design)
        if abs(population.win_share - design.theta0) < 1e-9:
            continue
        # Whole populations of at most 4 pairs give no e-value of 20: only certainty decides.
        if found.outcome == "promote":
            assert population.win_share > design.theta0
        if found.outcome == "reject":
            assert population.win_share < design.rejected_below
        if not any(pair.is_skipped for pair in population.pairs) or not skips:
            assert found.outcome in ("promote", "reject")


@given(population=populations())
def test_unacceptable_answers_are_rarely_evidence_of_harm_if_the_incumbent_has_as_many(
    population: Population,
) -> None:
    assume(population.unacceptable <= 0.0)
    design = LabelDesign(Claim.SUPERIOR, margin=0.1)
    mean = math.fsum(
        chance
        for chance, drawn in paths(population, design, skips=False)
        if judge_labels(population.weights, drawn, design).harm.log_e_most > math.log(4.0)
    )

    assert mean <= 1 / 4  # Ville


@given(population=populations(), claim=claims)
def test_a_late_label_changes_no_earlier_bet_and_only_raises_the_lower_bound(
    population: Population,
    claim: Claim,
) -> None:
    design = LabelDesign(claim, margin=0.1)
    _, drawn = paths(population, design, skips=True)[0]
    before = judge_labels(population.weights, drawn, design)
    late = [
        pair if pair.is_labelled else replace(pair, low=1.0, high=1.0, unacceptable=0.0)
        for pair in drawn
    ]
    after = judge_labels(population.weights, late, design)

    assert after.low >= before.low - 1e-12
    assert after.high <= before.high + 1e-12
    assert after.log_e_passing >= before.log_e_passing - 1e-9


@given(population=populations())
def test_a_stored_step_gives_the_same_evidence(population: Population) -> None:
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.1)
    _, drawn = paths(population, design, skips=True)[-1]
    stored = [
        replace(pair, step=LabelStep.from_json(json.loads(json.dumps(pair.step.as_json()))))
        for pair in drawn
    ]

    assert judge_labels(population.weights, stored, design) == judge_labels(
        population.weights, drawn, design
    )


def judge_wins(
    judged: int, label: float, design: LabelDesign, pairs: int = 3_000
) -> tuple[str, int]:
    """Labels pairs of one kind until a verdict."""
    weights = PairWeights(0.0, (1 / 3, 1 / 3, 1 / 3))
    drawn: list[DrawnPair] = []
    while len(drawn) < 400:
        step = plan_next_label(weights, drawn, design)
        drawn.append(DrawnPair(judged, 1.0 / pairs, step, label, label, 0.0))
        found = judge_labels(weights, drawn, design)
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
    weights = PairWeights(0.0, (0.3, 0.2, 0.5))
    drawn: list[DrawnPair] = []
    for _ in range(100):
        drawn.append(DrawnPair(2, 0.001, plan_next_label(weights, drawn, design)))

    found = judge_labels(weights, drawn, design)

    assert found.outcome == "running"
    assert (found.labels, found.drawn) == (0, 100)
    assert found.log_e_passing == 0.0
    assert found.log_e_failing == 0.0


def test_a_preferred_candidate_with_unacceptable_answers_shows_harm() -> None:
    design = LabelDesign(Claim.SUPERIOR, margin=0.05)
    weights = PairWeights(0.0, (0.25, 0.25, 0.5))
    drawn: list[DrawnPair] = []
    for at in range(40):
        step = plan_next_label(weights, drawn, design)
        drawn.append(DrawnPair(at % 3, 0.001, step, 1.0, 1.0, float(at % 3 == 0)))

    found = judge_labels(weights, drawn, design)

    assert found.outcome == "promote"
    assert found.harm.is_shown
    assert not found.passes


def label_wins(unacceptable: int, labels: int) -> LabelEvidence:
    """Labels pairs that the candidate wins; its first answers are unacceptable."""
    design = LabelDesign(Claim.SUPERIOR, margin=0.05)
    weights = PairWeights(0.0, (0.25, 0.25, 0.5))
    drawn: list[DrawnPair] = []
    for at in range(labels):
        step = plan_next_label(weights, drawn, design)
        drawn.append(DrawnPair(2, 0.001, step, 1.0, 1.0, float(at < unacceptable)))
    return judge_labels(weights, drawn, design)


def test_a_shown_claim_waits_while_unacceptable_answers_point_to_harm() -> None:
    few = label_wins(unacceptable=1, labels=40)
    many = label_wins(unacceptable=7, labels=40)
    most = label_wins(unacceptable=12, labels=40)

    assert few.outcome == many.outcome == "promote"
    assert few.passes
    assert not many.is_decided
    assert most.is_decided
    assert not most.passes


def test_a_claim_about_traffic_pays_for_the_draw() -> None:
    error = draw_error(3_000, open_share=0.7)

    assert error == pytest.approx(0.0290, abs=0.0001)
    assert draw_error(3_000, 0.7, logged_units=3_000) == 0.0
    design = LabelDesign(Claim.NON_INFERIOR, margin=0.05, draw_error=error)
    assert design.theta0 == pytest.approx(0.45 + error)
    assert design.rejected_below == pytest.approx(0.45 - error)
    assert design.level == pytest.approx(0.04)
    assert math.exp(design.enough_log_e) == pytest.approx(25.0)


def test_the_draw_s_error_covers_the_true_distance_of_almost_every_draw() -> None:
    rng = np.random.default_rng(1)
    shares = rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.2, 0.4], size=(2_000, 400)).mean(axis=1)

    assert (np.abs(shares - 0.5) > draw_error(400, 1.0)).mean() <= 0.02


def test_too_few_drawn_pairs_are_refused_for_a_small_margin() -> None:
    check_drawn_pairs(2_000, 0.05)
    check_drawn_pairs(500, 0.1)
    with pytest.raises(InputError, match="at least 2,000 drawn pairs, not 1,999"):
        check_drawn_pairs(1_999, 0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": 0.6}, "between 0 and .5"),
        ({"alpha": 1.0}, "alpha is between"),
        ({"correlation": -0.2}, "counts as 0"),
        ({"draw_error": 0.05}, "draw more pairs"),
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


def test_a_forecast_says_that_the_pairs_are_too_few_or_the_margin_too_small() -> None:
    error = draw_error(2_000, 1.0)
    design = LabelDesign(Claim.NON_INFERIOR, 0.05, draw_error=error)

    assert forecast_labels(2_000, 0, design).quantile_80 is None


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
    ("claim", "outcome"),
    [(Claim.NON_INFERIOR, "promote"), (Claim.SUPERIOR, "inconclusive")],
)
def test_equal_pairs_alone_need_no_label(claim: Claim, outcome: str) -> None:
    weights = PairWeights(1.0, (0.0, 0.0, 0.0))

    assert judge_labels(weights, [], LabelDesign(claim, margin=0.1)).outcome == outcome
