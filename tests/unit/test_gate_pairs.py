from collections.abc import Iterable
from dataclasses import replace

import pytest

from harness.frame.errors import InputError, StaleEvidence
from harness.gate.offline.pairs import pair_samples
from harness.gate.run import Sample, SampleError
from harness.gate.suite_plan import Claim, SuitePlan, SuiteRole
from tests.support.store.records import PLAIN_SAMPLE

pytestmark = pytest.mark.req("A7", "F2")

PLAN = SuitePlan("math", "sha", SuiteRole.PRIMARY, Claim.SUPERIOR, 0.05, 0.05, 100, 1, 7)


def sample(run: str, position: int, score: float | None, epoch: int = 1) -> Sample:
    error = SampleError.UNSCORED if score is None else None
    made = replace(PLAIN_SAMPLE, run=run, item=f"q{position}", epoch=epoch, position=position)
    return replace(made, strict=score, lenient=score, error=error)


def run(name: str, scores: Iterable[float | None]) -> list[Sample]:
    return [sample(name, position, score) for position, score in enumerate(scores)]


def broken(found: Sample) -> Sample:
    return replace(found, strict=None, lenient=None, error=SampleError.INFRA)


def test_only_the_finished_prefix_counts_whatever_finished_first() -> None:
    ours, theirs = run("a", [1.0] * 6), run("b", [0.0] * 6)
    late = [theirs[0], theirs[4], theirs[1], theirs[5]]

    suite = pair_samples(PLAN, list(reversed(ours)), late)

    assert [item.pair.item for item in suite.items] == ["q0", "q1"]


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(InputError, match="item q0: the strict score is"):
        pair_samples(PLAN, run("a", [score]), run("b", [1.0]))


ONE, TWO = sample("a", 0, 1.0), sample("a", 1, 1.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([ONE, TWO, TWO], run("b", [1.0, 1.0]), "item q1 epoch 1 is there twice"),
        ([ONE], [replace(sample("b", 0, 1.0), item="x0")], "place 0 holds q0 and x0"),
        ([ONE, replace(TWO, epoch=2, item="q0")], [], "item q0 has two places"),
        ([ONE, sample("c", 1, 1.0)], [], "two runs, a and c"),
        ([ONE], [sample("b", 0, 1.0, 2)], "the epochs of the two sides differ"),
        ([ONE, replace(ONE, epoch=2)], [], "more than the planned 1 epoch"),
    ],
)
def test_samples_that_are_no_pairs_of_one_plan_are_stale(
    ours: list[Sample], theirs: list[Sample], message: str
) -> None:
    with pytest.raises(StaleEvidence, match=message):
        pair_samples(PLAN, ours, theirs)


@pytest.mark.req("F7")
@pytest.mark.parametrize("answer", ["", "4"], ids=["none-came", "not-judged"])
def test_an_item_without_a_score_counts_against_the_candidate_and_stays_open(
    answer: str,
) -> None:
    whole, gaps = run("a", [1.0] * 10), run("b", [1.0] * 10)
    gaps[4] = replace(broken(gaps[4]), answer=answer, error_text="the judge is away.")
    suite, turned = pair_samples(PLAN, whole, gaps), pair_samples(PLAN, gaps, whole)

    assert (len(suite.items), suite.blocked, turned.blocked) == (10, "", "")
    for item, scores, favour, why in (
        (suite.items[4], (1.0, 0.0), (1.0, 1.0), ((), ("the judge is away",))),
        (turned.items[4], (1.0, 1.0), (0.0, 1.0), (("the judge is away",), ())),
    ):
        assert (item.pair.incumbent, item.pair.candidate) == scores
        best = item.in_favour.pair
        assert (best.incumbent, best.candidate) == favour
        assert (best.lenient_incumbent, best.lenient_candidate) == favour
        assert (item.reasons, item.unanswered) == (why, not answer)
    assert all(item.complete for item in (*suite.items[:4], *suite.items[5:]))
