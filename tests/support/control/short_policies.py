"""Policies whose canary has three short steps."""

from dataclasses import replace

from harness.gate.policy import CanaryPolicy, CanaryStep, GatePolicy, Policy, PromotionMode
from harness.gate.suite_plan import Claim

STEPS = (
    CanaryStep(100, 3),
    CanaryStep(500, 5),
    CanaryStep(2500, 10, certify=True),
)
CANARY = CanaryPolicy(
    steps=STEPS,
    p0=0.2,
    alpha=0.05,
    bake_s=0.0,
)
POLICY = Policy(
    "default",
    gate=GatePolicy(claim=Claim.SUPERIOR, infra_patience_s=100),
    canary=CANARY,
)


def approved(policy: Policy = POLICY) -> Policy:
    return replace(policy, promotion=PromotionMode.APPROVED)
