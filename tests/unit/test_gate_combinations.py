"""Whatever was registered together, a verdict is decided once, again to the same bytes, and
again from the stored samples: suites of every role with clusters, slices, claims
about these items and about items like them, several candidates, epochs, weights, costs,
readings of form, and answers that never came.

Each of them has the figures and words of tests/golden/verdicts.json, so that a change of a
rule, of a field or of a sentence shows. After a change that is meant, write the file anew:
`python -m tests.unit.test_gate_combinations`.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from harness.frame.plain_data import from_plain
from harness.gate.arrays import Floats
from harness.gate.budget import share_alpha
from harness.gate.offline.item_tests import MOST_NOISE
from harness.gate.offline.verdicts import replay_verdict, verdict_bytes
from harness.gate.policy import GatePolicy, Policy
from harness.gate.run import Sample, SampleError
from harness.gate.suite_plan import (
    Claim,
    ClaimPopulation,
    PrimaryCombination,
    Slice,
    SuitePlan,
    SuiteRole,
)
from harness.gate.verdict import VERDICTS, Verdict
from harness.proposals.recomputation import recompute_verdict
from harness.routing.proposal import Proposal, ProposalPhase, SuiteRuns
from tests.support.sampling import sampled
from tests.support.store.records import PLAIN_SAMPLE
from tests.unit.test_gate_verdicts import NOW, Sides, ask, broken
from tests.unit.test_gate_verdicts import plan as plan_of

pytestmark = pytest.mark.req("A7", "F2", "F5")

SEEDS = range(100)
# `make test` has every fourteenth; the others are `make verify`'s.
SAMPLED = sampled(SEEDS, SEEDS[::14])
SHARES = (0.15, 0.4, 0.75)
GOLDEN = Path(__file__).parent.parent / "golden" / "verdicts.json"
RULES = ("code_fence", "case", "code_fence+single_quotes")
LIFTS = (-0.4, -0.1, 0.0, 0.1, 0.4)
# Two of five candidates are better on all of its suites: else nearly none would pass.
BETTER_LIFTS = (0.4, 0.6)


@dataclass(frozen=True)
class AnsweredSuites:
    """Registered plans and what both sides answered."""

    plans: tuple[SuitePlan, ...]
    sides: Mapping[str, Sides]


def draw(seed: int) -> AnsweredSuites:
    rng = random.Random(seed)
    roles = [SuiteRole.PRIMARY] * rng.choice((1, 1, 2, 3))
    roles += [role for role in (SuiteRole.REQUIRED, SuiteRole.GUARD) if rng.random() < 0.3]
    claim = rng.choice(list(Claim))
    combine = None
    if roles.count(SuiteRole.PRIMARY) > 1:
        combine = PrimaryCombination.WEIGHTED
        if claim is Claim.SUPERIOR and rng.random() < 0.4:
            combine = PrimaryCombination.ANY
    better = rng.random() < 0.4
    units = rng.choice((70, 130) if better else (5, 70, 130))
    epochs = rng.choice((1, 1, 2))
    about_these = rng.random() < 0.5 and epochs > 1
    candidates = rng.choice((1, 1, 3))
    plans = []
    for number, role in enumerate(roles):
        main = role is SuiteRole.PRIMARY
        base = SuitePlan(
            f"suite{number}",
            "sha",
            role,
            claim if main else Claim.NON_INFERIOR,
            0.1,
            0.05,
            units,
            epochs,
            7,
            spend="first_full",
            min_saving=0.1 if main and claim is Claim.CHEAPER else 0.0,
            cost_ceiling=10.0 if main and claim is Claim.CHEAPER else 0.0,
            combine=combine if main else None,
            weight=rng.choice((1.0, 2.5)) if main and combine else 1.0,
        )
        plans.append(share_alpha(in_groups(rng, base, about_these=about_these), candidates))
    sides = {plan.suite: answers(rng, plan, better=better) for plan in plans}
    return AnsweredSuites(tuple(plans), sides)


def in_groups(
    rng: random.Random,
    plan: SuitePlan,
    *,
    about_these: bool,
) -> SuitePlan:
    if rng.random() < 0.2:
        sizes = tuple(rng.randint(1, 4) for _ in range(plan.n_max))
        plan = replace(plan, cluster="document", cluster_sizes=sizes)
    elif about_these and plan.combine is not PrimaryCombination.WEIGHTED:
        items = plan.n_max + rng.choice((0, 60))
        plan = replace(plan, suite_items=items, population=ClaimPopulation.THESE)
    if plan.n_max >= 130 and rng.random() < 0.5:
        items = plan.planned_items
        half = plan.items_in(plan.n_max // 2)
        slices = (
            Slice(
                "language",
                "en",
                tuple(range(0, items, 2)) if not plan.cluster else (),
            ),
            Slice("half", "first", tuple(range(half))),
            Slice("half", "second", tuple(range(half, items))),
        )
        plan = replace(plan, slices=tuple(one for one in slices if one.positions))
    return plan


def answers(
    rng: random.Random,
    plan: SuitePlan,
    *,
    better: bool,
) -> Sides:
    lift = rng.choice(BETTER_LIFTS if better else LIFTS)
    graded = rng.random() < 0.3
    lenient = rng.random() < 0.3
    unscored = rng.choice((0.0, 0.05))
    gone = rng.choice((0.0, 0.0, 0.01) if better else (0.0, 0.0, 0.01, 0.05))
    ours: list[Sample] = []
    theirs: list[Sample] = []
    for position in range(plan.planned_items):
        ease = rng.random()
        for epoch in range(1, plan.epochs + 1):
            for samples, more in ((ours, 0.0), (theirs, lift)):
                samples.append(
                    answer(
                        rng,
                        plan,
                        (position, epoch),
                        ease + more,
                        graded=graded,
                    )
                )
                if rng.random() < unscored:
                    samples[-1] = replace(
                        samples[-1],
                        strict=None,
                        lenient=None,
                        error=SampleError.UNSCORED,
                    )
                elif samples is theirs and rng.random() < gone:
                    samples[-1] = broken(samples[-1])
            if lenient and theirs and theirs[-1].strict is not None:
                loose = rng.choice((1.0, 1.0, theirs[-1].strict))
                theirs[-1] = replace(theirs[-1], lenient=loose, rule=rng.choice(RULES))
    a = f"run_a_{plan.suite}"
    b = f"run_b_{plan.suite}"
    return [replace(s, run=a) for s in ours], [replace(s, run=b) for s in theirs]


def answer(
    rng: random.Random,
    plan: SuitePlan,
    place: tuple[int, int],
    chance: float,
    *,
    graded: bool,
) -> Sample:
    position, epoch = place
    score = min(1.0, max(0.0, chance)) if graded else float(rng.random() < chance)
    cost: float | None = rng.choice((0.5, 1.0))
    if plan.suite == "suite1":  # dear answers, and some of an unknown price
        cost = rng.choice((1.5, 1.5, 0.75, None)) if rng.random() < 0.1 else 1.5
    return Sample(
        run="",
        item=f"{plan.suite}_{position}",
        epoch=epoch,
        position=position,
        answer="",
        strict=score,
        lenient=score,
        input_tokens=1,
        output_tokens=rng.randint(1, 9),
        cost_usd=cost,
        duration_s=0.1,
        served_model="m-1",
    )


def proposed(drawn: AnsweredSuites) -> Proposal:
    return Proposal(
        id="p_1",
        route="triage",
        incumbent="t_old",
        candidate="t_new",
        claim=drawn.plans[0].claim,
        reason="",
        proposer="ann",
        policy=Policy(gate=GatePolicy(verdict_ttl_s=3600.0)),
        plans=drawn.plans,
        phase=ProposalPhase.EVALUATING,
        created_at=NOW,
        updated_at=NOW,
        runs={p.suite: SuiteRuns(f"run_a_{p.suite}", f"run_b_{p.suite}") for p in drawn.plans},
    )


def first(sides: Sides, items: int) -> Sides:
    ours, theirs = sides
    return ours, [sample for sample in theirs if sample.position < items]


def check_again(
    verdict: Verdict,
    drawn: AnsweredSuites,
    found: Mapping[str, Sides],
) -> None:
    stored = replace(verdict, inputs=json.loads(json.dumps(verdict.inputs)))
    assert verdict_bytes(replay_verdict(stored)) == verdict_bytes(verdict)
    recomputation = recompute_verdict(stored, proposed(drawn), found, {})
    assert recomputation.agrees, recomputation.text


def test_the_draws_hold_every_outcome_and_a_fifth_of_them_passes() -> None:
    """As the golden file has them, which the next test holds."""
    golden: dict[str, dict[str, str]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    ends = {seed: golden[str(seed)]["whole"].partition(" ")[0] for seed in SEEDS}
    outcomes = Counter(ends.values())
    assert set(outcomes) == set(VERDICTS)
    assert outcomes["passed"] >= len(SEEDS) / 5
    plans = [plan for seed, end in ends.items() if end == "passed" for plan in draw(seed).plans]
    for met in (
        [plan.about_these for plan in plans],
        [bool(plan.cluster) for plan in plans],
        [bool(plan.slices) for plan in plans],
        [plan.candidates > 1 for plan in plans],
        [plan.epochs > 1 for plan in plans],
    ):
        assert any(met)


def endings(
    seed: int,
    drawn: AnsweredSuites,
    share: float,
) -> tuple[Verdict | None, Verdict]:
    """The verdict on a share of the answers while the runs go on, and once they have ended."""
    part = {
        plan.suite: first(drawn.sides[plan.suite], 1 + int(share * plan.planned_items))
        for plan in drawn.plans
    }
    why = (
        ("infra_error", "the worker died") if seed % 3 == 0 else ("inconclusive", "over budget")
    )
    stopped = ask(drawn.plans, part, dict.fromkeys(part, why))
    assert stopped is not None
    return ask(drawn.plans, part), stopped


def rounded(value: object) -> object:
    """The last digits of a figure may differ from machine to machine."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def recorded(verdict: Verdict) -> str:
    """The outcome, and a digest of all that a verdict says but of its id."""
    body = {**json.loads(verdict_bytes(verdict)), "id": ""}
    text = json.dumps(rounded(body), sort_keys=True)
    return f"{verdict.outcome} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def record_all(seed: int) -> dict[str, str]:
    drawn = draw(seed)
    whole = ask(drawn.plans, drawn.sides)
    assert whole is not None
    ended = {str(share): recorded(endings(seed, drawn, share)[1]) for share in SHARES}
    return {"whole": recorded(whole), **ended}


