"""The gate on suites that people label: the judge decides nothing, and alpha is divided."""

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.offline.label_evidence import (
    DrawnPair,
    PairBlock,
    PairWeights,
    plan_next_label,
    replan_labels,
)
from harness.gate.offline.label_plan import LabelDesign
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.people_claims import (
    Population,
    SuiteLabels,
    judge_people,
    judge_preference,
    label_alpha,
    side_log_e,
)
from harness.gate.offline.suite_claims import UNLABELLED, SuiteClaim
from harness.gate.offline.verdicts import judge_suites
from harness.gate.suite_plan import Claim, PrimaryCombination, SuitePlan, SuiteRole
from harness.gate.verdict import ScorePair

pytestmark = pytest.mark.req("F2", "F13")

PAIRS: Final = 60
BLOCKS: Final = (PairBlock(1, PairWeights(0.0, (0.0, 1.0, 0.0))),) * PAIRS


def plan(
    suite: str = "traffic",
    *,
    judged_by: str = "a judge",
    role: SuiteRole = SuiteRole.PRIMARY,
    combine: PrimaryCombination | None = None,
    claim: Claim = Claim.SUPERIOR,
    requests: tuple[int, ...] = (1,) * PAIRS,
) -> SuitePlan:
    return SuitePlan(
        suite,
        "digest",
        role,
        claim,
        margin=0.1,
        alpha=0.05,
        n_max=PAIRS,
        epochs=1,
        order_seed=1,
        combine=combine,
        judged_by=judged_by,
        unit_requests=requests if judged_by else (),
    )


def measured(
    scores: Sequence[float],
    of: SuitePlan,
    labels: SuiteLabels | None = None,
) -> SuiteClaim:
    items = tuple(
        PairedItem(ScorePair(str(number), 0.5, share, 0.5, share))
        for number, share in enumerate(scores)
    )
    by_people = bool(of.judged_by) and of.role is not SuiteRole.GUARD
    return SuiteClaim(of, PairedSuite(items, "a", "b"), by_people=by_people, labels=labels)


def labelled(preference: float, of: SuitePlan, plans: Sequence[SuitePlan] = ()) -> SuiteLabels:
    """Labels that all prefer the same, until they suffice."""
    design = LabelDesign(of.claim.quality, of.margin, label_alpha(of, plans or [of]))
    found = SuiteLabels("lb_1", ("ada",), 0, 1, design, BLOCKS, ())
    while not found.evidence.is_decided:
        step = plan_next_label(BLOCKS, found.drawn, design)
        pair = DrawnPair(1, 1.0 / PAIRS, step, preference, preference, 0.0)
        found = replace(found, labels=found.labels + 1, drawn=(*found.drawn, pair))
    return found


SHARES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=PAIRS, max_size=PAIRS)


@given(SHARES, st.sampled_from([(1.0, "passed"), (0.0, "failed"), (0.5, "inconclusive")]))
def test_no_judge_changes_what_people_have_decided(
    shares: list[float], case: tuple[float, str]
) -> None:
    preference, outcome = case
    of = plan()

    joint = judge_suites([measured(shares, of, labelled(preference, of))])

    assert joint.outcome == outcome


