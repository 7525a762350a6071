"""Reads policies, plans and suite reports from their JSON columns, those of older versions with
the defaults of then; writes reports.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from harness.domain.canary.guardrails import Guardrails
from harness.domain.canary.unit_rule import CanaryJudge, ExposureUnit
from harness.domain.evals.pins import ServedPin
from harness.domain.evals.run import (
    Claim,
    ClaimPopulation,
    GateRule,
    PrimaryCombination,
    SuiteReport,
    SuiteRole,
)
from harness.domain.proposals.change_reference import ChangeReferenceRule
from harness.domain.proposals.policy import (
    AlphaSpending,
    CanaryPolicy,
    CanaryStep,
    EvidenceRule,
    GatePolicy,
    PeakHours,
    Policy,
    PromotionMode,
    ShadowStagePolicy,
)
from harness.store.schema.columns import JsonIn

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass
class _Reader:
    """Leaves out the fields that only a newer version knows, and notes them by path."""

    newer: dict[str, Any] = field(default_factory=dict)

    def known(self, cls: "type[DataclassInstance]", data: JsonIn, path: str = "") -> JsonIn:
        names = {item.name for item in fields(cls)}
        self.newer |= {f"{path}{name}": data[name] for name in data if name not in names}
        return {name: value for name, value in data.items() if name in names}


def policy_from_json(data: JsonIn) -> Policy:
    """A field that only a newer version knows is kept in `newer`; nothing is decided then."""
    reader = _Reader()
    return Policy(
        **{
            **reader.known(Policy, data),
            "promotion": PromotionMode(data["promotion"]),
            "change_reference": ChangeReferenceRule(
                data.get("change_reference", ChangeReferenceRule.OPTIONAL)
            ),
            "gate": gate_policy_from_json(reader.known(GatePolicy, data["gate"], "gate.")),
            "canary": canary_policy_from_json(data["canary"]),
            "newer": reader.newer,
        }
    )


def gate_policy_from_json(data: JsonIn) -> GatePolicy:
    """Registrations older than the rule of spending made no promise about repeats, and those
    older than the pin of what is served compare nothing.
    """
    newer = {
        "spend": AlphaSpending(data.get("spend", AlphaSpending.NONE)),
        "served_pin": ServedPin(data.get("served_pin", ServedPin.NONE)),
        "primaries": PrimaryCombination(data.get("primaries", PrimaryCombination.WEIGHTED)),
        "claims": tuple(Claim(claim) for claim in data.get("claims", Claim)),
        "rule": GateRule(data.get("rule", GateRule.PAIRED)),
        "population": ClaimPopulation(data.get("population", ClaimPopulation.LIKE_THESE)),
    }
    return GatePolicy(**{**data, "claim": Claim(data["claim"]), **newer})


def canary_policy_from_json(data: JsonIn) -> CanaryPolicy:
    """Rollouts older than the guardrails are guarded by errors alone, at the control plane."""
    reader = _Reader()
    guardrails, shadow = data.get("guardrails"), data.get("shadow")
    judge, known = data.get("judge"), reader.known
    read = {
        "evidence": EvidenceRule(data.get("evidence", EvidenceRule.EVEN)),
        "steps": tuple(
            CanaryStep(**known(CanaryStep, step, f"steps.{place}."))
            for place, step in enumerate(data["steps"])
        ),
        "peak": PeakHours(**known(PeakHours, data.get("peak", {}), "peak.")),
        # Older rollouts did not bake.
        "bake_s": data.get("bake_s", 0.0),
        "shadow": ShadowStagePolicy(**known(ShadowStagePolicy, shadow, "shadow."))
        if shadow
        else None,
        "judge": CanaryJudge(**known(CanaryJudge, judge, "judge.")) if judge else None,
        "unit": ExposureUnit(data["unit"]),
        "local_alpha": data.get("local_alpha", 0.0),
        "guardrails": Guardrails(**known(Guardrails, guardrails, "guardrails."))
        if guardrails
        else Guardrails.none(),
    }
    return CanaryPolicy(**{**known(CanaryPolicy, data), **read, "newer": reader.newer})


def reports_to_json(reports: Iterable[SuiteReport]) -> list[dict[str, Any]]:
    return [{k: _finite(v) for k, v in asdict(report).items()} for report in reports]


def reports_from_json(data: Iterable[JsonIn]) -> tuple[SuiteReport, ...]:
    return tuple(_report(report) for report in data)


def _report(data: JsonIn) -> SuiteReport:
    values: dict[str, Any] = {k: _number(v) if k in _FIGURES else v for k, v in data.items()}
    values |= {
        "role": SuiteRole(data["role"]),
        "claim": Claim(data["claim"]),
        "flags": tuple(data["flags"]),
    }
    return SuiteReport(**values)


# JSON has no infinity, and the evidence against a certain loser is infinite.
_FIGURES = frozenset({"delta", "ci_low", "ci_high", "log_e", "log_e_bad", "p_final", "margin"})


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) else value
