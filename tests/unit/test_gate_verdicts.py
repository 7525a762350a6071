import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.frame.errors import InputError, StaleEvidence
from harness.gate.offline.design import FUTILE
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.offline.verdicts import (
    decide_verdict,
    judge_suites,
    replay_verdict,
)
from harness.gate.run import Sample, SampleError
from harness.gate.sentences import NOT_SHOWN_WORSE
from harness.gate.suite_plan import (
    Claim,
    PrimaryCombination,
    SuitePlan,
    SuiteRole,
)
from harness.gate.verdict import (
    Failed,
    HarnessMismatch,
    Inconclusive,
    InfraError,
    Passed,
    Verdict,
)
from harness.proposals.report.next_steps import (
    MISSING_SCORES,
    NEXT_STEPS,
    DecidedProposal,
    describe_next_step,
)
from tests.support.store.records import PLAIN_SAMPLE, proposal

pytestmark = pytest.mark.req("A7", "F2")

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Sides = tuple[Sequence[Sample], Sequence[Sample]]


def plan(
    suite: str = "math",
    role: SuiteRole = SuiteRole.PRIMARY,
    claim: Claim = Claim.SUPERIOR,
    n_max: int = 200,
) -> SuitePlan:
    return SuitePlan(suite, "sha", role, claim, 0.05, 0.05, n_max, 1, 7)


def samples(
    run: str,
    strict: Sequence[float | None],
    lenient: Sequence[float | None] | None = None,
    rule: str = "",
) -> list[Sample]:
    readings = zip(strict, lenient or strict, strict=True)
    return [
        replace(
            PLAIN_SAMPLE,
            run=run,
            item=f"q{position}",
            position=position,
            strict=score,
            lenient=loose,
            error=SampleError.UNSCORED if score is None else None,
            rule=rule if score != loose else "",
        )
        for position, (score, loose) in enumerate(readings)
    ]


def sides(
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    lenient: Sequence[float | None] | None = None,
    rule: str = "code_fence",
) -> Sides:
    return samples("run_a", ours), samples("run_b", theirs, lenient, rule)


def broken(sample: Sample) -> Sample:
    return replace(
        sample,
        answer="",
        strict=None,
        lenient=None,
        error=SampleError.INFRA,
        error_text="503",
    )


BETTER = sides([0.0] * 200, [1.0] * 200)
WORSE = sides([1.0] * 200, [0.0] * 200)
ALIKE = sides([1.0, 0.0] * 100, [1.0, 0.0] * 100)


def ask(
    plans: Sequence[SuitePlan],
    found: Mapping[str, Sides],
    stopped: Mapping[str, tuple[str, str]] | None = None,
) -> Verdict | None:
    return decide_verdict(
        "triage",
        "t_old",
        "t_new",
        plans,
        found,
        NOW,
        3600.0,
        stopped=stopped,
    )


def one(found: Sides, **changes: object) -> Verdict | None:
    return ask([plan(**changes)], {"math": found})  # type: ignore[arg-type]


def test_a_better_candidate_passes_and_its_proof_expires() -> None:
    verdict = one(BETTER)

    assert isinstance(verdict, Passed)
    assert (verdict.route, verdict.incumbent, verdict.candidate) == (
        "triage",
        "t_old",
        "t_new",
    )
    assert verdict.expires_at - verdict.decided_at == timedelta(hours=1)
    assert verdict.suites[0].n_used == 60
    assert "better" in verdict.reason


def test_there_is_no_verdict_while_items_are_missing() -> None:
    assert one((ALIKE[0][:50], ALIKE[1])) is None
    assert ask([plan()], {}) is None


@pytest.mark.req("A8")
def test_a_loss_by_form_alone_is_a_mismatch_and_names_the_rule() -> None:
    found = one(sides([1.0] * 200, [0.0] * 200, lenient=[1.0] * 200))

    assert isinstance(found, HarnessMismatch)
    figures = found.suites[0].figures
    assert figures.rule == "code_fence"
    assert figures.examples == ("q0", "q1", "q2", "q3", "q4")
    assert len(found.inputs["pairs"]["math"]) == 110  # type: ignore[index]
    assert "form, not by substance" in found.reason
    assert "code_fence" in found.reason


@pytest.mark.req("A8")
def test_a_strict_loss_waits_until_the_lenient_reading_decides() -> None:
    form = sides([1.0] * 20, [0.0] * 20, lenient=[1.0] * 20)
    assert one(form) is None
    report = judge_pairs(plan(), pair_samples(plan(), *form)).report
    assert report.outcome == "running"
    assert "After 20 of 200 items it is open whether by form" in report.reason
    stopped = ask([plan()], {"math": form}, {"math": ("inconclusive", "over budget")})
    assert isinstance(stopped, Failed)