def test_labels_that_mostly_say_can_t_tell_decide_nothing_and_are_counted() -> None:
    ties = labelled(0.5, plan(claim=Claim.NON_INFERIOR))
    half = replace(ties, cannot_tell=ties.labels // 2)
    most = replace(ties, cannot_tell=ties.labels // 2 + 1)

    assert judge_preference(ties).outcome == "passed"
    assert judge_preference(half).outcome == "passed"
    assert f"{half.cannot_tell} of them “can't tell”" in judge_preference(half).sentence
    assert judge_preference(most).outcome == "inconclusive"
    assert "could not tell" in judge_preference(most).sentence


@pytest.mark.parametrize(
    ("population", "words"),
    [
        (Population.TRAFFIC, "for the traffic behind the draw"),
        (Population.KIND, "for requests of this kind"),
        (Population.THESE, "for these pairs"),
    ],
)
def test_a_verdict_says_for_what_it_holds(population: Population, words: str) -> None:
    for preference, outcome in ((1.0, "PASSED"), (0.0, "FAILED")):
        found = replace(labelled(preference, plan()), population=population)
        sentence = judge_preference(found).sentence

        assert outcome in sentence
        assert words in sentence


@pytest.mark.parametrize(("side", "letter"), [((14, 0), "A"), ((2, 24), "B")])
def test_labels_that_follow_the_side_of_an_answer_decide_nothing(
    side: tuple[int, int], letter: str
) -> None:
    read = replace(labelled(1.0, plan()), people=("ada", "ben"), sides=((9, 4), (13, 0)))
    followed = replace(read, sides=((9, 4), side))

    assert judge_preference(read).outcome == "passed"
    verdict = judge_preference(followed)
    assert verdict.outcome == "inconclusive"
    assert f"ben preferred answer {letter} in {max(side)} of {sum(side)} pairs" in (
        verdict.sentence
    )


def test_a_person_who_never_prefers_an_answer_decides_nothing() -> None:
    ties = labelled(0.5, plan(claim=Claim.NON_INFERIOR))
    people = replace(ties, people=("ada", "ben"), sides=((3, 4), (0, 0)))
    few = replace(people, ties=(40, 9))
    many = replace(people, ties=(40, 10))
    careful = replace(people, sides=((3, 4), (0, 1)), ties=(40, 60))

    assert judge_preference(few).outcome == "passed"
    assert judge_preference(careful).outcome == "passed"
    assert judge_preference(many).outcome == "inconclusive"
    assert "ben preferred no answer in any of 10 pairs" in judge_preference(many).sentence


def test_a_verdict_says_that_the_proposer_alone_labelled() -> None:
    alone = replace(labelled(1.0, plan()), by_proposer=True)

    assert "labels, all by the proposer of the candidate)" in judge_preference(alone).sentence
    assert "proposer" not in judge_preference(replace(alone, by_proposer=False)).sentence


def test_a_careful_person_is_hardly_ever_said_to_follow_a_side() -> None:
    random = np.random.default_rng(7)
    firsts = np.cumsum(random.integers(0, 2, size=(4_000, 300)), axis=1)
    counts = np.arange(1, 301)
    log_es = np.vectorize(side_log_e)(firsts, counts - firsts)

    assert (log_es.max(axis=1) >= log(1_000)).mean() <= 0.002


@given(SHARES)
def test_no_judge_decides_before_the_labels_end(shares: list[float]) -> None:
    joint = judge_suites([measured(shares, plan())])

    assert joint.outcome == UNLABELLED
    (report,) = joint.reports
    assert (report.delta, report.wins, report.losses) == (0.0, 0, 0)


def test_a_suite_with_missing_answers_runs_before_it_waits_for_people() -> None:
    assert judge_suites([measured([0.0] * (PAIRS - 1), plan())]).outcome == "running"


@pytest.mark.parametrize(
    ("role", "score", "outcome"),
    [
        (SuiteRole.GUARD, 0.0, "failed"),
        (SuiteRole.REQUIRED, 0.0, "failed"),
        (SuiteRole.GUARD, 0.5, UNLABELLED),
        (SuiteRole.REQUIRED, 1.0, UNLABELLED),
    ],
)
def test_people_label_only_if_the_other_suites_leave_a_pass_possible(
    role: SuiteRole, score: float, outcome: str
) -> None:
    claim = Claim.NON_INFERIOR
    other = plan("latency", judged_by="", role=role, claim=claim)

    joint = judge_suites(
        [measured([score] * PAIRS, other), measured([1.0] * PAIRS, plan(claim=claim))]
    )

    assert joint.outcome == outcome


def test_a_guard_with_a_judge_rejects_by_its_judge() -> None:
    guard = plan("tone", role=SuiteRole.GUARD, claim=Claim.NON_INFERIOR)

    joint = judge_suites([measured([0.0] * PAIRS, guard), measured([1.0] * PAIRS, plan())])

    assert joint.outcome == "failed"


@pytest.mark.parametrize(("people", "scores"), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 3)])
def test_the_suites_of_one_claim_spend_alpha_together(people: int, scores: int) -> None:
    any_of = PrimaryCombination.ANY
    plans = [
        *(plan(f"traffic {n}", combine=any_of) for n in range(people)),
        *(plan(f"maths {n}", judged_by="", combine=any_of) for n in range(scores)),
    ]

    spent = sum(label_alpha(one, plans) for one in plans[:people])

    assert spent == pytest.approx(0.05 * people / (people + scores))


