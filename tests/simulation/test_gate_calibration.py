"""Does the gate err as often as it says, and find as much? Seeded, on matrices of known truth:
one candidate or several, clusters, slices, missing scores, the worst null of a search.

Each limit is the promised rate plus three standard errors of the simulation (statistics.md §4).
"""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gate.gate_benchmark import (
    GateBenchmarkPlan,
    measure_rule,
    measure_selection,
    missed_goals,
    resample_items,
    run_gate_benchmark,
    theta0_of,
    tilt_weights,
)
from benchmarks.gate.gate_rules import MARGIN, decide_selections
from benchmarks.gate.score_matrix import (
    Floats,
    ModelPair,
    ScoreKind,
    close_pairs,
    generate_scores,
    load_matrix,
)
from benchmarks.gate.worst_null import MOST_FOUND, search_worst_nulls
from harness.gate.budget import slice_effect
from harness.gate.offline.design import Design
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.sequential import judge_batch
from harness.gate.offline.slices import SLICE_ALPHA
from harness.gate.suite_plan import MIN_SLICE_UNITS, QUALITY_CLAIMS, Claim
from tests.support.gate.gate_clusters import GROUPS, measure_clusters
from tests.support.gate.gate_missing import MOST_WRONG, measure_missing
from tests.support.sampling import later, sampled

pytestmark = pytest.mark.req("F2", "F4")

SHIPPED = Path(__file__).resolve().parents[2] / "datasets" / "gatebench"
BINARY = SHIPPED / "suite_binary.csv"
GRADED = SHIPPED / "suite_graded.csv"
REPLICATIONS = 1000
PAIRS = 6
OURS = ("hybrid gate",)


def upto(rate: float, trials: int) -> float:
    return rate + 3.0 * math.sqrt(rate * (1.0 - rate) / trials)


# One claim of each suite is in the sample; both are tried on both by `make verify`.
CROSSED = [
    (BINARY, Claim.SUPERIOR),
    (GRADED, Claim.NON_INFERIOR),
    later(BINARY, Claim.NON_INFERIOR),
    later(GRADED, Claim.SUPERIOR),
]


@pytest.mark.parametrize(("suite", "claim"), CROSSED)
@pytest.mark.parametrize("n", [200, later(500)])
def test_a_candidate_that_is_no_better_is_promoted_in_at_most_one_of_twenty(
    suite: Path,
    claim: Claim,
    n: int,
) -> None:
    pairs = close_pairs(load_matrix(suite), PAIRS)
    cell = measure_rule(
        pairs,
        claim,
        n=n,
        lift=0.0,
        replications=REPLICATIONS,
        rules=OURS,
    )

    assert cell["hybrid gate"].mean <= upto(0.05, PAIRS * REPLICATIONS)
    assert cell["hybrid gate"].worst <= upto(0.055, REPLICATIONS)


@pytest.mark.parametrize("suite", sampled([BINARY, GRADED], [GRADED]))
def test_a_better_candidate_is_found_early_and_looking_often_costs_little_power(
    suite: Path,
) -> None:
    """10 points better, and 5 beside a test that looks once."""
    pairs = close_pairs(load_matrix(suite), PAIRS)
    rules = (*OURS, "paired t, fixed n")
    ten, five = (
        measure_rule(
            pairs,
            Claim.SUPERIOR,
            n=500,
            lift=lift,
            replications=200,
            rules=rules,
        )
        for lift in (0.10, 0.05)
    )

    assert ten["hybrid gate"].mean >= 0.98
    assert ten["hybrid gate"].items <= 200
    assert five["paired t, fixed n"].mean - five["hybrid gate"].mean <= 0.06


def test_rare_losses_alone_do_not_pass_as_non_inferior() -> None:
    """Where the plain t errs in 12 of 100: a candidate that loses 5 % and never wins."""
    rng = np.random.default_rng(3)
    d = -(rng.random((4000, 100)) < 0.05).astype(np.float64)
    decisions = judge_batch(d, Design(Claim.NON_INFERIOR, MARGIN, 100))

    assert decisions.promoted.mean() <= upto(0.05, 4000)


@pytest.mark.parametrize("claim", sampled(QUALITY_CLAIMS, [Claim.SUPERIOR]))
def test_an_equal_candidate_is_called_worse_in_at_most_one_of_twenty(claim: Claim) -> None:
    rejected = []
    for index, pair in enumerate(close_pairs(load_matrix(BINARY), PAIRS)):
        rng = np.random.default_rng([17, index])
        a, b = resample_items(
            pair,
            0.0,
            (REPLICATIONS, 200),
            rng,
        )
        rejected.append(judge_batch(b - a, Design(claim, MARGIN, 200)).rejected.mean())

    assert float(np.mean(rejected)) <= upto(0.05, PAIRS * REPLICATIONS)


