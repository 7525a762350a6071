"""A proposal's policy is compared with its route's by every field."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.unit_rule import CanaryJudge
from harness.domain.evals.pins import ServedPin
from harness.domain.evals.suite_plan import Claim, ClaimPopulation, PrimaryCombination
from harness.domain.proposals.policy import (
    DEFAULT_STEPS,
    CanaryPolicy,
    CanaryStep,
    GatePolicy,
    PeakHours,
    Policy,
    PromotionMode,
    ShadowStagePolicy,
)
from harness.domain.proposals.policy_strictness import (
    FIELD_RULES,
    NESTED_FIELDS,
    find_widened_fields,
)

pytestmark = pytest.mark.req("A7", "F2")

COMPARED = (
    Policy,
    GatePolicy,
    CanaryPolicy,
    CanaryStep,
    PeakHours,
    ShadowStagePolicy,
    Guardrails,
)
LEVELS = st.sampled_from([0.01, 0.05, 0.2])
COUNTS = st.sampled_from([1, 2, 300])
LIMITS = st.none() | COUNTS
RATIOS = st.sampled_from([False, 1.0, 1.5])
SHADOW = ShadowStagePolicy(100, 50, 1.0)
JUDGE = CanaryJudge("sim/judge", "right", 1.0)

GATES = st.builds(
    GatePolicy,
    claim=st.sampled_from(Claim),
    margin=LEVELS,
    alpha=LEVELS,
    n_max=LIMITS,
    epochs=COUNTS,
    verdict_ttl_s=COUNTS,
    infra_retries=COUNTS,
    max_cost_usd=LIMITS,
    max_tokens=LIMITS,
    run_max_age_s=COUNTS,
    served_pin=st.sampled_from(ServedPin),
    min_saving=LEVELS,
    primaries=st.sampled_from(PrimaryCombination),
    population=st.sampled_from(ClaimPopulation),
    claims=st.sampled_from([(), (Claim.SUPERIOR,), tuple(Claim)]),
    margin_max=st.none() | LEVELS,
    alpha_budget=st.none() | LEVELS,
)
STEPS = st.lists(
    st.builds(
        CanaryStep, st.sampled_from([100, 500]), COUNTS, st.booleans(), COUNTS, COUNTS, COUNTS
    ),
    min_size=1,
    max_size=2,
).map(tuple)
CANARIES = st.builds(
    CanaryPolicy,
    steps=STEPS,
    alpha=LEVELS,
    rho=LEVELS,
    certificate=COUNTS,
    guardrails=st.builds(Guardrails, latency=RATIOS, refusals=RATIOS),
    bake_s=COUNTS,
    shadow=st.none() | st.builds(ShadowStagePolicy, COUNTS, COUNTS, LEVELS),
    judge=st.none() | st.just(JUDGE),
)
POLICIES = st.builds(
    Policy,
    name=st.sampled_from(["default", "lax"]),
    promotion=st.sampled_from(PromotionMode),
    approval_ttl_s=COUNTS,
    self_approval=st.booleans(),
    gate=GATES,
    canary=CANARIES,
)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """Two policies that have much in common: else two are hardly ever comparable."""
    one, other = draw(POLICIES), draw(POLICIES)
    kept = draw(st.sets(st.sampled_from(["promotion", "approval_ttl_s", "self_approval"])))
    gate = draw(st.sets(st.sampled_from([field.name for field in fields(GatePolicy)])))
    canary = draw(st.sets(st.sampled_from([field.name for field in fields(CanaryPolicy)])))
    return one, replace(
        one,
        **{name: getattr(other, name) for name in kept},
        gate=replace(one.gate, **{name: getattr(other.gate, name) for name in gate}),
        canary=replace(one.canary, **{name: getattr(other.canary, name) for name in canary}),
    )


def unchosen(policy: Policy) -> Policy:
    """Without what a proposer chooses within the bounds, and without the name."""
    gate = replace(
        policy.gate,
        claim=policy.gate.allowed_claims[0],
        claims=policy.gate.allowed_claims,
        margin=0.0,
        margin_max=policy.gate.largest_margin,
    )
    return replace(policy, name="", gate=gate)


@given(POLICIES)
def test_a_policy_is_as_strict_as_itself(policy: Policy) -> None:
    assert find_widened_fields(policy, policy) == []


@given(neighbours(), POLICIES)
def test_as_strict_as_is_transitive(pair: tuple[Policy, Policy], third: Policy) -> None:
    first, second = pair
    for last in (third, replace(second, gate=replace(second.gate, alpha=0.001)), first):
        if not find_widened_fields(first, second) and not find_widened_fields(second, last):
            assert find_widened_fields(first, last) == []


@given(neighbours())
def test_two_that_are_as_strict_as_each_other_differ_in_choices_alone(
    pair: tuple[Policy, Policy],
) -> None:
    one, other = pair
    if not find_widened_fields(one, other) and not find_widened_fields(other, one):
        assert unchosen(one) == unchosen(other)


@pytest.mark.parametrize("kind", COMPARED)
def test_every_field_of_a_policy_has_a_rule(kind: type[Any]) -> None:
    names = {field.name for field in fields(kind)}
    assert names - NESTED_FIELDS == set(FIELD_RULES[kind])


def test_every_part_of_a_policy_is_compared() -> None:
    """By the values, so that a part of a new kind is not forgotten."""
    whole = Policy(canary=CanaryPolicy(shadow=SHADOW, judge=JUDGE))
    parts: list[Any] = [whole]
    for part in parts:
        assert type(part) in FIELD_RULES
        for field in fields(part):
            value = getattr(part, field.name)
            inner = [value] if is_dataclass(value) else value if type(value) is tuple else []
            parts += [one for one in inner if is_dataclass(one) and field.name in NESTED_FIELDS]
    assert {type(part) for part in parts} == set(COMPARED)


def gate(**changes: Any) -> Callable[[Policy], Policy]:
    return lambda policy: replace(policy, gate=replace(policy.gate, **changes))


def canary(**changes: Any) -> Callable[[Policy], Policy]:
    return lambda policy: replace(policy, canary=replace(policy.canary, **changes))


def step(**changes: Any) -> Callable[[Policy], Policy]:
    first, *others = DEFAULT_STEPS
    return canary(steps=(replace(first, **changes), *others))


def policy(**changes: Any) -> Callable[[Policy], Policy]:
    return lambda before: replace(before, **changes)


STRICT = Policy(
    promotion=PromotionMode.APPROVED,
    gate=GatePolicy(
        claims=(Claim.SUPERIOR,),
        alpha_budget=0.1,
        n_max=400,
        max_cost_usd=5.0,
        max_tokens=10_000,
        served_pin=ServedPin.BUILD,
        epochs=2,
    ),
    canary=CanaryPolicy(shadow=SHADOW, judge=JUDGE, guardrails=Guardrails(judge=1.25)),
)
LOOSER = {
    "promotion": policy(promotion=PromotionMode.AUTOMATIC),
    "approval_ttl_s": policy(approval_ttl_s=1e9),
    "self_approval": policy(self_approval=True),
    "gate.claim": gate(claim=Claim.NON_INFERIOR),
    "gate.claims": gate(claims=tuple(Claim)),
    "gate.margin": gate(margin=0.9),
    "gate.margin_max": gate(margin_max=0.9),
    "gate.alpha": gate(alpha=0.4),
    "gate.alpha_budget": gate(alpha_budget=None),
    "gate.n_max": gate(n_max=11),
    "gate.epochs": gate(epochs=1),
    "gate.verdict_ttl_s": gate(verdict_ttl_s=1e9),
    "gate.infra_retries": gate(infra_retries=1000),
    "gate.infra_pause_s": gate(infra_pause_s=0.0),
    "gate.max_cost_usd": gate(max_cost_usd=None),
    "gate.max_tokens": gate(max_tokens=None),
    "gate.run_max_age_s": gate(run_max_age_s=1e9),
    "gate.served_pin": gate(served_pin=ServedPin.NONE),
    "gate.min_saving": gate(min_saving=0.001),
    "gate.cost_ceiling": gate(cost_ceiling=100.0),
    "gate.primaries": gate(primaries=PrimaryCombination.ANY),
    "gate.population": gate(population=ClaimPopulation.THESE),
    "canary.steps": canary(steps=(CanaryStep(100, 1),)),
    "canary.steps.1.weight_bps": step(weight_bps=499),
    "canary.steps.1.min_exposures": step(min_exposures=0),
    "canary.steps.1.deadline_s": step(deadline_s=1e9),
    "canary.steps.3.certify": canary(
        steps=(*DEFAULT_STEPS[:2], replace(DEFAULT_STEPS[2], certify=False))
    ),
    "canary.alpha": canary(alpha=1e-6),
    "canary.rho": canary(rho=50.0),
    "canary.rho_ni": canary(rho_ni=50.0),
    "canary.p0": canary(p0=0.5),
    "canary.certificate": canary(certificate=2.0),
    "canary.block_size": canary(block_size=10),
    "canary.missing_s": canary(missing_s=1.0),
    "canary.local_alpha": canary(local_alpha=0.0),
    "canary.guardrails.latency": canary(guardrails=Guardrails(judge=1.25, latency=False)),
    "canary.guardrails.refusals": canary(guardrails=Guardrails(judge=1.25, refusals=99.0)),
    "canary.peak.start_h": canary(peak=PeakHours(0, 18)),
    "canary.bake_s": canary(bake_s=0.0),
    "canary.bake_bps": canary(bake_bps=1),
    "canary.shadow": canary(shadow=None),
    "canary.shadow.min_pairs": canary(shadow=replace(SHADOW, min_pairs=1)),
    "canary.judge": canary(judge=replace(JUDGE, criteria="say yes")),
}


@pytest.mark.parametrize("field", LOOSER)
def test_a_single_field_that_is_loosened_is_named(field: str) -> None:
    widened = find_widened_fields(STRICT, LOOSER[field](STRICT))

    assert [widened_field.field for widened_field in widened] == [field]


def test_a_choice_within_the_bounds_is_free() -> None:
    route = Policy(gate=GatePolicy(margin=0.02, margin_max=0.05, claims=(Claim.NON_INFERIOR,)))

    for claim, margin in ((Claim.SUPERIOR, 0.02), (Claim.NON_INFERIOR, 0.05)):
        assert find_widened_fields(route, gate(claim=claim, margin=margin)(route)) == []
    (widened,) = find_widened_fields(route, gate(claim=Claim.CHEAPER)(route))
    assert widened.field == "gate.claim"


def test_a_shadow_that_the_route_does_not_ask_for_is_stricter() -> None:
    assert find_widened_fields(Policy(), canary(shadow=SHADOW)(Policy())) == []