@pytest.mark.req("A8")
def test_a_hopeless_loss_that_may_be_one_of_form_waits_until_the_runs_end() -> None:
    ours = [float(n % 2) for n in range(60)]
    theirs = [float(n % 12 == 0 or (n % 2 and n % 6 != 1)) for n in range(60)]
    found = sides(ours, theirs, [max(pair) for pair in zip(ours, theirs, strict=True)])
    hopeless = replace(plan(), futility=0.05)

    judged = judge_pairs(hopeless, pair_samples(hopeless, *found))
    assert (judged.report.outcome, judged.report.how) == ("running", FUTILE)
    assert (judged.report.n_used, judged.consumed) == (56, 60)
    stopped = ask([hopeless], {"math": found}, {"math": ("infra_error", "died")})
    assert isinstance(stopped, Inconclusive)


def test_silence_counts_against_neither_arm_and_the_difference_is_of_measured_items() -> None:
    alike = ALIKE[0]
    gaps = [broken(one) if one.position % 3 == 0 else one for one in alike]
    for verdict in (
        one((gaps, alike)),
        one((alike, gaps)),
        one((gaps, gaps)),
    ):
        assert isinstance(verdict, InfraError)
        assert "missing scores decide" in verdict.reason
        report = verdict.suites[0]
        figures = verdict.suites[0].figures
        lost = max(figures.unscored_incumbent, figures.unscored_candidate)
        assert f"{lost} of the " in verdict.reason
        assert (report.delta, figures.measured) == (
            0.0,
            report.n_used - lost,
        )
        assert (figures.bound_low or 0.0) < 0.0 or (figures.bound_high or 0.0) > 0.0
        given_up = replace(proposal(), retry_at=None)
        step = describe_next_step(DecidedProposal(given_up, verdict, None, {}, 8))
        assert step == MISSING_SCORES
    few = one(([*map(broken, alike[:3]), *alike[3:]], alike))
    assert isinstance(few, Inconclusive)
    assert "3 of the incumbent's (3 × 503)" in few.reason


def test_after_a_tiny_difference_the_next_step_names_an_allowed_loss_that_would_suffice() -> (
    None
):
    ours = [1.0, 0.0] * 100
    # The candidate wins 20 items and loses 19, one after the other.
    lost = range(10, 200, 10)
    won = range(5, 200, 10)
    theirs = [
        1.0 - score if place in (*lost, *won) else score for place, score in enumerate(ours)
    ]
    found = one(sides(ours, theirs))
    planned = replace(proposal(), plans=(plan(),))

    assert isinstance(found, Inconclusive)
    step = describe_next_step(DecidedProposal(planned, found, None, {}, 8))
    assert step.startswith("none: a difference this small would need about")
    points = float(step.split("accept a loss of ")[1].split(" points")[0])
    (report,) = found.suites
    # The normal approximation of 5 % error and 80 % power, from the measured spread.
    assert report.figures.sd is not None
    usual = 100 * 2.49 * report.figures.sd / report.n_used**0.5
    assert points == pytest.approx(usual, rel=0.15)


def test_a_real_loss_stands_beside_an_unanswered_item_a_little_later() -> None:
    ours = list(WORSE[0])
    theirs = list(WORSE[1])
    theirs[0] = broken(theirs[0])
    assert one((ours[:8], theirs[:8])) is None
    found = one((ours, theirs))

    assert isinstance(found, Failed)
    assert len(found.inputs["pairs"]["math"]) == 9  # type: ignore[index]
    assert (
        describe_next_step(DecidedProposal(proposal(), found, None, {}, 8))
        == (NEXT_STEPS["failed"])
    )


def test_a_broken_incumbent_can_be_replaced() -> None:
    ours = [
        replace(
            one,
            strict=0.0,
            lenient=0.0,
            rule="no_label",
        )
        for one in WORSE[0]
    ]

    assert isinstance(one((ours, BETTER[1])), Passed)


REQUIRED = plan("safety", SuiteRole.REQUIRED, Claim.NON_INFERIOR)


def test_every_suite_has_to_pass() -> None:
    plans = [plan(), REQUIRED]

    assert isinstance(ask(plans, {"math": BETTER, "safety": ALIKE}), Passed)
    assert isinstance(ask(plans, {"math": BETTER, "safety": WORSE}), Failed)
    assert isinstance(ask(plans, {"math": ALIKE, "safety": ALIKE}), Inconclusive)
    assert ask(plans, {"math": BETTER}) is None