@pytest.mark.parametrize(
    ("lift", "n", "least", "most"),
    [(-0.02, 480, 0.0, 0.01), (-0.05, 480, 0.0, 0.05), (-0.15, 480, 0.85, 1.0)],
)
def test_failed_under_a_margin_means_worse_than_the_margin(
    lift: float,
    n: int,
    least: float,
    most: float,
) -> None:
    rates = []
    for index, pair in enumerate(close_pairs(load_matrix(BINARY), 2)):
        rng = np.random.default_rng([23, index])
        a, b = resample_items(pair, lift, (200, n), rng)
        rates.append(judge_batch(b - a, Design(Claim.NON_INFERIOR, MARGIN, n)).rejected.mean())

    assert least <= float(np.mean(rates)) <= upto(most, 400)


@pytest.mark.parametrize("differ", [0.1, 0.2, 0.4])
def test_a_slice_that_loses_the_whole_margin_is_seldom_called_worse(differ: float) -> None:
    rng = np.random.default_rng(29)
    won, lost = (differ - MARGIN) / 2.0, (differ + MARGIN) / 2.0
    d = rng.choice([1.0, -1.0, 0.0], size=(4000, 120), p=[won, lost, 1.0 - differ])

    assert (final_p(-MARGIN - d, 0.0) <= SLICE_ALPHA).mean() <= upto(SLICE_ALPHA, 4000)


@pytest.mark.parametrize(
    ("claim", "n", "replications"),
    [
        (Claim.NON_INFERIOR, 80, 300),
        *(later(claim, 200, 1000) for claim in QUALITY_CLAIMS),
    ],
)
def test_missing_scores_let_no_useless_candidate_pass_and_fail_no_equal_one(
    claim: Claim,
    n: int,
    replications: int,
) -> None:
    """Against the candidate and for it: whichever scores somebody hides who knows them all."""
    pairs = close_pairs(generate_scores(ScoreKind.PASS_FAIL, 1), 1)
    for row in measure_missing(
        pairs,
        claim,
        n=n,
        replications=replications,
    ):
        assert max(row.passed, row.failed) <= upto(MOST_WRONG, replications), row


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("seed", "pairs"),
    [later(101, 6), pytest.param(202, 6, marks=pytest.mark.soak)],
)
def test_the_goals_are_reached_on_matrices_that_nobody_has_seen(seed: int, pairs: int) -> None:
    # 2,000 draws of several candidates: their share's standard error is half a point.
    plan = GateBenchmarkPlan(replications=4000, power=600, pairs=pairs)
    lines = run_gate_benchmark([generate_scores(kind, seed) for kind in ScoreKind], plan)

    assert [*missed_goals(lines)] == []


@pytest.mark.verify
@pytest.mark.parametrize("n", [50, 200])
def test_a_search_finds_no_null_that_passes_oftener_than_it_may(n: int) -> None:
    draws = 2000
    spread = math.sqrt(MOST_FOUND * (1.0 - MOST_FOUND) / (4 * draws))

    for worst in search_worst_nulls([n], draws=draws, workers=1):
        assert worst.promoted <= MOST_FOUND + 2.0 * spread, worst


@pytest.mark.parametrize("difference", [0.0, later(-0.02)])
@pytest.mark.parametrize("kind", [later(ScoreKind.PASS_FAIL), ScoreKind.GRADED])
def test_more_items_never_pass_fewer_candidates_within_the_margin(
    kind: ScoreKind, difference: float
) -> None:
    (pair,) = close_pairs(generate_scores(kind, 1), 1)
    d = draw(pair, difference, (400, 1000), np.random.default_rng(46))
    passed = []
    for n in (200, 480, 1000):
        design = Design(Claim.NON_INFERIOR, MARGIN, n)
        passed.append(float(judge_batch(d[:, :n], design).promoted.mean()))
        at_the_end = (final_p(d[:, :n], design.theta0) <= design.levels[n]).mean()
        assert passed[-1] >= at_the_end - 0.02

    assert passed == sorted(passed)