@pytest.mark.parametrize("seed", SAMPLED)
def test_every_combination_has_the_figures_and_words_of_the_golden_file(seed: int) -> None:
    assert record_all(seed) == json.loads(GOLDEN.read_text(encoding="utf-8"))[str(seed)]


@pytest.mark.parametrize("seed", SAMPLED[:40])
def test_every_combination_is_decided_again_to_the_same_bytes(seed: int) -> None:
    drawn = draw(seed)
    for plan in drawn.plans:
        assert from_plain(SuitePlan, json.loads(json.dumps(plan.as_json()))) == plan
    verdict = ask(drawn.plans, drawn.sides)

    assert verdict is not None
    check_again(verdict, drawn, drawn.sides)
    for share in SHARES:
        early, stopped = endings(
            seed,
            drawn,
            share,
        )
        if early is not None:
            check_again(early, drawn, drawn.sides)
            if len(drawn.plans) == 1:
                assert verdict_bytes(early) == verdict_bytes(verdict)
        check_again(stopped, drawn, drawn.sides)


ITEMS = 200
LIKE = replace(plan_of(n_max=ITEMS), epochs=2)
THESE = replace(LIKE, population=ClaimPopulation.THESE, suite_items=ITEMS)


def asked_twice(
    lift: float,
    seed: int = 1,
    answers: int = 2,
    *,
    copied: bool = False,
) -> Sides:
    """Both sides' answers to items of their own chances; a copy has the length of the first."""
    rng = np.random.default_rng(seed)
    ability = rng.choice([0.02, 0.1, 0.5, 0.9, 0.98], ITEMS)

    def samples(run: str, chances: Floats) -> list[Sample]:
        return [
            replace(
                PLAIN_SAMPLE,
                run=run,
                item=f"q{position}",
                epoch=epoch,
                position=position,
                strict=score,
                lenient=score,
                output_tokens=40 if copied else 40 + epoch,
            )
            for position, chance in enumerate(chances)
            for epoch, score in enumerate((rng.random(answers) < chance).astype(float), start=1)
        ]

    return samples("run_a", ability), samples("run_b", np.minimum(ability + lift, 1.0))