def test_one_of_two_labelled_suites_is_enough_where_the_policy_says_so() -> None:
    plans = [plan(name, combine=PrimaryCombination.ANY) for name in ("mail", "chat")]
    cases = [
        measured([0.0] * PAIRS, one, labelled(preference, one, plans))
        for one, preference in zip(plans, (1.0, 0.5), strict=True)
    ]

    assert judge_suites(cases).outcome == "passed"
    assert judge_suites([cases[0], replace(cases[1], labels=None)]).outcome == UNLABELLED


def test_scores_have_the_alpha_that_labels_leave() -> None:
    of = plan(combine=PrimaryCombination.ANY)
    other = plan("maths", judged_by="", combine=PrimaryCombination.ANY)
    scores = [1.0 if number % 3 else 0.0 for number in range(PAIRS)]

    joint = judge_suites(
        [measured([0.5] * PAIRS, of, labelled(0.5, of)), measured(scores, other)]
    )

    maths = next(report for report in joint.reports if report.suite == "maths")
    assert maths.figures.holm is not None
    assert maths.figures.holm.limit < 0.05 / 2
    assert (maths.figures.holm.p <= maths.figures.holm.limit) == (maths.outcome == "passed")


def test_a_labelled_part_of_a_weighted_mean_must_show_the_claim_itself() -> None:
    weighted = PrimaryCombination.WEIGHTED
    traffic = plan(combine=weighted)
    maths = measured([1.0] * PAIRS, plan("maths", judged_by="", combine=weighted))

    def joint(preference: float) -> str:
        case = measured([0.5] * PAIRS, traffic, labelled(preference, traffic))
        return judge_suites([maths, case]).outcome

    assert [joint(1.0), joint(0.5), joint(0.0)] == ["passed", "inconclusive", "failed"]


def test_requests_that_contradict_the_callers_leave_no_verdict() -> None:
    of = plan()
    found = labelled(1.0, of)
    heavy = tuple(0.0 for _ in found.drawn)
    loud = replace(found, requests=PairWeights(0.0, (1.0, 0.0, 0.0)), by_requests=heavy)

    report = judge_people(of, measured([1.0] * PAIRS, of).paired, loud).report

    assert report.outcome == "inconclusive"
    assert "weighted by requests: callers with many requests" in report.reason


def test_each_plan_of_a_draw_follows_from_the_labels_that_were_known() -> None:
    design = LabelDesign(Claim.SUPERIOR, 0.1)
    late = [1.0, 0.0, 1.0, 0.5, 1.0]  # the second label comes after the fourth draw
    drawn: list[DrawnPair] = []
    completed: list[list[DrawnPair]] = []
    for number, preference in enumerate(late):
        known = [replace(pair) for pair in drawn]
        if 1 < number < 4:
            known[1] = replace(known[1], low=0.0, high=1.0, unacceptable=None)
        step = plan_next_label(BLOCKS, known, design)
        done = {0: [], 1: [0], 2: [], 3: [2], 4: [1, 3]}[number]
        completed.append([drawn[at] for at in done])
        drawn.append(DrawnPair(1, 1.0 / PAIRS, step, preference, preference, 0.0))

    steps = [*replan_labels(BLOCKS, completed, design)]

    for pair, step in zip(drawn, steps, strict=True):
        for name, values in pair.step.as_json().items():
            assert step.as_json()[name] == pytest.approx(values)