def draw(
    pair: ModelPair,
    mean: float,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Floats:
    return np.asarray(rng.choice(pair.d, size=shape, p=tilt_weights(pair.d, mean)))


def test_items_of_one_document_do_not_promote_a_candidate_that_is_no_better() -> None:
    pairs = close_pairs(load_matrix(BINARY), 2)
    claim = Claim.SUPERIOR
    (row,) = measure_clusters(
        pairs,
        claim,
        200,
        replications=300,
        groups=(10,),
        correlations=(0.8,),
    )

    assert row.by_items >= 0.2
    assert row.by_clusters <= 0.055


@pytest.mark.verify
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("items", [200, 500])
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
@pytest.mark.parametrize("suite", [BINARY, GRADED], ids=["pass-fail", "graded"])
def test_the_level_holds_for_every_size_of_cluster(
    suite: Path,
    claim: Claim,
    items: int,
    group: int,
) -> None:
    pairs = close_pairs(load_matrix(suite), 3)
    rows = list(measure_clusters(pairs, claim, items, replications=2000, groups=(group,)))

    assert max(row.by_clusters for row in rows) <= 0.055
    assert max(row.worst for row in rows) <= 0.065


@pytest.mark.parametrize(
    ("suite", "candidates", "n", "claim", "replications"),
    [
        (BINARY, 2, 200, Claim.SUPERIOR, 300),
        *(
            later(suite, candidates, n, claim, 1000)
            for suite in (BINARY, GRADED)
            for candidates in (2, 3, 5)
            for n in (200, 500)
            for claim in QUALITY_CLAIMS
        ),
    ],
)
def test_of_several_that_are_no_better_one_passes_in_at_most_one_of_twenty(
    suite: Path,
    candidates: int,
    n: int,
    claim: Claim,
    replications: int,
) -> None:
    pairs = close_pairs(load_matrix(suite), PAIRS)
    cell = measure_selection(
        pairs,
        claim,
        n=n,
        lift=0.0,
        replications=replications,
        candidates=candidates,
    )
    assert cell.mean <= upto(0.05, PAIRS * replications)
    assert cell.worst <= upto(0.055, replications)


def test_candidates_that_answer_alike_pass_no_more_often_than_one() -> None:
    """The same model under k names: k times the same luck, at the k-th part of alpha."""
    rng = np.random.default_rng(14)
    d = rng.choice([-1.0, 0.0, 1.0], size=(2000, 200), p=[0.1, 0.8, 0.1])

    one = decide_selections([d] * 1, Claim.SUPERIOR)[0]
    three = decide_selections([d] * 3, Claim.SUPERIOR)[0]

    assert (three >= 0).mean() < (one >= 0).mean() <= upto(0.05, 2000)


def test_the_better_one_goes_on_and_not_its_rivals() -> None:
    rng = np.random.default_rng(14)

    def drawn(better: float) -> Floats:
        chances = [0.1 - better / 2, 0.8, 0.1 + better / 2]
        return rng.choice([-1.0, 0.0, 1.0], size=(200, 500), p=chances)

    chosen, items = decide_selections(
        [
            drawn(0.1),
            drawn(0.0),
            drawn(-0.05),
        ],
        Claim.SUPERIOR,
    )

    assert (chosen == 0).mean() >= 0.9
    assert (chosen > 0).mean() <= 0.02
    # Two of the three are given up about half way, or before.
    assert items <= 330


@pytest.mark.parametrize(
    ("suite", "pairs", "replications", "count", "size"),
    [
        ("binary", 1, 1000, 5, 120),
        *(
            later(suite, 3, 4000, count, size)
            for suite in ("binary", "epochs", "graded")
            for count in (2, 5, 20)
            for size in (60, 120, 250)
        ),
    ],
)
def test_slices_without_a_loss_are_seldom_blamed_and_a_planned_loss_is_found(
    suite: str,
    pairs: int,
    replications: int,
    count: int,
    size: int,
) -> None:
    """The plan knows the spread, and names the loss that the first look finds with power .8."""
    level = SLICE_ALPHA / count
    shape = (replications, size)
    found = []
    of_one_look = level / (2 if size > MIN_SLICE_UNITS else 1)
    for index, pair in enumerate(
        close_pairs(load_matrix(SHIPPED / f"suite_{suite}.csv"), pairs)
    ):
        rng = np.random.default_rng([11, index, count, size])
        alarms = np.zeros(replications, dtype=np.bool_)
        for _ in range(count):
            alarms |= named(draw(pair, 0.0, shape, rng), level)[1]
        assert alarms.mean() <= upto(SLICE_ALPHA, replications)
        effect = slice_effect(float(pair.d.std()), MIN_SLICE_UNITS, of_one_look)
        found.append(named(draw(pair, -effect, shape, rng), level)[0].mean())

    assert np.mean(found) >= 0.75


def named(d: Floats, level: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether a slice is called worse at its first look, and by its last."""
    looks = tuple(dict.fromkeys((MIN_SLICE_UNITS, d.shape[1])))
    worse = [final_p(-d[:, :look], 0.0) <= level / len(looks) for look in looks]
    return worse[0], worse[0] | worse[-1]


def test_the_resampled_truth_is_the_one_that_was_asked_for() -> None:
    for index, pair in enumerate(close_pairs(load_matrix(GRADED), PAIRS)):
        rng = np.random.default_rng([19, index])
        a, b = resample_items(
            pair,
            theta0_of(Claim.NON_INFERIOR),
            (400, 500),
            rng,
        )
        error = (b - a).std() / math.sqrt(a.size)
        assert abs((b - a).mean() + 0.05) <= 4.0 * error
