"""Policy strictness finds the fields in which a proposal's policy asks for less than its
route's, so that a person has to approve it. Pure.

Each field of a policy has a rule here. One without a rule has to be equal; a test names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple

from harness.domain.canary.guardrails import Guardrails
from harness.domain.evals.pins import ServedPin
from harness.domain.evals.suite_plan import ClaimPopulation
from harness.domain.proposals.change_reference import ChangeReferenceRule
from harness.domain.proposals.policy import (
    CanaryPolicy,
    CanaryStep,
    GatePolicy,
    PeakHours,
    Policy,
    PromotionMode,
    ShadowStagePolicy,
)

FieldRule = Callable[[Any, Any], bool]


class WidenedField(NamedTuple):
    """A field in which a proposal asks for less than its route does: `gate.margin`."""

    field: str
    route: object
    proposed: object


def must_equal(route: Any, proposed: Any) -> bool:
    """Compares a field whose values have no order."""
    return bool(route == proposed)


def always_allowed(_route: Any, _proposed: Any) -> bool:
    """Accepts any value: another field bounds it, or it is only a name."""
    return True


def at_most(route: Any, proposed: Any) -> bool:
    """Accepts a value that is not above the route's; None is no limit."""
    return route is None or (proposed is not None and proposed <= route)


def at_least(route: Any, proposed: Any) -> bool:
    return bool(proposed >= route)


def at_least_items(route: Any, proposed: Any) -> bool:
    """Accepts a number of items that is not below the route's; None means all of them."""
    return proposed is None or (route is not None and proposed >= route)


def at_most_ratio(route: Any, proposed: Any) -> bool:
    """A guardrail more takes from the others' share of alpha, so each is on or off alike."""
    if route is False or proposed is False:
        return route is proposed
    return bool(proposed <= route)


def same_or_stricter(stricter: Mapping[Any, frozenset[Any]]) -> FieldRule:
    """Builds a rule that accepts the same or a stricter value. stricter: for each value, the
    stricter ones.
    """
    return lambda route, proposed: proposed == route or proposed in stricter[route]


STRICTER_PINS: Final = {
    ServedPin.NONE: frozenset({ServedPin.MODEL, ServedPin.BUILD}),
    ServedPin.MODEL: frozenset({ServedPin.BUILD}),
    ServedPin.BUILD: frozenset(),
}
# What holds of items like these is the harder thing to show.
STRICTER_POPULATIONS: Final = {
    ClaimPopulation.LIKE_THESE: frozenset[ClaimPopulation](),
    ClaimPopulation.THESE: frozenset({ClaimPopulation.LIKE_THESE}),
}
STRICTER_PROMOTION: Final = {
    PromotionMode.AUTOMATIC: frozenset({PromotionMode.APPROVED}),
    PromotionMode.APPROVED: frozenset(),
}
STRICTER_CHANGE_REFERENCE: Final = {
    ChangeReferenceRule.OPTIONAL: frozenset({ChangeReferenceRule.REQUIRED}),
    ChangeReferenceRule.REQUIRED: frozenset(),
}