def test_a_suite_that_was_not_measured_weighs_more_than_form_and_less_than_a_loss() -> None:
    form = sides([1.0] * 200, [0.0] * 200, lenient=[1.0] * 200)
    dead = ([*map(broken, ALIKE[0])], ALIKE[1])
    plans = [plan(), REQUIRED]

    assert isinstance(ask(plans, {"math": form, "safety": dead}), InfraError)
    assert isinstance(ask(plans, {"math": form, "safety": ALIKE}), HarnessMismatch)
    assert isinstance(ask(plans, {"math": WORSE, "safety": dead}), Failed)


def test_a_run_that_stopped_is_never_a_pass() -> None:
    some = (ALIKE[0][:50], ALIKE[1][:50])
    broke = ask([plan()], {"math": some}, {"math": ("inconclusive", "over budget")})
    assert isinstance(broke, Inconclusive)
    assert "over budget" in broke.reason
    died = ask(
        [plan()],
        {"math": some},
        {"math": ("infra_error", "worker died 3 times")},
    )
    assert isinstance(died, InfraError)
    assert "worker died 3 times" in died.reason
    decided = ask([plan()], {"math": BETTER}, {"math": ("infra_error", "late")})
    assert isinstance(decided, Passed)
    with pytest.raises(ValueError, match="cannot have the outcome passed"):
        ask([plan()], {"math": some}, {"math": ("passed", "")})


@pytest.mark.req("F5")
def test_a_tampered_input_gives_another_verdict() -> None:
    before = one(WORSE)
    assert before is not None
    inputs = json.loads(json.dumps(before.inputs))
    inputs["pairs"]["math"][0][2] = 1.0
    tampered = replace(before, inputs=inputs)

    with pytest.raises(ValueError, match="do not decide"):
        replay_verdict(tampered)
    inputs["pairs"]["math"][0][2] = 0.5
    inputs["stopped"]["math"] = ["inconclusive", "x"]
    assert replay_verdict(tampered).id != before.id


GUARD = plan("safety", SuiteRole.GUARD, Claim.NON_INFERIOR)
# Too spread to show that it is within 5 points, and not worse either.
OPEN = sides([1.0, 0.0, 1.0, 0.0] * 50, [0.0, 1.0, 1.0, 0.0] * 50)


def weighted(*weights: float, claim: Claim = Claim.SUPERIOR) -> list[SuitePlan]:
    return [
        replace(
            plan(f"s{n}", claim=claim),
            combine=PrimaryCombination.WEIGHTED,
            weight=weight,
        )
        for n, weight in enumerate(weights)
    ]


def any_of(count: int) -> list[SuitePlan]:
    return [replace(plan(f"s{n}"), combine=PrimaryCombination.ANY) for n in range(count)]


def named(*found: Sides) -> Mapping[str, Sides]:
    return {f"s{n}": sample for n, sample in enumerate(found)}