def decide(suite_plan: SuitePlan, found: Sides) -> Verdict:
    verdict = ask([suite_plan], {"math": found}, {})
    assert verdict is not None
    return verdict


def test_answers_of_one_length_may_be_copies_and_prove_no_calm() -> None:
    figures = decide(THESE, asked_twice(0.09, 2, copied=True)).suites[0].figures

    assert figures.noise_incumbent == MOST_NOISE


@pytest.mark.parametrize("side", [0, 1])
def test_noise_that_was_written_smaller_is_found_out(side: int) -> None:
    found = {"math": asked_twice(0.25)}
    runs = {"math": SuiteRuns("run_a", "run_b")}
    registered = replace(proposed(AnsweredSuites((THESE,), found)), runs=runs)
    verdict = decide(THESE, found["math"])
    written = json.loads(json.dumps(verdict.inputs))
    written["variances"]["math"][0][side] += 0.01
    forged = replace(verdict, inputs=written)

    assert recompute_verdict(verdict, registered, found, {}).agrees
    assert not recompute_verdict(forged, registered, found, {}).agrees


if __name__ == "__main__":
    everything = {str(seed): record_all(seed) for seed in SEEDS}
    lines = (
        f"{json.dumps(seed)}: {json.dumps(verdicts)}" for seed, verdicts in everything.items()
    )
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