# Compared field by field, by the rules of their own type.
NESTED_FIELDS: Final = frozenset({"gate", "canary", "steps", "peak", "shadow", "guardrails"})
# What a proposer may choose within the route's bounds is looked at together, in `_choices`.
FIELD_RULES: Final[Mapping[type, Mapping[str, FieldRule]]] = {
    Policy: {
        "name": always_allowed,
        "promotion": same_or_stricter(STRICTER_PROMOTION),
        "approval_ttl_s": at_most,
        "self_approval": at_most,
        "change_reference": same_or_stricter(STRICTER_CHANGE_REFERENCE),
    },
    GatePolicy: {
        **dict.fromkeys(("claim", "claims", "margin", "margin_max"), always_allowed),
        "alpha": at_most,
        "alpha_budget": at_most,
        "n_max": at_least_items,
        "epochs": at_least,
        "verdict_ttl_s": at_most,
        # Another attempt is another chance.
        "infra_retries": at_most,
        "infra_pause_s": must_equal,
        "max_cost_usd": at_most,
        "max_tokens": at_most,
        "run_max_age_s": at_most,
        "served_pin": same_or_stricter(STRICTER_PINS),
        "min_saving": at_least,
        "cost_ceiling": must_equal,
        "primaries": must_equal,
        "population": same_or_stricter(STRICTER_POPULATIONS),
    },
    CanaryPolicy: {
        # Of rolling back a good candidate: what trips sooner guards more.
        "alpha": at_least,
        "local_alpha": at_least,
        "rho": at_most,
        "rho_ni": at_most,
        "p0": at_most,
        "certificate": at_least,
        "block_size": must_equal,
        "missing_s": must_equal,
        "bake_s": at_least,
        "bake_bps": at_least,
        "judge": must_equal,
        "warm_up": at_most,
    },
    CanaryStep: {
        "weight_bps": must_equal,
        "min_exposures": at_least,
        "certify": at_least,
        "deadline_s": at_most,
        "min_s": at_least,
        "min_peak_s": at_least,
    },
    PeakHours: {"start_h": must_equal, "end_h": must_equal},
    ShadowStagePolicy: {
        "share_bps": must_equal,
        "min_pairs": at_least,
        "max_cost_usd": must_equal,
        # Of rejecting a candidate that is no worse.
        "alpha": at_least,
    },
    Guardrails: dict.fromkeys((field.name for field in fields(Guardrails)), at_most_ratio),
}


def find_widened_fields(route: Policy, proposed: Policy) -> list[WidenedField]:
    """The fields in which `proposed` is wider than the route's policy; empty when in none."""
    return [*_choices(route.gate, proposed.gate), *_wider("", route, proposed)]


def _choices(route: GatePolicy, proposed: GatePolicy) -> list[WidenedField]:
    """What a proposer may choose within the route's bounds."""
    found = []
    allowed = route.allowed_claims
    if proposed.claim not in allowed:
        found.append(WidenedField("gate.claim", allowed, proposed.claim))
    elif not set(proposed.allowed_claims) <= set(allowed):
        found.append(WidenedField("gate.claims", allowed, proposed.allowed_claims))
    if proposed.margin > route.largest_margin:
        found.append(WidenedField("gate.margin", route.largest_margin, proposed.margin))
    elif proposed.largest_margin > route.largest_margin:
        found.append(
            WidenedField("gate.margin_max", route.largest_margin, proposed.largest_margin)
        )
    return found


def _wider(place: str, route: Any, proposed: Any) -> list[WidenedField]:
    """Field by field of two values of one type, and what is in them."""
    widened_fields: list[WidenedField] = []
    rules = FIELD_RULES[type(route)]
    for field in fields(route):
        ours, theirs = getattr(route, field.name), getattr(proposed, field.name)
        name = f"{place}{field.name}"
        rule = rules.get(field.name)
        if rule is not None:
            widened_fields += [] if rule(ours, theirs) else [WidenedField(name, ours, theirs)]
        elif type(ours) is type(theirs) and type(ours) in FIELD_RULES:
            widened_fields += _wider(f"{name}.", ours, theirs)
        elif _steps_alike(ours, theirs):
            for number, pair in enumerate(zip(ours, theirs, strict=True), start=1):
                widened_fields += _wider(f"{name}.{number}.", *pair)
        elif not (ours == theirs or (ours is None and type(theirs) is ShadowStagePolicy)):
            # Of no rule: equal. A shadow where the route asks for none looks twice.
            widened_fields.append(WidenedField(name, ours, theirs))
    return widened_fields


def _steps_alike(route: Any, proposed: Any) -> bool:
    """Whether both are as many steps: a step more or less has no order."""
    both = (route, proposed)
    return (
        all(isinstance(value, tuple) for value in both)
        and len(route) == len(proposed)
        and all(isinstance(step, CanaryStep) for value in both for step in value)
    )