def leaning(
    wins: int,
    losses: int,
    n: int = 200,
) -> Sides:
    """Differences spread evenly over the items, so that nothing crosses early by order."""
    ours = [1.0] * n
    theirs = [1.0] * n
    for k in range(wins):
        ours[k * n // wins] = 0.0
    for k in range(losses):
        place = (k * n // losses + 1) % n
        ours[place] = 1.0
        theirs[place] = 0.0
    return sides(ours, theirs)


def test_a_guard_is_waited_for_and_one_that_was_cut_short_has_not_guarded() -> None:
    some = (OPEN[0][:50], OPEN[1][:50])
    plans = [plan(), GUARD]

    assert ask(plans, {"math": BETTER, "safety": some}) is None
    stopped = {"safety": ("inconclusive", "over budget")}
    cut = ask(plans, {"math": BETTER, "safety": some}, stopped)
    assert isinstance(cut, Inconclusive)
    gone = ([*map(broken, OPEN[0])], OPEN[1])
    assert isinstance(ask(plans, {"math": BETTER, "safety": gone}), InfraError)


def test_one_better_suite_of_several_suffices_by_holms_rule() -> None:
    one = ask(any_of(2), named(leaning(20, 2), ALIKE))

    assert isinstance(one, Passed)
    outcomes = [(r.outcome, r.how) for r in one.suites]
    assert outcomes == [("passed", "final"), ("inconclusive", "final")]
    assert "By Holm's rule p = " in one.reason
    assert NOT_SHOWN_WORSE not in one.reason
    # Nothing is promoted before its end, or the p-values would not be those of one look.
    assert all(r.n_used == r.n_max for r in one.suites)


def test_a_suite_that_would_pass_alone_may_not_pass_among_four() -> None:
    p_alone = leaning(14, 5)
    alone = ask(any_of(1), named(p_alone))
    assert isinstance(alone, Passed)
    among = ask(any_of(4), named(p_alone, ALIKE, ALIKE, ALIKE))

    assert isinstance(among, Inconclusive)
    assert among.suites[0].p_final == alone.suites[0].p_final
    assert "not after the correction for the other suites" in among.suites[0].reason


def test_no_suite_is_no_decision() -> None:
    joint = judge_suites([])

    assert (joint.outcome, joint.reason, joint.reports) == (
        "running",
        "",
        (),
    )


PLAN = SuitePlan("math", "sha", SuiteRole.PRIMARY, Claim.SUPERIOR, 0.05, 0.05, 100, 1, 7)


def sample(
    run: str,
    position: int,
    score: float | None,
    epoch: int = 1,
) -> Sample:
    error = SampleError.UNSCORED if score is None else None
    made = replace(
        PLAIN_SAMPLE,
        run=run,
        item=f"q{position}",
        epoch=epoch,
        position=position,
    )
    return replace(
        made,
        strict=score,
        lenient=score,
        error=error,
    )


def run(name: str, scores: Iterable[float | None]) -> list[Sample]:
    return [sample(name, position, score) for position, score in enumerate(scores)]


def test_only_the_finished_prefix_counts_whatever_finished_first() -> None:
    ours = run("a", [1.0] * 6)
    theirs = run("b", [0.0] * 6)
    late = [
        theirs[0],
        theirs[4],
        theirs[1],
        theirs[5],
    ]

    suite = pair_samples(PLAN, list(reversed(ours)), late)

    assert [item.pair.item for item in suite.items] == ["q0", "q1"]


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(InputError, match="item q0: the strict score is"):
        pair_samples(PLAN, run("a", [score]), run("b", [1.0]))


ONE = sample("a", 0, 1.0)
TWO = sample("a", 1, 1.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            [ONE, TWO, TWO],
            run("b", [1.0, 1.0]),
            "item q1 epoch 1 appears twice",
        ),
        (
            [ONE],
            [replace(sample("b", 0, 1.0), item="x0")],
            "position 0 has two items",
        ),
        (
            [ONE, replace(TWO, epoch=2, item="q0")],
            [],
            "item q0 has two positions",
        ),
        ([ONE, sample("c", 1, 1.0)], [], "two runs, a and c"),
        (
            [ONE],
            [sample("b", 0, 1.0, 2)],
            "the epochs of the two sides differ",
        ),
        ([ONE, replace(ONE, epoch=2)], [], "more than the planned 1 epoch"),
    ],
)
def test_samples_that_are_no_pairs_of_one_plan_are_stale(
    ours: list[Sample],
    theirs: list[Sample],
    message: str,
) -> None:
    with pytest.raises(StaleEvidence, match=message):
        pair_samples(PLAN, ours, theirs)


@pytest.mark.req("F7")
@pytest.mark.parametrize("answer", ["", "4"], ids=["none-came", "not-judged"])
def test_an_item_without_a_score_counts_against_the_candidate_and_stays_open(
    answer: str,
) -> None:
    whole = run("a", [1.0] * 10)
    gaps = run("b", [1.0] * 10)
    gaps[4] = replace(broken(gaps[4]), answer=answer, error_text="the judge is away.")
    suite = pair_samples(PLAN, whole, gaps)
    turned = pair_samples(PLAN, gaps, whole)

    assert (len(suite.items), suite.blocked, turned.blocked) == (10, "", "")
    for item, scores, favour, why in (
        (
            suite.items[4],
            (1.0, 0.0),
            (1.0, 1.0),
            ((), ("the judge is away",)),
        ),
        (
            turned.items[4],
            (1.0, 1.0),
            (0.0, 1.0),
            (("the judge is away",), ()),
        ),
    ):
        assert (item.pair.incumbent, item.pair.candidate) == scores
        best = item.in_favour.pair
        assert (best.incumbent, best.candidate) == favour
        assert (best.lenient_incumbent, best.lenient_candidate) == favour
        assert (item.reasons, item.unanswered) == (why, not answer)
    assert all(item.complete for item in (*suite.items[:4], *suite.items[5:]))
