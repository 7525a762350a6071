"""Reads policies and suite reports from their JSON columns; writes reports."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from harness.domain.canary.guardrails import CanaryJudge, Guardrails
from harness.domain.evals.pins import ServedPin
from harness.domain.evals.suite_plan import (
    Claim,
    ClaimPopulation,
    PrimaryCombination,
    SuiteRole,
)
from harness.domain.evals.verdict import SuiteReport
from harness.domain.proposals.policy import (
    CanaryPolicy,
    CanaryStep,
    ChangeReferenceRule,
    GatePolicy,
    PeakHours,
    Policy,
    PromotionMode,
    ShadowStagePolicy,
)
from harness.store.schema.columns import JsonIn


def policy_from_json(data: JsonIn) -> Policy:
    read = {
        "promotion": PromotionMode(data["promotion"]),
        "change_reference": ChangeReferenceRule(data["change_reference"]),
        "gate": _gate_policy(data["gate"]),
        "canary": canary_policy_from_json(data["canary"]),
    }
    return Policy(**{**data, **read})


def _gate_policy(data: JsonIn) -> GatePolicy:
    read = {
        "served_pin": ServedPin(data["served_pin"]),
        "primaries": PrimaryCombination(data["primaries"]),
        "population": ClaimPopulation(data["population"]),
        "claim": Claim(data["claim"]),
        "claims": tuple(map(Claim, data["claims"])),
    }
    return GatePolicy(**{**data, **read})


def canary_policy_from_json(data: JsonIn) -> CanaryPolicy:
    shadow, judge = data["shadow"], data["judge"]
    read = {
        "steps": tuple(CanaryStep(**step) for step in data["steps"]),
        "peak": PeakHours(**data["peak"]),
        "shadow": ShadowStagePolicy(**shadow) if shadow else None,
        "judge": CanaryJudge(**judge) if judge else None,
        "guardrails": Guardrails(**data["guardrails"]),
    }
    return CanaryPolicy(**{**data, **read})


def reports_to_json(reports: Iterable[SuiteReport]) -> list[dict[str, Any]]:
    return [{k: _finite(v) for k, v in asdict(report).items()} for report in reports]


def reports_from_json(data: Iterable[JsonIn]) -> tuple[SuiteReport, ...]:
    return tuple(map(_report, data))


def _report(data: JsonIn) -> SuiteReport:
    values: dict[str, Any] = {k: _number(v) if k in _FIGURES else v for k, v in data.items()}
    values |= {
        "role": SuiteRole(data["role"]),
        "claim": Claim(data["claim"]),
        "flags": tuple(data["flags"]),
    }
    return SuiteReport(**values)


# JSON has no infinity, and the evidence against a certain loser is infinite.
_FIGURES = frozenset({"delta", "ci_low", "ci_high", "log_e_bad", "p_final", "margin"})


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) else value
